//! The flags of Thanos' compactor that the compactor accepts without effect.

use runtime::{UNNEEDED_BY_ALL, UnneededFlag, UnneededFlags};

/// The list of the compactor. `docs/thanos-flags.md` shows it.
#[derive(Clone, Debug)]
pub(crate) struct UnneededByCompactor;

const NO_PAGES: &str = "the compactor has no web pages; /api/v1/compactor/progress shows its work";

impl UnneededFlags for UnneededByCompactor {
    const FLAGS: &'static [&'static [UnneededFlag]] = &[
        UNNEEDED_BY_ALL,
        &[
            UnneededFlag::switch("debug.halt-on-error", "a block that fails stops no other one"),
            UnneededFlag::switch("debug.accept-malformed-index", "a damaged block is put into quarantine"),
            UnneededFlag::switch(
                "compact.enable-vertical-compaction",
                "blocks that overlap are always merged",
            ),
            UnneededFlag::switch(
                "compact.skip-block-with-out-of-order-chunks",
                "a damaged block is put into quarantine",
            ),
            UnneededFlag::value(
                "compact.blocks-fetch-concurrency",
                "blocks are read in place, without a download",
            ),
            UnneededFlag::value(
                "compact.progress-interval",
                "the progress is calculated with each look at the bucket",
            ),
            UnneededFlag::value("hash-func", "each file of a new block has its SHA-256 in meta.json"),
            UnneededFlag::value("block-viewer.global.sync-block-interval", NO_PAGES),
            UnneededFlag::value("block-viewer.global.sync-block-timeout", NO_PAGES),
            UnneededFlag::switch("web.disable", NO_PAGES),
            UnneededFlag::value("web.route-prefix", NO_PAGES),
            UnneededFlag::value("web.external-prefix", NO_PAGES),
            UnneededFlag::value("web.prefix-header", NO_PAGES),
            UnneededFlag::switch("web.disable-cors", "no other site may read the answers"),
            UnneededFlag::value("bucket-web-label", NO_PAGES),
            UnneededFlag::switch(
                "disable-admin-operations",
                "there are none; isthmus tools mark marks blocks",
            ),
        ],
    ];
}
