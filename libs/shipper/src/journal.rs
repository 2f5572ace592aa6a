//! The journal: the known blocks, their stages, and since when.
//!
//! ```json
//! {"version": 1, "blocks": [{"ulid": "01H...", "state": "pinned", "minTime": 0, "maxTime": 7200000, "since": 1700000000000, "samples": 600}]}
//! ```
//!
//! It is stored in the data directory of Prometheus as `thanos/shipper-journal.json`. Each change replaces
//! and flushes the whole file, which has at most a few hundred entries. The loss of the journal causes work
//! but no loss of data: blocks that are in the bucket are found there.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use model::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;
use tsdb::{BlockMeta, Ulid};

use crate::disk::{self, DiskError};

/// The stage of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BlockStage {
    /// Found, but not pinned yet.
    Seen,
    /// Its files remain even if Prometheus removes the block.
    Pinned,
    /// In the bucket, and compared completely.
    Verified,
    /// Needs no upload: its samples are in blocks that need none either, or it has no samples.
    Covered,
    /// Was in the bucket, and was removed there on purpose.
    Withdrawn,
}

/// The entry of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalEntry {
    pub(crate) stage: BlockStage,
    pub(crate) min_time: Timestamp,
    /// Exclusive.
    pub(crate) max_time: Timestamp,
    /// Time at which it reached this stage; if the bucket has its samples, time since which it has them.
    pub(crate) since: Timestamp,
    /// Number of its samples; `None` if its `meta.json` was never seen, or only by an older version of this program.
    pub(crate) samples: Option<u64>,
}

/// The journal in memory, and its file.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    entries: BTreeMap<Ulid, JournalEntry>,
    /// Whether there are changes that are not on disk.
    is_dirty: bool,
}

#[derive(Serialize, Deserialize)]
struct JournalFile {
    version: u32,
    blocks: Vec<JournalRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JournalRecord {
    ulid: String,
    state: BlockStage,
    min_time: i64,
    max_time: i64,
    since: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    samples: Option<u64>,
}

impl Journal {
    /// Reads the journal. A damaged file is renamed, with a warning, and the journal starts empty.
    pub(crate) fn open(path: PathBuf) -> Self {
        let entries = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).unwrap_or_else(|cause| {
                let aside = path.with_extension("json.damaged");
                warn!(
                    file = %path.display(),
                    aside = %aside.display(),
                    error = %cause,
                    "journal of the shipper is damaged, looking up all blocks in the bucket"
                );
                drop(fs::rename(&path, aside));
                BTreeMap::new()
            }),
            Err(cause) => {
                if cause.kind() != std::io::ErrorKind::NotFound {
                    warn!(file = %path.display(), error = %cause, "journal of the shipper cannot be read, looking up all blocks in the bucket");
                }
                BTreeMap::new()
            }
        };
        Self { path, entries, is_dirty: false }
    }

    pub(crate) fn get(&self, block: Ulid) -> Option<&JournalEntry> {
        self.entries.get(&block)
    }

    /// Whether a block needs no further work. Prometheus may then compact or remove it.
    pub(crate) fn is_settled(&self, block: Ulid) -> bool {
        self.settled_since(block).is_some()
    }

    /// Time since which a block needs no further work; `None` if it does.
    pub(crate) fn settled_since(&self, block: Ulid) -> Option<Timestamp> {
        let is_settled = |entry: &&JournalEntry| match entry.stage {
            BlockStage::Verified | BlockStage::Covered | BlockStage::Withdrawn => true,
            BlockStage::Seen | BlockStage::Pinned => false,
        };
        self.get(block).filter(is_settled).map(|entry| entry.since)
    }

    /// The time since which blocks are uploaded, as far as the journal reaches; `None` while none is settled.
    pub(crate) fn began(&self) -> Option<Timestamp> {
        self.entries
            .values()
            .filter(|entry| entry.stage == BlockStage::Verified)
            .map(|entry| entry.since)
            .min()
    }

    /// Records that the sources of a block that is in the bucket need no upload, so that blocks made from them
    /// later need none either. Sources that wait for their own upload are not changed.
    pub(crate) fn cover_sources(&mut self, meta: &BlockMeta, now: Timestamp) {
        let covered = JournalEntry {
            stage: BlockStage::Covered,
            min_time: meta.min_time,
            max_time: meta.max_time,
            since: now,
            samples: None,
        };
        for source in &meta.compaction.sources {
            if self.get(*source).is_none_or(|entry| entry.stage == BlockStage::Seen) {
                self.entries.insert(*source, covered);
                self.is_dirty = true;
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ulid, &JournalEntry)> {
        self.entries.iter().map(|(block, entry)| (*block, entry))
    }

    /// Sets the stage of a block from now on. [`Journal::save`] persists it.
    pub(crate) fn set(&mut self, meta: &BlockMeta, stage: BlockStage, now: Timestamp) {
        let (min_time, max_time, samples) = (meta.min_time, meta.max_time, Some(meta.stats.samples));
        let entry = JournalEntry { stage, min_time, max_time, since: now, samples };
        if self.get(meta.ulid).is_none_or(|old| JournalEntry { since: now, ..*old } != entry) {
            self.entries.insert(meta.ulid, entry);
            self.is_dirty = true;
        }
    }

    /// Sets the stage of a known block without changing its time.
    pub(crate) fn change_stage(&mut self, block: Ulid, stage: BlockStage) {
        if let Some(entry) = self.entries.get_mut(&block) {
            self.is_dirty |= entry.stage != stage;
            entry.stage = stage;
        }
    }

    /// Removes blocks for which `keep` returns false.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Ulid, &JournalEntry) -> bool) {
        let before = self.entries.len();
        self.entries.retain(|block, entry| keep(*block, entry));
        self.is_dirty |= self.entries.len() != before;
    }

    /// Writes changes to disk and flushes them.
    ///
    /// # Errors
    /// The changes are kept in memory; the next call writes them.
    pub(crate) fn save(&mut self) -> Result<(), DiskError> {
        if !self.is_dirty {
            return Ok(());
        }
        let record = |(block, entry): (&Ulid, &JournalEntry)| JournalRecord {
            ulid: block.to_string(),
            state: entry.stage,
            min_time: entry.min_time.as_millis(),
            max_time: entry.max_time.as_millis(),
            since: entry.since.as_millis(),
            samples: entry.samples,
        };
        let file = JournalFile { version: 1, blocks: self.entries.iter().map(record).collect() };
        let mut text = serde_json::to_vec_pretty(&file).expect("text, numbers and names always become JSON");
        text.push(b'\n');
        disk::replace(&self.path, &text)?;
        self.is_dirty = false;
        Ok(())
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<Ulid, JournalEntry>, String> {
    let file: JournalFile = serde_json::from_slice(bytes).map_err(|cause| cause.to_string())?;
    if file.version != 1 {
        return Err(format!("version {} is not supported, expected 1", file.version));
    }
    let entry = |record: JournalRecord| {
        let block =
            tsdb::parse_block_id(&record.ulid).ok_or_else(|| format!("{:?} is not a ULID", record.ulid))?;
        let entry = JournalEntry {
            stage: record.state,
            min_time: Timestamp::from_millis(record.min_time),
            max_time: Timestamp::from_millis(record.max_time),
            since: Timestamp::from_millis(record.since),
            samples: record.samples,
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
    fn saved_journal_is_read_back() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal.json");
        let mut journal = Journal::open(path.clone());
        let (early, late) = (Timestamp::from_millis(5), Timestamp::from_millis(9));
        journal.set(&meta(1), BlockStage::Pinned, early);
        journal.set(&meta(2), BlockStage::Verified, early);
        journal.set(&meta(2), BlockStage::Verified, late);
        journal.save().unwrap();
        let mut again = Journal::open(path.clone());
        assert_eq!(again.get(Ulid(1)).map(|e| e.stage), Some(BlockStage::Pinned));
        assert!(again.is_settled(Ulid(2)) && !again.is_settled(Ulid(1)));
        assert_eq!(again.get(Ulid(2)).map(|e| e.since), Some(early), "setting the same stage keeps its time");
        again.retain(|block, _| block == Ulid(2));
        again.save().unwrap();
        assert_eq!(Journal::open(path).iter().map(|(block, _)| block).collect::<Vec<_>>(), [Ulid(2)]);
    }

    #[test]
    fn damaged_journal_is_renamed() {
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
