//! A store in a control group of its stated memory and a tenth more: it is not killed while many large requests run, and answers all.
//!
//! `ISTHMUS_CASES` is the number of requests that are sent at once, also to a store with a larger budget.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use model::{Labels, Matcher, Sample, TimeRange, Timestamp};
use series::AggrChunk;
use storeapi::{LabelValuesRequest, SeriesFrame, SeriesRequest, Store, StoreClient, StoreError};
use tests::{ControlGroup, free_port, isthmus};
use tokio::runtime::Runtime;
use tsdb::{BlockOptions, BlockWriter, ThanosMeta, Ulid};

const BLOCKS: i64 = 6;
const SERIES: usize = 20_000;
const MIB: u64 = 1 << 20;

/// Blocks of two hours. Those of the second producer store a label with the name of an external one, so that their series are sorted.
fn write_blocks(bucket: &Path) {
    std::fs::create_dir_all(bucket).expect("a folder");
    for number in 0..BLOCKS {
        let cluster = if number % 3 == 2 { "sorted" } else { "streamed" };
        let labels = [("cluster".to_owned(), cluster.to_owned())];
        let thanos = ThanosMeta { labels: labels.into(), source: "test".to_owned(), ..ThanosMeta::default() };
        let id = Ulid::from_parts(1_700_000_000_000 + number as u64, 1);
        let options = BlockOptions { thanos: Some(thanos), ..BlockOptions::new(id) };
        let mut writer = BlockWriter::create(bucket, options).expect("a block");
        for pod in 0..SERIES {
            let pod_name = format!("pod-{pod:05}-of-a-deployment");
            let mut pairs = vec![("__name__", "up"), ("pod", &pod_name), ("zone", ["a", "b"][pod % 2])];
            if cluster == "sorted" {
                pairs.push(("cluster", "stored"));
            }
            let value = |minute: i64| ((minute * 7_919 + pod as i64 * 104_729) % 100_003) as f64 / 7.0;
            let minutes = number * 120..(number + 1) * 120;
            let samples: Vec<Sample> = minutes.map(|at| Sample::new(at * 60_000, value(at))).collect();
            let chunks = AggrChunk::from_floats(&samples).expect("chunks");
            let chunks = chunks.into_iter().filter_map(|chunk| chunk.raw).collect::<Vec<_>>();
            writer.add_series(&Labels::from_pairs(pairs).expect("labels"), chunks).expect("a series");
        }
        writer.finish().expect("a block");
    }
}

fn range() -> TimeRange {
    TimeRange::new(Timestamp::EPOCH, Timestamp::from_millis(BLOCKS * 2 * 3_600_000))
}

/// The number of chunks of an answer. A slow reader waits now and then, so that the answer waits in the store.
async fn chunks(store: &StoreClient, is_slow: bool) -> Result<usize, StoreError> {
    let request = SeriesRequest {
        batch_size: 64,
        ..SeriesRequest::new(range(), vec![Matcher::equal("__name__", "up")])
    };
    let mut stream = store.series(request).await?;
    let (mut count, mut frames) = (0, 0);
    while let Some(frame) = stream.next().await {
        match frame? {
            SeriesFrame::Series(batch) => {
                count += batch.iter().map(|series| series.chunks.len()).sum::<usize>()
            }
            other => panic!("{other:?}"),
        }
        frames += 1;
        if is_slow && frames % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(count)
}

/// The numbers of chunks of so many answers, each over a connection of its own, while label values are asked, too.
async fn ask_at_once(grpc: SocketAddr, requests: usize) -> Vec<Result<usize, StoreError>> {
    let client = || StoreClient::new("store", mesh::direct(&grpc.to_string()).expect("an address"));
    let answers = (0..requests).map(|number| {
        let store = client();
        tokio::spawn(async move { chunks(&store, number % 2 == 1).await })
    });
    let answers: Vec<_> = answers.collect();
    let mut all = Vec::new();
    for _ in 0..3 {
        let values = LabelValuesRequest::new("pod", range(), vec![Matcher::equal("zone", "a")]);
        let found = client().label_values(values).await;
        all.push(found.map(|found| found.values.len() * 2 * BLOCKS as usize));
    }
    for answer in answers {
        all.push(answer.await.expect("a request that does not panic"));
    }
    all
}

#[test]
fn many_large_requests_stay_within_the_budget_and_a_tenth() {
    let cases = std::env::var("ISTHMUS_CASES").ok().and_then(|cases| cases.parse().ok());
    let requests = cases.unwrap_or(12);
    // The smallest one is the hardest.
    let budgets = if cases.is_some() { &[128 * MIB, 256 * MIB][..] } else { &[128 * MIB] };
    let dir = tempfile::tempdir().expect("a temporary folder");
    for &budget in budgets {
        let Some(group) = ControlGroup::create(budget / 10 * 11, "the store within its memory") else {
            return;
        };
        let bucket = dir.path().join("bucket");
        if !bucket.exists() {
            write_blocks(&bucket);
        }
        let (http, grpc) = (free_port(), free_port());
        let args = [
            "store".to_owned(),
            format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", bucket.display()),
            format!("--data-dir={}", dir.path().join(format!("data-{budget}")).display()),
            format!("--http-address={http}"),
            format!("--grpc-address={grpc}"),
            format!("--store.max-memory={budget}"),
        ];
        let mut process = group.start(&isthmus(), &args, &dir.path().join("store.log"));
        process.wait_ready("store", http);
        let answers = Runtime::new().expect("a runtime").block_on(ask_at_once(grpc, requests));
        let (kills, peak, usage) = (group.kills(), group.peak_bytes(), process.usage());
        println!(
            "budget of {} MiB, {requests} requests of {SERIES} series at once: resident {} MiB at most, the group {} of {} MiB, \
             {kills} kills",
            budget / MIB,
            usage.peak_rss_bytes / MIB,
            peak / MIB,
            budget / 10 * 11 / MIB
        );
        assert!(process.is_running() && kills == 0, "{kills} kills:\n{}", process.output());
        for answer in answers {
            assert_eq!(answer.expect("an answer"), SERIES * BLOCKS as usize, "{}", process.output());
        }
        process.kill();
    }
}
