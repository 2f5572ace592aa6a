//! What answers read of the bucket: bytes for series that are far apart, and requests for large answers.

use bucket::fault::FaultyStore;
use futures::TryStreamExt;
use storeapi::{BlockHints, SeriesFrame};
use tsdb::Workload;

use super::*;

/// The block `number` of two hours like that of a cluster: 20 metrics of 1,000 pods, so that each metric of one job is a run of
/// 42 series.
fn write_cluster(dir: &Path, number: u64) -> TimeRange {
    let mut workload = Workload { series: 20_000, series_per_target: 20, ..Workload::default() };
    workload.start = workload.start + workload.duration * number as u32;
    let options = BlockOptions {
        thanos: Some(thanos(&labels(&[("cluster", "c")]), 0)),
        ..BlockOptions::new(Ulid::from_parts(number + 1, 1))
    };
    let meta = workload.write(dir, options, &mut |_| {}).unwrap();
    TimeRange::new(meta.min_time, meta.max_time)
}

/// What one answer has and what it took.
#[derive(Debug)]
struct Taken {
    series: usize,
    chunk_bytes: usize,
    read_bytes: u64,
    requests: u64,
}

async fn select(served: &TestStore, objects: &FaultyStore, range: TimeRange, matcher: Matcher) -> Taken {
    let before = objects.requests();
    let mut request = SeriesRequest::new(range, vec![matcher]);
    request.block_hints = Some(BlockHints { matchers: Vec::new(), wants_stats: true });
    let frames: Vec<SeriesFrame> = served.store.series(request).await.unwrap().try_collect().await.unwrap();
    let mut taken = Taken { series: 0, chunk_bytes: 0, read_bytes: 0, requests: 0 };
    for frame in frames {
        match frame {
            SeriesFrame::Series(series) => {
                taken.series += series.len();
                let chunks = series.iter().flat_map(|series| &series.chunks);
                taken.chunk_bytes += chunks.map(AggrChunk::size_bytes).sum::<usize>();
            }
            SeriesFrame::Hints(hints) => taken.read_bytes = hints.stats.unwrap().downloaded_bytes,
            SeriesFrame::Warning(text) => panic!("{text}"),
        }
    }
    taken.requests = objects.requests() - before;
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_apart_series_are_read_without_their_neighbours() {
    // With little memory, there are several batches of runs.
    for flags in [&[][..], &["--store.max-memory=128MiB"]] {
        read_far_apart_series(flags).await;
    }
}

async fn read_far_apart_series(flags: &[&str]) {
    let (bucket_dir, data_dir) = dirs();
    let range = write_cluster(bucket_dir.path(), 0);
    let inner = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir.path()).unwrap();
    let objects = FaultyStore::new(Arc::new(inner), 1);
    let served = serve(&Bucket::new(objects.clone()), data_dir.path(), flags).await;
    // Opens the block and reads the postings lists of all jobs.
    select(&served, &objects, range, Matcher::equal("job", "none")).await;
    let taken = select(&served, &objects, range, Matcher::equal("job", "cart")).await;
    println!("{taken:?}");
    assert!(taken.series > 800, "{taken:?}");
    let ratio = taken.read_bytes as f64 / taken.chunk_bytes as f64;
    assert!(ratio <= 1.5, "{ratio}: {taken:?}");
    // A run of entries and a run of chunks for each metric, and the postings list.
    assert!(taken.requests <= 50, "{taken:?}");
    let again = select(&served, &objects, range, Matcher::equal("job", "cart")).await;
    assert_eq!((again.requests, again.series), (0, taken.series));
    // What is next to it in the pages is read without reading these bytes again.
    let all = Matcher::new(model::MatchOp::Regex, "job", ".+").unwrap();
    let all = select(&served, &objects, range, all).await;
    assert_eq!(all.series, 20_000);
    let ratio = all.read_bytes as f64 / all.chunk_bytes as f64;
    assert!(ratio <= 1.3, "{ratio}: {all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_takes_few_requests_although_its_batches_are_small() {
    let (bucket_dir, data_dir) = dirs();
    let ranges: Vec<TimeRange> = (0..4).map(|number| write_cluster(bucket_dir.path(), number)).collect();
    let range = TimeRange::new(ranges[0].min, ranges[3].max);
    let inner = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir.path()).unwrap();
    let objects = FaultyStore::new(Arc::new(inner), 1);
    let flags = ["--store.max-memory=512MiB"];
    let served = serve(&Bucket::new(objects.clone()), data_dir.path(), &flags).await;
    select(&served, &objects, range, Matcher::equal("job", "none")).await;
    let free = served.store.ahead_memory().free_bytes();
    let all = Matcher::new(model::MatchOp::Regex, "__name__", ".+").unwrap();
    let taken = select(&served, &objects, range, all.clone()).await;
    println!("{taken:?}");
    assert_eq!(taken.series, 20_000);
    let ratio = taken.read_bytes as f64 / taken.chunk_bytes as f64;
    assert!(ratio <= 1.3, "{ratio}: {taken:?}");
    // Without reading ahead, a request for each batch of half a MiB.
    assert!(taken.requests <= 60, "{taken:?}");
    assert_eq!(served.store.ahead_memory().free_bytes(), free, "the memory is given back");
    // Without memory for it, nothing is read ahead, and the answer is the same.
    served.blocks.source().cache.forget_all();
    assert!(served.store.ahead_memory().take(free));
    let without = select(&served, &objects, range, all).await;
    assert_eq!((without.series, without.chunk_bytes), (taken.series, taken.chunk_bytes));
    assert!(without.requests > taken.requests, "{without:?} and {taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_ahead_stays_in_a_full_cache_until_it_is_used() {
    let (bucket_dir, data_dir) = dirs();
    let ranges: Vec<TimeRange> = (0..4).map(|number| write_cluster(bucket_dir.path(), number)).collect();
    let range = TimeRange::new(ranges[0].min, ranges[3].max);
    let inner = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir.path()).unwrap();
    let objects = FaultyStore::new(Arc::new(inner), 1);
    let flags = ["--store.max-memory=512MiB", "--index-cache-size=24MiB"];
    let served = serve(&Bucket::new(objects.clone()), data_dir.path(), &flags).await;
    let all = Matcher::new(model::MatchOp::Regex, "__name__", ".+").unwrap();
    for _ in 0..3 {
        let taken = select(&served, &objects, range, all.clone()).await;
        println!("{taken:?}");
        let ratio = taken.read_bytes as f64 / taken.chunk_bytes as f64;
        assert!(ratio <= 1.4 && taken.requests <= 120, "{ratio}: {taken:?}");
    }
}
