//! A bucket that an uploader and a real compactor change while queries run, and from which replaced blocks are removed at once.
//!
//! `ISTHMUS_CASES` is the number of changes: blocks that appear or are removed. For each, fifty requests are answered.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bucket::{ObjstoreArgs, PublishOptions, delete_block, publish};
use compactor::{OneRun, WorkArgs};
use storeapi::{LabelNamesRequest, LabelValuesRequest, PartialResponse};

use super::*;

const HOUR: i64 = 3_600_000;
/// Time between two samples.
const STEP: i64 = 10 * 60_000;
const PODS: u64 = 9;
const QUERIES_PER_CHANGE: u64 = 50;

/// Whether a pod ran in these two hours, by the number of their block.
fn ran(pod: u64, block: i64) -> bool {
    !(block as u64 + pod).is_multiple_of(3)
}

fn value(pod: u64, at: i64) -> f64 {
    (at / STEP * 100) as f64 + pod as f64
}

fn pod_name(pod: u64) -> String {
    format!("p-{pod}")
}

/// All samples of a pod within a range.
fn expected(pod: u64, range: TimeRange) -> Vec<Sample> {
    let (min, max) = (range.min.as_millis(), range.max.as_millis());
    let times = (0..=max / STEP).map(|n| n * STEP).filter(|at| *at >= min);
    times.filter(|at| ran(pod, at / (2 * HOUR))).map(|at| Sample::new(at, value(pod, at))).collect()
}

#[derive(clap::Parser)]
struct CompactCommand {
    #[command(flatten)]
    work: WorkArgs,
}

/// The side that changes the bucket.
struct Changes {
    dir: TempDir,
    bucket: Bucket,
    compactor: OneRun,
    _work: TempDir,
    uploaded: i64,
    seen: BTreeSet<Ulid>,
    /// Blocks that appeared or were removed.
    count: u64,
    merged: u64,
    removed: u64,
}

impl Changes {
    async fn new() -> Self {
        let (dir, work) = dirs();
        let data = format!("--data-dir={}", work.path().display());
        let command = CompactCommand::try_parse_from(["compact", &data, "--consistency-delay=0s"]).unwrap();
        let config = format!("{{type: FILESYSTEM, config: {{directory: {}}}}}", dir.path().display());
        let objstore = ObjstoreArgs { objstore_config: Some(config), objstore_config_file: None };
        let compactor = OneRun::open(command.work, &objstore).await.unwrap();
        let bucket = local(dir.path());
        let seen = BTreeSet::new();
        Self { dir, bucket, compactor, _work: work, uploaded: 0, seen, count: 0, merged: 0, removed: 0 }
    }

    /// Uploads the block of the next two hours.
    async fn upload(&mut self) {
        let start = self.uploaded * 2 * HOUR;
        let range = millis((start, start + 2 * HOUR - 1));
        let series: Vec<(Labels, Vec<Sample>)> = (0..PODS)
            .map(|pod| (labels(&[("__name__", "up"), ("pod", &pod_name(pod))]), expected(pod, range)))
            .filter(|(_, samples)| !samples.is_empty())
            .collect();
        let staging = tempfile::tempdir().unwrap();
        let id = Ulid::from_parts(1_700_000_000_000 + self.uploaded as u64, 1);
        let meta = write_block(staging.path(), id, &labels(&[("cluster", "c")]), &series);
        let from = staging.path().join(id.to_string());
        publish(&self.bucket, &from, meta, &PublishOptions::default()).await.unwrap();
        self.uploaded += 1;
        self.seen.insert(id);
        self.count += 1;
    }

    /// Lets the compactor merge what is due. It marks what it has merged.
    async fn compact(&mut self) {
        let report = self.compactor.compact(false).await.unwrap();
        assert_eq!((report.failed, report.waiting), (0, 0), "{:?}", report.rows);
        for (block, _) in self.blocks() {
            if self.seen.insert(block) {
                self.merged += 1;
                self.count += 1;
            }
        }
    }

    /// Removes what is marked, without the delay that a compactor leaves to readers.
    async fn remove_marked(&mut self) {
        for (block, _) in self.blocks().into_iter().filter(|(_, is_marked)| *is_marked) {
            delete_block(&self.bucket, block, Retry::default()).await.unwrap();
            self.removed += 1;
            self.count += 1;
        }
    }

    /// The blocks, and whether they are marked for deletion.
    fn blocks(&self) -> Vec<(Ulid, bool)> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap());
        let block = |entry: std::fs::DirEntry| {
            let is_marked = entry.path().join("deletion-mark.json").exists();
            Some((tsdb::parse_block_id(entry.file_name().to_str()?)?, is_marked))
        };
        entries.filter_map(block).collect()
    }
}

/// The side that asks.
#[derive(Clone)]
struct Asker {
    store: Arc<BucketStore>,
    catalog: CatalogHandle,
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
}

impl Asker {
    async fn run(self, mut random: u64) {
        while !self.stop.load(Ordering::Relaxed) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = random >> 33;
            // All that a sync has seen must be found, however the blocks change meanwhile.
            let end = self.catalog.current().blocks().map(|block| block.range.max.as_millis()).max().unwrap();
            let from = (number >> 4) as i64 % end;
            let length = [STEP, 2 * HOUR, 24 * HOUR, end][number as usize % 4];
            let range = millis((from, (from + length).min(end)));
            let pod = number.is_multiple_of(2).then_some(number / 2 % PODS);
            let partial =
                if number.is_multiple_of(3) { PartialResponse::Warn } else { PartialResponse::Abort };
            match number % 10 {
                0 => self.label_names(range, partial).await,
                1 => self.label_values(range, pod, partial).await,
                _ => self.series(range, pod, partial).await,
            }
            self.answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn matchers(pod: Option<u64>) -> Vec<Matcher> {
        let name = Matcher::equal("__name__", "up");
        std::iter::once(name).chain(pod.map(|pod| Matcher::equal("pod", &pod_name(pod)))).collect()
    }

    fn pods(pod: Option<u64>) -> impl Iterator<Item = u64> {
        (0..PODS).filter(move |other| pod.is_none_or(|pod| pod == *other))
    }

    async fn series(&self, range: TimeRange, pod: Option<u64>, partial: PartialResponse) {
        let mut request = SeriesRequest::new(range, Self::matchers(pod));
        request.partial_response = partial;
        let (found, warnings) = ask(&self.store, request).await.unwrap_or_else(|e| panic!("{range:?}: {e}"));
        assert!(warnings.is_empty(), "{range:?}: {warnings:?}");
        let within = |sample: &Sample| range.contains(sample.timestamp);
        let mut left = found.iter();
        for pod in Self::pods(pod) {
            let wanted = expected(pod, range);
            if wanted.is_empty() {
                continue;
            }
            // Chunks may begin before and end after the range. No sample is there twice.
            let series = left.find(|series| series.labels.get("pod") == Some(&pod_name(pod)));
            let series = series.unwrap_or_else(|| panic!("{range:?}: pod {pod} is missing"));
            let raw = series.chunks.iter().filter_map(|chunk| chunk.raw.as_ref());
            let all = samples(series);
            assert_eq!(raw.map(tsdb::Chunk::sample_count).sum::<usize>(), all.len(), "{range:?}, pod {pod}");
            let within: Vec<Sample> = all.into_iter().filter(within).collect();
            assert_eq!(within, wanted, "{range:?}, pod {pod}");
        }
    }

    async fn label_values(&self, range: TimeRange, pod: Option<u64>, partial: PartialResponse) {
        let mut request =
            LabelValuesRequest::new("pod", range, pod.map_or_else(Vec::new, |_| Self::matchers(pod)));
        request.partial_response = partial;
        let found = self.store.label_values(request).await.unwrap_or_else(|e| panic!("{range:?}: {e}"));
        assert!(found.warnings.is_empty(), "{range:?}: {:?}", found.warnings);
        for pod in Self::pods(pod).filter(|pod| !expected(*pod, range).is_empty()) {
            assert!(
                found.values.contains(&pod_name(pod)),
                "{range:?}: pod {pod} is not in {:?}",
                found.values
            );
        }
    }

    async fn label_names(&self, range: TimeRange, partial: PartialResponse) {
        let mut request = LabelNamesRequest::new(range, Vec::new());
        request.partial_response = partial;
        let found = self.store.label_names(request).await.unwrap_or_else(|e| panic!("{range:?}: {e}"));
        assert!(found.warnings.is_empty(), "{range:?}: {:?}", found.warnings);
        assert_eq!(found.values, ["__name__", "cluster", "pod"], "{range:?}");
    }

    /// Waits until so many requests were answered, or one of the askers has failed.
    async fn until(&self, answers: u64, askers: &[tokio::task::JoinHandle<()>]) {
        let begun = Instant::now();
        while self.answers.load(Ordering::Relaxed) < answers
            && !askers.iter().any(|asker| asker.is_finished())
        {
            assert!(begun.elapsed() < Duration::from_secs(120), "{answers} answers in two minutes");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_merges_and_removals_give_no_failed_partial_or_doubled_answer() {
    let wanted = std::env::var("ISTHMUS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    let data_dir = tempfile::tempdir().unwrap();
    let mut changes = Changes::new().await;
    changes.upload().await;
    // A small cache, so that blocks are read from the bucket again and again.
    let flags = ["--sync-block-duration=50ms", "--index-cache-size=100000"];
    let served = serve(&changes.bucket, data_dir.path(), &flags).await;
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let asker = Asker { store: served.store.clone(), catalog: served.catalog.clone(), stop, answers };
    let askers: Vec<_> = (1..=3).map(|seed| tokio::spawn(asker.clone().run(seed))).collect();
    while changes.count < wanted && !askers.iter().any(|asker| asker.is_finished()) {
        changes.upload().await;
        asker.until(changes.count * QUERIES_PER_CHANGE, &askers).await;
        // The later block shows the compactor that a window of eight hours is closed.
        if changes.uploaded % 4 == 1 {
            changes.compact().await;
            // Sometimes a sync has seen the merged block before its sources are removed, sometimes not.
            if changes.uploaded % 3 == 0 {
                asker.until((changes.count + 1) * QUERIES_PER_CHANGE, &askers).await;
            }
            changes.remove_marked().await;
        }
    }
    asker.until(changes.count * QUERIES_PER_CHANGE, &askers).await;
    asker.stop.store(true, Ordering::Relaxed);
    for asker in askers {
        asker.await.unwrap();
    }
    let answers = asker.answers.load(Ordering::Relaxed);
    let Changes { count, uploaded, merged, removed, .. } = changes;
    println!(
        "{answers} answers across {count} changes: {uploaded} uploads, {merged} merges, {removed} removals"
    );
    assert!(answers >= wanted * QUERIES_PER_CHANGE && (wanted < 50 || (merged > 4 && removed > 16)));
    assert!(served.probes.health().is_ready());
}
