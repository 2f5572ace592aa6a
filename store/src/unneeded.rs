//! The flags of Thanos' store that the store accepts without effect.

use runtime::{UNNEEDED_BY_ALL, UnneededFlag, UnneededFlags};

/// The list of the store. `docs/thanos-flags.md` shows it.
#[derive(Clone, Debug)]
pub(crate) struct UnneededByStore;

const AT_ONCE: &str = "a block is opened when a request needs it";
const PARQUET: &str = "the blocks from which parquet files were made are read";
const MEASURED: &str = "sizes are known from the index";

impl UnneededFlags for UnneededByStore {
    const FLAGS: &'static [&'static [UnneededFlag]] = &[
        UNNEEDED_BY_ALL,
        &[
            UnneededFlag::value("chunk-pool-size", "--store.max-memory limits all memory"),
            UnneededFlag::value("block-sync-concurrency", AT_ONCE),
            UnneededFlag::value("debug.series-batch-size", "batches are cut by bytes"),
            UnneededFlag::value("debug.estimated-max-series-size", MEASURED),
            UnneededFlag::value("debug.estimated-max-chunk-size", MEASURED),
            UnneededFlag::value(
                "store.index-header-posting-offsets-in-mem-sampling",
                "the memory of an index follows from --store.max-memory",
            ),
            UnneededFlag::switch("store.enable-index-header-lazy-reader", AT_ONCE),
            UnneededFlag::value("store.index-header-lazy-download-strategy", AT_ONCE),
            UnneededFlag::switch("store.enable-lazy-expanded-postings", "it is always on"),
            UnneededFlag::value(
                "store.posting-group-max-key-series-ratio",
                "postings lists are compared by bytes with the series that they exclude",
            ),
            UnneededFlag::value("matcher-cache-size", "the series that matchers select are cached"),
            UnneededFlag::value("objstore-parquet.config", PARQUET),
            UnneededFlag::value("objstore-parquet.config-file", PARQUET),
            UnneededFlag::switch(
                "web.disable",
                "the store has no web pages; /api/v1/blocks lists the blocks",
            ),
            UnneededFlag::value("web.external-prefix", "the store has no web pages"),
            UnneededFlag::value("web.prefix-header", "the store has no web pages"),
            UnneededFlag::switch("web.disable-cors", "no other site may read the answers"),
            UnneededFlag::value("bucket-web-label", "the store has no web pages"),
            UnneededFlag::switch(
                "disable-admin-operations",
                "there are none; isthmus tools mark marks blocks",
            ),
        ],
    ];
}
