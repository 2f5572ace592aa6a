//! Deleted samples are in no answer, whatever is asked, from the next sync on.

use std::time::Duration;

use bucket::deletions::{self, Deletion};
use bucket::layout;
use model::MatchOp;
use series::Aggregate;
use storeapi::{LabelNamesRequest, LabelValuesRequest};

use super::blocks::{downsampled_block, simple_block};
use super::oracle::{Random, check_labels, check_series, random_matchers, random_range, random_world};
use super::*;

const HOUR: i64 = 3_600_000;
const ONCE: Retry = Retry { attempts: 1, delay: Duration::from_millis(1) };

fn deletion(id: usize, matchers: Vec<Matcher>, range: TimeRange) -> Arc<Deletion> {
    let time = Timestamp::EPOCH;
    Arc::new(Deletion { id: id.to_string(), matchers, range, time, details: None })
}

async fn block_ids(bucket: &Bucket) -> Vec<Ulid> {
    let listed = bucket.list_dir("").await.unwrap();
    listed.dirs.iter().filter_map(|dir| tsdb::parse_block_id(dir)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_requests_never_find_what_random_deletions_select() {
    let mut removed = 0;
    for seed in 100..106 {
        let mut random = Random(seed);
        let (bucket_dir, data_dir) = dirs();
        let mut world = random_world(&mut random, bucket_dir.path());
        let bucket = local(bucket_dir.path());
        for number in 0..1 + random.below(4) {
            let mut matchers = random_matchers(&mut random);
            // A range that begins and ends inside of chunks, or takes all of a series.
            let range = random_range(&mut random);
            let range = if random.below(3) == 0 { TimeRange::ALL } else { range };
            Matcher::require_name(&mut matchers);
            let one = deletion(number, matchers, range);
            for id in block_ids(&bucket).await {
                deletions::add(&bucket, id, std::slice::from_ref(&one), ONCE).await.unwrap();
            }
            for (external, set, samples) in &mut world {
                let attached = set.extended(external);
                if one.matchers.iter().all(|matcher| matcher.matches_labels(&attached)) {
                    let before = samples.len();
                    samples.retain(|sample| !one.range.contains(sample.timestamp));
                    removed += before - samples.len();
                }
            }
        }
        let served = serve(&bucket, data_dir.path(), &["--index-cache-size=50MB"]).await;
        for round in 0..60 {
            let case = format!("seed {seed}, round {round}");
            let mut request = SeriesRequest::new(random_range(&mut random), random_matchers(&mut random));
            request.without_replica_labels =
                random.pick(&[vec![], vec!["replica".to_owned()], vec!["pod".to_owned()]]).clone();
            check_series(&served.store, &world, request.clone(), &case).await;
            check_labels(&served.store, &world, &request, &case).await;
        }
    }
    assert!(removed > 1000, "{removed}");
}

/// Asks until the answer is as wanted.
async fn until<T: PartialEq + std::fmt::Debug>(wanted: T, ask: impl AsyncFn() -> T) {
    let mut last = None;
    for _ in 0..600 {
        let found = ask().await;
        if found == wanted {
            return;
        }
        last = Some(found);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{last:?} instead of {wanted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_counts_from_the_next_sync_on_also_for_blocks_that_are_open() {
    let (bucket_dir, data_dir) = dirs();
    let bucket = local(bucket_dir.path());
    let id = simple_block(bucket_dir.path(), 1, &labels(&[("cluster", "c")]), (0, 8)).ulid;
    let served = serve(&bucket, data_dir.path(), &["--sync-block-duration=100ms"]).await;
    let up = vec![Matcher::equal("__name__", "up")];
    let store = &served.store;
    let count = async || {
        let (found, warnings) =
            ask(store, SeriesRequest::new(millis((0, 8 * HOUR)), up.clone())).await.unwrap();
        (found.iter().map(|series| samples(series).len()).sum::<usize>(), warnings.len())
    };
    assert_eq!(count().await, (480, 0));
    let half = deletion(1, up.clone(), millis((HOUR, 5 * HOUR - 1)));
    deletions::add(&bucket, id, &[half], ONCE).await.unwrap();
    until((240, 0), count).await;
    let names = async || {
        let request = LabelNamesRequest::new(millis((0, 8 * HOUR)), Vec::new());
        let mut values = store.label_names(request).await.unwrap().values;
        let request = LabelValuesRequest::new("__name__", millis((0, 8 * HOUR)), Vec::new());
        values.extend(store.label_values(request).await.unwrap().values);
        values
    };
    assert_eq!(names().await, ["__name__", "cluster", "up"]);
    let rest = deletion(2, vec![Matcher::equal("cluster", "c")], millis((0, 9 * HOUR)));
    deletions::add(&bucket, id, &[rest], ONCE).await.unwrap();
    until((0, 0), count).await;
    assert_eq!(names().await, [""; 0]);
    let mut request = SeriesRequest::new(millis((0, 8 * HOUR)), up.clone());
    request.skip_chunks = true;
    assert_eq!(ask(store, request).await.unwrap().0.len(), 0);

    // It is not known what is deleted, so nothing of the block is answered, and the answer says so.
    bucket.put(&layout::tombstones_mark(id), "<html>".into()).await.unwrap();
    until((0, 1), count).await;
    deletions::remove(&bucket, id).await.unwrap();
    until((480, 0), count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_whose_time_is_deleted_in_part_are_not_answered() {
    let (bucket_dir, data_dir) = dirs();
    let bucket = local(bucket_dir.path());
    downsampled_block(bucket_dir.path(), 1, &labels(&[("cluster", "c")]), (0, 8));
    let up = vec![Matcher::new(MatchOp::Regex, "__name__", "u.*").unwrap()];
    let one = deletion(1, up.clone(), millis((HOUR + 1, 2 * HOUR)));
    deletions::add(&bucket, Ulid::from_parts(1, 1), &[one], ONCE).await.unwrap();
    let served = serve(&bucket, data_dir.path(), &[]).await;
    let mut request = SeriesRequest::new(millis((0, 8 * HOUR)), up);
    request.max_resolution = Duration::from_secs(300);
    request.aggregates = vec![Aggregate::Sum, Aggregate::Counter];
    let (found, warnings) = ask(&served.store, request).await.unwrap();
    assert_eq!((found.len(), warnings.len()), (1, 0), "{warnings:?}");
    for aggregate in [Aggregate::Sum, Aggregate::Counter] {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        for chunk in &found[0].chunks {
            chunk.part(aggregate).unwrap().decode_floats(&mut times, &mut values).unwrap();
        }
        let expected: Vec<i64> = (0..96)
            .map(|n| n * 300_000 + 299_999)
            .filter(|at| !(HOUR..=2 * HOUR + 299_999).contains(at))
            .collect();
        assert_eq!(times, expected, "{aggregate:?}");
    }
}
