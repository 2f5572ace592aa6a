//! The flags of Prometheus that the scraper accepts without effect.

use runtime::{UNNEEDED_BY_ALL, UnneededFlag, UnneededFlags};

/// The list of the scraper.
#[derive(Clone, Debug)]
pub(crate) struct UnneededByScraper;

impl UnneededFlags for UnneededByScraper {
    const FLAGS: &'static [&'static [UnneededFlag]] = &[
        UNNEEDED_BY_ALL,
        &[
            UnneededFlag::switch("web.enable-lifecycle", "POST /-/reload is always served"),
            UnneededFlag::value("web.console.templates", "there are no consoles"),
            UnneededFlag::value("web.console.libraries", "there are no consoles"),
            UnneededFlag::value("storage.tsdb.max-block-duration", "blocks are not compacted here"),
            UnneededFlag::switch("storage.tsdb.wal-compression", "it is not about what is stored"),
        ],
    ];
}
