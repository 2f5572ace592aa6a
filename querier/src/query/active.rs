//! `--query.active-query-path`: a file with the queries that run at this moment.
//!
//! It has the form of Prometheus' `queries.active`: `[`, then a slot of 1000 bytes for each query, with a JSON object,
//! zeros, and a comma. After a crash the file shows what ran; the next start logs it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

const FILE: &str = "queries.active";
/// Bytes of a slot, with its comma.
const SLOT: usize = 1000;

/// One query in the file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ActiveQuery {
    query: String,
    timestamp_sec: u64,
}

/// The file. Clones share it; the default keeps no file.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActiveQueries(Option<Arc<ActiveFile>>);

#[derive(Debug)]
struct ActiveFile {
    file: File,
    free: Mutex<Vec<usize>>,
}

/// The entry of a running query; removed when dropped.
#[derive(Debug)]
pub(super) struct ActiveEntry(Option<(Arc<ActiveFile>, usize)>);

impl ActiveQueries {
    /// Creates the file for `slots` queries in `folder`, after the queries in an old one were logged.
    ///
    /// # Errors
    /// The folder or the file cannot be created or read.
    pub(crate) fn open(folder: &Path, slots: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => log_unfinished(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        file.set_len((1 + slots * SLOT) as u64)?;
        file.write_all_at(b"[", 0)?;
        let free = Mutex::new((0..slots).rev().collect());
        Ok(Self(Some(Arc::new(ActiveFile { file, free }))))
    }

    /// Adds a query. A query without a free slot, or that cannot be written, runs without an entry.
    pub(super) fn enter(&self, query: &str) -> ActiveEntry {
        let Some(active) = &self.0 else { return ActiveEntry(None) };
        let Some(slot) = active.free().pop() else { return ActiveEntry(None) };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut bytes = entry(query, since.as_secs());
        bytes.resize(SLOT - 1, 0);
        bytes.push(b',');
        active.write(slot, &bytes);
        ActiveEntry(Some((Arc::clone(active), slot)))
    }
}

impl ActiveFile {
    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        // A push or a pop leaves the list valid.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, slot: usize, bytes: &[u8]) {
        if let Err(error) = self.file.write_all_at(bytes, (1 + slot * SLOT) as u64) {
            tracing::warn!(error = %error, "the file of --query.active-query-path cannot be written");
        }
    }
}

impl Drop for ActiveEntry {
    fn drop(&mut self) {
        if let Some((active, slot)) = self.0.take() {
            active.write(slot, &[0; SLOT]);
            active.free().push(slot);
        }
    }
}

/// The JSON of a query, whose text is cut so that it fits into a slot.
fn entry(query: &str, timestamp_sec: u64) -> Vec<u8> {
    let mut end = query.len().min(SLOT);
    loop {
        end = (0..=end).rev().find(|at| query.is_char_boundary(*at)).unwrap_or(0);
        let entry = ActiveQuery { query: query[..end].to_owned(), timestamp_sec };
        let bytes = serde_json::to_vec(&entry).unwrap_or_default();
        match bytes.len() < SLOT {
            true => return bytes,
            // Each character takes at least one byte of what is too much.
            false => end = end.saturating_sub((bytes.len() - SLOT) / 6 + 1),
        }
    }
}

/// The queries in a file.
fn queries(bytes: &[u8]) -> Vec<ActiveQuery> {
    let slots = bytes.get(1..).unwrap_or_default().chunks(SLOT);
    let parse = |slot: &[u8]| {
        let end = slot.iter().position(|b| *b == 0).unwrap_or(slot.len());
        serde_json::from_slice(slot[..end].strip_suffix(b",").unwrap_or(&slot[..end])).ok()
    };
    slots.filter_map(parse).collect()
}

fn log_unfinished(bytes: &[u8]) {
    for query in queries(bytes) {
        tracing::warn!(
            query = query.query,
            started = query.timestamp_sec,
            "this query did not finish when the querier ran last"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_lists_the_running_queries() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let active = ActiveQueries::open(&folder, 2).unwrap();
        let listed = || -> Vec<String> {
            queries(&fs::read(folder.join(FILE)).unwrap()).into_iter().map(|query| query.query).collect()
        };
        let first = active.enter("up");
        let long = "\"é".repeat(2000);
        let second = active.enter(&long);
        assert!(active.enter("without a slot").0.is_none());
        let found = listed();
        assert!(found[0] == "up" && found[1].len() > 400 && long.starts_with(&found[1]), "{found:?}");
        drop(first);
        let third = active.enter("sum(up)");
        assert_eq!(listed()[0], "sum(up)");
        assert_eq!(fs::metadata(folder.join(FILE)).unwrap().len(), 1 + 2 * SLOT as u64);
        // A crash leaves the entries; the next start finds and removes them.
        std::mem::forget(third);
        drop(second);
        drop(active);
        assert_eq!(listed(), ["sum(up)"]);
        let _active = ActiveQueries::open(&folder, 3).unwrap();
        assert_eq!(listed(), Vec::<String>::new());
        assert!(ActiveQueries::default().enter("up").0.is_none());
    }

    #[test]
    fn file_of_prometheus_is_read() {
        let mut bytes = br#"[{"query":"rate(x[5m])","timestamp_sec":1700000000}"#.to_vec();
        bytes.resize(SLOT, 0);
        bytes.extend_from_slice(b",");
        bytes.resize(1 + 3 * SLOT, 0);
        let query = ActiveQuery { query: "rate(x[5m])".to_owned(), timestamp_sec: 1_700_000_000 };
        assert_eq!(queries(&bytes), [query]);
        for damaged in [&b""[..], b"[", b"[{\"query\"", b"not json"] {
            assert_eq!(queries(damaged), []);
        }
    }
}
