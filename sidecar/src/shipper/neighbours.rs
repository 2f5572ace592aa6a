//! What else is in the bucket: descriptions of blocks, read once each and only as far back as they are asked for.
//!
//! Many sidecars share a bucket, and none has to know all of it. A block is made after its samples, so those that hold
//! samples since an instant have ids that are younger than it; only those are read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bucket::{Bucket, BucketError, layout};
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use tsdb::{BlockMeta, Ulid};

/// Descriptions that are fetched at the same time.
const CONCURRENCY: usize = 16;

/// How much the clock that made an id may be behind the clocks that made its samples.
const SKEW: Duration = Duration::from_secs(2 * 3600);

/// The blocks of the bucket, as far as they were asked for.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Without their lists of files.
    blocks: BTreeMap<Ulid, BlockMeta>,
}

impl Neighbours {
    /// Reads what is new in the bucket among the blocks made after `since`, and forgets what has gone.
    ///
    /// Blocks whose description is missing (being uploaded, being removed) or unreadable are left out, and looked at again
    /// the next time.
    pub(super) async fn refresh(&mut self, bucket: &Bucket, since: Timestamp) -> Result<(), BucketError> {
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

    /// The blocks that hold the samples of the block `source`: itself, and what was made of it. A block that was rewritten
    /// names as its source only itself, and what it was made of as its parent or in its list of rewrites.
    pub(super) fn holders(&self, source: Ulid) -> impl Iterator<Item = &BlockMeta> {
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

    /// Blocks of raw samples under these labels that share time with `meta`.
    pub(super) fn overlapping<'a>(
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
