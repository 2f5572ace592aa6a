//! Files that are whole, torn and damaged.

use model::{Labels, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn entry(id: u64, name: &str) -> JournalEntry {
    let alert = Alert {
        labels: Labels::from_pairs([("alertname", name)]).unwrap(),
        annotations: Labels::from_pairs([("text", "a\nb\u{0}\"")]).unwrap(),
        starts_at: Timestamp::from_millis(-5),
        ends_at: Timestamp::from_millis(7),
        generator_url: "http://x".to_owned(),
    };
    JournalEntry { id, is_resolved: id % 2 == 1, alert: Arc::new(alert), taken: Vec::new() }
}

fn changes(removed: &[u64], added: &[JournalEntry]) -> Changes {
    Changes { removed: removed.to_vec(), added: added.to_vec(), ..Changes::default() }
}

fn found(data_dir: &Path) -> Found {
    Journal::open(data_dir).unwrap().1
}

/// A folder with a journal of three alerts, written in four lines.
fn written() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, found) = Journal::open(dir.path()).unwrap();
    assert!(found.alerts.is_empty() && found.damage.is_none() && found.torn_bytes == 0);
    journal.write(&changes(&[], &[entry(1, "a"), entry(2, "b")])).unwrap();
    journal.write(&changes(&[1], &[entry(3, "c")])).unwrap();
    let path = dir.path().join(FOLDER).join(FILE);
    (dir, path)
}

#[test]
fn what_waits_is_there_after_a_restart() {
    let (dir, path) = written();
    assert_eq!(found(dir.path()).alerts, [entry(2, "b"), entry(3, "c")]);
    // It was written anew.
    assert_eq!(fs::read_to_string(path).unwrap().lines().count(), 3);
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    journal.write(&changes(&[2], &[entry(3, "newer"), entry(2, "again")])).unwrap();
    assert_eq!(found(dir.path()).alerts, [entry(2, "again"), entry(3, "newer")]);
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    let taken = [("g".to_owned(), [2, 7].into())].into();
    journal.write(&Changes { taken, ..Changes::default() }).unwrap();
    for _ in 0..2 {
        let expected = JournalEntry { taken: vec!["g".to_owned()], ..entry(2, "again") };
        assert_eq!(found(dir.path()).alerts, [expected, entry(3, "newer")]);
    }
}

#[test]
fn a_torn_end_is_ignored() {
    let (_dir, path) = written();
    let whole = fs::read(&path).unwrap();
    let ends: Vec<usize> =
        whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    for length in 0..=whole.len() {
        let (alerts, torn_bytes, damage) = read(&whole[..length]).unwrap();
        let complete = ends.iter().filter(|end| **end <= length).count();
        let expected: &[&str] = [&[][..], &[], &["a"], &["a", "b"], &["b"], &["b", "c"]][complete];
        let names: Vec<&str> = alerts.values().map(|entry| entry.alert.labels.value("alertname")).collect();
        assert_eq!((names.as_slice(), damage), (expected, None), "{length} bytes");
        let begin = ends.iter().filter(|end| **end <= length).max().unwrap_or(&0);
        assert_eq!(torn_bytes, (length - begin) as u64);
    }
}

#[test]
fn a_file_with_a_torn_end_is_written_anew() {
    let (dir, path) = written();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    let first = found(dir.path());
    assert!(first.torn_bytes > 3 && first.damage.is_none());
    assert_eq!((first.alerts, found(dir.path()).torn_bytes), (vec![entry(2, "b")], 0));
}

#[test]
fn a_damaged_file_is_kept_and_its_valid_lines_are_used() {
    let (dir, path) = written();
    let mut damaged = fs::read(&path).unwrap();
    let second = damaged.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    damaged[second + 20] ^= 1;
    fs::write(&path, &damaged).unwrap();
    for number in 1..=2 {
        let found = found(dir.path());
        let (why, kept) = found.damage.unwrap();
        assert!(why.starts_with("line 2: checksum is "), "{why}");
        assert_eq!(kept, path.with_file_name(format!("journal.damaged-{number}")));
        assert_eq!(fs::read(kept).unwrap(), damaged);
        assert_eq!(found.alerts, [entry(2, "b"), entry(3, "c")]);
        fs::write(&path, &damaged).unwrap();
    }
    fs::write(&path, "isthmus alert queue 2\n{}\n").unwrap();
    let (why, _) = found(dir.path()).damage.unwrap();
    assert_eq!(why, "line 1: is not \"isthmus alert queue 1\"");
    assert!(found(dir.path()).damage.is_none());
}

#[test]
fn random_damage_causes_neither_panics_nor_wrong_alerts() {
    let (_dir, path) = written();
    let whole = fs::read(&path).unwrap();
    let known = [entry(1, "a"), entry(2, "b"), entry(3, "c")];
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..5_000 {
        let mut bytes = whole.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..bytes.len().max(1));
            if at >= bytes.len() {
                break;
            }
            match random.random_range(0..3) {
                0 => bytes[at] = random.random(),
                1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let (alerts, _, _) = read(bytes.as_slice()).unwrap();
        assert!(alerts.values().all(|entry| known.contains(entry)));
    }
}

#[test]
fn a_file_that_cannot_be_written_is_written_anew_later() {
    let (dir, path) = written();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    // No file can be created with the name of a folder.
    fs::create_dir(path.with_file_name("journal.new")).unwrap();
    let all = Changes { is_all: true, added: vec![entry(9, "z")], ..Changes::default() };
    assert!(journal.write(&all).is_err() && journal.wants_all());
    assert!(journal.write(&changes(&[], &[entry(4, "d")])).is_err());
    fs::remove_dir(path.with_file_name("journal.new")).unwrap();
    journal.write(&all).unwrap();
    assert!(!journal.wants_all());
    assert_eq!(found(dir.path()).alerts, [entry(9, "z")]);
}

#[test]
fn a_long_file_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path()).unwrap();
    let many: Vec<JournalEntry> = (0..2_000).map(|id| entry(id, "x")).collect();
    let mut times = 0;
    while !journal.wants_all() {
        journal.write(&changes(&[], &many)).unwrap();
        times += 1;
        assert!(times < 100, "the file grew without end");
    }
    journal.write(&Changes { is_all: true, added: many.clone(), ..Changes::default() }).unwrap();
    assert!(!journal.wants_all());
    assert_eq!(found(dir.path()).alerts, many);
}
