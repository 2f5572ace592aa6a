//! The flags of Thanos' ruler that the ruler accepts without effect.

use runtime::{UNNEEDED_BY_ALL, UnneededFlag, UnneededFlags};

/// The list of the ruler. `docs/thanos-flags.md` shows it.
#[derive(Clone, Debug)]
pub(crate) struct UnneededByRuler;

const RESOLVER: &str = "the servers of `/etc/resolv.conf` are asked, and `/etc/hosts` is read";
const NOT_COMPACTED: &str = "blocks are not compacted here";

impl UnneededFlags for UnneededByRuler {
    const FLAGS: &'static [&'static [UnneededFlag]] = &[
        UNNEEDED_BY_ALL,
        &[
            UnneededFlag::switch(
                "tsdb.no-lockfile",
                "the data folder is locked while a process uses it, and the lock ends with the process",
            ),
            UnneededFlag::switch("tsdb.wal-compression", "the log is always compressed"),
            UnneededFlag::switch("tsdb.enable-native-histograms", "native histograms are always stored"),
            UnneededFlag::value("query.default-step", "alerts are restored by queries at instants"),
            UnneededFlag::value("query.sd-dns-resolver", RESOLVER),
            UnneededFlag::switch("shipper.upload-compacted", NOT_COMPACTED),
            UnneededFlag::switch("shipper.ignore-unequal-block-size", NOT_COMPACTED),
            UnneededFlag::switch(
                "shipper.allow-out-of-order-uploads",
                "a block that cannot be uploaded never delays other blocks",
            ),
            UnneededFlag::switch(
                "shipper.skip-corrupted-blocks",
                "a block that cannot be uploaded never delays other blocks",
            ),
            UnneededFlag::value("hash-func", "each file is uploaded with its SHA-256 and compared"),
        ],
    ];
}
