//! A store that runs, what is asked of it, and what that took of the bucket.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use bucket::{BucketConfig, BucketMetrics, PublishOptions, publish};
use futures::StreamExt;
use model::{Matcher, TimeRange};
use series::AggrChunk;
use storeapi::{SeriesFrame, SeriesRequest, Store, StoreClient};
use tests::{Process, free_port, isthmus};
use tsdb::BlockMeta;

/// The memory that is configured: the benchmarks show that it suffices.
pub(crate) const MAX_MEMORY: &str = "--store.max-memory=512MiB";

/// The configuration of a bucket in a local folder.
pub(crate) fn folder_yaml(bucket: &Path) -> String {
    format!("{{type: FILESYSTEM, config: {{directory: {}}}}}", bucket.display())
}

/// Uploads the block in folder `block` as a sidecar does, so that its `meta.json` lists its files.
pub(crate) async fn upload(yaml: &str, block: &Path) {
    let config = BucketConfig::parse(yaml).expect("a configuration");
    let bucket = config.open(&BucketMetrics::default()).expect("a bucket");
    let meta = fs::read(block.join("meta.json")).expect("a file");
    let meta = BlockMeta::parse(&meta).expect("a meta.json");
    publish(&bucket, block, meta, &PublishOptions::default()).await.expect("an uploaded block");
}

/// A store of one bucket.
pub(crate) struct RunningStore {
    process: Process,
    http: SocketAddr,
    pub(crate) client: StoreClient,
}

/// What was asked of a bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BucketReads {
    pub(crate) requests: f64,
    pub(crate) bytes: f64,
}

/// An answer to a Series request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selected {
    pub(crate) series: usize,
    /// Bytes of chunks.
    pub(crate) bytes: usize,
    pub(crate) seconds: f64,
    /// Seconds until the first frame.
    pub(crate) first: f64,
}

impl RunningStore {
    /// Starts a store of the bucket that `yaml` configures, with its data in the folder `data` of `dir`, and waits until it is
    /// ready.
    pub(crate) fn start(dir: &Path, yaml: &str, data: &str, flags: &[&str]) -> Self {
        let (http, grpc) = (free_port(), free_port());
        let mut args = vec![
            "store".to_owned(),
            format!("--objstore.config={yaml}"),
            format!("--data-dir={}", dir.join(data).display()),
            format!("--http-address={http}"),
            format!("--grpc-address={grpc}"),
        ];
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut process = Process::start(&isthmus(), &args, &dir.join("store.log"));
        process.wait_ready("store", http);
        let client = StoreClient::new("store", mesh::direct(&grpc.to_string()).expect("an address"));
        Self { process, http, client }
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        self.process.usage().peak_rss_bytes
    }

    /// What was asked of the bucket since the start.
    pub(crate) fn reads(&self) -> BucketReads {
        let (_, metrics) = tests::get(self.http, "/metrics").expect("metrics");
        let sum = |name: &str| {
            let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        BucketReads {
            requests: sum("thanos_objstore_bucket_operations_total{"),
            bytes: sum("thanos_objstore_bucket_operation_fetched_bytes_total{"),
        }
    }

    /// Asks for series with their chunks.
    pub(crate) async fn select(&self, range: TimeRange, matchers: Vec<Matcher>) -> Selected {
        let begun = Instant::now();
        let request = SeriesRequest { batch_size: 64, ..SeriesRequest::new(range, matchers) };
        let mut stream = self.client.series(request).await.expect("a stream");
        let (mut series, mut bytes, mut first) = (0, 0, None);
        while let Some(frame) = stream.next().await {
            first.get_or_insert_with(|| begun.elapsed().as_secs_f64());
            match frame.expect("a frame") {
                SeriesFrame::Series(batch) => {
                    series += batch.len();
                    let chunks = batch.iter().flat_map(|series| &series.chunks);
                    bytes += chunks.map(AggrChunk::size_bytes).sum::<usize>();
                }
                other => panic!("{other:?}"),
            }
        }
        Selected { series, bytes, seconds: begun.elapsed().as_secs_f64(), first: first.unwrap_or_default() }
    }
}

impl BucketReads {
    /// What was asked since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { requests: self.requests - before.requests, bytes: self.bytes - before.bytes }
    }
}
