//! `thanos.shipper.json`: the list of blocks that Prometheus may compact, in the format that Prometheus and
//! Thanos read.
//!
//! ```json
//! {"version": 1, "uploaded": ["01H...", "01J..."]}
//! ```
//!
//! Prometheus reads it if it runs with `--storage.tsdb.delay-compact-file.path`, and delays the compaction of
//! blocks that are not in it. A missing file delays nothing, so the file exists from the start and is
//! replaced atomically.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tsdb::Ulid;

use crate::disk::{self, DiskError};

#[derive(Serialize, Deserialize)]
struct UploadedFile {
    version: u32,
    uploaded: Vec<String>,
}

/// The file and its content.
#[derive(Debug)]
pub(crate) struct UploadedList {
    path: PathBuf,
    /// `None` if the file is missing or unreadable.
    written: Option<BTreeSet<Ulid>>,
}

impl UploadedList {
    /// Reads the file.
    pub(crate) fn open(path: PathBuf) -> Self {
        let written = fs::read(&path).ok().and_then(|bytes| parse(&bytes));
        Self { path, written }
    }

    /// Writes an empty list if the file is missing or unreadable.
    pub(crate) fn create_if_missing(&mut self) -> Result<(), DiskError> {
        match self.written {
            Some(_) => Ok(()),
            None => self.write(BTreeSet::new()),
        }
    }

    /// Writes exactly these blocks.
    pub(crate) fn write(&mut self, blocks: BTreeSet<Ulid>) -> Result<(), DiskError> {
        if self.written.as_ref() == Some(&blocks) {
            return Ok(());
        }
        let file = UploadedFile { version: 1, uploaded: blocks.iter().map(Ulid::to_string).collect() };
        let mut text = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        file.serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs))
            .expect("text and numbers always become JSON");
        text.push(b'\n');
        disk::replace(&self.path, &text)?;
        self.written = Some(blocks);
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Option<BTreeSet<Ulid>> {
    let file: UploadedFile = serde_json::from_slice(bytes).ok()?;
    let blocks = file.uploaded.iter().map(|name| tsdb::parse_block_id(name));
    if file.version == 1 { blocks.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn list_has_the_format_of_thanos() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("thanos.shipper.json");
        let mut uploaded = UploadedList::open(path.clone());
        uploaded.create_if_missing().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n\t\"version\": 1,\n\t\"uploaded\": []\n}\n");
        let block = tsdb::parse_block_id("01HZY3VQ6J0000000000000000").unwrap();
        uploaded.write(BTreeSet::from([block])).unwrap();
        let text = "{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"01HZY3VQ6J0000000000000000\"\n\t]\n}\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        UploadedList::open(path.clone()).create_if_missing().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "a readable list is kept");
        fs::write(&path, "{").unwrap();
        UploadedList::open(path.clone()).create_if_missing().unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("[]"), "an unreadable one is replaced");
    }
}
