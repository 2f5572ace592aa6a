//! Object storage that cannot be reached for a while.

use std::time::{Duration, Instant};

use bucket::fault::{Faults, FaultyStore};
use runtime::CallContext;
use storeapi::{Code, LabelValuesRequest, PartialResponse};

use super::*;

const HOUR: i64 = 3_600_000;

fn write_world(dir: &Path) -> Vec<Ulid> {
    let blocks = (0..2_i64).map(|number| {
        let series: Vec<(Labels, Vec<Sample>)> = (0..50)
            .map(|pod| {
                let minutes = number * 120..(number + 1) * 120;
                let samples = minutes.map(|at| Sample::new(at * 60_000, (pod * at) as f64)).collect();
                (labels(&[("__name__", "up"), ("pod", &format!("p-{number}-{pod:02}"))]), samples)
            })
            .collect();
        let id = Ulid::from_parts(number as u64 + 1, 1);
        write_block(dir, id, &labels(&[("cluster", "c")]), &series);
        id
    });
    blocks.collect()
}

fn request(hours: (i64, i64), partial: PartialResponse) -> SeriesRequest {
    let range = millis((hours.0 * HOUR, hours.1 * HOUR - 1));
    SeriesRequest {
        partial_response: partial,
        ..SeriesRequest::new(range, vec![Matcher::equal("__name__", "up")])
    }
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cached_is_served_without_the_bucket_and_the_rest_is_named() {
    use PartialResponse::{Abort, Warn};
    let (bucket_dir, data_dir) = dirs();
    let ids = write_world(bucket_dir.path());
    let inner = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir.path()).unwrap();
    let objects = FaultyStore::new(Arc::new(inner), 1);
    let bucket = Bucket::new(objects.clone());
    let served = serve(&bucket, data_dir.path(), &["--sync-block-duration=20ms"]).await;
    let (cached, _) = ask(&served.store, request((0, 2), Abort)).await.unwrap();
    assert_eq!(cached.len(), 50);
    let failures = || served.metric("isthmus_store_sync_failures_total");
    let last_sync = || served.metric("isthmus_store_last_sync_success_timestamp_seconds");
    assert_eq!(failures(), 0.0);

    objects.set(Faults { errors: 1.0, ..Faults::default() });
    wait_for("three syncs have failed", || failures() >= 3.0).await;
    let last_good = last_sync();
    let is_named = |text: &str| text.contains(&ids[1].to_string()) && text.contains(bucket.name());
    for partial in [Warn, Abort] {
        let (found, warnings) = ask(&served.store, request((0, 2), partial)).await.unwrap();
        assert!(found == cached && warnings.is_empty(), "{partial:?}: {warnings:?}");
    }
    for _ in 0..3 {
        let (found, warnings) = ask(&served.store, request((0, 4), Warn)).await.unwrap();
        assert!(found == cached, "{} series", found.len());
        assert!(warnings.len() == 1 && is_named(&warnings[0]), "{warnings:?}");
        let error = ask(&served.store, request((0, 4), Abort)).await.unwrap_err();
        assert!(error.code() == Code::Aborted && is_named(&error.to_string()), "{error}");
        let mut values = LabelValuesRequest::new("pod", millis((0, 4 * HOUR - 1)), Vec::new());
        let found = served.store.label_values(values.clone()).await.unwrap();
        assert!(found.values.len() == 50 && is_named(&found.warnings.join("")), "{:?}", found.warnings);
        values.partial_response = Abort;
        let error = served.store.label_values(values).await.unwrap_err();
        assert!(is_named(&error.to_string()), "{error}");
    }
    let info = served.store.info().await.unwrap();
    assert_eq!(info.range, millis((0, 4 * HOUR - 60_000)), "what cannot be reached now is still announced");
    assert!(served.blocks.quarantine().is_empty() && served.probes.health().is_ready());
    assert_eq!(last_sync(), last_good, "a failed sync is no good one");

    objects.set(Faults::default());
    let (found, warnings) = ask(&served.store, request((0, 4), Abort)).await.unwrap();
    assert!(found.len() == 100 && warnings.is_empty(), "{} series, {warnings:?}", found.len());
    wait_for("a sync succeeds again", || last_sync() > last_good).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_hangs_is_named_with_the_block_before_the_time_of_the_request_is_over() {
    use PartialResponse::{Abort, Warn};
    let (bucket_dir, data_dir) = dirs();
    let ids = write_world(bucket_dir.path());
    let inner = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir.path()).unwrap();
    let objects = FaultyStore::new(Arc::new(inner), 1);
    let bucket = Bucket::new(objects.clone());
    let served = serve(&bucket, data_dir.path(), &[]).await;
    let (cached, _) = ask(&served.store, request((0, 2), Abort)).await.unwrap();
    let hangs = Faults { stalls: 1.0, stall: Duration::from_secs(3600), ..Faults::default() };
    let in_time = async |asked: SeriesRequest| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
        let answer = CallContext::default().with_deadline(deadline).scope(ask(&served.store, asked)).await;
        (answer, deadline.saturating_duration_since(tokio::time::Instant::now()))
    };
    // First the block cannot be opened; later it is open, and its chunks cannot be read.
    for what in [format!("block {}: bucket", ids[1]), format!("{}/chunks/000001: bucket", ids[1])] {
        objects.set(hangs);
        let is_named = |text: &str| text.contains(&what) && text.contains("has not answered");
        let (answer, left) = in_time(request((0, 4), Warn)).await;
        let (found, warnings) = answer.unwrap();
        assert!(found == cached && warnings.len() == 1 && is_named(&warnings[0]), "{warnings:?}");
        assert!(!left.is_zero(), "the answer is late");
        let error = in_time(request((0, 4), Abort)).await.0.unwrap_err();
        assert!(error.code() == Code::Aborted && is_named(&error.to_string()), "{error}");
        assert!(served.blocks.quarantine().is_empty());
        objects.set(Faults::default());
        let mut skipping = request((0, 4), Abort);
        skipping.skip_chunks = true;
        assert_eq!(ask(&served.store, skipping).await.unwrap().0.len(), 100);
    }
}
