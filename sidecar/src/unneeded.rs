//! The flags of Thanos' sidecar that the sidecar accepts without effect.

use runtime::{UNNEEDED_BY_ALL, UnneededFlag, UnneededFlags};

/// The list of the sidecar. `docs/thanos-flags.md` shows it.
#[derive(Clone, Debug)]
pub(crate) struct UnneededBySidecar;

impl UnneededFlags for UnneededBySidecar {
    const FLAGS: &'static [&'static [UnneededFlag]] = &[
        UNNEEDED_BY_ALL,
        &[
            UnneededFlag::switch(
                "shipper.skip-corrupted-blocks",
                "a block that cannot be uploaded never delays other blocks",
            ),
            UnneededFlag::value("hash-func", "each file is uploaded with its SHA-256 and compared"),
        ],
    ];
}
