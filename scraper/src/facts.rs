//! What the API and the StoreAPI report about the scraper.

use std::collections::BTreeMap;
use std::time::SystemTime;

use localstore::{LocalData, LocalLists};
use promapi::TargetDiscovery;
use querier::ApiFacts;
use runtime::format_duration;

use crate::current::Current;

/// What the API reports.
pub(crate) struct Facts {
    pub(crate) flags: BTreeMap<String, String>,
    pub(crate) current: Current,
    pub(crate) data: LocalData,
}

impl ApiFacts for Facts {
    fn flags(&self) -> BTreeMap<String, String> {
        self.flags.clone()
    }

    fn unready(&self) -> Option<String> {
        self.data.database().err().map(|error| error.message().to_owned())
    }

    fn configuration(&self) -> String {
        self.current.shown()
    }

    fn last_reload(&self) -> (bool, Option<SystemTime>) {
        let (is_successful, at) = self.current.last_reload();
        (is_successful, Some(at))
    }

    fn retention(&self) -> String {
        let (time, bytes) = self.current.retention();
        let parts = time.map(format_duration).into_iter().chain(bytes.map(|bytes| format!("{bytes}B")));
        parts.collect::<Vec<_>>().join(" or ")
    }
}

/// The targets that are scraped.
pub(crate) struct Targets(pub(crate) Current);

impl LocalLists for Targets {
    fn targets(&self) -> TargetDiscovery {
        self.0.manager().map(crate::ScrapeManager::targets).unwrap_or_default()
    }
}
