//! Syncs that fail or hang.

use std::time::Duration;

use bucket::fault::{Faults, FaultyStore};

use super::*;

const HOUR: i64 = 3_600_000;

fn write(dir: &Path, number: u64, cluster: &str) -> Ulid {
    let id = Ulid::from_parts(number, 1);
    let samples = (0..10).map(|n| Sample::new(number as i64 * HOUR + n * 60_000, n as f64)).collect();
    write_block(dir, id, &labels(&[("cluster", cluster)]), &[(labels(&[("__name__", "up")]), samples)]);
    id
}

fn bucket_of(dir: &Path) -> (Bucket, Arc<FaultyStore>) {
    let inner = object_store::local::LocalFileSystem::new_with_prefix(dir).unwrap();
    let objects = FaultyStore::new(Arc::new(inner), 1);
    (Bucket::new(objects.clone()), objects)
}

/// What a test sees of a store of two buckets.
struct TwoBuckets {
    registry: Registry,
    catalog: CatalogHandle,
}

impl TwoBuckets {
    fn known(&self) -> Vec<Ulid> {
        let mut ids: Vec<Ulid> = self.catalog.current().blocks().map(|block| block.key.block).collect();
        ids.sort_unstable();
        ids
    }

    fn metric(&self, name: &str) -> f64 {
        metric(&self.registry, name)
    }
}

/// One bucket hangs, or fails, for two intervals. The other one is synced on time meanwhile, and the first one afterwards.
async fn check(faults: Faults) {
    let (first_dir, second_dir) = dirs();
    let data_dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(data_dir.path(), "store").unwrap();
    let (first, _) = bucket_of(first_dir.path());
    let (second, objects) = bucket_of(second_dir.path());
    let mut expected = vec![write(first_dir.path(), 1, "a"), write(second_dir.path(), 2, "b")];
    let config = config_of(
        "[{type: FILESYSTEM, config: {directory: /a}}, {type: FILESYSTEM, config: {directory: /b}}]",
        &["--sync-block-duration=3m"],
    );
    let mut registry = Registry::default();
    let assembled = assemble(&config, &[first, second], &folder, &mut registry);
    let Assembled { syncer, api, .. } = assembled.unwrap_or_else(|error| panic!("{error}"));
    let seen = TwoBuckets { registry, catalog: api.catalog };
    let (probes, shutdown) = (Probes::new(), Shutdown::new());
    let script = async {
        probes.wait_until(|health| health.is_ready()).await;
        assert_eq!((seen.known(), seen.metric("isthmus_store_sync_failures_total")), (expected.clone(), 0.0));
        let good = seen.metric("isthmus_store_last_sync_success_timestamp_seconds");
        objects.set(faults);
        expected.push(write(first_dir.path(), 3, "a"));
        let late = write(second_dir.path(), 4, "b");
        // The sync after 3 minutes ends at 6 minutes at the latest.
        tokio::time::sleep(Duration::from_secs(7 * 60)).await;
        assert_eq!(seen.known(), expected, "the other bucket is synced, and no block of the first is lost");
        assert!(seen.metric("isthmus_store_sync_failures_total") >= 1.0);
        assert_eq!(seen.metric("isthmus_store_last_sync_success_timestamp_seconds"), good);
        objects.set(Faults::default());
        expected.push(late);
        tokio::time::sleep(Duration::from_secs(6 * 60)).await;
        let failures = seen.metric("isthmus_store_sync_failures_total");
        assert_eq!(seen.known(), expected, "after {failures} syncs that failed");
        tokio::time::sleep(Duration::from_secs(30 * 60)).await;
        assert_eq!(seen.metric("isthmus_store_sync_failures_total"), failures);
        assert!(seen.metric("isthmus_store_last_sync_success_timestamp_seconds") > good);
    };
    tokio::select! {
        () = syncer.run(probes.clone(), shutdown) => panic!("the sync has ended"),
        () = script => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_hangs_delays_no_other_one_and_is_synced_on_time_afterwards() {
    check(Faults { stalls: 1.0, stall: Duration::from_secs(86_400), ..Faults::default() }).await;
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_fails_delays_no_other_one_and_is_synced_on_time_afterwards() {
    check(Faults { errors: 1.0, ..Faults::default() }).await;
}

#[tokio::test]
async fn a_store_that_has_not_synced_yet_answers_nothing_rather_than_too_little() {
    let (bucket_dir, data_dir) = dirs();
    write(bucket_dir.path(), 1, "a");
    let folder = DataFolder::open(data_dir.path(), "store").unwrap();
    let assembled = assemble(&config(&[]), &[local(bucket_dir.path())], &folder, &mut Registry::default());
    let Assembled { store, .. } = assembled.unwrap_or_else(|error| panic!("{error}"));
    let range = millis((0, 9 * HOUR));
    let errors = [
        ask(&store, SeriesRequest::new(range, any())).await.err(),
        store.label_names(storeapi::LabelNamesRequest::new(range, Vec::new())).await.err(),
        store.label_values(storeapi::LabelValuesRequest::new("cluster", range, Vec::new())).await.err(),
        store.info().await.err(),
    ];
    for error in errors {
        assert_eq!(error.map(|error| error.code()), Some(storeapi::Code::Unavailable));
    }
}
