//! The compactor over real blocks: random worlds against a list of all samples, kills at every request, several compactors, damage.

mod answers;
mod clocks;
mod damage;
mod deletions;
mod faults;
mod housekeeping;
mod merges;
mod random;
mod readers;
mod simulation;
mod uploads;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bucket::{
    Bucket, FetchMetrics, FetchOptions, Fetcher, Leases, OpenBlockOptions, PublishOptions, Retry, layout,
    publish,
};
use clap::Parser;
use model::{Labels, TimeRange, Timestamp};
use object_store::memory::InMemory;
use series::{ChunkSample, decode_chunk, encode_chunks};
use tsdb::{BlockMeta, BlockOptions, BlockWriter, ThanosMeta, Ulid};

use crate::clock::Clock;
use crate::config::{CompactArgs, WorkConfig};
use crate::group::{GroupKey, resolution};
use crate::history::History;
use crate::index::IndexKeeper;
use crate::job::Workshop;
use crate::metrics::CompactorMetrics;
use crate::progress::Progress;
use crate::view::CompactorView;
use crate::worker::BucketWorker;

#[derive(Parser)]
struct CompactCommand {
    #[command(flatten)]
    args: CompactArgs,
}

/// A temporary folder, in memory where that is possible: blocks are flushed to disk, which is most of the time of a small one.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// How tests retry: not at all, so that a request that fails ends a job.
const ONCE: Retry = Retry { attempts: 1, delay: Duration::from_millis(1) };

/// The configuration that these flags give. Simulations start thousands of compactors with few different ones.
fn work_config(flags: &[&str]) -> Arc<WorkConfig> {
    static KNOWN: Mutex<BTreeMap<Vec<String>, Arc<WorkConfig>>> = Mutex::new(BTreeMap::new());
    let key: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    if let Some(known) = KNOWN.lock().unwrap().get(&key) {
        return Arc::clone(known);
    }
    let all =
        ["compact", "--objstore.config={type: FILESYSTEM, config: {directory: /}}", "--consistency-delay=0s"];
    let args = CompactCommand::try_parse_from(all.iter().chain(flags))
        .unwrap_or_else(|error| panic!("{error}"))
        .args;
    let work = Arc::new(args.check().unwrap_or_else(|mistakes| panic!("{mistakes:?}")).work);
    KNOWN.lock().unwrap().insert(key, Arc::clone(&work));
    work
}

/// A worker on `bucket` with these flags. Its unfinished blocks are in `dir`.
fn worker(bucket: &Bucket, dir: &Path, name: &str, flags: &[&str]) -> BucketWorker {
    let work = work_config(flags);
    let fetch = FetchOptions { retry: ONCE, ..work.fetch.clone() };
    BucketWorker {
        name: "test".to_owned(),
        bucket: bucket.clone(),
        required: Labels::empty(),
        fetcher: Arc::new(Fetcher::new(bucket.clone(), fetch, FetchMetrics::default()).unwrap()),
        workshop: Workshop {
            bucket: bucket.clone(),
            dir: dir.join(name),
            retry: ONCE,
            rule: work.rule,
            file_concurrency: 1,
            stop: Arc::new(AtomicBool::new(false)),
            clock: Clock::system(),
        },
        leases: Leases::new(bucket, name, Duration::from_secs(60)),
        settings: Arc::new(work.settings.clone()),
        history: History::new(None),
        metrics: CompactorMetrics::default(),
        progress: Progress::default(),
        index: IndexKeeper::new(bucket, name, ONCE),
        quarantine: Arc::new(Mutex::new(BTreeMap::new())),
    }
}

fn memory_bucket() -> Bucket {
    Bucket::new(Arc::new(InMemory::new()))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

/// Uploads a block with these series of a producer with these external labels.
async fn upload(
    bucket: &Bucket,
    id: Ulid,
    external: &[(&str, &str)],
    times: (i64, i64),
    series: &[(Labels, Vec<ChunkSample>)],
) -> BlockMeta {
    let dir = scratch();
    let mut thanos = ThanosMeta { source: "sidecar".to_owned(), ..ThanosMeta::default() };
    thanos.labels = external.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let options = BlockOptions {
        times: Some((Timestamp::from_millis(times.0), Timestamp::from_millis(times.1))),
        thanos: Some(thanos),
        ..BlockOptions::new(id)
    };
    let mut writer = BlockWriter::create(dir.path(), options).unwrap();
    for (labels, samples) in series {
        writer.add_series(labels, encode_chunks(samples).unwrap()).unwrap();
    }
    let meta = writer.finish().unwrap();
    let options = PublishOptions { retry: ONCE, ..PublishOptions::default() };
    publish(bucket, &dir.path().join(meta.ulid.to_string()), meta, &options).await.unwrap().meta
}

/// The blocks that readers use: whole, not marked, not covered.
async fn live(worker: &BucketWorker) -> CompactorView {
    let options = FetchOptions { gather: bucket::marks::MarkKind::ALL.to_vec(), ..FetchOptions::default() };
    let fetcher = Fetcher::new(worker.bucket.clone(), options, FetchMetrics::default()).unwrap();
    CompactorView::fetch(
        &fetcher,
        &Labels::empty(),
        &worker.settings.replica_labels,
        worker.workshop.clock.now(),
    )
    .await
    .unwrap()
}

/// All samples of a block by series, decoded one by one.
async fn samples_of(bucket: &Bucket, id: Ulid) -> Vec<(Labels, Vec<ChunkSample>)> {
    let remote = bucket.open_block(id, &OpenBlockOptions::default()).await.unwrap();
    tokio::task::spawn_blocking(move || {
        let block = remote.block();
        let mut all = Vec::new();
        for series in block.select(&[], TimeRange::ALL).unwrap() {
            let series = series.unwrap();
            let mut samples = Vec::new();
            for chunk in block.chunks(&series.chunks).unwrap() {
                decode_chunk(&chunk, &mut samples).unwrap();
            }
            all.push((series.labels, samples));
        }
        all
    })
    .await
    .unwrap()
}

/// A series of a group.
type SeriesKey = (GroupKey, Labels);

/// All raw samples that readers see, by group and series; those of overlapping blocks one after the other.
async fn visible(worker: &BucketWorker) -> BTreeMap<SeriesKey, Vec<ChunkSample>> {
    let mut all: BTreeMap<SeriesKey, Vec<ChunkSample>> = BTreeMap::new();
    for meta in live(worker).await.blocks.iter().filter(|meta| resolution(meta) == 0) {
        let key = GroupKey::of(meta, &worker.settings.replica_labels);
        for (labels, samples) in samples_of(&worker.bucket, meta.ulid).await {
            all.entry((key.clone(), labels)).or_default().extend(samples);
        }
    }
    all.values_mut().for_each(|samples| samples.sort_by_key(|sample| sample.at));
    all
}

/// Names of all objects of blocks with the hash of their content, without `meta.json`, which has the time of upload, and marks.
async fn content(bucket: &Bucket) -> BTreeMap<String, u64> {
    let mut content = BTreeMap::new();
    for object in bucket.list_all("").await.unwrap() {
        let Some((_, file)) = layout::split(&object.name) else { continue };
        if !file.ends_with(".json") {
            content.insert(
                object.name.clone(),
                xxhash_rust::xxh64::xxh64(&bucket.get(&object.name).await.unwrap(), 0),
            );
        }
    }
    content
}
