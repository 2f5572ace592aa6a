//! The log is read while it is written, cut and damaged.

use std::fs;

use model::{Labels, Timestamp};

use crate::{Head, HeadOptions, LogEntries, LogFollower, LogPosition, LogValue};

fn labels(name: &str) -> Labels {
    Labels::from_pairs([("__name__", name)]).unwrap()
}

fn append(head: &Head, name: &str, time: i64) {
    let series = head.series(&labels(name));
    let mut appender = head.appender();
    appender.append_float(&series, Timestamp::from_millis(time), Timestamp::EPOCH, time as f64).unwrap();
    appender.commit().unwrap();
}

/// Names and times of all samples up to the end, with the names that the reader knows.
fn samples(
    follower: &mut LogFollower,
    names: &mut std::collections::HashMap<u64, String>,
    end: LogPosition,
) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    while let Some(entries) = follower.next_record(end).unwrap() {
        match entries {
            LogEntries::Series(series) => {
                names
                    .extend(series.iter().map(|(number, labels)| (*number, labels.metric_name().to_owned())));
            }
            LogEntries::Samples(samples) => found.extend(samples.iter().map(|sample| {
                assert_eq!(sample.value, LogValue::Float(sample.time.as_millis() as f64));
                (names[&sample.series].clone(), sample.time.as_millis())
            })),
            _ => {}
        }
    }
    found
}

#[test]
fn a_reader_sees_each_record_once_while_the_log_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = Head::open(dir.path(), HeadOptions::default()).unwrap();
    let (mut follower, mut names) = (head.follow_log().unwrap(), Default::default());
    let mut seen = Vec::new();
    let mut expected = Vec::new();
    // Records end at all places of pages.
    for time in 0..30_000 {
        append(&head, "a", time);
        expected.push(("a".to_owned(), time));
        if time % 7_001 == 0 {
            head.log.lock().unwrap().next_segment().unwrap();
        }
        if time % 13 == 0 {
            seen.extend(samples(&mut follower, &mut names, head.log_end()));
            assert_eq!(follower.position(), head.log_end());
            assert_eq!(seen.len(), expected.len(), "at {time}");
        }
    }
    seen.extend(samples(&mut follower, &mut names, head.log_end()));
    assert_eq!((seen, follower.damaged()), (expected, 0));
}

#[test]
fn segments_that_are_held_are_kept_with_the_series_of_their_samples() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        HeadOptions { block_range: std::time::Duration::from_millis(100), ..HeadOptions::default() };
    let (head, _) = Head::open(dir.path(), options).unwrap();
    let hold = head.hold_log();
    // Segments 0 to 5. Series `gone` has samples in segments 0 and 4.
    for segment in 0..6 {
        append(&head, "stays", segment * 10);
        if segment % 4 == 0 {
            append(&head, "gone", segment * 10);
        }
        head.log.lock().unwrap().next_segment().unwrap();
    }
    append(&head, "stays", 1_000);
    let segments = || fs::read_dir(dir.path().join("wal")).unwrap().count();
    head.truncate(Timestamp::from_millis(500)).unwrap();
    assert_eq!(segments(), 8, "everything is held");
    hold.release_before(4);
    head.truncate(Timestamp::from_millis(500)).unwrap();
    let (mut follower, mut names) = (head.follow_log().unwrap(), Default::default());
    assert_eq!(follower.replaced(), Some(3));
    let found = samples(&mut follower, &mut names, head.log_end());
    let expected = [("stays", 40), ("gone", 40), ("stays", 50), ("stays", 1_000)];
    assert_eq!(found, expected.map(|(name, time)| (name.to_owned(), time)));
    drop(hold);
    for _ in 0..4 {
        head.truncate(Timestamp::from_millis(500)).unwrap();
    }
    let references = follower.newer_checkpoint().unwrap().unwrap();
    assert_eq!(references.len(), 1, "only the series that the head has");
    assert_eq!(follower.newer_checkpoint().unwrap(), None);
}

#[test]
fn damage_costs_the_rest_of_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (head, _) = Head::open(dir.path(), HeadOptions::default()).unwrap();
    for segment in 0..3 {
        append(&head, "a", segment * 10);
        append(&head, "a", segment * 10 + 1);
        head.log.lock().unwrap().next_segment().unwrap();
    }
    let path = dir.path().join("wal/00000001");
    let whole = fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        let mut follower = head.follow_log().unwrap();
        let found = samples(&mut follower, &mut Default::default(), head.log_end());
        assert!(
            found.starts_with(&[("a".to_owned(), 0)]) && found.ends_with(&[("a".to_owned(), 21)]),
            "bit {bit}"
        );
        assert_eq!(follower.position(), head.log_end());
    }
    fs::remove_file(&path).unwrap();
    let mut follower = head.follow_log().unwrap();
    assert_eq!(samples(&mut follower, &mut Default::default(), head.log_end()).len(), 4);
    assert_eq!(follower.damaged(), 0, "the list of segments does not have it");
}

#[test]
fn late_samples_are_read_and_are_not_in_the_head_twice_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        HeadOptions { out_of_order_window: std::time::Duration::from_secs(10_000), ..HeadOptions::default() };
    let (head, _) = Head::open(dir.path(), options).unwrap();
    let (mut follower, mut names) = (head.follow_log().unwrap(), Default::default());
    append(&head, "a", 9_000_000);
    append(&head, "a", 8_000_000);
    // Before the range of the next block, and of a series that has nothing else.
    append(&head, "b", 1_000_000);
    let expected = [("a", 9_000_000), ("a", 8_000_000), ("b", 1_000_000)];
    let expected = expected.map(|(name, time)| (name.to_owned(), time));
    assert_eq!(samples(&mut follower, &mut names, head.log_end()), expected);
    let count = |head: &Head| {
        crate::tests::samples_of(head, model::TimeRange::ALL).values().map(|s| s.len()).sum::<usize>()
    };
    assert_eq!(count(&head), 3);
    drop(head);
    let (head, replay) = Head::open(dir.path(), options).unwrap();
    assert_eq!((replay.samples, replay.late, replay.damaged_records), (1, 2, 0));
    assert_eq!(count(&head), 3);
    assert_eq!(head.stats().chunks, 1, "the late ones are in no chunk of samples in order");
}
