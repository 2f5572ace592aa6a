//! A data folder: a head, and the blocks that were cut off it.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use model::{TimeRange, Timestamp};
use tsdb::{Block, BlockError, BlockMeta, BlockProblem, MetaError, UNFINISHED_SUFFIX, Ulid, parse_block_id};

use crate::cut_late::LATE_HINT;
use crate::cut_state::CutState;
use crate::error::{HeadError, at};
use crate::files::bytes_of;
use crate::folder::FolderLock;
use crate::head::{Head, HeadOptions, LATE_LOG_DIR};
use crate::replay::Replay;
use crate::views::{Removal, Views};

/// The end of the name of a directory while its block is being removed. A start removes such directories.
const REMOVED_SUFFIX: &str = ".tmp-for-deletion";

/// How long samples are kept, and the range of blocks.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseOptions {
    /// The range of blocks: 2 hours by default.
    pub block_range: Duration,
    /// Blocks whose last sample is older than this, compared with the newest block, are removed. None keeps them.
    pub keep_for: Option<Duration>,
    /// The oldest blocks are removed while blocks, log and chunk files have more bytes than this. None keeps them.
    pub keep_bytes: Option<u64>,
    /// Most exemplars of the head: 100,000 by default.
    pub most_exemplars: usize,
    /// How much earlier than the last sample of the head a sample may be that is out of order: 0 by default, which accepts none.
    pub out_of_order_window: Duration,
    /// Most bytes of samples that are only in memory, because a log cannot be written: 128 MiB by default.
    pub most_unlogged_bytes: usize,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        let head = HeadOptions::default();
        Self {
            block_range: head.block_range,
            keep_for: None,
            keep_bytes: None,
            most_exemplars: head.most_exemplars,
            out_of_order_window: head.out_of_order_window,
            most_unlogged_bytes: head.most_unlogged_bytes,
        }
    }
}

/// How long and how many bytes of blocks are kept.
#[derive(Clone, Copy)]
struct Kept {
    keep_for: Option<Duration>,
    keep_bytes: Option<u64>,
}

/// A block of the data folder.
pub struct LocalBlock {
    /// The block.
    pub block: Block,
    /// Its directory.
    pub dir: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What was found when a data folder was opened.
#[derive(Debug, Default)]
pub struct OpenedDatabase {
    /// What the log contained.
    pub replay: Replay,
    /// Blocks that cannot be read. They stay where they are, and are never removed by age or size.
    pub damaged: Vec<BlockError>,
}

/// A head with its blocks.
///
/// Its user calls [`Database::maintain`] about once a minute.
pub struct Database {
    dir: PathBuf,
    kept: Mutex<Kept>,
    head: Head,
    /// By min time.
    blocks: RwLock<Vec<Arc<LocalBlock>>>,
    pub(crate) views: Views,
    /// Whether a block was cut since out-of-order samples were written to blocks.
    is_late_due: AtomicBool,
}

/// What was done by [`Database::maintain`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Blocks that were cut off the head.
    pub cut: Vec<Ulid>,
    /// Blocks that were removed.
    pub removed: Vec<Ulid>,
}

impl Database {
    /// Opens a data folder, which is created if it is missing. It may be that of a Prometheus.
    ///
    /// # Errors
    /// When another process uses it, or it is not a data folder; when a later version wrote it; when a file cannot be read or written. In
    /// the first three cases, nothing was written. A damaged block is not an error.
    pub fn open(dir: &Path, options: DatabaseOptions) -> Result<(Self, OpenedDatabase), HeadError> {
        let lock = FolderLock::lock(dir)?;
        let late_dir = dir.join(LATE_LOG_DIR);
        let unpublished = match CutState::load(&late_dir).map_err(at(&late_dir))? {
            Some(CutState::Writing(ids)) => ids,
            _ => Vec::new(),
        };
        let (mut blocks, mut damaged) = (Vec::new(), Vec::new());
        for id in block_ids(dir).map_err(at(dir))?.into_iter().filter(|id| !unpublished.contains(id)) {
            match LocalBlock::open(dir, id) {
                Ok(block) => blocks.push(Arc::new(block)),
                Err(error) => damaged.push(error),
            }
        }
        if let Some(newer) = damaged.iter().find(|error| is_newer(error)) {
            return Err(HeadError::Newer { path: dir.join(&*newer.block), what: newer_part(newer) });
        }
        blocks.sort_by_key(|block| (block.meta().min_time, block.meta().ulid));
        let min_time =
            blocks.iter().filter(|block| !block.is_late()).map(|block| block.meta().max_time).max();
        let head_options = HeadOptions {
            block_range: options.block_range,
            min_time: min_time.unwrap_or(Timestamp::MIN),
            most_exemplars: options.most_exemplars,
            out_of_order_window: options.out_of_order_window,
            most_unlogged_bytes: options.most_unlogged_bytes,
        };
        let (head, replay) = Head::open_locked(dir, head_options, lock)?;
        // Nothing is removed before it is known that all can be read.
        remove_unfinished(dir).map_err(at(dir))?;
        if !unpublished.is_empty() {
            unpublished.iter().try_for_each(|id| LocalBlock::remove_dir(&dir.join(id.to_string())))?;
            CutState::remove(&late_dir).map_err(at(&late_dir))?;
        }
        remove_superseded(&mut blocks)?;
        let database = Self {
            dir: dir.to_owned(),
            kept: Mutex::new(Kept { keep_for: options.keep_for, keep_bytes: options.keep_bytes }),
            head,
            blocks: RwLock::new(blocks),
            views: Views::default(),
            is_late_due: AtomicBool::new(false),
        };
        Ok((database, OpenedDatabase { replay, damaged }))
    }

    /// Changes how long and how many bytes of blocks are kept, from the next call of [`Database::maintain`] on.
    pub fn set_retention(&self, keep_for: Option<Duration>, keep_bytes: Option<u64>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Kept { keep_for, keep_bytes };
    }

    /// The head, to append to and to select from. It has the samples from the end of the last block on.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The blocks with samples in a range, by min time. Those of out-of-order samples overlap others.
    pub fn blocks(&self, range: TimeRange) -> Vec<Arc<LocalBlock>> {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        blocks.iter().filter(|block| block.meta().time_range().overlaps(&range)).cloned().collect()
    }

    /// Writes complete chunks to files, cuts blocks that are due, and removes those that are too old or too many. `now` is the time
    /// in the ids of blocks.
    ///
    /// What is in a new block is removed from the head when no [`DatabaseView`](crate::DatabaseView) needs it, perhaps in the next call.
    ///
    /// # Errors
    /// When a file cannot be written or removed. What was done before stays done, and the next call goes on.
    pub fn maintain(&self, now: Timestamp) -> Result<Maintained, HeadError> {
        self.maintain_keeping(now, &|_| false)
    }

    /// As [`Database::maintain`], but keeps blocks, whatever their age and size, of which `is_kept` says so.
    ///
    /// # Errors
    /// As [`Database::maintain`].
    pub fn maintain_keeping(
        &self,
        now: Timestamp,
        is_kept: &dyn Fn(Ulid) -> bool,
    ) -> Result<Maintained, HeadError> {
        let mut done = Maintained::default();
        let cut = self.cut_due(now, &mut done);
        // Also after an error: on a full disk, this makes room.
        for block in self.expired(is_kept)? {
            self.remove(&block)?;
            done.removed.push(block.meta().ulid);
        }
        cut.map(|()| done)
    }

    /// Writes complete chunks to files, and cuts blocks that are due.
    fn cut_due(&self, now: Timestamp, done: &mut Maintained) -> Result<(), HeadError> {
        self.head.store_chunks()?;
        self.remove_cut(now)?;
        while !self.views.is_waiting()
            && let Some(range) = self.head.next_block()
        {
            let id = new_id(now);
            if self.head.cut_block(&self.dir, id, range)?.is_some() {
                self.add_block(id)?;
                done.cut.push(id);
            }
            // As in Prometheus, out-of-order samples are written to blocks after those that are in order.
            self.is_late_due.store(true, Ordering::Relaxed);
            self.views.was_cut(Removal::Before(range.1), now);
            self.remove_cut(now)?;
        }
        if !self.views.is_waiting() && self.is_late_due.load(Ordering::Relaxed) {
            done.cut.extend(self.cut_late(now)?);
            self.is_late_due.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Removes from the head what is in blocks that all views know.
    fn remove_cut(&self, now: Timestamp) -> Result<(), HeadError> {
        match self.views.removable(now) {
            None => Ok(()),
            Some(Removal::Before(until)) => self.head.truncate(until),
            Some(Removal::Late(cut)) => self.head.end_late_cut(cut),
        }
    }

    /// Writes the out-of-order samples to blocks.
    fn cut_late(&self, now: Timestamp) -> Result<Vec<Ulid>, HeadError> {
        let cut = self.head.begin_late_cut()?;
        let blocks = self.head.cut_late_blocks(&self.dir, &cut, || new_id(now))?;
        let ids: Vec<Ulid> = blocks.iter().map(|block| block.ulid).collect();
        ids.iter().try_for_each(|id| self.add_block(*id))?;
        self.views.was_cut(Removal::Late(cut), now);
        self.remove_cut(now)?;
        Ok(ids)
    }

    /// Adds a block that was written.
    fn add_block(&self, id: Ulid) -> Result<(), HeadError> {
        let block = LocalBlock::open(&self.dir, id).map_err(|error| HeadError::Damaged(Box::new(error)))?;
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        blocks.push(Arc::new(block));
        blocks.sort_by_key(|block| (block.meta().min_time, block.meta().ulid));
        Ok(())
    }

    /// Blocks that are too old or too many.
    fn expired(&self, is_kept: &dyn Fn(Ulid) -> bool) -> Result<Vec<Arc<LocalBlock>>, HeadError> {
        let blocks = self.blocks.read().unwrap_or_else(PoisonError::into_inner);
        let newest = blocks.iter().map(|block| block.meta().max_time).max();
        let kept = *self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let removable = || blocks.iter().filter(|block| !is_kept(block.meta().ulid));
        let is_old = |block: &&Arc<LocalBlock>| match (kept.keep_for, newest) {
            (Some(keep), Some(newest)) => block.meta().max_time < newest - keep,
            _ => false,
        };
        let mut expired: Vec<Arc<LocalBlock>> = removable().filter(is_old).cloned().collect();
        if let Some(most) = kept.keep_bytes {
            let mut bytes = self.head.bytes_on_disk().map_err(at(&self.dir))?;
            bytes += blocks.iter().map(|block| block.bytes).sum::<u64>();
            bytes -= expired.iter().map(|block| block.bytes).sum::<u64>();
            for block in removable().filter(|block| !is_old(block)) {
                if bytes <= most {
                    break;
                }
                bytes -= block.bytes;
                expired.push(Arc::clone(block));
            }
        }
        Ok(expired)
    }

    /// Removes a block. Who still reads it can go on.
    fn remove(&self, block: &LocalBlock) -> Result<(), HeadError> {
        let id = block.meta().ulid;
        self.blocks.write().unwrap_or_else(PoisonError::into_inner).retain(|other| other.meta().ulid != id);
        block.remove()
    }
}

/// Removes blocks that another block was made of, which a Prometheus that was killed leaves.
fn remove_superseded(blocks: &mut Vec<Arc<LocalBlock>>) -> Result<(), HeadError> {
    let parents =
        blocks.iter().flat_map(|block| block.meta().compaction.parents.iter().map(|parent| parent.ulid));
    let parents: HashSet<Ulid> = parents.collect();
    for block in blocks.iter().filter(|block| parents.contains(&block.meta().ulid)) {
        block.remove()?;
    }
    blocks.retain(|block| !parents.contains(&block.meta().ulid));
    Ok(())
}

impl LocalBlock {
    fn open(dir: &Path, id: Ulid) -> Result<Self, BlockError> {
        let dir = dir.join(id.to_string());
        let block = Block::open(&dir)?;
        // A size that cannot be read is not worth an error.
        let bytes = bytes_of(&dir).unwrap_or(0);
        Ok(Self { block, dir, bytes })
    }

    /// Removes the files.
    fn remove(&self) -> Result<(), HeadError> {
        Self::remove_dir(&self.dir)
    }

    /// Removes a block, if there is one. The directory gets another name first, so that the block is there completely or not at all.
    fn remove_dir(dir: &Path) -> Result<(), HeadError> {
        let removed = dir.with_extension(&REMOVED_SUFFIX[1..]);
        match fs::rename(dir, &removed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(at(dir))?,
        }
        fs::remove_dir_all(&removed).map_err(at(&removed))
    }

    fn meta(&self) -> &BlockMeta {
        self.block.meta()
    }

    /// Whether it has late samples only, so that its end is not that of the head.
    fn is_late(&self) -> bool {
        self.meta().compaction.hints.iter().any(|hint| hint == LATE_HINT)
    }
}

/// Whether a later version wrote a block.
fn is_newer(error: &BlockError) -> bool {
    match &error.problem {
        BlockProblem::Version { found, newest } => found > newest,
        BlockProblem::Meta(MetaError::Version(version)) => *version > BlockMeta::NEWEST_VERSION,
        _ => false,
    }
}

/// What of a block is not known.
fn newer_part(error: &BlockError) -> String {
    match &error.problem {
        BlockProblem::Version { found, .. } => format!("version {found} of {}", error.part),
        BlockProblem::Meta(MetaError::Version(version)) => format!("version {version} of meta.json"),
        problem => problem.to_string(),
    }
}

/// The ids of the blocks in a directory.
fn block_ids(dir: &Path) -> io::Result<Vec<Ulid>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        ids.extend(entry?.file_name().to_str().and_then(parse_block_id));
    }
    Ok(ids)
}

/// Removes blocks that were not finished, or not removed completely.
fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let id = name.strip_suffix(UNFINISHED_SUFFIX).or_else(|| name.strip_suffix(REMOVED_SUFFIX));
        if id.and_then(parse_block_id).is_some() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// A new id with this time.
fn new_id(now: Timestamp) -> Ulid {
    // The keys of a hasher are random.
    let [high, low] = [(), ()].map(|()| RandomState::new().build_hasher().finish());
    Ulid::from_parts(u64::try_from(now.as_millis()).unwrap_or(0), u128::from(high) << 64 | u128::from(low))
}
