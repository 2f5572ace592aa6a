//! The journal: which blocks are known, how far each has come, and since when.
//!
//! ```json
//! {"version": 1, "blocks": [{"ulid": "01H...", "state": "pinned", "minTime": 0, "maxTime": 7200000, "since": 1700000000000}]}
//! ```
//!
//! It lies in Prometheus' data folder as `thanos/shipper-journal.json` and is replaced as a whole, flushed, on every
//! change: it has a few hundred entries at most. A journal that is lost costs work, never data: what is in the bucket
//! already is found there.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use model::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;
use tsdb::{BlockMeta, Ulid};

use crate::shipper::disk::{self, DiskError};

/// How far a block has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stage {
    /// It was seen, but could not be pinned yet.
    Seen,
    /// Its files cannot be taken away by Prometheus any more.
    Pinned,
    /// It is in the bucket; all of it was compared.
    Verified,
    /// It needs no upload: blocks that do not either hold its samples, or it has none.
    Covered,
    /// It was in the bucket, and has been removed there on purpose.
    Withdrawn,
}

/// What is remembered of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stage: Stage,
    pub(super) min_time: Timestamp,
    /// Exclusive.
    pub(super) max_time: Timestamp,
    /// When it came to this stage; since when the bucket has its samples, where it does.
    pub(super) since: Timestamp,
}

/// The journal in memory, and where it is kept.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    entries: BTreeMap<Ulid, Entry>,
    /// What is in memory is not on disk yet.
    is_dirty: bool,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    blocks: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    ulid: String,
    state: Stage,
    min_time: i64,
    max_time: i64,
    since: i64,
}

impl Journal {
    /// Reads the journal; an unreadable one is put aside, with a warning, and a new one begins.
    pub(super) fn open(path: PathBuf) -> Self {
        let entries = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).unwrap_or_else(|cause| {
                let aside = path.with_extension("json.damaged");
                warn!(
                    file = %path.display(),
                    aside = %aside.display(),
                    err = cause,
                    "the shipper's journal is damaged; blocks are looked up in the bucket again"
                );
                drop(fs::rename(&path, aside));
                BTreeMap::new()
            }),
            Err(cause) => {
                if cause.kind() != std::io::ErrorKind::NotFound {
                    warn!(file = %path.display(), error = %cause, "the shipper's journal cannot be read; blocks are looked up in the bucket again");
                }
                BTreeMap::new()
            }
        };
        Self { path, entries, is_dirty: false }
    }

    pub(super) fn get(&self, block: Ulid) -> Option<&Entry> {
        self.entries.get(&block)
    }

    /// Whether nothing is to be done for a block any more: Prometheus may compact it or remove it.
    pub(super) fn is_settled(&self, block: Ulid) -> bool {
        self.settled_since(block).is_some()
    }

    /// Since when nothing is to be done for a block; `None` while something is.
    pub(super) fn settled_since(&self, block: Ulid) -> Option<Timestamp> {
        let is_settled = |entry: &&Entry| match entry.stage {
            Stage::Verified | Stage::Covered | Stage::Withdrawn => true,
            Stage::Seen | Stage::Pinned => false,
        };
        self.get(block).filter(is_settled).map(|entry| entry.since)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Ulid, &Entry)> {
        self.entries.iter().map(|(block, entry)| (*block, entry))
    }

    /// Puts a block at a stage, from now on; [`Journal::save`] makes it last.
    pub(super) fn set(&mut self, meta: &BlockMeta, stage: Stage, now: Timestamp) {
        let entry = Entry { stage, min_time: meta.min_time, max_time: meta.max_time, since: now };
        if self.get(meta.ulid).is_none_or(|old| Entry { since: now, ..*old } != entry) {
            self.entries.insert(meta.ulid, entry);
            self.is_dirty = true;
        }
    }

    /// Puts a known block at another stage, without news of its samples: its time stays.
    pub(super) fn restate(&mut self, block: Ulid, stage: Stage) {
        if let Some(entry) = self.entries.get_mut(&block) {
            self.is_dirty |= entry.stage != stage;
            entry.stage = stage;
        }
    }

    /// Forgets blocks that `keep` does not want.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(Ulid, &Entry) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|block, entry| keep(*block, entry));
        self.is_dirty |= self.entries.len() != before;
    }

    /// Writes what has changed, down to the disk.
    ///
    /// # Errors
    /// Nothing is lost then: the next call writes it.
    pub(super) fn save(&mut self) -> Result<(), DiskError> {
        if !self.is_dirty {
            return Ok(());
        }
        let record = |(block, entry): (&Ulid, &Entry)| Record {
            ulid: block.to_string(),
            state: entry.stage,
            min_time: entry.min_time.as_millis(),
            max_time: entry.max_time.as_millis(),
            since: entry.since.as_millis(),
        };
        let file = File { version: 1, blocks: self.entries.iter().map(record).collect() };
        let mut text = serde_json::to_vec_pretty(&file).expect("text, numbers and names always become JSON");
        text.push(b'\n');
        disk::replace(&self.path, &text)?;
        self.is_dirty = false;
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<Ulid, Entry>, String> {
    let file: File = serde_json::from_slice(bytes).map_err(|cause| cause.to_string())?;
    if file.version != 1 {
        return Err(format!("version {} is unknown", file.version));
    }
    let entry = |record: Record| {
        let block =
            tsdb::parse_block_id(&record.ulid).ok_or_else(|| format!("{:?} is no ULID", record.ulid))?;
        let entry = Entry {
            stage: record.state,
            min_time: Timestamp::from_millis(record.min_time),
            max_time: Timestamp::from_millis(record.max_time),
            since: Timestamp::from_millis(record.since),
        };
        Ok((block, entry))
    };
    file.blocks.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn meta(n: u128) -> BlockMeta {
        BlockMeta::new(Ulid(n), Timestamp::from_millis(0), Timestamp::from_millis(7_200_000))
    }

    #[test]
    fn what_was_saved_is_read_again() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(path.clone());
        let (early, late) = (Timestamp::from_millis(5), Timestamp::from_millis(9));
        journal.set(&meta(1), Stage::Pinned, early);
        journal.set(&meta(2), Stage::Verified, early);
        journal.set(&meta(2), Stage::Verified, late);
        journal.save().unwrap();
        let mut again = Journal::open(path.clone());
        assert_eq!(again.get(Ulid(1)).map(|e| e.stage), Some(Stage::Pinned));
        assert!(again.is_settled(Ulid(2)) && !again.is_settled(Ulid(1)));
        assert_eq!(again.get(Ulid(2)).map(|e| e.since), Some(early), "the same stage again is no news");
        again.retain(|block, _| block == Ulid(2));
        again.save().unwrap();
        assert_eq!(Journal::open(path).iter().map(|(block, _)| block).collect::<Vec<_>>(), [Ulid(2)]);
    }

    #[test]
    fn a_damaged_journal_is_put_aside() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal.json");
        let ulid = |id: &str| {
            format!(
                r#"{{"version":1,"blocks":[{{"ulid":"{id}","state":"seen","minTime":0,"maxTime":1,"since":0}}]}}"#
            )
        };
        for damaged in ["", "{", r#"{"version":2,"blocks":[]}"#, &ulid("no-ulid"), "\u{fffd}"] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(Journal::open(path.clone()).iter().count(), 0, "{damaged}");
            assert_eq!(fs::read_to_string(dir.path().join("journal.json.damaged")).unwrap(), damaged);
            assert!(!path.exists());
        }
        fs::write(&path, ulid("01HZY3VQ6J0000000000000000")).unwrap();
        assert_eq!(Journal::open(path).iter().count(), 1);
    }
}
