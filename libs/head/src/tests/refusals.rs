//! Folders that are not opened: nothing is written to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use model::TimeRange;

use crate::tests::prometheus::{Prometheus, is_installed, wait_for};
use crate::tests::{at, labels, samples_of};
use crate::{Database, DatabaseOptions, HeadError};

const BEGIN: i64 = 1_699_992_000_000;

/// All files below a directory with their bytes; directories with none.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(
                contents(&entry.path()).into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)),
            );
            found.insert(name, Vec::new());
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

/// Opens a folder, which is refused, and compares what is in it before and after.
fn refused(dir: &Path) -> String {
    let before = contents(dir);
    let error = Database::open(dir, DatabaseOptions::default()).err().expect("it is refused");
    assert!(contents(dir) == before, "something was written");
    let text = error.to_string();
    assert!(!text.contains('\n'));
    text
}

#[test]
fn a_folder_with_other_things_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for name in [".cache", "lost+found", "photos", "music"] {
        fs::create_dir(path.join(name)).unwrap();
    }
    for name in ["notes.txt", "0-readme"] {
        fs::write(path.join(name), "text").unwrap();
    }
    let expected = format!(
        "{}: this is not a data folder, it contains 0-readme, music, notes.txt and more; choose an empty folder",
        path.display()
    );
    assert_eq!(refused(path), expected);
    // What file systems and users hide is no reason.
    for name in ["photos", "music"] {
        fs::remove_dir(path.join(name)).unwrap();
    }
    for name in ["notes.txt", "0-readme"] {
        fs::remove_file(path.join(name)).unwrap();
    }
    drop(Database::open(path, DatabaseOptions::default()).unwrap());
    // And other things in a data folder are not, either.
    fs::write(path.join("notes.txt"), "text").unwrap();
    drop(Database::open(path, DatabaseOptions::default()).unwrap());
    let file = path.join("notes.txt");
    let error = Database::open(&file, DatabaseOptions::default()).err().unwrap().to_string();
    assert_eq!(error, format!("{}: File exists (os error 17)", file.display()));
}

#[test]
fn a_folder_that_a_prometheus_uses_is_refused() {
    if !is_installed("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    // That of Debian locks its folder only if it is told to.
    let flag = "--storage.tsdb.use-lockfile";
    let help = Command::new("prometheus").arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&[help.stdout, help.stderr].concat()).into_owned();
    let args: &[&str] = if help.contains(flag) { &[flag] } else { &[] };
    let prometheus = Prometheus::start(dir.path(), &data, None, args);
    wait_for("Prometheus is ready", || prometheus.get("/-/ready").contains(" 200 "));
    let error = Database::open(&data, DatabaseOptions::default()).err().unwrap();
    assert!(matches!(error, HeadError::Locked(_)));
    assert_eq!(error.to_string(), format!("{}: another process uses this data folder", data.display()));
    prometheus.kill();
    Database::open(&data, DatabaseOptions::default()).unwrap();
}

/// A data folder with a block, chunk files, and a log, and without a lock.
fn data_folder(path: &Path) {
    let (database, _) = Database::open(path, DatabaseOptions::default()).unwrap();
    let series = database.head().series(&labels(&[("__name__", "m")]));
    for scrape in 0..900 {
        let mut appender = database.head().appender();
        appender.append_float(&series, at(BEGIN + scrape * 15_000), at(0), scrape as f64).unwrap();
        appender.commit().unwrap();
    }
    database.maintain(at(BEGIN)).unwrap();
    assert_eq!(database.blocks(TimeRange::ALL).len(), 1);
    drop(database);
    fs::remove_file(path.join("lock")).unwrap();
}

/// A fragment of the log with this type.
fn fragment(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&(data.len() as u16).to_be_bytes());
    out.extend_from_slice(&crc32c::crc32c(data).to_be_bytes());
    out.extend_from_slice(data);
    out
}

#[test]
fn what_a_later_version_wrote_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    data_folder(path);
    let block = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("meta.json").exists());
    let block = block.unwrap();
    let check = |file: &Path, change: &dyn Fn(&mut Vec<u8>), named: &Path, what: &str| {
        let original = fs::read(file).unwrap();
        let mut bytes = original.clone();
        change(&mut bytes);
        fs::write(file, &bytes).unwrap();
        let expected = format!(
            "{}: {what} is not known to this version; a later one wrote it, use that one",
            named.display()
        );
        assert_eq!(refused(path), expected);
        fs::write(file, original).unwrap();
    };
    let meta = block.join("meta.json");
    let newer = |bytes: &mut Vec<u8>| {
        *bytes = String::from_utf8_lossy(bytes).replace("\"version\": 1", "\"version\": 2").into_bytes();
    };
    check(&meta, &newer, &block, "version 2 of meta.json");
    check(&block.join("index"), &|bytes| bytes[4] = 9, &block, "version 9 of index, header");
    let chunks = path.join("chunks_head/000001");
    let version = |bytes: &mut Vec<u8>| *bytes = [&bytes[..4], &[2, 0, 0, 0], b"something else"].concat();
    check(&chunks, &version, &chunks, "version 2 of the file");
    let encoding = |bytes: &mut Vec<u8>| {
        bytes[8 + 24] = 42;
        let mut cursor = tsdb::ByteCursor::new(&bytes[8 + 25..]);
        cursor.bytes().unwrap();
        let end = 8 + 25 + cursor.at();
        let checksum = crc32c::crc32c(&bytes[8..end]);
        bytes[end..end + 4].copy_from_slice(&checksum.to_be_bytes());
    };
    check(&chunks, &encoding, &chunks, "encoding 42 of a chunk");
    // The last segment, which is not read first.
    let mut segments: Vec<_> =
        fs::read_dir(path.join("wal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.sort();
    let last = segments.iter().rfind(|segment| segment.is_file()).unwrap();
    let kind = |bytes: &mut Vec<u8>| bytes.splice(0..0, fragment(1, &[14, 1, 2])).for_each(drop);
    check(last, &kind, last, "kind 14 of a record");
    let compression =
        |bytes: &mut Vec<u8>| *bytes = [fragment(1 | 1 << 5, b"abc"), fragment(1 | 1 << 5, b"de")].concat();
    check(last, &compression, last, "the type of the records");
    fs::create_dir(path.join("wbl")).unwrap();
    let late = path.join("wbl/00000003");
    fs::write(&late, "").unwrap();
    check(&late, &kind, &late, "kind 14 of a record");
    // One record with such a type is damage.
    fs::write(last, fragment(1 | 1 << 5, b"abc")).unwrap();
    let (database, opened) = Database::open(path, DatabaseOptions::default()).unwrap();
    assert_eq!(opened.replay.damaged.len(), 1);
    assert!(!samples_of(database.head(), TimeRange::ALL).is_empty());
}
