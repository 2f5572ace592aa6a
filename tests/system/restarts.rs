//! A store that is killed again and again under load, and whose data folder is damaged before each start: every answer is whole, and the
//! data folder stays within its limits.
//!
//! `ISTHMUS_CASES` is the number of restarts, `ISTHMUS_SEED` decides what is damaged.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use model::{Labels, MatchOp, Matcher, Sample, TimeRange, Timestamp};
use series::{AggrChunk, Series};
use storeapi::{PartialResponse, SeriesRequest, Store, StoreClient, StoreError, collect_series};
use tests::{Process, free_port};
use tokio::runtime::Runtime;
use tsdb::{BlockOptions, BlockWriter, ThanosMeta, Ulid};

use crate::answers::role;

const HOUR: i64 = 3_600_000;
const BLOCKS: i64 = 16;
const SERIES: usize = 300;
/// Fewer than the headers and the pages of all blocks have.
const HEADER_LIMIT: u64 = 300_000;
const PAGE_LIMIT: u64 = 1 << 20;

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(usual)
}

fn write_blocks(bucket: &Path) {
    fs::create_dir_all(bucket).expect("a folder");
    for block in 0..BLOCKS {
        let labels = [("cluster", "c"), ("replica", "a")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        let thanos = ThanosMeta { labels: labels.into(), source: "test".to_owned(), ..ThanosMeta::default() };
        let id = Ulid::from_parts(1_700_000_000_000 + block as u64, 1);
        let options = BlockOptions { thanos: Some(thanos), ..BlockOptions::new(id) };
        let mut writer = BlockWriter::create(bucket, options).expect("a block");
        for pod in 0..SERIES {
            let pod_name = format!("p-{pod:04}-with-a-name-of-its-own-in-block-{block:03}");
            let pairs = [("__name__", "up"), ("pod", &pod_name), ("zone", ["a", "b", "c"][pod % 3])];
            let minutes = block * 120..(block + 1) * 120;
            let sample = |minute: i64| Sample::new(minute * 60_000, (minute * (pod as i64 + 1)) as f64);
            let samples: Vec<Sample> = minutes.map(sample).collect();
            let chunks = AggrChunk::from_floats(&samples).expect("chunks");
            let chunks = chunks.into_iter().filter_map(|chunk| chunk.raw).collect::<Vec<_>>();
            writer.add_series(&Labels::from_pairs(pairs).expect("labels"), chunks).expect("a series");
        }
        writer.finish().expect("a block");
    }
}

/// Requests over all blocks, over some, and over one.
fn requests() -> Vec<SeriesRequest> {
    let request = |hours: (i64, i64), op, name: &str, value: &str| {
        let at = |hour: i64| Timestamp::from_millis(hour * HOUR);
        let matchers =
            vec![Matcher::equal("__name__", "up"), Matcher::new(op, name, value).expect("a matcher")];
        SeriesRequest::new(TimeRange::new(at(hours.0), at(hours.1).offset_millis(-1)), matchers)
    };
    vec![
        request((0, 2 * BLOCKS), MatchOp::Regex, "pod", "p-00.*"),
        request((5, 17), MatchOp::Equal, "zone", "b"),
        request((20, 22), MatchOp::NotEqual, "zone", "b"),
    ]
}

async fn ask(store: &StoreClient, request: SeriesRequest) -> Result<(Vec<Series>, Vec<String>), StoreError> {
    collect_series(store.series(request).await?).await
}

/// The answers of a store that nothing disturbs, which have all samples.
fn whole_answers(runtime: &Runtime, store: &StoreClient) -> Vec<Vec<Series>> {
    let answers: Vec<Vec<Series>> = requests()
        .into_iter()
        .map(|request| {
            let (found, warnings) = runtime.block_on(ask(store, request)).expect("an answer");
            assert!(warnings.is_empty(), "{warnings:?}");
            found
        })
        .collect();
    let count = |series: &Series| {
        series
            .chunks
            .iter()
            .filter_map(|chunk| chunk.raw.as_ref())
            .map(tsdb::Chunk::sample_count)
            .sum::<usize>()
    };
    let samples: Vec<usize> = answers.iter().map(|found| found.iter().map(count).sum()).collect();
    // Whole chunks are sent, so the blocks at the ends of the second request have some samples more.
    assert_eq!((samples[0], samples[2]), (100 * 16 * 120, 200 * 120));
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [1_600, 700, 200]);
    answers
}

/// Requests that are sent all the time. Those that fail while the store is down are sent again; an answer must be whole.
struct Load {
    stop: Arc<AtomicBool>,
    whole: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(runtime: &Runtime, store: &StoreClient, expected: &Arc<Vec<Vec<Series>>>) -> Self {
        let mut load =
            Self { stop: Arc::default(), whole: Arc::default(), failed: Arc::default(), tasks: Vec::new() };
        for task in 0..3_usize {
            let (store, expected) = (store.clone(), Arc::clone(expected));
            let (stop, whole, failed) = (load.stop.clone(), load.whole.clone(), load.failed.clone());
            load.tasks.push(runtime.spawn(async move {
                for round in task.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let at = round % expected.len();
                    let mut request = requests().swap_remove(at);
                    if round.is_multiple_of(2) {
                        request.partial_response = PartialResponse::Abort;
                    }
                    match ask(&store, request).await {
                        Ok((found, warnings)) => {
                            assert!(warnings.is_empty(), "{warnings:?}");
                            assert!(
                                found == expected[at],
                                "request {at}: {} series without a warning",
                                found.len()
                            );
                            whole.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
            }));
        }
        load
    }

    /// The numbers of whole answers, and of requests that failed.
    fn finish(self, runtime: &Runtime) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            runtime.block_on(task).expect("no wrong answer");
        }
        (self.whole.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

/// Every file below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

/// Damages some files of a data folder, of which nothing else shows that they changed: their times stay.
fn damage(data: &Path, mut below: impl FnMut(u64) -> u64) -> usize {
    let mut damaged = 0;
    for path in files(data).into_iter().filter(|path| path.extension().is_none_or(|end| end != "lock")) {
        let Ok(file) = File::options().read(true).write(true).open(&path) else { continue };
        let metadata = file.metadata().expect("a file");
        let (length, modified) = (metadata.len().max(1), metadata.modified().expect("a time"));
        match below(8) {
            0 => fs::remove_file(&path).expect("a file"),
            1 => file.set_len(below(length)).expect("a file"),
            2 => {
                let at = below(length);
                let mut byte = [0];
                drop(file.read_exact_at(&mut byte, at));
                file.write_all_at(&[byte[0] ^ (1 << below(8))], at).expect("a file");
            }
            // As after a kill while it was written.
            3 if path.ends_with("index-header") => drop(fs::copy(&path, path.with_extension("tmp"))),
            _ => continue,
        }
        damaged += 1;
        if path.exists() {
            file.set_modified(modified).expect("a file");
        }
    }
    damaged
}

/// Bytes of the files whose names begin like this.
fn size_of(data: &Path, name: &str) -> u64 {
    let is_named =
        |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    files(data)
        .iter()
        .filter(|path| is_named(path))
        .filter_map(|path| fs::metadata(path).ok())
        .map(|m| m.len())
        .sum()
}

struct Folders {
    dir: tempfile::TempDir,
    grpc: SocketAddr,
}

impl Folders {
    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn start(&self) -> Process {
        let bucket = self.dir.path().join("bucket");
        let flags = [
            format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", bucket.display()),
            format!("--data-dir={}", self.data().display()),
            format!("--grpc-address={}", self.grpc),
            format!("--store.index-header-disk-limit={HEADER_LIMIT}"),
            format!("--store.page-cache-disk-limit={PAGE_LIMIT}"),
            // A small cache in memory, so that the files are used.
            "--index-cache-size=100000".to_owned(),
        ];
        role(self.dir.path(), "store", &flags, free_port())
    }
}

#[test]
fn a_store_that_is_killed_under_load_and_finds_its_data_folder_damaged_gives_whole_answers() {
    let (restarts, seed) = (number("ISTHMUS_CASES", 12), number("ISTHMUS_SEED", 1));
    let folders = Folders { dir: tempfile::tempdir().expect("a temporary folder"), grpc: free_port() };
    write_blocks(&folders.dir.path().join("bucket"));
    let runtime = Runtime::new().expect("a runtime");
    let _entered = runtime.enter();
    let mut process = folders.start();
    let client = StoreClient::new("store", mesh::direct(&folders.grpc.to_string()).expect("an address"));
    let expected = Arc::new(whole_answers(&runtime, &client));
    let load = Load::start(&runtime, &client, &expected);
    let mut random = seed;
    let mut below = move |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let (mut damaged, mut largest) = (0, (0, 0));
    for restart in 0..restarts {
        // In one of three starts, the store is killed while it starts.
        if restart % 3 != 2 {
            std::thread::sleep(Duration::from_millis(below(300)));
        }
        process.kill();
        damaged += damage(&folders.data(), &mut below);
        process = folders.start();
        for (at, request) in requests().into_iter().enumerate() {
            let (found, warnings) = runtime.block_on(ask(&client, request)).unwrap_or_else(|error| {
                panic!("seed {seed}, restart {restart}: {error}\n{}", process.output())
            });
            assert!(warnings.is_empty(), "seed {seed}, restart {restart}: {warnings:?}");
            assert!(found == expected[at], "seed {seed}, restart {restart}: {} series", found.len());
        }
        let (headers, pages) = (size_of(&folders.data(), "index-header"), size_of(&folders.data(), "pages"));
        largest = (largest.0.max(headers), largest.1.max(pages));
        assert!(
            headers <= HEADER_LIMIT && pages <= PAGE_LIMIT,
            "seed {seed}, restart {restart}: {headers}, {pages}"
        );
    }
    let (whole, failed) = load.finish(&runtime);
    let all: u64 =
        files(&folders.data()).iter().filter_map(|path| fs::metadata(path).ok()).map(|m| m.len()).sum();
    println!(
        "seed {seed}: {restarts} restarts, {damaged} files damaged, {whole} whole answers, {failed} requests failed while the \
         store was down; at most {} bytes of headers and {} of pages, {all} in all at the end",
        largest.0, largest.1
    );
    assert!(whole > 0 && damaged > 0 && largest.0 > HEADER_LIMIT / 2);
    assert!(all < HEADER_LIMIT + PAGE_LIMIT + 100_000, "{all} bytes: {:?}", files(&folders.data()));
}
