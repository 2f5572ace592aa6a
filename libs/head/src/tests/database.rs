//! A data folder over days.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use model::TimeRange;
use tsdb::{BlockOptions, BlockWriter, Compaction, Ulid, XorEncoder};

use crate::tests::{AllSamples, add_block, add_chunks, at, labels};
use crate::{Database, DatabaseOptions, HeadError};

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
