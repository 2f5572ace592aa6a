//! The cache in memory: pages of files in buckets, and the series that matchers select in a block, within one limit.
//!
//! Files of blocks never change, so nothing in here can be out of date. What belongs to a block that is gone is not asked for any
//! more and makes room for other data.

use std::ops::Range;
use std::sync::Arc;

use model::Matcher;
use quick_cache::sync::Cache as QuickCache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};
use tsdb::{Postings, Ulid};

use crate::cache_metrics::{CacheMetrics, EntryKind};
use crate::page_part::PagePart;
use crate::page_pool::memory_of;

/// A block in one of the buckets of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockKey {
    /// The number of the bucket, in the order of the configuration.
    pub(crate) bucket: u16,
    /// The id of the block.
    pub(crate) block: Ulid,
}

/// A file of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    pub(crate) block: BlockKey,
    /// 0 for the index, otherwise the number of the segment, from 1 on.
    pub(crate) file: u32,
}

/// The series of a block that matchers select.
#[derive(Clone, Debug)]
pub(crate) struct Expanded {
    /// The series.
    pub(crate) postings: Postings,
    /// Matchers that the labels of these series must satisfy in addition: their postings lists were not worth reading.
    pub(crate) left: Vec<Matcher>,
}

/// What an entry of the cache is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Page(FileKey, u32),
    /// The matchers are written one after the other, each with its length.
    Postings(BlockKey, Box<str>),
}

#[derive(Clone, Debug)]
enum Value {
    Page(PagePart),
    Postings(Arc<Expanded>),
}

impl Value {
    fn page(self) -> Option<PagePart> {
        match self {
            Self::Page(part) => Some(part),
            Self::Postings(_) => None,
        }
    }
}

/// The part of the cache for what was used again. The rest is for what is new: what is read ahead is used only later, and must not make
/// room for what is read ahead next.
const HOT_SHARE: f64 = 0.6;

/// What an entry takes besides its content, in bytes: key, pointers and places in the tables of the cache.
const ENTRY_BYTES: u64 = 160;

#[derive(Clone)]
struct EntryBytes;

impl Weighter<Key, Value> for EntryBytes {
    fn weight(&self, key: &Key, value: &Value) -> u64 {
        let content = match value {
            Value::Page(part) => memory_of(part.bytes.len()),
            Value::Postings(expanded) => {
                let left = expanded.left.iter().map(|matcher| size_of::<Matcher>() + matcher.regex_bytes());
                expanded.postings.memory_bytes() + left.sum::<usize>()
            }
        };
        let text = match key {
            Key::Page(..) => 0,
            Key::Postings(_, matchers) => matchers.len(),
        };
        (content + text) as u64 + ENTRY_BYTES
    }
}

/// Counts the entries that make room for others.
#[derive(Clone, Debug)]
struct Evictions(CacheMetrics);

impl Lifecycle<Key, Value> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: Key, _: Value) {
        self.0.evicted(match key {
            Key::Page(..) => EntryKind::Pages,
            Key::Postings(..) => EntryKind::Postings,
        });
    }
}

/// The cache. All of it together has at most the bytes that it was created with.
pub(crate) struct Cache {
    entries: QuickCache<Key, Value, EntryBytes, DefaultHashBuilder, Evictions>,
    metrics: CacheMetrics,
}

impl Cache {
    /// An empty cache of at most `limit_bytes`; with 0 nothing is kept.
    pub(crate) fn new(limit_bytes: u64, metrics: CacheMetrics) -> Self {
        // The number of entries is an estimate, from which the size of the tables follows.
        let entries = usize::try_from(limit_bytes / (8 << 10)).unwrap_or(usize::MAX).max(16);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(entries)
            .weight_capacity(limit_bytes)
            .hot_allocation(HOT_SHARE)
            .build()
            .expect("the capacity is set");
        let entries =
            QuickCache::with_options(options, EntryBytes, <_>::default(), Evictions(metrics.clone()));
        Self { entries, metrics }
    }

    /// What is cached of a page of a file. It counts as found if all of `wanted` is.
    pub(crate) fn page(&self, file: FileKey, page: u32, wanted: &Range<u32>) -> Option<PagePart> {
        let part = self.entries.get(&Key::Page(file, page)).and_then(Value::page);
        self.metrics.looked_up(EntryKind::Pages, part.as_ref().is_some_and(|part| part.covers(wanted)));
        part
    }

    /// What is cached of a page, looked up once more for the same request, so that it does not count.
    pub(crate) fn peek_page(&self, file: FileKey, page: u32) -> Option<PagePart> {
        self.entries.peek(&Key::Page(file, page)).and_then(Value::page)
    }

    /// Keeps a part of a page. Its bytes must have memory of their own: a slice would keep the whole of what it was cut from.
    pub(crate) fn put_page(&self, file: FileKey, page: u32, part: PagePart) {
        self.metrics.added(EntryKind::Pages);
        self.entries.insert(Key::Page(file, page), Value::Page(part));
    }

    /// Removes what is known of a block.
    pub(crate) fn forget(&self, block: BlockKey) {
        self.entries.retain(|key, _| match key {
            Key::Page(file, _) => file.block != block,
            Key::Postings(of, _) => *of != block,
        });
    }

    /// Removes everything.
    #[cfg(test)]
    pub(crate) fn forget_all(&self) {
        self.entries.clear();
    }

    /// The series that matchers select in a block.
    pub(crate) fn postings(&self, block: BlockKey, matchers: &str) -> Option<Arc<Expanded>> {
        let found = self.entries.get(&Key::Postings(block, matchers.into()));
        self.metrics.looked_up(EntryKind::Postings, found.is_some());
        match found? {
            Value::Postings(expanded) => Some(expanded),
            Value::Page(_) => None,
        }
    }

    /// Keeps the series that matchers select in a block. The postings must have memory of their own.
    pub(crate) fn put_postings(&self, block: BlockKey, matchers: &str, expanded: Arc<Expanded>) {
        self.metrics.added(EntryKind::Postings);
        self.entries.insert(Key::Postings(block, matchers.into()), Value::Postings(expanded));
    }

    /// Bytes of all entries.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.entries.weight()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn all_entries_together_stay_within_the_limit() {
        let cache = Cache::new(1 << 20, CacheMetrics::default());
        let block = BlockKey { bucket: 0, block: Ulid::from_parts(1, 1) };
        for number in 0..1_000 {
            let file = FileKey { block, file: number % 7 };
            cache.put_page(file, number, PagePart::whole(Bytes::from(vec![0; 4 << 10])));
            let expanded = Expanded { postings: (0..500).map(tsdb::SeriesRef).collect(), left: Vec::new() };
            cache.put_postings(block, &format!("{number}"), Arc::new(expanded));
            assert!(cache.size_bytes() <= 1 << 20, "{}", cache.size_bytes());
        }
        assert!(cache.size_bytes() > 1 << 19, "{}", cache.size_bytes());
        let nothing = Cache::new(0, CacheMetrics::default());
        let file = FileKey { block, file: 0 };
        nothing.put_page(file, 0, PagePart::whole(Bytes::from_static(b"x")));
        assert_eq!(nothing.page(file, 0, &(0..1)), None);
    }
}
