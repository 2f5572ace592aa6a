//! Metrics of the cache in memory, under names of ours and under those that the dashboards of Thanos have.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use runtime::Registry;

type ByKind = Family<Vec<(&'static str, &'static str)>, Counter>;

/// A kind of entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Pages,
    Postings,
}

impl EntryKind {
    /// Its name here, and the name of the nearest type of Thanos.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Pages => ("pages", "Pages"),
            Self::Postings => ("postings", "ExpandedPostings"),
        }
    }
}

/// The counters of all kinds; clones share them. The default belongs to no registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct CacheMetrics {
    pages: KindCounters,
    postings: KindCounters,
}

#[derive(Clone, Debug, Default)]
struct KindCounters {
    requests: [Counter; 2],
    hits: [Counter; 2],
    added: Counter,
    evicted: Counter,
}

impl CacheMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| {
            let family = ByKind::default();
            registry.register(name, help, family.clone());
            family
        };
        let looked_up = "Lookups in the cache in memory, by kind of entry";
        let found = "Lookups that found an entry in the cache in memory, by kind of entry";
        let requests = family("isthmus_store_cache_requests", looked_up);
        let hits = family("isthmus_store_cache_hits", found);
        let thanos_requests = family("thanos_store_index_cache_requests", looked_up);
        let thanos_hits = family("thanos_store_index_cache_hits", found);
        let added = family(
            "thanos_store_index_cache_items_added",
            "Entries that were put into the cache in memory, by kind of entry",
        );
        let evicted = family(
            "thanos_store_index_cache_items_evicted",
            "Entries that made room for others in the cache in memory, or that were too large for it, by kind of entry",
        );
        let counters = |kind: EntryKind| {
            let (ours, theirs) = kind.names();
            let (kind, item_type) = (vec![("kind", ours)], vec![("item_type", theirs)]);
            KindCounters {
                requests: [
                    requests.get_or_create_owned(&kind),
                    thanos_requests.get_or_create_owned(&item_type),
                ],
                hits: [hits.get_or_create_owned(&kind), thanos_hits.get_or_create_owned(&item_type)],
                added: added.get_or_create_owned(&item_type),
                evicted: evicted.get_or_create_owned(&item_type),
            }
        };
        Self { pages: counters(EntryKind::Pages), postings: counters(EntryKind::Postings) }
    }

    fn of(&self, kind: EntryKind) -> &KindCounters {
        match kind {
            EntryKind::Pages => &self.pages,
            EntryKind::Postings => &self.postings,
        }
    }

    pub(crate) fn looked_up(&self, kind: EntryKind, is_found: bool) {
        let counters = self.of(kind);
        counters.requests.iter().for_each(|counter| _ = counter.inc());
        if is_found {
            counters.hits.iter().for_each(|counter| _ = counter.inc());
        }
    }

    pub(crate) fn added(&self, kind: EntryKind) {
        self.of(kind).added.inc();
    }

    pub(crate) fn evicted(&self, kind: EntryKind) {
        self.of(kind).evicted.inc();
    }
}
