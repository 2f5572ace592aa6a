//! The flags of the store, with the names of Thanos, and their validation.

use std::path::PathBuf;
use std::time::Duration;

use bucket::{BlockSelectionArgs, Discovery, Filters, ObjstoreArgs, Retry, ServedBucket};
use runtime::{CommonArgs, ConfigMistakes, UnneededArgs, parse_bytes, parse_duration};

use crate::cache_config::{CacheArgs, SharedSettings};
use crate::disk_cache::DiskCache;
use crate::limits::{StoreLimits, TimeLimits};
use crate::memory::MemoryPlan;
use crate::meter::ReadLimits;
use crate::unneeded::UnneededByStore;

/// Flags of `isthmus store`.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    #[command(flatten)]
    objstore: ObjstoreArgs,

    /// Keep index headers and meta.json files here; they are a cache, and the folder may be deleted while the store is stopped
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data_dir: PathBuf,

    /// Use at most about this much memory; for example 512MiB; half of the memory of the machine or control group, at most 2GiB,
    /// if not set
    #[arg(long = "store.max-memory", value_name = "BYTES", value_parser = parse_bytes)]
    max_memory: Option<u64>,

    #[command(flatten)]
    cache: CacheArgs,

    /// Keep index headers in --data-dir, so that a block is opened without reading its index again; this is the default
    #[arg(long, overrides_with = "no_cache_index_header")]
    cache_index_header: bool,

    /// Keep no index headers
    #[arg(long)]
    no_cache_index_header: bool,

    /// Most bytes of index headers on disk; those that were not used for the longest time are removed
    #[arg(long = "store.index-header-disk-limit", value_name = "BYTES", default_value = "100GB", value_parser = parse_bytes)]
    index_header_disk_limit: u64,

    /// Close a block that no request used for this long
    #[arg(long = "store.index-header-lazy-reader-idle-timeout", value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    idle_timeout: Duration,

    /// Look for new and removed blocks this often
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = parse_duration)]
    sync_block_duration: Duration,

    /// Find blocks with one request each (concurrent), or with one listing of the whole bucket (recursive)
    #[arg(long, value_name = "STRATEGY", default_value = "concurrent")]
    block_discovery_strategy: Discovery,

    /// Look for blocks by listing the bucket, also where a compactor keeps an index of it
    #[arg(long = "store.ignore-bucket-index")]
    ignore_bucket_index: bool,

    #[command(flatten)]
    selection: BlockSelectionArgs,

    /// Serve a block only this long after its upload, for stores that list new objects late
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    consistency_delay: Duration,

    /// Stop serving a block this long after it was marked for deletion
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    ignore_deletion_marks_delay: Duration,

    /// Refuse a Series request that selects more series, counted in each block; 0 for no limit
    #[arg(
        long = "store.limits.request-series",
        alias = "store.grpc.touched-series-limit",
        value_name = "N",
        default_value_t = 10_000_000
    )]
    limit_series: u64,

    /// Refuse a Series request that selects more samples, counting 120 per chunk; 0 for no limit
    #[arg(
        long = "store.limits.request-samples",
        alias = "store.grpc.series-sample-limit",
        value_name = "N",
        default_value_t = 5_000_000_000
    )]
    limit_samples: u64,

    /// Refuse a request that reads more from object storage; 0 for no limit
    #[arg(long = "store.grpc.downloaded-bytes-limit", value_name = "BYTES", default_value = "8GiB", value_parser = parse_limit)]
    limit_bytes: u64,

    /// Series requests that run at once; others wait. Fewer with a small --store.max-memory: one for each 16 MiB of it
    #[arg(long = "store.grpc.series-max-concurrency", value_name = "N", default_value_t = 20)]
    concurrency: usize,

    #[command(flatten)]
    unneeded: UnneededArgs<UnneededByStore>,
}

/// A size, or 0 for no limit.
fn parse_limit(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { parse_bytes(text) }
}

/// The validated configuration of the store.
pub(crate) struct Config {
    /// At least one.
    pub(crate) buckets: Vec<ServedBucket>,
    pub(crate) data_dir: PathBuf,
    pub(crate) memory: MemoryPlan,
    pub(crate) shared: SharedSettings,
    /// `None` if no pages are kept on disk.
    pub(crate) disk_cache_bytes: Option<u64>,
    /// `None` if no index headers are kept.
    pub(crate) header_bytes: Option<u64>,
    pub(crate) idle: Duration,
    pub(crate) sync_interval: Duration,
    pub(crate) discovery: Discovery,
    pub(crate) uses_index: bool,
    pub(crate) fetch_concurrency: usize,
    /// How often requests to buckets are sent again.
    pub(crate) retry: Retry,
    pub(crate) filters: Filters,
    pub(crate) times: TimeLimits,
    pub(crate) limits: StoreLimits,
    pub(crate) unneeded: UnneededArgs<UnneededByStore>,
}

impl StoreArgs {
    /// All mistakes in the flags and in the files that they name, one line each; empty if the role would start with them.
    pub fn mistakes(self) -> ConfigMistakes {
        self.check().err().unwrap_or_default()
    }

    /// Validates the flags.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub(crate) fn check(self) -> Result<Config, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        let buckets = mistakes.note(self.objstore.served());
        let cache = mistakes.note(self.cache.check());
        let memory = self.max_memory.unwrap_or_else(MemoryPlan::default_limit);
        let cache_bytes = cache.as_ref().and_then(|cache| cache.memory_bytes);
        let cache = cache.unwrap_or_default();
        let disk_memory = cache.disk_bytes.map(DiskCache::memory_bytes);
        let memory = mistakes.note(MemoryPlan::new(memory, cache_bytes, cache.shared.count(), disk_memory));
        let selector = self.selection.check(&mut mistakes);
        for (flag, is_zero) in [
            ("store.grpc.series-max-concurrency", self.concurrency == 0),
            ("sync-block-duration", self.sync_block_duration.is_zero()),
        ] {
            if is_zero {
                mistakes.push(format!("--{flag} must be greater than 0"));
            }
        }
        let (Some(buckets), Some(memory), Some(selector)) = (buckets, memory, selector) else {
            return Err(mistakes);
        };
        let limit = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        let concurrency = memory.requests_at_once(self.concurrency);
        let filters = Filters {
            time: Some((self.selection.min_time, self.selection.max_time)),
            selector,
            consistency_delay: self.consistency_delay,
            ignore_marked_after: Some(self.ignore_deletion_marks_delay),
            deduplicates: true,
            ..Filters::default()
        };
        let config = Config {
            buckets,
            data_dir: self.data_dir,
            header_bytes: (!self.no_cache_index_header).then_some(self.index_header_disk_limit),
            idle: self.idle_timeout,
            sync_interval: self.sync_block_duration,
            discovery: self.block_discovery_strategy,
            uses_index: !self.ignore_bucket_index,
            fetch_concurrency: self.selection.block_meta_fetch_concurrency,
            retry: Retry { attempts: 3, ..Retry::default() },
            filters,
            times: TimeLimits { min: self.selection.min_time, max: self.selection.max_time },
            limits: StoreLimits {
                read: ReadLimits {
                    series: limit(self.limit_series),
                    samples: limit(self.limit_samples),
                    bytes: limit(self.limit_bytes),
                },
                concurrency,
                request_bytes: memory.answers_bytes / concurrency as u64,
            },
            memory,
            shared: cache.shared,
            disk_cache_bytes: cache.disk_bytes,
            unneeded: self.unneeded,
        };
        mistakes.or_ok(config)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct StoreCommand {
        #[command(flatten)]
        args: StoreArgs,
    }

    const BUCKET: &str = "--objstore.config={type: FILESYSTEM, config: {directory: /b}}";

    fn check(flags: &[&str]) -> Result<Config, ConfigMistakes> {
        let all = ["store", BUCKET].iter().chain(flags);
        StoreCommand::try_parse_from(all).map_err(|error| error.to_string())?.args.check()
    }

    #[test]
    fn limits_are_on_by_default_and_zero_switches_them_off() {
        let config = check(&[]).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert_eq!(config.limits.read.series, 10_000_000);
        assert!(config.header_bytes.is_some() && config.memory.cache_bytes > 0);
        let off = check(&[
            "--store.limits.request-series=0",
            "--store.limits.request-samples=0",
            "--store.grpc.downloaded-bytes-limit=0",
            "--no-cache-index-header",
        ]);
        let off = off.unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let none = ReadLimits { series: u64::MAX, samples: u64::MAX, bytes: u64::MAX };
        assert_eq!((off.limits.read, off.header_bytes), (none, None));
    }

    #[test]
    fn flags_of_thanos_are_accepted() {
        let config = check(&[
            "--data-dir=/var/thanos/store",
            "--grpc-address=0.0.0.0:10901",
            "--index-cache-size=500MB",
            "--chunk-pool-size=2GB",
            "--store.max-memory=2GiB",
            "--store.grpc.touched-series-limit=7",
            "--store.grpc.series-sample-limit=8",
            "--store.grpc.downloaded-bytes-limit=1GB",
            "--store.grpc.series-max-concurrency=5",
            "--sync-block-duration=15m",
            "--block-discovery-strategy=recursive",
            "--block-sync-concurrency=20",
            "--block-meta-fetch-concurrency=16",
            "--min-time=-6w",
            "--max-time=-2h",
            "--consistency-delay=30m",
            "--ignore-deletion-marks-delay=48h",
            "--store.enable-index-header-lazy-reader",
            "--selector.relabel-config=- {action: keep, source_labels: [cluster], regex: eu-1}",
        ]);
        let config = config.unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert_eq!(config.limits.read, ReadLimits { series: 7, samples: 8, bytes: 1_000_000_000 });
        assert_eq!((config.memory.cache_bytes, config.limits.concurrency), (500_000_000, 5));
        assert_eq!(config.unneeded.given().len(), 3);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let mistakes = check(&[
            "--store.max-memory=1MiB",
            "--min-time=2026-01-02T00:00:00Z",
            "--max-time=2026-01-01T00:00:00Z",
            "--store.grpc.series-max-concurrency=0",
            "--selector.relabel-config=- {action: replace}",
            "--index-cache.config={type: S3}",
            "--store.caching-bucket.config={type: REDIS, config: {addr: localhost}}",
        ]);
        let lines = mistakes.err().unwrap().lines().join("\n");
        for words in [
            "--store.max-memory",
            "--min-time",
            "series-max-concurrency",
            "\"replace\" is unknown",
            "--index-cache.config: line 1: type: \"S3\"",
            "--store.caching-bucket.config: line 1: config.addr",
        ] {
            assert!(lines.contains(words), "{words} is not in\n{lines}");
        }
    }
}
