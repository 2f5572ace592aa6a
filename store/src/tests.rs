//! The store over real blocks in a bucket: the acceptance suite, random blocks against a slow oracle, faults, and a bucket that
//! changes.

mod blocks;
mod compacted;
mod deletions;
mod disk;
mod faults;
mod hinted;
mod living;
mod oracle;
mod outage;
mod readers;
mod required;
mod scattered;
mod servers;
mod shared;
mod syncing;
mod thanos_blocks;

use std::path::Path;
use std::sync::Arc;

use bucket::{Bucket, Retry};
use clap::Parser;
use model::{Labels, Matcher, Sample, TimeRange, Timestamp};
use runtime::{Probes, Registry, Shutdown};
use series::{AggrChunk, Series};
use storeapi::acceptance::{self, Dataset};
use storeapi::{SeriesRequest, Store, StoreError, collect_series};
use tempfile::TempDir;
use tsdb::{BlockMeta, BlockOptions, BlockWriter, Ulid};

use crate::component::{Assembled, assemble};
use crate::config::{Config, StoreArgs};
use crate::store::BucketStore;
use crate::sync::CatalogHandle;
use bucket::DataFolder;

#[derive(Parser)]
struct StoreCommand {
    #[command(flatten)]
    args: StoreArgs,
}

/// A store over a bucket, without servers.
struct TestStore {
    store: Arc<BucketStore>,
    catalog: CatalogHandle,
    blocks: Arc<crate::blocks::Blocks>,
    probes: Probes,
    shutdown: Shutdown,
    registry: Registry,
    syncing: Option<std::thread::JoinHandle<()>>,
}

impl Drop for TestStore {
    fn drop(&mut self) {
        self.shutdown.trigger();
        // The folder of the store is unlocked when the sync has ended.
        drop(self.syncing.take().map(std::thread::JoinHandle::join));
    }
}

impl TestStore {
    /// The value of a metric without labels, as it is scraped.
    fn metric(&self, name: &str) -> f64 {
        metric(&self.registry, name)
    }
}

fn metric(registry: &Registry, name: &str) -> f64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not in\n{text}"))
}

fn config(flags: &[&str]) -> Config {
    config_of("{type: FILESYSTEM, config: {directory: /}}", flags)
}

/// The configuration of a store of these buckets.
fn config_of(buckets: &str, flags: &[&str]) -> Config {
    let buckets = format!("--objstore.config={buckets}");
    let all = ["store", &buckets];
    let args =
        StoreCommand::try_parse_from(all.iter().chain(flags)).unwrap_or_else(|error| panic!("{error}")).args;
    args.check().unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

/// A store of `bucket` that has synced once.
async fn serve(bucket: &Bucket, data_dir: &Path, flags: &[&str]) -> TestStore {
    serve_all(config(flags), std::slice::from_ref(bucket), data_dir).await
}

/// A store of several buckets that has synced once.
async fn serve_all(config: Config, buckets: &[Bucket], data_dir: &Path) -> TestStore {
    let retry = Retry { attempts: 3, delay: std::time::Duration::from_millis(1) };
    let folder = DataFolder::open(data_dir, "store").unwrap();
    let mut registry = Registry::default();
    let assembled = assemble(&Config { retry, ..config }, buckets, &folder, &mut registry);
    let Assembled { store, syncer, api } = assembled.unwrap_or_else(|error| panic!("{error}"));
    let (probes, shutdown) = (Probes::new(), Shutdown::new());
    let (handle, running) = (tokio::runtime::Handle::current(), (probes.clone(), shutdown.clone()));
    let syncing = std::thread::spawn(move || {
        handle.block_on(syncer.run(running.0, running.1));
        drop(folder);
    });
    let ready = tokio::time::timeout(std::time::Duration::from_secs(30), probes.wait_until(|h| h.is_ready()));
    ready.await.expect("the store is ready after its first sync");
    TestStore {
        store: Arc::new(store),
        catalog: api.catalog,
        blocks: api.blocks,
        probes,
        shutdown,
        registry,
        syncing: Some(syncing),
    }
}

/// The bucket in a local folder.
fn local(dir: &Path) -> Bucket {
    let store = object_store::local::LocalFileSystem::new_with_prefix(dir).unwrap();
    Bucket::new(Arc::new(store))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn thanos(external: &Labels, resolution_millis: i64) -> tsdb::ThanosMeta {
    tsdb::ThanosMeta {
        labels: external.iter().map(|label| (label.name.to_owned(), label.value.to_owned())).collect(),
        downsample: tsdb::Downsample { resolution_millis },
        source: "test".to_owned(),
        ..tsdb::ThanosMeta::default()
    }
}

/// Writes a block of these series, in any order, into a bucket in a local folder.
fn write_block(dir: &Path, id: Ulid, external: &Labels, series: &[(Labels, Vec<Sample>)]) -> BlockMeta {
    let options = BlockOptions { thanos: Some(thanos(external, 0)), ..BlockOptions::new(id) };
    let mut writer = BlockWriter::create(dir, options).unwrap();
    let mut sorted: Vec<&(Labels, Vec<Sample>)> = series.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (labels, samples) in sorted {
        let chunks = AggrChunk::from_floats(samples).unwrap();
        let chunks: Vec<tsdb::Chunk> = chunks.into_iter().filter_map(|chunk| chunk.raw).collect();
        writer.add_series(labels, chunks).unwrap();
    }
    writer.finish().unwrap()
}

fn millis(range: (i64, i64)) -> TimeRange {
    TimeRange::new(Timestamp::from_millis(range.0), Timestamp::from_millis(range.1))
}

async fn ask(store: &BucketStore, request: SeriesRequest) -> Result<(Vec<Series>, Vec<String>), StoreError> {
    collect_series(store.series(request).await?).await
}

/// All float samples of a series in order of time, each once.
fn samples(series: &Series) -> Vec<Sample> {
    let mut all: Vec<(i64, u64)> = Vec::new();
    for chunk in series.chunks.iter().filter_map(|chunk| chunk.raw.as_ref()) {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        chunk.decode_floats(&mut times, &mut values).unwrap();
        all.extend(times.into_iter().zip(values.into_iter().map(f64::to_bits)));
    }
    all.sort_unstable();
    all.dedup();
    all.into_iter().map(|(at, bits)| Sample::new(at, f64::from_bits(bits))).collect()
}

/// Splits the samples of a data set into blocks of two hours, as a Prometheus would.
fn two_hour_blocks(dir: &Path, dataset: &Dataset) {
    const RANGE: i64 = 2 * 3_600_000;
    let times = dataset.series.iter().flat_map(|(_, samples)| samples).map(|s| s.timestamp.as_millis());
    let (first, last) = times.fold((i64::MAX, i64::MIN), |(a, b), at| (a.min(at), b.max(at)));
    if first > last {
        return;
    }
    let starts = (first.div_euclid(RANGE)..=last.div_euclid(RANGE)).map(|n| n * RANGE);
    for (number, start) in (1..).zip(starts) {
        let part = |samples: &[Sample]| -> Vec<Sample> {
            samples
                .iter()
                .filter(|s| (start..start + RANGE).contains(&s.timestamp.as_millis()))
                .copied()
                .collect()
        };
        let series: Vec<(Labels, Vec<Sample>)> = dataset
            .series
            .iter()
            .map(|(labels, samples)| (labels.clone(), part(samples)))
            .filter(|(_, samples)| !samples.is_empty())
            .collect();
        write_block(dir, Ulid::from_parts(1_700_000_000_000 + number, 1), &dataset.external, &series);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_passes_the_acceptance_suite() {
    acceptance::run(|dataset| async move {
        let (bucket_dir, data_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        two_hour_blocks(bucket_dir.path(), &dataset);
        let served = serve(&local(bucket_dir.path()), data_dir.path(), &[]).await;
        let store: Arc<dyn Store> = served.store.clone();
        (store, (served, bucket_dir, data_dir))
    })
    .await;
}

fn dirs() -> (TempDir, TempDir) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
}

fn any() -> Vec<Matcher> {
    vec![Matcher::new(model::MatchOp::Regex, "__name__", ".+").unwrap()]
}
