//! The blocks that a job reads, in place: ranges of their objects, read from begin to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use bucket::deletions::BlockDeletions;
use bucket::{BlockFault, Bucket, BucketFile, OpenBlockError, Retry, layout};
use model::TimeRange;
use series::{AggrChunk, ChunkJoinError, DeletedTimes, Series};
use tsdb::{Block, BlockError, BlockMeta, BlockParts, BlockSeries, Chunk, IndexMemory, ReadAt, Ulid};

use crate::account::SampleAccount;
use crate::read_ahead::ReadAhead;

/// The pieces of all files of all sources of a job, together.
const PIECES_BYTES: u64 = 64 << 20;
/// A batch of series ends after this many bytes of chunks ...
const BATCH_BYTES: usize = 256 << 10;
/// ... or this many series.
const BATCH_SERIES: usize = 512;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The block was not opened.
    #[error(transparent)]
    Open(#[from] OpenBlockError),
    /// The store failed.
    #[error(transparent)]
    Bucket(#[from] bucket::BucketError),
    /// A part of it cannot be read.
    #[error("{0}")]
    Read(Box<BlockError>),
    /// Its chunks cannot be decoded, or cut where tombstones end.
    #[error("block {block}: series {series}: {error}")]
    Chunks {
        /// The block.
        block: Ulid,
        /// The labels of the series.
        series: String,
        /// What is wrong.
        error: Box<ChunkJoinError>,
    },
    /// The job was stopped.
    #[error("the job was stopped")]
    Stopped,
}

impl From<BlockError> for SourceError {
    fn from(error: BlockError) -> Self {
        Self::Read(Box::new(error))
    }
}

impl SourceError {
    /// Whether the block is not there any more.
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Open(error) => error.fault() == BlockFault::Gone,
            Self::Read(error) => BlockFault::of_read(error) == BlockFault::Gone,
            Self::Bucket(_) | Self::Chunks { .. } | Self::Stopped => false,
        }
    }

    /// Whether the block itself is at fault, and not the store.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Open(error) => matches!(error.fault(), BlockFault::Corrupt | BlockFault::NewerVersion),
            Self::Read(error) => {
                matches!(BlockFault::of_read(error), BlockFault::Corrupt | BlockFault::NewerVersion)
            }
            Self::Chunks { .. } => true,
            Self::Bucket(_) | Self::Stopped => false,
        }
    }
}

/// A block that is open.
pub(crate) struct Source {
    pub(crate) block: Block,
    /// Bytes of its files, as the bucket lists them.
    pub(crate) size_bytes: u64,
    deletions: Arc<BlockDeletions>,
    /// Only series of which these deletions select something are read.
    only: Option<Arc<BlockDeletions>>,
}

impl Source {
    /// Opens a block for one of `sources` readers of a job.
    pub(crate) async fn open(
        bucket: &Bucket,
        meta: &Arc<BlockMeta>,
        sources: usize,
        retry: Retry,
    ) -> Result<Self, SourceError> {
        let id = meta.ulid;
        let files = bucket.block_files(meta, retry).await?;
        let size_bytes = files.iter().map(|file| file.size_bytes).sum();
        // An index and a segment are read at a time, and each has two pieces.
        let piece_bytes = (PIECES_BYTES / (4 * sources.max(1) as u64)).clamp(128 << 10, 4 << 20);
        let mut index = None;
        let mut segments: Vec<Arc<dyn ReadAt>> = Vec::new();
        for file in &files {
            let object = BucketFile::with_size(bucket, &layout::block_file(id, &file.path), file.size_bytes);
            let reader: Arc<dyn ReadAt> = Arc::new(ReadAhead::new(object.with_retry(retry), piece_bytes));
            if file.path == layout::INDEX_FILE { index = Some(reader) } else { segments.push(reader) }
        }
        let tombstones = tombstones(bucket, id, retry).await?;
        let index = index.ok_or(SourceError::Stopped)?;
        let parts = BlockParts {
            meta: (**meta).clone(),
            index,
            segments,
            tombstones,
            index_memory: index_memory(sources),
        };
        let opened = tokio::task::spawn_blocking(move || Block::from_parts(id, parts)).await;
        let block = opened.map_err(|_| SourceError::Stopped)??;
        Ok(Self { block, size_bytes, deletions: Arc::default(), only: None })
    }

    /// The source without the samples that `deletions` delete, besides those that tombstones in a file of the block do.
    pub(crate) fn with_deletions(self, deletions: Arc<BlockDeletions>) -> Self {
        Self { deletions, ..self }
    }

    /// The source with only those series of which `deletions` select something.
    pub(crate) fn with_series_of(self, deletions: Arc<BlockDeletions>) -> Self {
        Self { only: Some(deletions), ..self }
    }

    /// Reads all series and sends them in batches. Returns what tombstones deleted. Blocks the thread.
    pub(crate) fn read(
        &self,
        batches: &SyncSender<Vec<Series>>,
        stop: &AtomicBool,
    ) -> Result<SampleAccount, SourceError> {
        let mut account = SampleAccount::default();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for series in self.block.select(&[], TimeRange::ALL)?.with_deleted_chunks() {
            let series = series?;
            if self.only.as_ref().is_some_and(|only| only.of_series(&series.labels).next().is_none()) {
                continue;
            }
            let chunks = self.chunks(&series, &mut account)?;
            bytes += chunks.iter().map(|chunk| chunk.data.len()).sum::<usize>();
            batch.push(Series {
                labels: series.labels,
                chunks: chunks.into_iter().map(AggrChunk::raw).collect(),
            });
            if bytes > BATCH_BYTES || batch.len() >= BATCH_SERIES {
                if stop.load(Ordering::Relaxed) || batches.send(std::mem::take(&mut batch)).is_err() {
                    return Err(SourceError::Stopped);
                }
                bytes = 0;
            }
        }
        batches.send(batch).map_err(|_| SourceError::Stopped)?;
        Ok(account)
    }

    /// The chunks of a series without the samples that tombstones and deletions delete.
    fn chunks(&self, series: &BlockSeries, account: &mut SampleAccount) -> Result<Vec<Chunk>, SourceError> {
        let chunks = self.block.chunks(&series.chunks)?;
        let count = |chunks: &[Chunk]| chunks.iter().map(|chunk| chunk.sample_count() as u64).sum::<u64>();
        let before = count(&chunks);
        account.read += before;
        let ranges = series.deleted.iter().copied().chain(self.deletions.of_series(&series.labels));
        let deleted = DeletedTimes::new(ranges, self.block.meta().resolution());
        if deleted.is_empty() {
            return Ok(chunks);
        }
        let mut kept = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            kept.extend(deleted.leave(chunk).map_err(|error| SourceError::Chunks {
                block: self.block.meta().ulid,
                series: series.labels.to_string(),
                error: Box::new(error),
            })?);
        }
        account.deleted += before - count(&kept);
        Ok(kept)
    }
}

/// The tombstones of a block, which only tools other than ours upload.
async fn tombstones(
    bucket: &Bucket,
    block: Ulid,
    retry: Retry,
) -> Result<Option<Arc<dyn ReadAt>>, SourceError> {
    let name = layout::block_file(block, layout::TOMBSTONES_FILE);
    match retry.run(|| bucket.get(&name)).await {
        Ok(content) => Ok(Some(Arc::new(content))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(SourceError::Bucket(error)),
    }
}

/// What an index keeps in memory while it is read once, in order: the symbols, within a share of 128 MiB for all sources.
fn index_memory(sources: usize) -> IndexMemory {
    IndexMemory {
        symbols_bytes: (128 << 20) / sources.max(1) as u64,
        postings_table_bytes: 0,
        symbol_stride: 8,
        value_stride: 1 << 20,
    }
}
