//! The data folder: pages in it are used again, and without a disk that can be written, the store serves all the same.

use std::os::unix::fs::FileExt;
use std::process::Command;

use bucket::fault::FaultyStore;

use super::*;

const HOUR: i64 = 3_600_000;
const SERIES: usize = 500;
const DISK: &str = "--store.page-cache-disk-limit=64MiB";

fn write_world(dir: &Path) {
    for number in 0..3_i64 {
        let series: Vec<(Labels, Vec<Sample>)> = (0..SERIES)
            .map(|n| {
                let start = number * 2 * HOUR;
                let samples =
                    (0..240).map(|at| Sample::new(start + at * 30_000, ((n as i64 * at) % 977) as f64 * 1.1));
                (labels(&[("__name__", "up"), ("pod", &format!("p-{n:04}"))]), samples.collect())
            })
            .collect();
        write_block(dir, Ulid::from_parts(number as u64 + 1, 1), &labels(&[("cluster", "c")]), &series);
    }
}

/// A store with almost no cache in memory, and its bucket, which counts reads.
async fn serve_counted(bucket_dir: &Path, data_dir: &Path, flags: &[&str]) -> (TestStore, Arc<FaultyStore>) {
    let inner = object_store::local::LocalFileSystem::new_with_prefix(bucket_dir).unwrap();
    let objects = FaultyStore::new(Arc::new(inner), 1);
    let flags: Vec<&str> = ["--index-cache-size=1"].iter().chain(flags).copied().collect();
    (serve(&Bucket::new(objects.clone()), data_dir, &flags).await, objects)
}

/// All series, and the number of object reads that they took.
async fn all(store: &TestStore, objects: &FaultyStore) -> (Vec<Series>, u64) {
    let before = objects.requests();
    let mut request = SeriesRequest::new(millis((0, 6 * HOUR)), vec![Matcher::equal("__name__", "up")]);
    request.partial_response = storeapi::PartialResponse::Abort;
    let (found, warnings) = ask(&store.store, request).await.unwrap();
    assert_eq!((found.len(), warnings.len()), (SERIES, 0), "{warnings:?}");
    (found, objects.requests() - before)
}

/// Asks until no object is read.
async fn until_on_disk(store: &TestStore, objects: &FaultyStore, expected: &[Series]) {
    for _ in 0..400 {
        let (found, reads) = all(store, objects).await;
        assert!(found == expected);
        if reads == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("pages do not come from disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_on_disk_are_used_after_a_restart_and_damaged_ones_are_read_again() {
    let (bucket_dir, data_dir) = dirs();
    write_world(bucket_dir.path());
    let (plain, objects) = serve_counted(bucket_dir.path(), data_dir.path(), &[]).await;
    let (expected, cold_reads) = all(&plain, &objects).await;
    drop(plain);
    let (served, objects) = serve_counted(bucket_dir.path(), data_dir.path(), &[DISK]).await;
    until_on_disk(&served, &objects, &expected).await;
    let bytes = served.metric("isthmus_store_disk_cache_bytes");
    assert!(bytes > 1e6, "{bytes} bytes");
    drop(served);
    let (served, objects) = serve_counted(bucket_dir.path(), data_dir.path(), &[DISK]).await;
    let (found, reads) = all(&served, &objects).await;
    assert!(found == expected && reads < cold_reads, "{reads} of {cold_reads} object reads");
    until_on_disk(&served, &objects, &expected).await;

    let path = data_dir.path().join("pages.cache");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let length = file.metadata().unwrap().len();
    for at in (100..length).step_by(16_404) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    }
    let (found, reads) = all(&served, &objects).await;
    assert!(found == expected && reads > 0, "{reads} object reads of damaged pages");
    until_on_disk(&served, &objects, &expected).await;
    file.set_len(0).unwrap();
    assert!(all(&served, &objects).await.0 == expected);
    drop(served);
    let (served, objects) = serve_counted(bucket_dir.path(), data_dir.path(), &[]).await;
    assert!(all(&served, &objects).await.0 == expected && !path.exists(), "the cache is switched off");
}

/// A file system of so many bytes, which ends with its value.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "none"]).arg(dir.path());
        if command.output().is_ok_and(|done| done.status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: a file system of {size} cannot be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_data_folder_changes_no_answer() {
    let (bucket_dir, data_dir) = dirs();
    write_world(bucket_dir.path());
    let (plain, objects) = serve_counted(bucket_dir.path(), data_dir.path(), &[]).await;
    let (expected, _) = all(&plain, &objects).await;
    for (size, filled) in [("8k", 0), ("16k", 0), ("200k", 0), ("1m", 0), ("1m", 1 << 20)] {
        let Some(disk) = SmallDisk::mount(size) else { return };
        if filled > 0 {
            drop(std::fs::write(disk.0.path().join("other"), vec![1; filled]));
        }
        for restart in 0..2 {
            let (served, objects) = serve_counted(bucket_dir.path(), disk.0.path(), &[DISK]).await;
            for _ in 0..3 {
                let (found, _) = all(&served, &objects).await;
                assert!(found == expected, "{size}, restart {restart}");
            }
            if size == "1m" && filled > 0 {
                assert_eq!(served.metric("isthmus_store_disk_cache_bytes"), 0.0);
                assert_eq!(served.metric("isthmus_store_index_header_bytes"), 0.0);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_of_blocks_and_caches_are_true_when_they_are_scraped() {
    let (bucket_dir, data_dir) = dirs();
    write_world(bucket_dir.path());
    let index = bucket_dir.path().join(Ulid::from_parts(2, 1).to_string()).join("index");
    let mut bytes = std::fs::read(&index).unwrap();
    bytes[12] ^= 1;
    std::fs::write(&index, bytes).unwrap();
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let metrics =
        ["blocks_open", "open_index_bytes", "index_header_bytes", "blocks_quarantined", "cache_bytes"];
    let values = || metrics.map(|name| served.metric(&format!("isthmus_store_{name}")));
    assert_eq!(values(), [0.0; 5]);
    let request = SeriesRequest::new(millis((0, 6 * HOUR)), vec![Matcher::equal("__name__", "up")]);
    let (_, warnings) = ask(&served.store, request).await.unwrap();
    assert_eq!(warnings.len(), 1);
    let [open, index_bytes, header_bytes, quarantined, cache_bytes] = values();
    assert_eq!((open, quarantined), (2.0, 1.0));
    assert!(index_bytes > 0.0 && header_bytes > 1_000.0 && cache_bytes > 100_000.0, "{:?}", values());
}

/// What dashboards of Thanos ask for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_counted_under_the_names_of_thanos() {
    let (bucket_dir, data_dir) = dirs();
    write_world(bucket_dir.path());
    let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
    let loads = served.metric("thanos_bucket_store_block_loads_total");
    assert!(loads > 0.0 && loads == served.metric("thanos_bucket_store_blocks_loaded"), "{loads} loads");
    let request = || SeriesRequest::new(millis((0, 6 * HOUR)), vec![Matcher::equal("__name__", "up")]);
    let (series, _) = ask(&served.store, request()).await.unwrap();
    ask(&served.store, request()).await.unwrap();
    let metric = |name: &str| served.metric(&format!("thanos_bucket_store_{name}"));
    for name in [
        "series_gate_duration_seconds",
        "series_gate_queries_duration_seconds",
        "series_get_all_duration_seconds",
        "series_merge_duration_seconds",
        "series_result_series",
    ] {
        assert_eq!(metric(&format!("{name}_count")), 2.0, "{name}");
    }
    assert!(!series.is_empty());
    assert_eq!(metric("series_result_series_sum"), 2.0 * series.len() as f64);
    assert_eq!(metric("sent_chunk_size_bytes_count"), 2.0 * series.len() as f64);
    assert!(metric("sent_chunk_size_bytes_sum") > 0.0);
    assert!(metric("series_data_touched_sum{data_type=\"chunks\"}") >= series.len() as f64);
    let cache = |name: &str| served.metric(&format!("thanos_store_index_cache_{name}"));
    let lookups = cache("requests_total{item_type=\"ExpandedPostings\"}");
    let hits = cache("hits_total{item_type=\"ExpandedPostings\"}");
    assert!(lookups > hits && hits > 0.0, "{hits} of {lookups}");
    assert_eq!(cache("items_added_total{item_type=\"ExpandedPostings\"}"), lookups - hits);
    assert_eq!(cache("items_evicted_total{item_type=\"ExpandedPostings\"}"), 0.0);
}
