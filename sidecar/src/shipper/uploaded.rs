//! `thanos.shipper.json`: the list of blocks that Prometheus may compact, in the form that it and Thanos read.
//!
//! ```json
//! {"version": 1, "uploaded": ["01H...", "01J..."]}
//! ```
//!
//! Prometheus reads it where it runs with `--storage.tsdb.delay-compact-file.path`, and holds up the compaction of blocks
//! that are not in it. A file that is not there holds up nothing, so it is there from the start and replaced in one step.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tsdb::Ulid;

use crate::shipper::disk::{self, DiskError};

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    uploaded: Vec<String>,
}

/// The file and what it says.
#[derive(Debug)]
pub(super) struct Uploaded {
    path: PathBuf,
    /// `None` where there is no file, or none that Prometheus could read.
    written: Option<BTreeSet<Ulid>>,
}

impl Uploaded {
    /// Reads what is there.
    pub(super) fn open(path: PathBuf) -> Self {
        let written = fs::read(&path).ok().and_then(|bytes| parse(&bytes));
        Self { path, written }
    }

    /// Puts an empty list where there is no readable one, before Prometheus looks.
    pub(super) fn ensure(&mut self) -> Result<(), DiskError> {
        match self.written {
            Some(_) => Ok(()),
            None => self.write(BTreeSet::new()),
        }
    }

    /// Has the file say exactly this.
    pub(super) fn write(&mut self, blocks: BTreeSet<Ulid>) -> Result<(), DiskError> {
        if self.written.as_ref() == Some(&blocks) {
            return Ok(());
        }
        let file = File { version: 1, uploaded: blocks.iter().map(Ulid::to_string).collect() };
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
    let file: File = serde_json::from_slice(bytes).ok()?;
    let blocks = file.uploaded.iter().map(|name| tsdb::parse_block_id(name));
    if file.version == 1 { blocks.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn the_file_is_written_as_thanos_writes_it() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("thanos.shipper.json");
        let mut uploaded = Uploaded::open(path.clone());
        uploaded.ensure().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n\t\"version\": 1,\n\t\"uploaded\": []\n}\n");
        let block = tsdb::parse_block_id("01HZY3VQ6J0000000000000000").unwrap();
        uploaded.write(BTreeSet::from([block])).unwrap();
        let text = "{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"01HZY3VQ6J0000000000000000\"\n\t]\n}\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        Uploaded::open(path.clone()).ensure().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "a readable list is kept");
        fs::write(&path, "{").unwrap();
        Uploaded::open(path.clone()).ensure().unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("[]"), "a broken one is not");
    }
}
