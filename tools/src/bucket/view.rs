//! Which blocks a bucket holds, and what is known of one.

use std::collections::BTreeMap;
use std::time::Duration;

use ::bucket::{Bucket, FetchMetrics, FetchOptions, Fetcher, Filters, View};
use runtime::parse_duration;
use tsdb::BlockMeta;

use crate::error::{Cause, Result, ToolError};
use crate::text;

/// Flags of every command that looks at all blocks of a bucket.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct ViewFlags {
    /// How long reading the metas of all blocks may take
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    timeout: Duration,

    /// Requests for metas on their way at once
    #[arg(long, value_name = "N", default_value_t = 20)]
    block_sync_concurrency: usize,
}

impl Default for ViewFlags {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), block_sync_concurrency: 20 }
    }
}

impl ViewFlags {
    /// The blocks that `options` let through.
    ///
    /// # Errors
    /// A view that is not complete is none: nothing shall be decided by half a bucket.
    pub(super) async fn fetch(self, bucket: &Bucket, options: FetchOptions) -> Result<View> {
        let options = FetchOptions { concurrency: self.block_sync_concurrency, ..options };
        let fetcher = Fetcher::new(bucket.clone(), options, FetchMetrics::default())?;
        match tokio::time::timeout(self.timeout, fetcher.fetch(text::now())).await {
            Ok(view) => Ok(view?),
            Err(_) => Err(ToolError::new(
                Cause::Unreachable,
                format!(
                    "the metas of bucket {:?} were not read within {}: give a longer --timeout",
                    bucket.name(),
                    runtime::format_duration(self.timeout)
                ),
            )),
        }
    }
}

/// All blocks, or all that are not marked for deletion.
pub(super) fn all(exclude_marked: bool) -> FetchOptions {
    let ignore_marked_after = exclude_marked.then_some(Duration::ZERO);
    FetchOptions { filters: Filters { ignore_marked_after, ..Filters::default() }, ..FetchOptions::default() }
}

/// Says on standard error which blocks are not shown because they cannot be read or are not whole.
pub(super) fn note_hidden(view: &View) {
    for (id, reason) in &view.corrupt {
        eprintln!("note: block {id} is left out, it is corrupt: {reason}");
    }
    if !view.partial.is_empty() {
        let count = text::count(view.partial.len() as u64, "folder");
        eprintln!("note: {count} without meta.json left out: uploads or removals under way, or given up");
    }
}

/// The external labels of a block.
pub(super) fn labels(meta: &BlockMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    meta.thanos.as_ref().map_or(&NONE, |thanos| &thanos.labels)
}

/// Which program uploaded a block.
pub(super) fn source(meta: &BlockMeta) -> &str {
    meta.thanos.as_ref().map_or("", |thanos| thanos.source.as_str())
}

/// What a block shares with those that it can be compacted with: labels and resolution in milliseconds.
pub(super) fn group(meta: &BlockMeta) -> (i64, &BTreeMap<String, String>) {
    (meta.resolution().as_millis() as i64, labels(meta))
}

/// Size of all files that the manifest lists; `None` where there is no manifest.
pub(super) fn size_bytes(meta: &BlockMeta) -> Option<u64> {
    let sizes = meta.thanos.iter().flat_map(|thanos| &thanos.files).filter_map(|file| file.size_bytes);
    sizes.reduce(|sum, size| sum.saturating_add(size))
}

/// Size of all files of these blocks, as far as it is known. What metas say is foreign: the sum need not fit.
pub(super) fn total_bytes(metas: &[&BlockMeta]) -> u64 {
    metas.iter().filter_map(|meta| size_bytes(meta)).fold(0, u64::saturating_add)
}

/// Whether two metas are of the same block, as far as they tell without their files.
pub(super) fn describe_same(a: &BlockMeta, b: &BlockMeta) -> bool {
    (a.min_time, a.max_time, &a.stats, &a.compaction) == (b.min_time, b.max_time, &b.stats, &b.compaction)
        && group(a) == group(b)
}
