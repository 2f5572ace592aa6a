//! Merges the series of several blocks into a new block.
//!
//! Each source is read by a thread of its own, which sends batches of series through a short channel. One thread merges them
//! and writes the block. Memory follows the batches: about 64 MiB of pieces of files, the symbols of the sources, and what the
//! writer keeps for the index.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use series::compact_chunks;
use series::{
    ChunkJoinError, CompactedChunks, Contribution, DownsampleError, Merge, MergeError, MergedSeries,
    ReplicaRule, Series, Step,
};
use tsdb::{BlockWriter, Chunk, WriteError};

use crate::account::{ChunkDigest, SampleAccount};
use crate::source::{Source, SourceError};

/// Batches of a source that wait to be merged.
const WAITING_BATCHES: usize = 2;

/// Why blocks could not be merged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeJobError {
    /// A source cannot be read; its number in the list of sources.
    #[error("{error}")]
    Source {
        source: usize,
        #[source]
        error: SourceError,
    },
    /// A source is not sorted.
    #[error("{0}")]
    Unsorted(MergeError),
    /// A series cannot be downsampled again.
    #[error("series {series}: {error}")]
    Downsample { series: String, error: Box<DownsampleError> },
    /// The chunks of a series cannot be joined.
    #[error("series {series}: {error}")]
    Series { series: String, error: Box<ChunkJoinError> },
    /// The new block cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Merged {
    pub(crate) account: SampleAccount,
    pub(crate) digest: ChunkDigest,
}

/// Merges `sources` into `writer`. `producers` has a number for each source: sources of one producer are united sample by sample,
/// those of several are deduplicated by `rule`. Blocks the thread.
///
/// # Errors
/// The first error. What was written so far is dropped with the writer.
pub(crate) fn merge(
    sources: &[Source],
    producers: &[usize],
    rule: ReplicaRule,
    writer: &mut BlockWriter,
    stop: &AtomicBool,
) -> Result<Merged, MergeJobError> {
    let mut run = MergeRun { producers, rule, writer, merged: Merged::default() };
    let accounts = read_all(sources, stop, |batches| merge_batches(&batches, |series| run.series(series)))?;
    let mut merged = run.merged;
    accounts.into_iter().for_each(|account| merged.account.add(account));
    Ok(merged)
}

/// Reads each source on a thread of its own, and calls `take` with the batches of each. Returns the accounts of the sources. Blocks the
/// thread.
///
/// # Errors
/// The first error.
pub(crate) fn read_all(
    sources: &[Source],
    stop: &AtomicBool,
    take: impl FnOnce(Vec<Receiver<Vec<Series>>>) -> Result<(), MergeJobError>,
) -> Result<Vec<SampleAccount>, MergeJobError> {
    let (senders, receivers): (Vec<SyncSender<_>>, Vec<Receiver<_>>) =
        sources.iter().map(|_| sync_channel(WAITING_BATCHES)).unzip();
    std::thread::scope(|scope| {
        let readers: Vec<_> = sources
            .iter()
            .zip(senders)
            .map(|(source, batches)| scope.spawn(move || source.read(&batches, stop)))
            .collect();
        // Readers that wait end when their channels are closed.
        let written = take(receivers);
        let mut accounts = Vec::with_capacity(sources.len());
        let mut failure = None;
        for (source, reader) in readers.into_iter().enumerate() {
            match reader.join() {
                Ok(Ok(account)) => accounts.push(account),
                Ok(Err(error)) => {
                    let is_first = failure.is_none() || matches!(failure, Some((_, SourceError::Stopped)));
                    if is_first && (failure.is_none() || !matches!(error, SourceError::Stopped)) {
                        failure = Some((source, error));
                    }
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        // A source that failed ended its channel, so its error comes first.
        if let Some((source, error)) = failure
            && (written.is_ok() || !matches!(error, SourceError::Stopped) || stop.load(Ordering::Relaxed))
        {
            return Err(MergeJobError::Source { source, error });
        }
        written.map(|()| accounts)
    })
}

/// Merges the batches of the inputs, and passes on each series.
pub(crate) fn merge_batches(
    batches: &[Receiver<Vec<Series>>],
    mut each: impl FnMut(MergedSeries) -> Result<(), MergeJobError>,
) -> Result<(), MergeJobError> {
    let mut merge = Merge::new(batches.len());
    loop {
        match merge.step() {
            Step::NeedsBatch(input) => match batches.get(input).and_then(|batches| batches.recv().ok()) {
                Some(batch) => merge.offer(input, batch).map_err(MergeJobError::Unsorted)?,
                None => merge.end(input),
            },
            Step::Series(series) => each(series)?,
            Step::Done => return Ok(()),
        }
    }
}

struct MergeRun<'a> {
    producers: &'a [usize],
    rule: ReplicaRule,
    writer: &'a mut BlockWriter,
    merged: Merged,
}

impl MergeRun<'_> {
    fn series(&mut self, series: MergedSeries) -> Result<(), MergeJobError> {
        let MergedSeries { labels, contributions } = series;
        let compacted = self.compact(contributions);
        let CompactedChunks { chunks, duplicates, conflicts, replicas } = compacted
            .map_err(|error| MergeJobError::Series { series: labels.to_string(), error: Box::new(error) })?;
        let written = chunks.iter().map(|chunk| chunk.sample_count() as u64).sum();
        self.merged.account.add(SampleAccount {
            written,
            duplicates,
            conflicts,
            replicas,
            ..SampleAccount::default()
        });
        if !chunks.is_empty() {
            self.merged.digest.add(&labels, &chunks);
            self.writer.add_series(&labels, chunks)?;
        }
        Ok(())
    }

    /// The chunks of one series, of each producer in the order of the sources.
    fn compact(&self, contributions: Vec<Contribution>) -> Result<CompactedChunks, ChunkJoinError> {
        let mut by_producer: BTreeMap<usize, Vec<Vec<Chunk>>> = BTreeMap::new();
        for Contribution { input, chunks } in contributions {
            let chunks = chunks.into_iter().filter_map(|chunk| chunk.raw).collect();
            by_producer.entry(self.producers[input]).or_default().push(chunks);
        }
        compact_chunks(by_producer.into_values().collect(), self.rule)
    }
}
