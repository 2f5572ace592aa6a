//! Data folders as stores.

mod lists;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use head::{Database, DatabaseOptions};
use model::{Labels, MatchOp, Matcher, Sample, TimeRange, Timestamp};
use storeapi::acceptance::{self, Dataset, INTERVAL_MILLIS, SAMPLES, START_MILLIS};
use storeapi::{
    Apis, Code, LabelNamesRequest, LabelValuesRequest, PartialResponse, SeriesFrame, SeriesRequest, Store,
    collect_series,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tsdb::{INDEX_FILE, META_FILE, TOMBSTONES_FILE, Tombstones};

use crate::{LocalData, LocalStore, LocalStoreOptions, NoLists};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn options(range: u64) -> DatabaseOptions {
    DatabaseOptions { block_range: Duration::from_secs(range), ..DatabaseOptions::default() }
}

/// A folder whose blocks have this range.
fn open(dir: &Path, range: u64) -> Arc<Database> {
    Arc::new(Database::open(dir, options(range)).unwrap().0)
}

fn append(database: &Database, series: &Labels, samples: &[Sample]) {
    let mut appender = database.head().appender();
    let handle = database.head().series(series);
    for sample in samples {
        appender.append_float(&handle, sample.timestamp, Timestamp::EPOCH, sample.value).unwrap();
    }
    assert_eq!(appender.commit().unwrap().added, samples.len());
}

/// Appends all samples in order of time, and maintains the database now and then.
fn fill(database: &Database, dataset: &Dataset) {
    for part in (0..SAMPLES).step_by(20) {
        for (labels, samples) in &dataset.series {
            append(database, labels, &samples[part..(part + 20).min(SAMPLES)]);
        }
        database.maintain(at(START_MILLIS + part as i64 * INTERVAL_MILLIS)).unwrap();
    }
}

fn serve_from(data: LocalData, external: &Labels, from: Timestamp) -> LocalStore {
    let options = LocalStoreOptions {
        component: "scraper",
        external: watch::channel(external.clone()).1,
        serve_from: watch::channel(from).1,
        apis: Apis { targets: true, ..Apis::default() },
    };
    LocalStore::new(data, options, Arc::new(NoLists))
}

fn serve(database: &Arc<Database>, external: &Labels) -> LocalStore {
    let data = LocalData::new();
    data.opened(Arc::clone(database), &[]);
    serve_from(data, external, Timestamp::MIN)
}

async fn ask(store: &LocalStore, request: SeriesRequest) -> (Vec<series::Series>, Vec<String>) {
    collect_series(store.series(request).await.unwrap()).await.unwrap()
}

fn all() -> SeriesRequest {
    SeriesRequest::new(TimeRange::ALL, vec![Matcher::new(MatchOp::Regex, "__name__", ".+").unwrap()])
}

fn samples(series: &series::Series) -> Vec<Sample> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for chunk in &series.chunks {
        chunk.raw.as_ref().unwrap().decode_floats(&mut times, &mut values).unwrap();
    }
    times.iter().zip(values).map(|(time, value)| Sample::new(*time, value)).collect()
}

/// The answer has each sample of the data set once, in order.
fn check_whole(series: &[series::Series], dataset: &Dataset, external: &Labels) {
    assert_eq!(series.len(), dataset.series.len());
    for (labels, expected) in &dataset.series {
        let labels = labels.extended(external);
        let found = series.iter().find(|series| series.labels == labels).unwrap();
        assert!(samples(found) == *expected, "{labels}: {} samples", samples(found).len());
    }
}

#[tokio::test]
async fn head_and_blocks_pass_the_store_acceptance_suite() {
    // All in the head; in blocks and the head; and the same without samples of the head.
    for (range, blocks) in [(7_200, 0), (1_800, 1), (600, 6)] {
        acceptance::run(|dataset| async move {
            let dir = TempDir::new().unwrap();
            let mut database = open(dir.path(), range);
            if !dataset.series.is_empty() {
                fill(&database, &dataset);
                assert_eq!(database.blocks(TimeRange::ALL).len(), blocks);
                drop(database);
                database = open(dir.path(), range);
            }
            let store: Arc<dyn Store> = Arc::new(serve(&database, &dataset.external));
            (store, dir)
        })
        .await;
    }
}

#[tokio::test]
async fn queries_over_a_folder_alone_have_no_external_labels() {
    let dir = TempDir::new().unwrap();
    let (database, dataset) = (open(dir.path(), 1_800), acceptance::dataset());
    fill(&database, &dataset);
    let data = LocalData::new();
    data.opened(database, &[]);
    let store = serve_from(data, &dataset.external, at(START_MILLIS + 1)).for_queries();
    let (series, warnings) = ask(&store, all()).await;
    assert!(warnings.is_empty());
    check_whole(&series, &dataset, &Labels::empty());
    let producers = series.iter().flat_map(|series| series.chunks.iter().map(|chunk| chunk.producer));
    assert!(
        producers.into_iter().all(|producer| producer.is_some()),
        "its chunks are not replicas of each other"
    );
    let info = store.info().await.unwrap();
    assert!(info.label_sets.is_empty());
    assert_eq!((info.range.min, info.range.max), (at(START_MILLIS), Timestamp::MAX));
}

#[tokio::test]
async fn samples_before_serve_from_are_left_to_the_stores_of_the_bucket() {
    let dir = TempDir::new().unwrap();
    let (database, dataset) = (open(dir.path(), 1_800), acceptance::dataset());
    fill(&database, &dataset);
    let data = LocalData::new();
    data.opened(database, &[]);
    let from = at(START_MILLIS + 1_800_000);
    let store = serve_from(data, &dataset.external, from);
    assert_eq!(store.info().await.unwrap().range.min, from);
    let (series, _) = ask(&store, all()).await;
    let first = series.iter().map(|series| samples(series)[0].timestamp).min().unwrap();
    assert_eq!(first, from);
}

#[tokio::test]
async fn an_answer_is_complete_while_blocks_are_cut() {
    let dir = TempDir::new().unwrap();
    let database = open(dir.path(), 1_800);
    let external = labels(&[("cluster", "eu-1")]);
    let many: Vec<(Labels, Vec<Sample>)> = (0..400)
        .map(|n| {
            let samples = (0..SAMPLES).map(|i| Sample::new(START_MILLIS + i as i64 * 15_000, (n * i) as f64));
            (labels(&[("__name__", "m"), ("n", &format!("{n:03}"))]), samples.collect())
        })
        .collect();
    let dataset = Dataset { external: external.clone(), series: many };
    for part in (0..SAMPLES).step_by(50) {
        for (labels, samples) in &dataset.series {
            append(&database, labels, &samples[part..part + 50]);
        }
    }
    let store = serve(&database, &external);
    let mut early = store.series(all()).await.unwrap();
    let SeriesFrame::Series(mut series) = early.next().await.unwrap().unwrap() else { panic!("series") };
    assert!(series.len() < 400, "the answer has several frames");
    let cut = database.maintain(at(START_MILLIS)).unwrap().cut;
    assert_eq!(cut.len(), 1);
    let (late, _) = ask(&store, all()).await;
    check_whole(&late, &dataset, &external);
    while let Some(frame) = early.next().await {
        let SeriesFrame::Series(more) = frame.unwrap() else { panic!("no warnings") };
        series.extend(more);
    }
    check_whole(&series, &dataset, &external);

    println!("an answer that takes too long ends with an error");
    let mut slow = store.series(all()).await.unwrap();
    slow.next().await.unwrap().unwrap();
    for (labels, _) in &dataset.series {
        append(&database, labels, &[Sample::new(START_MILLIS + 7_200_000, 1.0)]);
    }
    database.maintain(at(START_MILLIS)).unwrap();
    database.maintain(at(START_MILLIS + 121_000)).unwrap();
    let error = loop {
        match slow.next().await.expect("an error before the end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.is_retryable() && error.message().contains("ask again"), "{error}");
}

#[tokio::test]
async fn damage_is_reported_and_costs_what_is_damaged() {
    let dir = TempDir::new().unwrap();
    let dataset = acceptance::dataset();
    let database = open(dir.path(), 600);
    fill(&database, &dataset);
    let blocks = database.blocks(TimeRange::ALL);
    drop(database);
    // One block loses its index, and one a byte of a chunk.
    fs::write(blocks[0].dir.join(INDEX_FILE), b"damaged").unwrap();
    let segment = blocks[2].dir.join("chunks/000001");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[30] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let (lost, id) = (blocks[0].block.meta().ulid.to_string(), blocks[2].block.meta().ulid.to_string());
    drop(blocks);
    let (database, opened) = Database::open(dir.path(), options(600)).unwrap();
    let data = LocalData::new();
    data.opened(Arc::new(database), &opened.damaged);
    let store = serve_from(data, &dataset.external, Timestamp::MIN);
    let (series, warnings) = ask(&store, all()).await;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings.iter().any(|w| w.contains(&lost)) && warnings.iter().any(|w| w.contains(&id)),
        "{warnings:?}"
    );
    let count: usize = series.iter().map(|series| samples(series).len()).sum();
    let (block, chunk) = (dataset.series.len() * 40, 40);
    assert_eq!(count, dataset.series.len() * SAMPLES - block - chunk);

    let mut strict = all();
    strict.partial_response = PartialResponse::Abort;
    let error = collect_series(store.series(strict).await.unwrap()).await.unwrap_err();
    assert_eq!(error.code(), Code::Aborted);
    let mut names = LabelNamesRequest::new(TimeRange::ALL, Vec::new());
    assert_eq!(store.label_names(names.clone()).await.unwrap().warnings.len(), 1);
    names.partial_response = PartialResponse::Abort;
    assert_eq!(store.label_names(names).await.unwrap_err().code(), Code::Aborted);
    // The block that is lost ends before.
    let values = LabelValuesRequest::new("job", TimeRange::new(Timestamp::MAX, Timestamp::MAX), Vec::new());
    assert!(store.label_values(values).await.unwrap().warnings.is_empty());
}

#[tokio::test]
async fn deleted_samples_of_a_block_are_not_served() {
    let dir = TempDir::new().unwrap();
    let dataset = acceptance::dataset();
    let database = open(dir.path(), 1_800);
    fill(&database, &dataset);
    let block = Arc::clone(&database.blocks(TimeRange::ALL)[0]);
    drop(database);
    let up = [Matcher::equal("__name__", "up")];
    let found = block.block.select(&up, TimeRange::ALL).unwrap().next().unwrap().unwrap();
    let mut tombstones = Tombstones::default();
    let deleted = TimeRange::new(at(START_MILLIS + 30_000), at(START_MILLIS + 60_000));
    tombstones.delete(found.reference, deleted);
    fs::write(block.dir.join(TOMBSTONES_FILE), tombstones.to_bytes()).unwrap();
    let mut meta = block.block.meta().clone();
    meta.stats.tombstones = 1;
    fs::write(block.dir.join(META_FILE), meta.to_json()).unwrap();
    let (database, opened) = Database::open(dir.path(), options(1_800)).unwrap();
    assert!(opened.damaged.is_empty(), "{:?}", opened.damaged);
    let store = serve(&Arc::new(database), &dataset.external);
    let (series, warnings) = ask(&store, SeriesRequest::new(TimeRange::ALL, up.to_vec())).await;
    assert!(warnings.is_empty(), "{warnings:?}");
    let (_, mut expected) = dataset.series.last().unwrap().clone();
    expected.retain(|sample| !deleted.contains(sample.timestamp));
    assert!(samples(&series[0]) == expected, "{} samples", samples(&series[0]).len());
}

#[tokio::test]
async fn series_that_external_labels_make_equal_are_reported() {
    let dir = TempDir::new().unwrap();
    let database = open(dir.path(), 7_200);
    for cluster in ["a", "b", "c"] {
        let series = labels(&[("__name__", "m"), ("cluster", cluster)]);
        append(&database, &series, &[Sample::new(START_MILLIS, 1.0)]);
    }
    let store = serve(&database, &labels(&[("cluster", "eu-1")]));
    let (series, warnings) = ask(&store, all()).await;
    assert_eq!((series.len(), warnings.len()), (1, 1), "{warnings:?}");
    assert!(warnings[0].starts_with("2 series became equal") && warnings[0].contains("labels cluster,"));
    // A replica label that is removed makes series equal on purpose.
    let mut request = all();
    request.without_replica_labels = vec!["cluster".to_owned()];
    let store = serve(&database, &labels(&[("region", "eu")]));
    let (series, warnings) = ask(&store, request).await;
    assert_eq!(
        (series.len(), series[0].chunks.len(), warnings.len()),
        (1, 1, 0),
        "equal chunks are sent once"
    );
}

#[tokio::test]
async fn requests_fail_until_the_folder_is_open() {
    let store = serve_from(LocalData::new(), &labels(&[("a", "b")]), Timestamp::MIN);
    let errors = [
        store.info().await.map(drop).unwrap_err(),
        store.series(all()).await.map(drop).unwrap_err(),
        store.label_names(LabelNamesRequest::new(TimeRange::ALL, vec![])).await.map(drop).unwrap_err(),
        store.label_values(LabelValuesRequest::new("a", TimeRange::ALL, vec![])).await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.code(), error.is_retryable()), (Code::Unavailable, true));
    }
}
