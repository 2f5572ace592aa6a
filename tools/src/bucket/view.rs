//! The blocks of a bucket, and the metadata of a block.

use std::collections::BTreeMap;
use std::time::Duration;

use ::bucket::{Bucket, BucketView, FetchMetrics, FetchOptions, Fetcher, Filters};
use runtime::parse_duration;
use tsdb::BlockMeta;

use crate::error::{Cause, Result, ToolError};
use crate::text;

/// Flags of every command that reads the metas of all blocks of a bucket.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct ViewFlags {
    /// Timeout for reading the meta.json of all blocks
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    timeout: Duration,

    /// Number of concurrent requests for meta.json
    #[arg(long, value_name = "N", default_value_t = 20)]
    block_sync_concurrency: usize,
}

/// Flags of the commands that only show which blocks there are.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct ListFlags {
    #[command(flatten)]
    view: ViewFlags,

    /// Look at each block, also where a compactor keeps an index of the bucket; the index lacks what was uploaded in the last minutes
    #[arg(long)]
    ignore_bucket_index: bool,
}

impl ListFlags {
    /// The blocks that pass the filters of `options`, by the index of the bucket if there is a fresh one.
    ///
    /// # Errors
    /// As [`ViewFlags::fetch`].
    pub(super) async fn fetch(self, bucket: &Bucket, options: FetchOptions) -> Result<BucketView> {
        let options = FetchOptions { uses_index: !self.ignore_bucket_index, ..options };
        self.view.fetch(bucket, options).await
    }
}

impl Default for ViewFlags {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), block_sync_concurrency: 20 }
    }
}

impl ViewFlags {
    /// The blocks that pass the filters of `options`.
    ///
    /// # Errors
    /// An incomplete view is an error, because commands must not decide by a part of the bucket.
    pub(super) async fn fetch(self, bucket: &Bucket, options: FetchOptions) -> Result<BucketView> {
        let options = FetchOptions { concurrency: self.block_sync_concurrency, ..options };
        let fetcher = Fetcher::new(bucket.clone(), options, FetchMetrics::default())?;
        match tokio::time::timeout(self.timeout, fetcher.fetch(text::now())).await {
            Ok(view) => {
                if fetcher.used_index().is_some() {
                    eprintln!(
                        "note: these are the blocks in the index of the bucket; with --ignore-bucket-index, each block is looked at"
                    );
                }
                Ok(view?)
            }
            Err(_) => Err(ToolError::new(
                Cause::Unreachable,
                format!(
                    "bucket {:?}: the meta.json of all blocks could not be read within {}: increase --timeout",
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

/// Prints to standard error which blocks are not shown, because they are corrupt or incomplete.
pub(super) fn note_hidden(view: &BucketView) {
    for (id, reason) in &view.corrupt {
        let reason = text::printable(reason, false);
        eprintln!("note: block {id} is not shown, because it is corrupt: {reason}");
    }
    if !view.partial.is_empty() {
        let count = text::count(view.partial.len() as u64, "folder");
        eprintln!(
            "note: {count} without meta.json not shown: an upload or removal is running, or was abandoned"
        );
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

/// The group in which a block can be compacted: resolution in milliseconds, and external labels.
pub(super) fn group(meta: &BlockMeta) -> (i64, &BTreeMap<String, String>) {
    (meta.resolution().as_millis() as i64, labels(meta))
}

/// Size of all files in the manifest; `None` if there is no manifest.
pub(super) fn size_bytes(meta: &BlockMeta) -> Option<u64> {
    let sizes = meta.thanos.iter().flat_map(|thanos| &thanos.files).filter_map(|file| file.size_bytes);
    sizes.reduce(|sum, size| sum.saturating_add(size))
}

/// Known size of all files of these blocks. Another program wrote the sizes, so their sum may overflow.
pub(super) fn total_bytes(metas: &[&BlockMeta]) -> u64 {
    metas.iter().filter_map(|meta| size_bytes(meta)).fold(0, u64::saturating_add)
}

/// Whether two metas describe the same block; the lists of files are not compared.
pub(super) fn describe_same(a: &BlockMeta, b: &BlockMeta) -> bool {
    (a.min_time, a.max_time, &a.stats, &a.compaction) == (b.min_time, b.max_time, &b.stats, &b.compaction)
        && group(a) == group(b)
}
