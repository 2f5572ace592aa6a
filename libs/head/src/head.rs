//! The head: recent samples in memory, in the log, and in chunk files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use model::{TimeRange, Timestamp};

use crate::chunk_files::ChunkFiles;
use crate::chunk_format::StoredChunk;
use crate::counts::{Counts, SeriesTimes};
use crate::error::{HeadError, at};
use crate::exemplars::ExemplarBuffer;
use crate::files::bytes_of;
use crate::folder::FolderLock;
use crate::held::HeldLog;
use crate::index::HeadIndex;
use crate::log::buffered::{BufferedLog, Unlogged};
use crate::metadata::MetadataPool;
use crate::series::Series;

/// The directory of the log.
pub(crate) const LOG_DIR: &str = "wal";
/// The directory of the chunk files.
pub(crate) const CHUNKS_DIR: &str = "chunks_head";
/// The directory of the log of out-of-order samples.
pub(crate) const LATE_LOG_DIR: &str = "wbl";

/// How a head is opened.
#[derive(Clone, Copy, Debug)]
pub struct HeadOptions {
    /// The range of blocks: 2 hours by default. Chunks end at its multiples.
    pub block_range: Duration,
    /// Samples before this time are in blocks: they are neither read from the log nor accepted.
    pub min_time: Timestamp,
    /// Most exemplars of all series: 100,000 by default. The newest are kept; 0 keeps none.
    pub most_exemplars: usize,
    /// How much earlier than the last sample of the head a sample may be that is out of order: 0 by default, which accepts none.
    pub out_of_order_window: Duration,
    /// Most bytes of samples that are only in memory, because a log cannot be written: 128 MiB by default, about ten million floats. When
    /// they are reached, batches are refused. It holds for each of the two logs.
    pub most_unlogged_bytes: usize,
}

impl Default for HeadOptions {
    fn default() -> Self {
        Self {
            block_range: Duration::from_secs(2 * 3_600),
            min_time: Timestamp::MIN,
            most_exemplars: 100_000,
            out_of_order_window: Duration::ZERO,
            most_unlogged_bytes: 128 << 20,
        }
    }
}

/// Recent samples of a data folder.
///
/// A sample that was committed is in the log; [`Head::sync`] waits until it is on the disk. After a crash, the head has every
/// sample that was synced, each once. [`Head::cut_block`] writes the oldest range to a block.
///
/// Memory: about a kilobyte for each series with a dozen labels, most of it labels and the chunk that grows, and what
/// [`Head::store_chunks`] has not written yet.
pub struct Head {
    pub(crate) dir: PathBuf,
    pub(crate) block_range: i64,
    pub(crate) log: Mutex<BufferedLog>,
    pub(crate) files: ChunkFiles,
    pub(crate) index: RwLock<HeadIndex>,
    /// Series that no record of the log names yet. A commit logs them before its samples, also those of other batches.
    pub(crate) unlogged: Mutex<Vec<Arc<Series>>>,
    /// Samples before this time are refused. A commit holds it for reading, so that no sample is added to a range that is being
    /// written to a block.
    pub(crate) min_valid: RwLock<i64>,
    pub(crate) max_time: AtomicI64,
    /// Samples that were added since the head was opened.
    pub(crate) appended: AtomicU64,
    pub(crate) counts: Counts,
    /// Deletions of a log, by slot.
    pub(crate) deletions: RwLock<HashMap<u32, Vec<TimeRange>>>,
    pub(crate) exemplars: RwLock<ExemplarBuffer>,
    pub(crate) metadata: MetadataPool,
    /// The window of [`HeadOptions::out_of_order_window`], in milliseconds.
    late_window: AtomicI64,
    /// The log of out-of-order samples; none before the first one. Who appends such samples holds it, so that a mark for a chunk comes
    /// after the records of all its samples.
    pub(crate) late_log: Mutex<Option<BufferedLog>>,
    most_unlogged_bytes: usize,
    /// What of the log its readers still need.
    pub(crate) held: Mutex<HeldLog>,
    pub(crate) lock: FolderLock,
}

/// What a head contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadStats {
    /// Number of series.
    pub series: usize,
    /// Number of chunks.
    pub chunks: usize,
    /// Number of exemplars.
    pub exemplars: usize,
    /// The times of its first and last sample; none without samples.
    pub times: Option<TimeRange>,
}

impl Head {
    /// An empty head in a directory that is locked. Nothing is written.
    pub(crate) fn empty(
        dir: &Path,
        options: HeadOptions,
        lock: FolderLock,
    ) -> Result<(Self, Vec<crate::chunk_format::FoundChunk>, Vec<crate::chunk_files::DamagedFile>), HeadError>
    {
        let chunks_dir = dir.join(CHUNKS_DIR);
        let (files, chunks, damaged) = ChunkFiles::scan(&chunks_dir)?;
        let log_dir = dir.join(LOG_DIR);
        let log = BufferedLog::new(&log_dir, options.most_unlogged_bytes);
        let range = millis(options.block_range).max(1);
        let head = Self {
            dir: dir.to_owned(),
            block_range: range,
            log: Mutex::new(log),
            files,
            index: RwLock::default(),
            unlogged: Mutex::default(),
            min_valid: RwLock::new(options.min_time.as_millis()),
            max_time: AtomicI64::new(i64::MIN),
            appended: AtomicU64::new(0),
            counts: Counts::default(),
            deletions: RwLock::default(),
            exemplars: RwLock::new(ExemplarBuffer::new(options.most_exemplars)),
            metadata: MetadataPool::default(),
            late_window: AtomicI64::new(millis(options.out_of_order_window)),
            late_log: Mutex::default(),
            most_unlogged_bytes: options.most_unlogged_bytes,
            held: Mutex::default(),
            lock,
        };
        Ok((head, chunks, damaged))
    }

    /// Waits until all samples that were committed are on the disk. Also writes those that are only in memory, because the log could not be
    /// written when they were committed.
    ///
    /// # Errors
    /// When the disk is full or reports an error. Samples of later batches are not affected.
    pub fn sync(&self) -> Result<(), HeadError> {
        {
            let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.sync().map_err(at(&self.dir.join(LOG_DIR)))?;
        }
        let mut late_log = self.late_log.lock().unwrap_or_else(PoisonError::into_inner);
        late_log.as_mut().map_or(Ok(()), BufferedLog::sync).map_err(at(&self.dir.join(LATE_LOG_DIR)))
    }

    /// Samples that are only in memory, because a log cannot be written. None if all are logged. The next commit or sync tries again.
    pub fn unlogged(&self) -> Option<Unlogged> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).unlogged();
        let late = self.late_log.lock().unwrap_or_else(PoisonError::into_inner);
        match (log, late.as_ref().and_then(BufferedLog::unlogged)) {
            (Some(log), Some(late)) => Some(Unlogged {
                problem: log.problem,
                samples: log.samples + late.samples,
                bytes: log.bytes + late.bytes,
                refused: log.refused + late.refused,
            }),
            (log, late) => log.or(late),
        }
    }

    /// Begins the log of out-of-order samples.
    pub(crate) fn create_late_log(&self) -> std::io::Result<BufferedLog> {
        let mut log = BufferedLog::new(&self.dir.join(LATE_LOG_DIR), self.most_unlogged_bytes);
        log.begin()?;
        Ok(log)
    }

    /// Samples that were added since the head was opened.
    pub fn appended_samples(&self) -> u64 {
        self.appended.load(Ordering::Relaxed)
    }

    /// Changes [`HeadOptions::out_of_order_window`]. Samples that were accepted stay.
    pub fn set_out_of_order_window(&self, window: Duration) {
        self.late_window.store(millis(window), Ordering::Relaxed);
    }

    /// Whether a sample at this time that is out of order is accepted.
    pub(crate) fn accepts_late(&self, time: i64) -> bool {
        let window = self.late_window.load(Ordering::Relaxed);
        window > 0 && time >= self.last_time().saturating_sub(window)
    }

    /// Whether out-of-order samples are accepted at all.
    pub(crate) fn has_late_window(&self) -> bool {
        self.late_window.load(Ordering::Relaxed) > 0
    }

    /// Writes complete chunks to files, so that they take no memory. A program calls it about once a minute.
    ///
    /// # Errors
    /// When a file cannot be written. The chunks are then kept in memory.
    pub fn store_chunks(&self) -> Result<(), HeadError> {
        let series: Vec<Arc<Series>> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.all().filter(|series| !series.lock().full.is_empty()).cloned().collect()
        };
        for group in series.chunks(1_000) {
            let chunks: Vec<(u64, tsdb::Chunk)> = group
                .iter()
                .flat_map(|series| {
                    series.lock().full.iter().map(|c| (series.reference, c.clone())).collect::<Vec<_>>()
                })
                .collect();
            let borrowed: Vec<(u64, &tsdb::Chunk)> =
                chunks.iter().map(|(reference, c)| (*reference, c)).collect();
            let places = self.files.append(&borrowed).map_err(at(&self.dir.join(CHUNKS_DIR)))?;
            let mut placed = chunks.iter().zip(places).peekable();
            for series in group {
                let mut state = series.lock();
                while let Some(((_, chunk), place)) =
                    placed.next_if(|((reference, _), _)| *reference == series.reference)
                {
                    // A block may have been cut meanwhile, and the chunk with it.
                    if state.full.first().is_some_and(|full| full.range == chunk.range) {
                        state.full.remove(0);
                        state.stored.push(StoredChunk { range: chunk.range, place });
                    }
                }
                state.full.shrink_to_fit();
            }
        }
        Ok(())
    }

    /// Bytes of the log and of the chunk files.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn bytes_on_disk(&self) -> std::io::Result<u64> {
        let late = self.dir.join(LATE_LOG_DIR);
        let late = if late.exists() { bytes_of(&late)? } else { 0 };
        Ok(bytes_of(&self.dir.join(LOG_DIR))? + bytes_of(&self.dir.join(CHUNKS_DIR))? + late)
    }

    /// What the head contains. It looks at no series.
    pub fn stats(&self) -> HeadStats {
        let series = self.index.read().unwrap_or_else(PoisonError::into_inner).len();
        let exemplars = self.exemplars.read().unwrap_or_else(PoisonError::into_inner).len();
        let times = joined(self.times_in_order(), self.counts.late_times());
        HeadStats { series, chunks: self.counts.chunks(), exemplars, times }
    }

    /// The times of the first and the last sample that are in order.
    pub(crate) fn times_in_order(&self) -> Option<TimeRange> {
        self.counts.times_in_order(self.last_time())
    }

    /// Counts what a start has found. Nothing is appended meanwhile.
    pub(crate) fn count_all(&self) {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let (mut chunks, mut times) = (0, SeriesTimes::default());
        for series in index.all() {
            let state = series.lock();
            chunks += state.chunk_count();
            times.add(&state);
        }
        self.counts.add_chunks(chunks);
        self.counts.set_times(&times);
        self.max_time.fetch_max(times.last, Ordering::Relaxed);
    }

    /// The time of the last sample of all series that is in order.
    pub(crate) fn last_time(&self) -> i64 {
        self.max_time.load(Ordering::Relaxed)
    }
}

/// The range that contains both.
pub(crate) fn joined(a: Option<TimeRange>, b: Option<TimeRange>) -> Option<TimeRange> {
    match (a, b) {
        (Some(a), Some(b)) => Some(TimeRange::new(a.min.min(b.min), a.max.max(b.max))),
        _ => a.or(b),
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
