//! The store over blocks in a local bucket: how soon it is ready, and how fast series leave it, compared with remote read of a real
//! Prometheus on the same block.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use futures::StreamExt;
use model::{Labels, Matcher, Sample, TimeRange, Timestamp};
use promapi::{ClientOptions, PrometheusClient, ReadQuery};
use series::AggrChunk;
use storeapi::{LabelValuesRequest, SeriesFrame, SeriesRequest, Store, StoreClient};
use tests::{Process, Prometheus, free_port, isthmus};
use tokio::runtime::Runtime;
use tsdb::{BlockOptions, BlockWriter, ThanosMeta, Ulid};

use crate::report::{BenchReport, BenchRow, median};

const ROUNDS: usize = 5;
/// Begin of the block, a multiple of two hours.
const BEGIN: i64 = 1_699_999_200_000;
const SAMPLES: i64 = 240;
const INTERVAL: i64 = 30_000;
/// The metrics of the block, with the number of series of each.
const METRICS: [(&str, u32); 3] = [("ten", 10), ("thousand", 1_000), ("many", 100_000)];

pub(crate) fn run(report: &mut BenchReport) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let bucket = dir.path().join("bucket");
    write_block(&bucket, Ulid::from_parts(1_700_006_400_000, 1), true);
    ready(report, dir.path());
    series(report, dir.path(), &bucket);
}

fn range() -> TimeRange {
    let at = Timestamp::from_millis;
    TimeRange::new(at(BEGIN), at(BEGIN + SAMPLES * INTERVAL - 1))
}

/// Writes the block; without `large` it has ten series only.
fn write_block(bucket: &Path, id: Ulid, large: bool) {
    fs::create_dir_all(bucket).expect("a folder");
    let labels = [("cluster", "bench"), ("replica", "0")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let thanos = ThanosMeta { labels: labels.into(), source: "bench".to_owned(), ..ThanosMeta::default() };
    let options = BlockOptions { thanos: Some(thanos), ..BlockOptions::new(id) };
    let mut writer = BlockWriter::create(bucket, options).expect("a block");
    let mut sorted = METRICS;
    sorted.sort_unstable();
    for (name, series) in sorted.into_iter().filter(|(_, series)| large || *series == 10) {
        for number in 0..series {
            let pairs = [
                ("__name__", name.to_owned()),
                ("instance", format!("node-{:06}:9090", number / 10)),
                ("job", "bench".to_owned()),
                ("pod", format!("bench-{number:06}")),
            ];
            let labels = Labels::from_pairs(pairs).expect("labels");
            let mut value = f64::from(number);
            let samples: Vec<Sample> = (0..SAMPLES)
                .map(|at| {
                    value += f64::from((number.wrapping_mul(2_654_435_761) >> (at % 13)) % 97);
                    Sample::new(BEGIN + at * INTERVAL, value)
                })
                .collect();
            let chunks = AggrChunk::from_floats(&samples).expect("samples in order");
            let chunks: Vec<tsdb::Chunk> = chunks.into_iter().filter_map(|chunk| chunk.raw).collect();
            writer.add_series(&labels, chunks).expect("a series");
        }
    }
    writer.finish().expect("a block");
}

/// A store, and its addresses for HTTP and gRPC.
fn start(dir: &Path, bucket: &Path, data: &str, flags: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let (http, grpc) = (free_port(), free_port());
    let mut args = vec![
        "store".to_owned(),
        format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", bucket.display()),
        format!("--data-dir={}", dir.join(data).display()),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    (Process::start(&isthmus(), &args, &dir.join("store.log")), http, grpc)
}

/// Seconds until the store is ready, with new blocks and with those that it knows from an earlier start.
fn ready(report: &mut BenchReport, dir: &Path) {
    for blocks in [1_u64, 100, 1_000, 10_000] {
        let bucket = dir.join(format!("bucket-{blocks}"));
        let first = Ulid::from_parts(1, 1);
        write_block(&bucket, first, false);
        let template = bucket.join(first.to_string());
        let meta = fs::read_to_string(template.join("meta.json")).expect("a file");
        for number in 2..=blocks {
            let id = Ulid::from_parts(number, 1).to_string();
            let block = bucket.join(&id);
            fs::create_dir_all(block.join("chunks")).expect("a folder");
            for file in ["index", "chunks/000001"] {
                fs::hard_link(template.join(file), block.join(file)).expect("a link");
            }
            fs::write(block.join("meta.json"), meta.replace(&first.to_string(), &id)).expect("a file");
        }
        for state in ["new", "known"] {
            let begun = Instant::now();
            let (mut store, http, _) = start(dir, &bucket, &format!("data-{blocks}"), &[]);
            store.wait_ready("store", http);
            let took = begun.elapsed().as_secs_f64();
            let peak = store.usage().peak_rss_bytes;
            report.add(
                &BenchRow::new(format!("store/ready/{blocks} {state} blocks"), "s", vec![took]).peak(peak),
            );
        }
        fs::remove_dir_all(&bucket).expect("a folder");
    }
}

fn series(report: &mut BenchReport, dir: &Path, bucket: &Path) {
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let prometheus = Prometheus::is_installed("the comparison of the store with Prometheus").then(|| {
        let data = dir.join("prometheus/data");
        fs::create_dir_all(&data).expect("a folder");
        for entry in fs::read_dir(bucket).expect("a folder") {
            let entry = entry.expect("an entry");
            let to = data.join(entry.file_name());
            fs::create_dir_all(to.join("chunks")).expect("a folder");
            for file in ["meta.json", "index", "chunks/000001"] {
                fs::copy(entry.path().join(file), to.join(file)).expect("a copy");
            }
        }
        Prometheus::start(&dir.join("prometheus"), &[("cluster", "bench")])
    });
    let (mut warm, http, grpc) = start(dir, bucket, "data-warm", &["--store.max-memory=512MiB"]);
    warm.wait_ready("store", http);
    let warm_store = StoreClient::new("store", mesh::direct(&grpc.to_string()).expect("an address"));
    for (metric, count) in METRICS {
        let name = format!("store/Series/{count}");
        let (mut cold_ms, mut first_ms, mut cold_peak) = (Vec::new(), Vec::new(), 0);
        let mut read_ratio = Vec::new();
        for round in 0..ROUNDS {
            // A new process with the index headers of the one before it: nothing is cached in memory.
            let (mut store, http, grpc) = start(dir, bucket, "data-cold", &["--store.max-memory=512MiB"]);
            store.wait_ready("store", http);
            let client = StoreClient::new("store", mesh::direct(&grpc.to_string()).expect("an address"));
            let asked = runtime.block_on(select(&client, metric));
            assert_eq!(asked.series, count as usize);
            if round > 0 {
                cold_ms.push(asked.seconds * 1e3);
                first_ms.push(asked.first * 1e3);
                read_ratio.push(bucket_bytes(http) / asked.bytes as f64);
            }
            cold_peak = cold_peak.max(store.usage().peak_rss_bytes);
        }
        let (mut warm_ms, mut rate, mut direct_ms) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..=ROUNDS {
            let asked = runtime.block_on(select(&warm_store, metric));
            assert_eq!(asked.series, count as usize);
            warm_ms.push(asked.seconds * 1e3);
            rate.push(asked.bytes as f64 / 1e6 / asked.seconds);
            if let Some(prometheus) = &prometheus {
                direct_ms.push(runtime.block_on(remote_read(prometheus.address, metric, count)) * 1e3);
            }
        }
        // The first round fills the caches.
        for values in [&mut warm_ms, &mut rate] {
            values.remove(0);
        }
        let peak = warm.usage().peak_rss_bytes;
        report.add(&BenchRow::new(format!("{name}/cold"), "ms", cold_ms).peak(cold_peak));
        report.add(&BenchRow::new(format!("{name}/cold/first frame after"), "ms", first_ms));
        report.add(&BenchRow::new(format!("{name}/cold/bytes read per byte of chunks"), "", read_ratio));
        let row = BenchRow::new(format!("{name}/warm"), "ms", warm_ms).peak(peak);
        match direct_ms.len() {
            0 => report.add(&row),
            _ => report.add(&row.versus("Prometheus, remote read", median(&direct_ms[1..]))),
        }
        report.add(&BenchRow::new(format!("{name}/warm/chunks"), "MB/s", rate));
    }
    labels(report, &runtime, &warm_store);
    concurrent(report, &runtime, &warm_store, &warm);
}

struct Selected {
    series: usize,
    /// Bytes of chunks.
    bytes: usize,
    seconds: f64,
    /// Seconds until the first frame.
    first: f64,
}

async fn select(store: &StoreClient, metric: &str) -> Selected {
    let begun = Instant::now();
    let matchers = vec![Matcher::equal("__name__", metric)];
    let request = SeriesRequest { batch_size: 64, ..SeriesRequest::new(range(), matchers) };
    let mut stream = store.series(request).await.expect("a stream");
    let (mut series, mut bytes, mut first) = (0, 0, None);
    while let Some(frame) = stream.next().await {
        first.get_or_insert_with(|| begun.elapsed().as_secs_f64());
        match frame.expect("a frame") {
            SeriesFrame::Series(batch) => {
                series += batch.len();
                bytes +=
                    batch.iter().flat_map(|series| &series.chunks).map(AggrChunk::size_bytes).sum::<usize>();
            }
            other => panic!("{other:?}"),
        }
    }
    Selected { series, bytes, seconds: begun.elapsed().as_secs_f64(), first: first.unwrap_or_default() }
}

async fn remote_read(address: SocketAddr, metric: &str, count: u32) -> f64 {
    let client =
        PrometheusClient::new(&format!("http://{address}"), ClientOptions::default()).expect("a URL");
    let begun = Instant::now();
    let query = ReadQuery { matchers: vec![Matcher::equal("__name__", metric)], range: range() };
    let mut stream = client.read(&query).await.expect("an answer");
    let mut found = 0;
    while stream.next().await.expect("a series").is_some() {
        found += 1;
    }
    assert_eq!(found, count);
    begun.elapsed().as_secs_f64()
}

/// Bytes that the store has read from the bucket for requests.
fn bucket_bytes(http: SocketAddr) -> f64 {
    let read = || {
        let (_, metrics) = tests::get(http, "/metrics").expect("metrics");
        let name = "isthmus_store_request_bucket_bytes_total ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect("the metric");
        line.parse::<f64>().expect("a number")
    };
    // The metric is counted when the server has dropped the answer.
    (0..100).map(|_| read()).find(|bytes| *bytes > 0.0).expect("bytes were read")
}

fn labels(report: &mut BenchReport, runtime: &Runtime, store: &StoreClient) {
    for (name, matchers) in
        [("all", vec![]), ("of 1000 series", vec![Matcher::equal("__name__", "thousand")])]
    {
        let mut values = Vec::new();
        for _ in 0..=ROUNDS {
            let begun = Instant::now();
            let request = LabelValuesRequest::new("pod", range(), matchers.clone());
            let answer = runtime.block_on(store.label_values(request)).expect("values");
            assert!(answer.values.len() >= 1_000);
            values.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        report.add(&BenchRow::new(format!("store/LabelValues/pod, {name}"), "ms", values[1..].to_vec()));
    }
}

/// Many requests at once stay within the memory of the store.
fn concurrent(report: &mut BenchReport, runtime: &Runtime, store: &StoreClient, process: &Process) {
    let begun = Instant::now();
    let all = (0..64).map(|_| select(store, "many"));
    let bytes: usize =
        runtime.block_on(futures::future::join_all(all)).iter().map(|selected| selected.bytes).sum();
    let rate = bytes as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let row = BenchRow::new("store/64 requests at once of 100000 series", "MB/s", vec![rate]);
    report.add(&row.peak(process.usage().peak_rss_bytes));
}
