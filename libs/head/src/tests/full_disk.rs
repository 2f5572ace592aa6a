//! Logs that cannot be written: a device that is always full, and a small file system.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use model::TimeRange;

use crate::tests::prometheus::{Floats, dumped, floats_of, is_installed};
use crate::tests::{at, labels, samples_of};
use crate::{Committed, Database, DatabaseOptions, Head, HeadError, HeadOptions};

const BEGIN: i64 = 1_699_992_000_000;
const SERIES: i64 = 20;

/// Appends a scrape, and with `late`, one of a second before.
fn scrape(head: &Head, number: i64, late: bool, all: &mut Floats) -> Result<Committed, HeadError> {
    let mut appender = head.appender();
    let mut batch = Vec::new();
    for n in 0..SERIES {
        // Series come and go.
        let series = labels(&[("__name__", "m"), ("n", &(n + number / 20).to_string())]);
        let (time, value) =
            (BEGIN + number * 15_000 - i64::from(late) * 1_000, (number * n % 7) as f64 / 3.0);
        if appender.append_float(&head.series(&series), at(time), at(0), value).is_ok() {
            batch.push((series.to_string(), time, value.to_bits()));
        }
    }
    let committed = appender.commit()?;
    assert_eq!(committed.refused, 0);
    for (series, time, value) in batch {
        all.entry(series).or_default().insert(time, value);
    }
    Ok(committed)
}

fn floats(head: &Head) -> Floats {
    floats_of(&samples_of(head, TimeRange::ALL))
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

fn options() -> HeadOptions {
    HeadOptions { out_of_order_window: Duration::from_secs(60), ..HeadOptions::default() }
}

#[test]
fn samples_go_on_in_memory_and_are_logged_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = Head::open(dir.path(), options()).unwrap();
    let mut all = Floats::new();
    for number in 0..30 {
        scrape(&head, number, false, &mut all).unwrap();
        scrape(&head, number, number > 0, &mut all).unwrap();
    }
    head.sync().unwrap();
    assert_eq!(head.unlogged(), None);
    let on_disk = all.clone();
    let segment = head.log.lock().unwrap().writer().replace_file(full());
    let late_segment = head.late_log.lock().unwrap().as_mut().unwrap().writer().replace_file(full());
    for number in 30..60 {
        scrape(&head, number, false, &mut all).unwrap();
        scrape(&head, number, true, &mut all).unwrap();
    }
    let unlogged = head.unlogged().unwrap();
    assert_eq!((unlogged.samples, unlogged.refused), (2 * 30 * SERIES as u64, 0));
    assert!(unlogged.problem.contains("os error"), "{unlogged:?}");
    head.sync().unwrap_err();
    assert!(floats(&head) == all);
    // A process that is killed now loses them, and nothing else.
    let copy = copied(dir.path());
    let (other, replay) = Head::open(copy.path(), options()).unwrap();
    assert_eq!((&replay.damaged, replay.damaged_records, replay.without_series), (&vec![], 0, 0));
    // Late samples may be in chunk files, although they are not logged.
    let found = floats(&other);
    assert!(contains(&all, &found) && contains(&found, &on_disk));
    drop(other);
    head.log.lock().unwrap().writer().replace_file(segment);
    head.late_log.lock().unwrap().as_mut().unwrap().writer().replace_file(late_segment);
    head.sync().unwrap();
    assert_eq!(head.unlogged(), None);
    scrape(&head, 60, false, &mut all).unwrap();
    drop(head);
    let (head, replay) = Head::open(dir.path(), options()).unwrap();
    assert_eq!((&replay.damaged, replay.damaged_records, replay.without_series), (&vec![], 0, 0));
    assert!(floats(&head) == all);
    drop(head);
    if is_installed("promtool") {
        assert!(dumped(dir.path()) == all);
    }
}

#[test]
fn batches_over_the_limit_are_refused_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let limited = HeadOptions { most_unlogged_bytes: 5_000, ..options() };
    let (head, _) = Head::open(dir.path(), limited).unwrap();
    let mut all = Floats::new();
    scrape(&head, 0, false, &mut all).unwrap();
    let segment = head.log.lock().unwrap().writer().replace_file(full());
    let mut refused = Vec::new();
    for number in 1..100 {
        refused.extend(scrape(&head, number, false, &mut all).err());
    }
    let accepted = 99 - refused.len() as u64;
    assert!((10..90).contains(&accepted), "{accepted}");
    let unlogged = head.unlogged().unwrap();
    assert_eq!(unlogged.samples, accepted * SERIES as u64);
    assert_eq!(unlogged.refused, refused.len() as u64 * SERIES as u64);
    assert!(unlogged.bytes <= 5_000);
    let error = refused.pop().unwrap().to_string();
    let expected = format!(
        "; {} samples are only in memory, the limit of 5000 bytes is reached; free space on the disk",
        unlogged.samples
    );
    assert!(error.starts_with(&dir.path().join("wal").display().to_string()), "{error}");
    assert!(error.ends_with(&expected), "{error}");
    assert!(floats(&head) == all, "a refused batch left samples");
    head.log.lock().unwrap().writer().replace_file(segment);
    scrape(&head, 100, false, &mut all).unwrap();
    assert_eq!(head.unlogged(), None);
    drop(head);
    let (head, replay) = Head::open(dir.path(), limited).unwrap();
    assert_eq!((replay.without_series, replay.damaged.len()), (0, 0));
    assert!(floats(&head) == all);
}

/// Whether all samples of `part` are in `whole`.
fn contains(whole: &Floats, part: &Floats) -> bool {
    part.iter().all(|(series, samples)| {
        whole.get(series).is_some_and(|own| samples.iter().all(|(time, bits)| own.get(time) == Some(bits)))
    })
}

fn copied(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let copied = Command::new("cp").arg("-r").arg(dir.join(".")).arg(copy.path()).status().unwrap();
    assert!(copied.success());
    copy
}

/// A small file system; `None`, with a printed line, if mounting is not permitted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(dir: &Path) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir.to_owned()));
        }
        println!("skipped: no file system can be mounted here");
        None
    }

    fn grow(&self) {
        let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&self.0).status();
        assert!(grown.is_ok_and(|status| status.success()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_disk_that_is_full_for_hours_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let Some(disk) = SmallDisk::mount(&path) else { return };
    let options =
        DatabaseOptions { out_of_order_window: Duration::from_secs(60), ..DatabaseOptions::default() };
    let (database, _) = Database::open(&path, options).unwrap();
    let mut all = Floats::new();
    let (mut failed, mut full_since) = (0, None);
    for number in 0..5_000 {
        scrape(database.head(), number, number > 0 && number % 3 == 0, &mut all).unwrap();
        if number % 20 == 19 {
            failed += usize::from(database.maintain(at(BEGIN + number * 15_000)).is_err());
            let _ = database.head().sync();
        }
        if database.head().unlogged().is_some() {
            full_since.get_or_insert(number);
        }
        if full_since.is_some_and(|since| number > since + 1_000) {
            break;
        }
    }
    let since = full_since.expect("the disk is full");
    assert!(failed > 0, "full since scrape {since}");
    let unlogged = database.head().unlogged().unwrap();
    assert!(unlogged.samples > 0 && unlogged.refused == 0, "{unlogged:?}");
    // What is there can be read.
    let copy = copied(&path);
    let (other, opened) = Database::open(copy.path(), options).unwrap();
    let replay = &opened.replay;
    assert_eq!((opened.damaged.len(), &replay.damaged, replay.damaged_records), (0, &vec![], 0));
    assert_eq!(replay.without_series, 0);
    drop(other);
    disk.grow();
    database.head().sync().unwrap();
    assert_eq!(database.head().unlogged(), None);
    database.maintain(at(BEGIN)).unwrap();
    for number in 5_000..5_010 {
        scrape(database.head(), number, false, &mut all).unwrap();
    }
    drop(database);
    let (database, opened) = Database::open(&path, options).unwrap();
    let replay = &opened.replay;
    assert_eq!((opened.damaged.len(), &replay.damaged, replay.damaged_records), (0, &vec![], 0));
    let mut found = floats(database.head());
    for block in database.blocks(TimeRange::ALL) {
        let mut samples = crate::tests::AllSamples::new();
        crate::tests::add_block(&block.dir, &mut samples);
        for (series, samples) in floats_of(&samples) {
            found.entry(series).or_default().extend(samples);
        }
    }
    assert!(found == all);
}
