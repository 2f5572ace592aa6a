//! Series through a sidecar, compared with the same remote read directly from Prometheus.

use std::time::Instant;

use futures::StreamExt;
use model::{Matcher, TimeRange, Timestamp};
use promapi::{ClientOptions, PrometheusClient, ReadData, ReadQuery};
use storeapi::{SeriesFrame, SeriesRequest, Store, StoreClient};
use tests::Prometheus;
use tokio::runtime::Runtime;

use crate::load::{self, BEGIN, END, SAMPLES, SERIES};
use crate::report::{BenchReport, BenchRow, median};

const ROUNDS: usize = 5;

pub(crate) fn run(report: &mut BenchReport) {
    if !Prometheus::is_installed("the sidecar benchmark") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let blocks = dir.path().join("blocks");
    load::generate(&blocks);
    let (prometheus, sidecar, grpc) = load::scraper(&dir.path().join("scraper"), &blocks, "scraper-0");
    let runtime = Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let client = PrometheusClient::new(&format!("http://{}", prometheus.address), ClientOptions::default())
        .expect("a URL");
    let store = StoreClient::new("sidecar", mesh::direct(&grpc.to_string()).expect("an address"));
    let range = TimeRange::new(Timestamp::from_millis(BEGIN * 1000), Timestamp::from_millis(END * 1000));
    let matchers = vec![Matcher::equal("__name__", "bench_total")];

    let (mut direct, mut through, mut first, mut cpu) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let samples = (SERIES * SAMPLES) as f64 / 1e6;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let query = ReadQuery { matchers: matchers.clone(), range };
        let count = runtime.block_on(remote_read(&client, &query));
        assert_eq!(count, SERIES as usize);
        direct.push(samples / begun.elapsed().as_secs_f64());

        let (begun, before) = (Instant::now(), sidecar.usage().cpu_seconds);
        let request = SeriesRequest { batch_size: 64, ..SeriesRequest::new(range, matchers.clone()) };
        let (count, delay) = runtime.block_on(series(&store, request));
        assert_eq!(count, SERIES as usize);
        through.push(samples / begun.elapsed().as_secs_f64());
        first.push(delay * 1e3);
        cpu.push((sidecar.usage().cpu_seconds - before) / samples * 1e3);
    }
    let base = median(&direct);
    report.add(&BenchRow::new("sidecar/remote read, direct", "M samples/s", direct));
    let peak = sidecar.usage().peak_rss_bytes;
    report.add(&BenchRow::new("sidecar/Series", "M samples/s", through).versus("direct", base).peak(peak));
    report.add(&BenchRow::new("sidecar/Series/first frame after", "ms", first));
    report.add(&BenchRow::new("sidecar/Series/cpu", "ms/M", cpu));
}

async fn remote_read(client: &PrometheusClient, query: &ReadQuery) -> usize {
    let mut stream = client.read(query).await.expect("an answer");
    let mut count = 0;
    while let Some(series) = stream.next().await.expect("a series") {
        assert!(matches!(series.data, ReadData::Chunks(chunks) if !chunks.is_empty()));
        count += 1;
    }
    count
}

/// Number of series, and seconds until the first frame was received.
async fn series(store: &StoreClient, request: SeriesRequest) -> (usize, f64) {
    let begun = Instant::now();
    let mut stream = store.series(request).await.expect("a stream");
    let (mut count, mut first) = (0, None);
    while let Some(frame) = stream.next().await {
        first.get_or_insert_with(|| begun.elapsed().as_secs_f64());
        if let SeriesFrame::Series(batch) = frame.expect("a frame") {
            count += batch.len();
        }
    }
    (count, first.unwrap_or_default())
}
