//! A data folder over days.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::TimeRange;
use tsdb::{BlockOptions, BlockWriter, Compaction, Ulid, XorEncoder};

use crate::tests::{AllSamples, add_block, add_chunks, at, labels};
use crate::{Database, DatabaseOptions, DatabaseView, HeadError};

const HOUR: i64 = 3_600_000;
/// A boundary of blocks.
const BEGIN: i64 = 1_699_992_000_000;

/// Scrapes of ten series every minute.
fn scrape(database: &Database, minutes: std::ops::Range<i64>, all: &mut AllSamples) {
    for minute in minutes {
        let mut appender = database.head().appender();
        for n in 0..10i64 {
            let series = labels(&[("__name__", "m"), ("n", &n.to_string())]);
            let (time, value) = (BEGIN + minute * 60_000 + n, (minute * n) as f64);
            appender.append_float(&database.head().series(&series), at(time), at(0), value).unwrap();
            all.entry(series.to_string()).or_default().insert(time, (0, vec![value.to_bits()]));
        }
        appender.commit().unwrap();
        if minute % 20 == 0 {
            database.maintain(at(BEGIN + minute * 60_000)).unwrap();
        }
    }
}

/// All samples: those of the blocks, and those of the head after the last one.
fn samples(database: &Database) -> AllSamples {
    let mut out = AllSamples::new();
    let blocks = database.blocks(TimeRange::ALL);
    blocks.iter().for_each(|block| add_block(&block.dir, &mut out));
    let end = blocks.iter().map(|block| block.block.meta().max_time).max().unwrap_or(at(0));
    for series in database.head().select(&[], TimeRange::new(end, model::Timestamp::MAX)) {
        let series = series.unwrap();
        add_chunks(&series.labels, &series.chunks, &mut out);
    }
    out
}

fn since(all: &AllSamples, begin: i64) -> AllSamples {
    let later =
        |samples: &std::collections::BTreeMap<i64, (i64, Vec<u64>)>| samples.clone().split_off(&begin);
    all.iter().map(|(series, list)| (series.clone(), later(list))).collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn blocks_are_cut_kept_and_removed_over_days() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = AllSamples::new();
    let (database, opened) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    assert!(opened.damaged.is_empty());
    scrape(&database, 0..24 * 60, &mut all);
    // The head keeps up to three hours.
    assert_eq!(database.blocks(TimeRange::ALL).len(), 11);
    assert!(samples(&database) == all);
    drop(database);
    let (database, opened) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    assert!(samples(&database) == all);
    assert!(opened.replay.damaged.is_empty() && opened.replay.without_series == 0, "{opened:?}");
    drop(database);
    // By age: blocks whose last sample is more than ten hours before the end of the newest.
    let options =
        DatabaseOptions { keep_for: Some(Duration::from_secs(10 * 3_600)), ..DatabaseOptions::default() };
    let (database, _) = Database::open(dir.path(), options).unwrap();
    let removed = database.maintain(at(BEGIN)).unwrap().removed;
    assert_eq!((removed.len(), database.blocks(TimeRange::ALL).len()), (5, 6));
    assert!(samples(&database) == since(&all, BEGIN + 10 * HOUR));
    let size: u64 = database.blocks(TimeRange::ALL).iter().map(|block| block.bytes).sum();
    drop(database);
    // By size: half of the blocks fit beside the log.
    let options = DatabaseOptions { keep_bytes: Some(size / 2), ..DatabaseOptions::default() };
    let (database, _) = Database::open(dir.path(), options).unwrap();
    let kept = 6 - database.maintain(at(BEGIN)).unwrap().removed.len();
    assert!(kept < 4, "{kept}");
    let begin = database
        .blocks(TimeRange::ALL)
        .first()
        .map_or(BEGIN + 22 * HOUR, |block| block.block.meta().min_time.as_millis());
    assert!(samples(&database) == since(&all, begin));
    // Nothing else is left of them.
    assert_eq!(names(dir.path()).len(), kept + 3, "{:?}", names(dir.path()));
}

#[test]
fn a_damaged_block_stays_and_what_others_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = AllSamples::new();
    let (database, _) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    scrape(&database, 0..8 * 60, &mut all);
    let blocks = database.blocks(TimeRange::ALL);
    assert_eq!(blocks.len(), 3);
    let (first, last) = (blocks[0].dir.clone(), blocks[2].dir.clone());
    let parent = blocks[1].block.meta().ulid;
    drop((blocks, database));
    // Two attempts that were interrupted, a block that replaces another one, and a foreign folder.
    for name in [
        "01HFJ8ZZZZ0000000000000000.tmp-for-creation",
        "01HFJ8ZZZZ0000000000000001.tmp-for-deletion",
        "lost+found",
    ] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let merged = Ulid::from_parts(9, 9);
    let compaction = Compaction {
        level: 2,
        sources: vec![parent],
        parents: vec![tsdb::BlockDesc { ulid: parent, min_time: at(0), max_time: at(1) }],
        ..Compaction::default()
    };
    let options = BlockOptions { compaction: Some(compaction), ..BlockOptions::new(merged) };
    let mut writer = BlockWriter::create(dir.path(), options).unwrap();
    let mut encoder = XorEncoder::new();
    encoder.append(model::Sample::new(BEGIN + 2 * HOUR, 1.0)).unwrap();
    writer.add_series(&labels(&[("__name__", "merged")]), encoder.finish()).unwrap();
    writer.finish().unwrap();
    for damaged in [&first, &last] {
        fs::write(damaged.join("index"), b"damage").unwrap();
    }
    let (database, opened) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    assert_eq!(opened.damaged.len(), 2);
    let found: Vec<Ulid> =
        database.blocks(TimeRange::ALL).iter().map(|block| block.block.meta().ulid).collect();
    assert_eq!(found, [merged]);
    let left = names(dir.path());
    assert!(left.contains("lost+found") && !left.iter().any(|name| name.contains(".tmp-")), "{left:?}");
    assert!(first.exists() && last.exists() && !dir.path().join(parent.to_string()).exists());
    // The head has what comes after the damaged blocks, and what the log still has of them.
    let begin = BEGIN + 6 * HOUR;
    let expected = since(&all, begin);
    let mut found = AllSamples::new();
    for series in database.head().select(&[], TimeRange::new(at(begin), model::Timestamp::MAX)) {
        let series = series.unwrap();
        add_chunks(&series.labels, &series.chunks, &mut found);
    }
    assert!(since(&found, begin) == expected);
}

#[test]
fn a_data_folder_that_is_a_file_or_in_use_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (_database, _) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    assert!(matches!(Database::open(dir.path(), DatabaseOptions::default()), Err(HeadError::Locked(_))));
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(matches!(Database::open(&file, DatabaseOptions::default()), Err(HeadError::File { .. })));
}

/// The samples that a view has: those of its blocks and those of its head.
fn viewed(view: &DatabaseView) -> AllSamples {
    let (mut out, mut head) = (AllSamples::new(), AllSamples::new());
    view.blocks().iter().for_each(|block| add_block(&block.dir, &mut out));
    for series in view.head().find(&[]) {
        assert!(view.head().has_chunks(&series, TimeRange::ALL));
        add_chunks(series.labels(), &view.head().read(&series, TimeRange::ALL).unwrap(), &mut head);
    }
    for (series, samples) in head {
        let of_series = out.entry(series).or_default();
        for (time, sample) in samples {
            let known = of_series.insert(time, sample.clone());
            assert!(known.is_none_or(|known| known == sample), "what a block and the head have is equal");
        }
    }
    out
}

#[test]
fn a_view_has_every_sample_while_blocks_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = AllSamples::new();
    let (database, _) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    let database = Arc::new(database);
    scrape(&database, 0..170, &mut all);
    let (early, before) = (database.view(TimeRange::ALL), all.clone());
    let found = early.head().find(&[]);
    scrape(&database, 170..200, &mut all);
    assert_eq!(database.blocks(TimeRange::ALL).len(), 1, "a block was cut");
    let late = database.view(TimeRange::ALL);
    assert!(early.is_whole() && late.is_whole());
    assert!(viewed(&late) == all);
    assert!(early.blocks().is_empty());
    let mut read = AllSamples::new();
    for series in &found {
        let chunks = early.head().read(series, TimeRange::new(at(0), at(BEGIN + 169 * 60_000 + 30)));
        add_chunks(series.labels(), &chunks.unwrap(), &mut read);
    }
    read.values_mut().for_each(|samples| drop(samples.split_off(&(BEGIN + 170 * 60_000))));
    assert!(read == before);

    println!("the samples are removed when the view is gone");
    drop((early, found));
    let range = |database: &Database| database.head().stats().times.unwrap().min;
    assert_eq!(range(&database), at(BEGIN));
    database.maintain(at(BEGIN + 200 * 60_000)).unwrap();
    assert_eq!(range(&database), at(BEGIN + 2 * HOUR));
    assert!(late.is_whole() && viewed(&late) == all);

    println!("or when it is too old");
    let old = database.view(TimeRange::ALL);
    scrape(&database, 200..301, &mut all);
    assert!(old.is_whole());
    database.maintain(at(BEGIN + 303 * 60_000)).unwrap();
    assert!(!old.is_whole() && !late.is_whole());
    let fresh = database.view(TimeRange::ALL);
    assert!(fresh.is_whole() && viewed(&fresh) == all);
}

#[test]
fn retention_keeps_what_its_user_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = AllSamples::new();
    let options = DatabaseOptions { keep_bytes: Some(1), ..DatabaseOptions::default() };
    let (database, _) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    scrape(&database, 0..8 * 60, &mut all);
    drop(database);
    let (database, _) = Database::open(dir.path(), options).unwrap();
    let ids: Vec<Ulid> =
        database.blocks(TimeRange::ALL).iter().map(|block| block.block.meta().ulid).collect();
    assert_eq!(ids.len(), 3);
    let done = database.maintain_keeping(at(BEGIN), &|id| id == ids[1]).unwrap();
    assert_eq!(done.removed, [ids[0], ids[2]]);
    assert_eq!(database.maintain(at(BEGIN)).unwrap().removed, [ids[1]]);
}

#[test]
fn statistics_name_what_has_most_series() {
    let dir = tempfile::tempdir().unwrap();
    let (database, _) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    scrape(&database, 0..1, &mut AllSamples::new());
    let statistics = database.head().statistics(2);
    assert_eq!(statistics.label_pairs, 11);
    assert_eq!(statistics.series_by_metric, [("m".to_owned(), 10)]);
    assert_eq!(statistics.values_by_label, [("n".to_owned(), 10), ("__name__".to_owned(), 1)]);
    assert_eq!(statistics.bytes_by_label, [("__name__".to_owned(), 90), ("n".to_owned(), 20)]);
    assert_eq!(statistics.series_by_pair, [("__name__=m".to_owned(), 10), ("n=0".to_owned(), 1)]);
}
