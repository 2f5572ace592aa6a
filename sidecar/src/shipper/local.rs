//! The blocks in Prometheus' data folder, and what is to be done with each.

use std::fs;
use std::path::{Path, PathBuf};

use tsdb::{BlockMeta, META_FILE, Ulid};

use crate::shipper::disk::{self, DiskError};
use crate::shipper::journal::{Journal, Stage};

/// A block in Prometheus' data folder.
#[derive(Clone, Debug)]
pub(super) struct LocalBlock {
    pub(super) dir: PathBuf,
    pub(super) meta: BlockMeta,
}

/// What a look at the data folder found.
#[derive(Debug, Default)]
pub(super) struct LocalBlocks {
    /// In the order of their first samples.
    pub(super) blocks: Vec<LocalBlock>,
    /// Folders with the name of a block that cannot be read as one, and why.
    pub(super) unreadable: Vec<(Ulid, String)>,
}

impl LocalBlocks {
    /// Finds the blocks in `dir`. What Prometheus is writing or removing has another name and is passed over.
    ///
    /// # Errors
    /// The folder is not there, as when its disk is not mounted, or cannot be read.
    pub(super) fn find(dir: &Path) -> Result<Self, DiskError> {
        fs::metadata(dir).map_err(|cause| DiskError::new("look at", dir, cause))?;
        let mut found = Self::default();
        for (name, kind) in disk::entries(dir)? {
            let Some(block) = tsdb::parse_block_id(&name).filter(|_| kind.is_dir()) else { continue };
            let dir = dir.join(&name);
            match read_meta(&dir, block) {
                Ok(meta) => found.blocks.push(LocalBlock { dir, meta }),
                // Prometheus renames a block before it removes it.
                Err(_) if !dir.exists() => {}
                Err(cause) => found.unreadable.push((block, cause)),
            }
        }
        found.blocks.sort_by_key(|block| (block.meta.min_time, block.meta.ulid));
        Ok(found)
    }

    pub(super) fn contains(&self, id: Ulid) -> bool {
        self.blocks.iter().any(|block| block.meta.ulid == id)
    }
}

/// Reads the description of the block in `dir`.
pub(super) fn read_meta(dir: &Path, block: Ulid) -> Result<BlockMeta, String> {
    let file = dir.join(META_FILE);
    let bytes = fs::read(&file).map_err(|cause| format!("read {}: {cause}", file.display()))?;
    let meta = BlockMeta::parse(&bytes).map_err(|cause| format!("{}: {cause}", dir.display()))?;
    if meta.ulid != block {
        return Err(format!("{}: its ulid is {}, not the name of its folder", file.display(), meta.ulid));
    }
    Ok(meta)
}

/// What is to be done with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// It belongs in the bucket.
    Ship,
    /// The bucket has its samples, or it has none.
    Covered,
    /// It stays here: it was compacted here, and its parts are not in the bucket.
    Leave,
}

/// Decides about a block that is not in the bucket itself.
///
/// Prometheus makes blocks of others, which may be on their way already: shipping both would double the samples. A block
/// of level 1 with parents is what remains of them after a deletion (`clean_tombstones`). Covered blocks are in the journal
/// themselves, so that what is made of them is covered as well.
pub(super) fn task(meta: &BlockMeta, journal: &Journal, upload_compacted: bool) -> Task {
    let are_settled =
        |blocks: Vec<Ulid>| !blocks.is_empty() && blocks.iter().all(|block| journal.is_settled(*block));
    let compaction = &meta.compaction;
    if meta.stats.samples == 0 {
        return Task::Covered;
    }
    if compaction.level <= 1 {
        let parents = compaction.parents.iter().map(|parent| parent.ulid);
        return if are_settled(parents.collect()) { Task::Covered } else { Task::Ship };
    }
    if are_settled(compaction.sources.clone()) {
        return Task::Covered;
    }
    let is_on_its_way = compaction
        .sources
        .iter()
        .any(|source| journal.get(*source).is_some_and(|entry| entry.stage == Stage::Pinned));
    if upload_compacted && !is_on_its_way { Task::Ship } else { Task::Leave }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use tempfile::TempDir;
    use tsdb::BlockDesc;

    use super::*;

    fn meta(n: u128) -> BlockMeta {
        let mut meta = BlockMeta::new(Ulid(n), Timestamp::from_millis(0), Timestamp::from_millis(10));
        meta.stats.samples = 1;
        meta
    }

    #[test]
    fn only_whole_blocks_are_found_and_others_are_named() {
        let dir = TempDir::new().unwrap();
        let put = |name: &str, content: &[u8]| {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join(META_FILE), content).unwrap();
        };
        let id = |n: u128| Ulid(n).to_string();
        let mut late = meta(1);
        late.min_time = Timestamp::from_millis(5);
        put(&id(1), &late.to_json());
        put(&id(2), &meta(2).to_json());
        put(&id(3), &meta(4).to_json());
        put(&id(5), b"{");
        put(&format!("{}.tmp-for-creation", id(6)), &meta(6).to_json());
        put(&format!("{}.tmp-for-deletion", id(7)), &meta(7).to_json());
        put("wal", b"");
        fs::write(dir.path().join(id(8)), b"a file").unwrap();
        fs::create_dir(dir.path().join(id(9))).unwrap();
        let found = LocalBlocks::find(dir.path()).unwrap();
        assert_eq!(found.blocks.iter().map(|b| b.meta.ulid.0).collect::<Vec<_>>(), [2, 1]);
        let unreadable: Vec<u128> = found.unreadable.iter().map(|(block, _)| block.0).collect();
        assert_eq!(unreadable, [3, 5, 9]);
        assert!(found.unreadable[0].1.contains(&id(3)), "{:?}", found.unreadable);
        let error = LocalBlocks::find(&dir.path().join("gone")).unwrap_err().to_string();
        assert!(error.contains("/gone"), "{error}");
    }

    #[test]
    fn samples_are_shipped_once() {
        let dir = TempDir::new().unwrap();
        let mut journal = Journal::open(dir.path().join("journal"));
        let now = Timestamp::from_millis(0);
        journal.set(&meta(1), Stage::Verified, now);
        journal.set(&meta(2), Stage::Verified, now);
        journal.set(&meta(3), Stage::Pinned, now);
        let compacted = |sources: &[u128]| {
            let mut meta = meta(9);
            meta.compaction.level = 2;
            meta.compaction.sources = sources.iter().map(|n| Ulid(*n)).collect();
            meta
        };
        let cleaned = |parent: u128| {
            let mut cleaned = meta(9);
            let (min_time, max_time) = (cleaned.min_time, cleaned.max_time);
            cleaned.compaction.parents = vec![BlockDesc { ulid: Ulid(parent), min_time, max_time }];
            cleaned
        };
        let mut empty = meta(9);
        empty.stats.samples = 0;
        for (what, meta, without, with) in [
            ("a plain block", meta(9), Task::Ship, Task::Ship),
            ("an empty block", empty, Task::Covered, Task::Covered),
            ("compacted from shipped blocks", compacted(&[1, 2]), Task::Covered, Task::Covered),
            ("compacted from a block on its way", compacted(&[1, 3]), Task::Leave, Task::Leave),
            ("compacted from unknown blocks", compacted(&[7, 8]), Task::Leave, Task::Ship),
            ("cleaned of deletions after it was shipped", cleaned(1), Task::Covered, Task::Covered),
            ("cleaned of deletions before", cleaned(3), Task::Ship, Task::Ship),
        ] {
            assert_eq!(task(&meta, &journal, false), without, "{what}");
            assert_eq!(task(&meta, &journal, true), with, "{what}, with --shipper.upload-compacted");
        }
    }
}
