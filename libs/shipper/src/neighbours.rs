//! The other blocks in the bucket. Their `meta.json` is read once each, and only as far back as needed.
//!
//! Many sidecars share a bucket, and no sidecar needs all of its blocks. A block is created after its
//! samples, so blocks with samples after a time have ids that are newer than that time; only those are read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bucket::{Bucket, BucketError, layout};
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use tsdb::{BlockMeta, Ulid};

/// `meta.json` files that are fetched concurrently.
const CONCURRENCY: usize = 16;

/// Maximum lag of the clock that created an id behind the clocks that created its samples.
const SKEW: Duration = Duration::from_secs(2 * 3600);

/// The blocks of the bucket, as far as they were read.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    /// Without their file lists.
    blocks: BTreeMap<Ulid, BlockMeta>,
}

impl Neighbours {
    /// Reads new blocks of the bucket that were created after `since`, and drops those that were removed.
    ///
    /// Blocks whose `meta.json` is missing (during an upload or a removal) or unreadable are skipped, and
    /// read again the next time.
    pub(crate) async fn refresh(&mut self, bucket: &Bucket, since: Timestamp) -> Result<(), BucketError> {
        let since = u64::try_from((since - SKEW).as_millis()).unwrap_or(0);
        let names = bucket.list_dir("").await?.dirs;
        let there: BTreeSet<Ulid> = names.iter().filter_map(|name| tsdb::parse_block_id(name)).collect();
        self.blocks.retain(|block, _| there.contains(block));
        let unread = there
            .into_iter()
            .filter(|block| block.timestamp_ms() >= since && !self.blocks.contains_key(block));
        let fetch = |block: Ulid| async move {
            match bucket.get(&layout::meta(block)).await {
                Ok(bytes) => Ok(BlockMeta::parse(&bytes).ok()),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        };
        let unread: Vec<Ulid> = unread.collect();
        let fetched: Vec<Option<BlockMeta>> =
            futures::stream::iter(unread).map(fetch).buffer_unordered(CONCURRENCY).try_collect().await?;
        for mut meta in fetched.into_iter().flatten() {
            if let Some(thanos) = &mut meta.thanos {
                thanos.files = Vec::new();
                thanos.segment_files = Vec::new();
            }
            self.blocks.insert(meta.ulid, meta);
        }
        Ok(())
    }

    /// The blocks with the samples of the block `source`: the block itself, and blocks made from it. A
    /// rewritten block names only itself as its source; its origin is its parent, or is in its list of
    /// rewrites.
    pub(crate) fn holders(&self, source: Ulid) -> impl Iterator<Item = &BlockMeta> {
        let name = source.to_string();
        self.blocks.values().filter(move |meta| {
            let compaction = &meta.compaction;
            let rewrites = meta.thanos.iter().flat_map(|thanos| &thanos.rewrites);
            let mut rewritten = rewrites.filter_map(|rewrite| rewrite["sources"].as_array()).flatten();
            meta.ulid == source
                || compaction.sources.contains(&source)
                || compaction.parents.iter().any(|parent| parent.ulid == source)
                || rewritten.any(|id| id.as_str() == Some(&name))
        })
    }

    /// Blocks of raw samples with these labels that overlap `meta` in time.
    pub(crate) fn overlapping<'a>(
        &'a self,
        meta: &'a BlockMeta,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a BlockMeta> {
        self.blocks.values().filter(move |other| {
            other.ulid != meta.ulid
                && other.min_time < meta.max_time
                && meta.min_time < other.max_time
                && other.resolution().is_zero()
                && other.thanos.as_ref().is_some_and(|thanos| thanos.labels == *labels)
        })
    }
}
