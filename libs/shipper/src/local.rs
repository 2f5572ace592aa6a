//! The blocks in the data directory of Prometheus, and what must be done with each.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::Timestamp;
use tsdb::{BlockMeta, META_FILE, Ulid};

use crate::disk::{self, DiskError};
use crate::journal::{BlockStage, Journal};

/// A block in the data directory of Prometheus.
#[derive(Clone, Debug)]
pub(crate) struct LocalBlock {
    pub(crate) dir: PathBuf,
    pub(crate) meta: BlockMeta,
}

/// The blocks found in the data directory.
#[derive(Debug, Default)]
pub(crate) struct LocalBlocks {
    /// Sorted by start time.
    pub(crate) blocks: Vec<LocalBlock>,
    /// Directories that are named like a block but cannot be read as one, and why.
    pub(crate) unreadable: Vec<(Ulid, String)>,
}

impl LocalBlocks {
    /// Finds the blocks in `dir`. Blocks that Prometheus is writing or removing have other names and are
    /// ignored.
    ///
    /// # Errors
    /// The directory does not exist, for example because its disk is not mounted, or cannot be read.
    pub(crate) fn find(dir: &Path) -> Result<Self, DiskError> {
        fs::metadata(dir).map_err(|cause| DiskError::new("read metadata of", dir, cause))?;
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

    pub(crate) fn contains(&self, id: Ulid) -> bool {
        self.blocks.iter().any(|block| block.meta.ulid == id)
    }
}

/// Reads the `meta.json` of the block in `dir`.
pub(crate) fn read_meta(dir: &Path, block: Ulid) -> Result<BlockMeta, String> {
    let file = dir.join(META_FILE);
    let bytes = fs::read(&file).map_err(|cause| format!("read {}: {cause}", file.display()))?;
    let meta = BlockMeta::parse(&bytes).map_err(|cause| format!("{}: {cause}", dir.display()))?;
    if meta.ulid != block {
        return Err(format!("{}: ulid is {}, expected the name of its directory", file.display(), meta.ulid));
    }
    Ok(meta)
}

/// The start of the oldest block in `dir`; `None` if it has none, or if one of them cannot be read.
///
/// # Errors
/// The directory does not exist or cannot be read.
pub fn oldest_block(dir: &Path) -> Result<Option<Timestamp>, String> {
    let found = LocalBlocks::find(dir).map_err(|cause| cause.to_string())?;
    let oldest = found.blocks.first().filter(|_| found.unreadable.is_empty());
    Ok(oldest.map(|block| block.meta.min_time))
}

/// What must be done with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockTask {
    /// It must be uploaded.
    Ship,
    /// It needs no upload: the bucket has its samples, or it has none.
    Covered,
    /// It is not uploaded itself: its sources are uploaded, or it is from before uploads began.
    Leave,
}

/// What [`decide`] must know besides the block and the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShipPolicy {
    /// `--shipper.upload-compacted`.
    pub(crate) upload_compacted: bool,
    /// Duration of the blocks that Prometheus cuts.
    pub(crate) block_range: Duration,
}

/// Decides what must be done with a block that is not in the bucket itself.
///
/// Prometheus makes blocks from other blocks, which may already be pinned: uploading both would duplicate the
/// samples. A block of level 1 with parents is the result of a deletion (`clean_tombstones`). Covered blocks
/// are in the journal, so that blocks made from them are covered too.
///
/// With an out-of-order window, Prometheus merges late samples into a block of level 2 in the pass that cuts them.
/// Then no source of that block, or only the source without late samples, was ever seen here. Such a block is
/// uploaded. Readers ignore a block whose sources are all sources of another block, so an uploaded source does not
/// duplicate samples. The same holds for blocks that were compacted while the sidecar was down.
///
/// A Prometheus that is killed may cut the same late samples again, into another block. When it merges these blocks, the
/// merged block has fewer samples than its parents together. It is uploaded, so that readers find each sample once.
pub(crate) fn decide(meta: &BlockMeta, journal: &Journal, policy: ShipPolicy) -> BlockTask {
    let are_settled =
        |blocks: Vec<Ulid>| !blocks.is_empty() && blocks.iter().all(|block| journal.is_settled(*block));
    let compaction = &meta.compaction;
    if meta.stats.samples == 0 {
        return BlockTask::Covered;
    }
    if compaction.level <= 1 {
        let parents = compaction.parents.iter().map(|parent| parent.ulid);
        return if are_settled(parents.collect()) { BlockTask::Covered } else { BlockTask::Ship };
    }
    let sources = &compaction.sources;
    if are_settled(sources.clone()) {
        let is_needed = merges_equal_samples(meta, journal, policy.block_range);
        return if is_needed { BlockTask::Ship } else { BlockTask::Covered };
    }
    let is_pinned =
        |source: &&Ulid| journal.get(**source).is_some_and(|entry| entry.stage == BlockStage::Pinned);
    let unsettled = || sources.iter().filter(|source| !journal.is_settled(**source));
    if unsettled().next().is_some() && unsettled().all(|source| is_pinned(&source)) {
        return BlockTask::Leave;
    }
    let began = journal.began();
    let is_after_beginning = |source: &Ulid| {
        let made = Timestamp::from_millis(i64::try_from(source.timestamp_ms()).unwrap_or(i64::MAX));
        journal.get(*source).is_some() || began.is_some_and(|began| made >= began)
    };
    let is_ours = policy.upload_compacted
        || is_of_one_range(meta, policy.block_range)
        || sources.iter().any(is_after_beginning);
    if is_ours { BlockTask::Ship } else { BlockTask::Leave }
}

/// Whether a block was merged from blocks of one range that have some samples in common, as far as the numbers of their
/// samples are known.
pub(crate) fn merges_equal_samples(meta: &BlockMeta, journal: &Journal, block_range: Duration) -> bool {
    if meta.compaction.level <= 1 || !is_of_one_range(meta, block_range) {
        return false;
    }
    let samples = |blocks: &mut dyn Iterator<Item = Ulid>| -> Option<u64> {
        blocks.map(|block| journal.get(block)?.samples).sum()
    };
    let of_parents = samples(&mut meta.compaction.parents.iter().map(|parent| parent.ulid));
    // A parent that was here for less than a pass is unknown. Its sources may be known.
    let of_sources = || samples(&mut meta.compaction.sources.iter().copied());
    of_parents.or_else(of_sources).is_some_and(|samples| samples > meta.stats.samples)
}

/// Whether a block is no longer than those that Prometheus cuts. A compacted block of this length was merged with
/// late samples.
pub(crate) fn is_of_one_range(meta: &BlockMeta, block_range: Duration) -> bool {
    meta.max_time <= meta.min_time + block_range
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tsdb::BlockDesc;

    use super::*;

    fn meta(n: u128) -> BlockMeta {
        let mut meta = BlockMeta::new(Ulid(n), Timestamp::from_millis(0), Timestamp::from_millis(10));
        meta.stats.samples = 1;
        meta
    }

    #[test]
    fn complete_blocks_are_found_and_unreadable_ones_are_reported() {
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
    fn samples_are_uploaded_only_once() {
        let dir = TempDir::new().unwrap();
        let mut journal = Journal::open(dir.path().join("journal"));
        let now = Timestamp::from_millis(1);
        journal.set(&meta(1), BlockStage::Verified, now);
        journal.set(&meta(2), BlockStage::Verified, now);
        journal.set(&meta(3), BlockStage::Pinned, now);
        let compacted = |sources: &[u128]| {
            let mut meta = meta(9);
            meta.compaction.level = 2;
            meta.compaction.sources = sources.iter().map(|n| Ulid(*n)).collect();
            meta
        };
        let wide =
            |sources: &[u128]| BlockMeta { max_time: Timestamp::from_millis(30), ..compacted(sources) };
        // The clock of an id is in its upper bits.
        let young = u128::from(Ulid::from_parts(1, 7));
        let cleaned = |parent: u128| {
            let mut cleaned = meta(9);
            let (min_time, max_time) = (cleaned.min_time, cleaned.max_time);
            cleaned.compaction.parents = vec![BlockDesc { ulid: Ulid(parent), min_time, max_time }];
            cleaned
        };
        // Each of the blocks 1 and 2 has one sample.
        let merged = |samples: u64, parents: &[u128]| {
            let mut merged = compacted(&[1, 2]);
            merged.stats.samples = samples;
            let desc =
                |n: &u128| BlockDesc { ulid: Ulid(*n), min_time: merged.min_time, max_time: merged.max_time };
            merged.compaction.parents = parents.iter().map(desc).collect();
            merged
        };
        let longer = BlockMeta { max_time: Timestamp::from_millis(30), ..merged(1, &[1, 2]) };
        let mut empty = meta(9);
        empty.stats.samples = 0;
        for (what, meta, without, with) in [
            ("a plain block", meta(9), BlockTask::Ship, BlockTask::Ship),
            ("an empty block", empty, BlockTask::Covered, BlockTask::Covered),
            ("compacted from shipped blocks", compacted(&[1, 2]), BlockTask::Covered, BlockTask::Covered),
            ("merged without a sample twice", merged(2, &[1, 2]), BlockTask::Covered, BlockTask::Covered),
            ("merged with a sample twice", merged(1, &[1, 2]), BlockTask::Ship, BlockTask::Ship),
            ("merged with a sample twice, step by step", merged(1, &[8]), BlockTask::Ship, BlockTask::Ship),
            ("merged of unknown blocks", merged(2, &[1, 8]), BlockTask::Covered, BlockTask::Covered),
            ("compacted with a sample twice", longer, BlockTask::Covered, BlockTask::Covered),
            ("compacted from a block on its way", compacted(&[1, 3]), BlockTask::Leave, BlockTask::Leave),
            ("merged with late samples, at once", compacted(&[7, 8]), BlockTask::Ship, BlockTask::Ship),
            (
                "merged with late samples, shipped before",
                compacted(&[1, 8]),
                BlockTask::Ship,
                BlockTask::Ship,
            ),
            ("merged with late samples, on its way", compacted(&[3, 8]), BlockTask::Ship, BlockTask::Ship),
            ("compacted before uploads began", wide(&[7, 8]), BlockTask::Leave, BlockTask::Ship),
            ("compacted while the sidecar was down", wide(&[1, 7]), BlockTask::Ship, BlockTask::Ship),
            ("compacted from blocks made since then", wide(&[young, 7]), BlockTask::Ship, BlockTask::Ship),
            ("cleaned of deletions after it was shipped", cleaned(1), BlockTask::Covered, BlockTask::Covered),
            ("cleaned of deletions before", cleaned(3), BlockTask::Ship, BlockTask::Ship),
        ] {
            let policy =
                |upload_compacted| ShipPolicy { upload_compacted, block_range: Duration::from_millis(10) };
            assert_eq!(decide(&meta, &journal, policy(false)), without, "{what}");
            assert_eq!(
                decide(&meta, &journal, policy(true)),
                with,
                "{what}, with --shipper.upload-compacted"
            );
        }
    }
}
