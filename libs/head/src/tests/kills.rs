//! A process that appends under load is killed at random.
//!
//! `ISTHMUS_KILLS` sets how often: 20 times by default.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use model::{TimeRange, Timestamp};

use crate::tests::prometheus::{Floats, dumped, floats_of, is_installed};
use crate::tests::{AllSamples, Random, add_block, at, labels, samples_of};
use crate::{Database, DatabaseOptions};

/// The folder of the child process.
const FOLDER: &str = "ISTHMUS_KILLED_FOLDER";

const BEGIN: i64 = 1_699_992_000_000;
const SERIES: i64 = 40;
const STEP: i64 = 1_000;
/// Steps until a late sample arrives.
const LATE: i64 = 25;

fn options() -> DatabaseOptions {
    DatabaseOptions {
        block_range: Duration::from_secs(600),
        out_of_order_window: Duration::from_secs(300),
        ..DatabaseOptions::default()
    }
}

/// Whether a sample arrives late.
fn is_late(step: i64, n: i64) -> bool {
    (step * 31 + n * 17) % 5 == 0 && step > 0
}

fn value(step: i64, n: i64) -> f64 {
    ((step * 7 + n * 13) % 1_000) as f64 / 3.0
}

/// Series come and go.
fn series(step: i64, n: i64) -> model::Labels {
    labels(&[("__name__", "m"), ("n", &n.to_string()), ("run", &((step + n * 29) / 900).to_string())])
}

fn time(step: i64) -> Timestamp {
    at(BEGIN + step * STEP)
}

/// The samples of a step: those that are in order, and the late ones of an earlier step.
fn samples_of_step(step: i64) -> Vec<(i64, i64)> {
    let in_order = (0..SERIES).filter(|n| !is_late(step, *n)).map(|n| (step, n));
    let late = (0..SERIES).filter(|n| step >= LATE && is_late(step - LATE, *n)).map(|n| (step - LATE, n));
    in_order.chain(late).collect()
}

/// Appends until it is killed, and prints each step that is on the disk.
#[test]
#[ignore = "the child process of the test below"]
fn appends_until_it_is_killed() {
    let Some(dir) = std::env::var_os(FOLDER) else { return };
    let (database, opened) = Database::open(Path::new(&dir), options()).unwrap();
    assert!(opened.damaged.is_empty() && opened.replay.damaged_records == 0, "{opened:?}");
    // The head always has the last samples.
    let newest = database.head().stats().times.map(|times| times.max.as_millis());
    // The last step may have been written in part: it is written again, and samples that are known are ignored.
    let first = newest.map_or(0, |newest| (newest - BEGIN) / STEP);
    for step in first.. {
        let mut appender = database.head().appender();
        for (of, n) in samples_of_step(step) {
            let handle = database.head().series(&series(of, n));
            let appended = appender.append_float(&handle, time(of), at(0), value(of, n));
            assert!(appended.is_ok() || step <= first, "step {step}: {appended:?}");
        }
        let committed = appender.commit().unwrap();
        assert!(committed.refused == 0 || step <= first, "step {step}: {committed:?}");
        if step % 5 == 4 {
            database.head().sync().unwrap();
            println!("synced {step}");
        }
        if step % 100 == 99 {
            database.maintain(time(step)).unwrap();
        }
    }
}

/// All samples of a data folder. A sample that is there twice is an error.
fn samples(database: &Database) -> Floats {
    let mut found = AllSamples::new();
    let blocks = database.blocks(TimeRange::ALL);
    for block in &blocks {
        add_block(&block.dir, &mut found);
    }
    let mut out = floats_of(&found);
    for (series, samples) in floats_of(&samples_of(database.head(), TimeRange::ALL)) {
        let own = out.entry(series.clone()).or_default();
        for (time, bits) in samples {
            assert_eq!(own.insert(time, bits), None, "{series} at {time} twice");
        }
    }
    out
}

#[test]
fn no_synced_sample_is_lost_or_doubled_by_kills() {
    let kills = std::env::var("ISTHMUS_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let random = &mut Random::seeded(11);
    let dir = tempfile::tempdir().unwrap();
    let mut synced = 0;
    for kill in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::kills::appends_until_it_is_killed", "--ignored", "--nocapture"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        // A number of synced steps, then some time within the next ones.
        let steps = 1 + random.below(60);
        let mut seen = lines.by_ref().filter_map(|line| line.strip_prefix("synced ")?.parse::<i64>().ok());
        let reached = seen.by_ref().take(steps).last();
        let begin = Instant::now();
        let pause = Duration::from_micros(random.below(8_000) as u64);
        while begin.elapsed() < pause {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        let last = seen.last().max(reached);
        let output = child.wait_with_output().unwrap();
        let Some(last) = last else { panic!("kill {kill}: {}", String::from_utf8_lossy(&output.stderr)) };
        synced = synced.max(last);
        check(dir.path(), synced, kill);
    }
    let blocks = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().join("meta.json").exists()));
    assert!(blocks.count() > 3 || kills < 20, "too few blocks");
}

/// What the folder must have after a kill, and that a Prometheus reads it.
fn check(dir: &Path, synced: i64, kill: usize) {
    let (database, opened) = Database::open(dir, options()).unwrap();
    let replay = &opened.replay;
    assert_eq!(
        (replay.damaged_records, replay.without_series, opened.damaged.len()),
        (0, 0, 0),
        "kill {kill}"
    );
    let found = samples(&database);
    drop(database);
    let mut expected: BTreeMap<(String, i64), u64> = BTreeMap::new();
    for step in 0..=synced {
        for (of, n) in samples_of_step(step) {
            expected.insert((series(of, n).to_string(), time(of).as_millis()), value(of, n).to_bits());
        }
    }
    for ((series, time), bits) in &expected {
        let own = found.get(series).and_then(|samples| samples.get(time));
        assert_eq!(own, Some(bits), "kill {kill}: {series} at {time}, synced {synced}");
    }
    // What was not synced may be there, with the right value.
    for (series_text, samples) in &found {
        for (time, bits) in samples {
            let step = (time - BEGIN) / STEP;
            if expected.contains_key(&(series_text.clone(), *time)) {
                continue;
            }
            let is_right =
                |n| series(step, n).to_string() == *series_text && value(step, n).to_bits() == *bits;
            assert!(
                step > synced - LATE && (0..SERIES).any(is_right),
                "kill {kill}: {series_text} at {time}"
            );
        }
    }
    if kill.is_multiple_of(5) && is_installed("promtool") {
        // It takes the end of the last block for the begin of the head, also if the block has late samples only.
        let theirs = dumped(dir);
        let same = |(series, samples): (&String, &BTreeMap<i64, u64>)| {
            samples.iter().all(|(time, bits)| found[series].get(time) == Some(bits))
        };
        assert!(!theirs.is_empty() && theirs.iter().all(same), "kill {kill}");
    }
}
