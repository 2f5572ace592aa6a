//! How much of a block is read ahead of a batch, so that a large answer takes few requests to the bucket.
//!
//! The memory for batches is little where many requests run, and a request for each batch would be small. So one read takes chunks of the
//! next batches too, which go into the cache. What is read ahead has memory of its own, which all requests share.

use std::sync::Arc;

use tsdb::{Postings, SeriesRef};

use crate::memory_pool::{MemoryPool, TakenMemory};

/// Entries are read ahead for so many series ...
const ENTRIES: usize = 4096;
/// ... or for so many, where there is memory for it.
const MOST_ENTRIES: usize = 16_384;
/// Bytes of the index that are read at once then.
const ENTRIES_AT_ONCE_BYTES: u64 = 2 << 20;
/// Fewest series whose entries are looked at in one step.
const LEAST_SERIES: usize = 128;
/// Fewest series of a batch that show how the next ones lie.
const LEAST_SHOWN: usize = 64;
/// Less is not worth reading ahead ...
const LEAST_BYTES: u64 = 256 << 10;
/// ... and this is the most of one block.
const MOST_BYTES: u64 = 8 << 20;
/// Entries are near if none is so many times further from the one before it than the nearest ones.
const NEAR: u64 = 16;
/// Series whose chunks are further apart than this are not read together.
const APART_BYTES: u64 = 16 << 10;

/// What one block may read ahead for one request.
pub(crate) struct ReadAhead {
    pool: Arc<MemoryPool>,
    /// Taken when the first batch has shown that more follow.
    memory: Option<TakenMemory>,
    /// The position in the postings up to which entries were read.
    entries_to: usize,
    /// Memory of one series in a batch, as the last one had it.
    series_bytes: u64,
}

/// Which entries one step looks at.
pub(crate) struct EntryStep {
    /// Number of series.
    pub(crate) series: usize,
    /// Bytes of the index that are read at once, if not the usual ones.
    pub(crate) at_once_bytes: Option<u64>,
}

impl ReadAhead {
    pub(crate) fn new(pool: &Arc<MemoryPool>) -> Self {
        Self { pool: Arc::clone(pool), memory: None, entries_to: 0, series_bytes: 0 }
    }

    /// The entries that a step from position `next` on looks at, for a batch of `batch_bytes`.
    pub(crate) fn entries(&mut self, next: usize, batch_bytes: u64) -> EntryStep {
        let fitting = batch_bytes.checked_div(self.series_bytes).unwrap_or(ENTRIES as u64);
        // A quarter more, as the next series may be smaller.
        let series = usize::try_from(fitting + fitting / 4).unwrap_or(ENTRIES).clamp(LEAST_SERIES, ENTRIES);
        if next + series <= self.entries_to {
            return EntryStep { series, at_once_bytes: None };
        }
        let has_memory = self.memory.as_ref().is_some_and(|memory| memory.bytes() >= ENTRIES_AT_ONCE_BYTES);
        let series = if has_memory { MOST_ENTRIES } else { ENTRIES };
        self.entries_to = next + series;
        EntryStep { series, at_once_bytes: has_memory.then_some(ENTRIES_AT_ONCE_BYTES) }
    }

    /// Notes a batch of `count` series that took `bytes` of memory, after which others follow.
    pub(crate) fn note(&mut self, count: usize, bytes: u64) {
        if count > 0 {
            self.series_bytes = (bytes / count as u64).max(1);
        }
    }

    /// Bytes of chunks to read after those of a batch: the series of `postings` from `from` to `to`, whose chunks begin within
    /// `chunk_bytes` of a segment. Only series that lie as near to each other are read ahead.
    pub(crate) fn chunk_bytes(
        &mut self,
        postings: &Postings,
        from: usize,
        to: usize,
        chunk_bytes: u64,
    ) -> u64 {
        let count = to.saturating_sub(from);
        let of_each = chunk_bytes.checked_div(count as u64).unwrap_or(0);
        if count < LEAST_SHOWN || to >= postings.len() || !(1..=APART_BYTES).contains(&of_each) {
            return 0;
        }
        let memory =
            self.memory.get_or_insert_with(|| self.pool.take_quarter(LEAST_BYTES, MOST_BYTES)).bytes();
        let place = |position: usize| postings.at(position).map_or(0, |SeriesRef(place)| u64::from(place));
        let distance = |position: usize| place(position).saturating_sub(place(position - 1));
        // Runs of series that are far apart may look near on average.
        let nearest = (from + 1..to).map(distance).min().unwrap_or(0);
        let is_near = |position: &usize| distance(*position) <= nearest * NEAR;
        if !(from + 1..to).all(|position| is_near(&position)) {
            return 0;
        }
        let most = usize::try_from(memory / of_each).unwrap_or(0).min(postings.len() - to);
        let series = (to..to + most).take_while(is_near).count();
        // A little less, because the last series may be smaller.
        if series < LEAST_SHOWN { 0 } else { of_each * series as u64 / 16 * 15 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ahead(bytes: u64) -> ReadAhead {
        ReadAhead::new(&Arc::new(MemoryPool::new(bytes)))
    }

    fn dense(count: u32) -> Postings {
        (0..count).map(|n| SeriesRef(n * 6)).collect()
    }

    #[test]
    fn chunks_are_read_ahead_as_far_as_there_is_memory_and_the_next_series_are_near() {
        let postings = dense(20_000);
        assert_eq!(ahead(4 << 20).chunk_bytes(&postings, 0, 100, 40_000), 400 * 2621 / 16 * 15);
        assert_eq!(ahead(1 << 19).chunk_bytes(&postings, 0, 100, 40_000), 0, "too little memory");
        // The last series of the block.
        assert_eq!(ahead(4 << 20).chunk_bytes(&postings, 19_000, 19_500, 200_000), 400 * 500 / 16 * 15);
        assert_eq!(ahead(4 << 20).chunk_bytes(&postings, 19_000, 20_000, 400_000), 0);
        assert_eq!(ahead(4 << 20).chunk_bytes(&postings, 0, 10, 4_000), 0, "too few series");
        assert_eq!(ahead(4 << 20).chunk_bytes(&postings, 0, 100, 4_000_000), 0, "too far apart");
        // 300 series that are near, then others that are far away.
        let runs: Postings =
            (0..300).map(|n| n * 6).chain((0..300).map(|n| 900_000 + n * 6)).map(SeriesRef).collect();
        assert_eq!(ahead(4 << 20).chunk_bytes(&runs, 0, 100, 40_000), 400 * 200 / 16 * 15);
        assert_eq!(ahead(4 << 20).chunk_bytes(&runs, 200, 300, 40_000), 0);
        assert_eq!(ahead(4 << 20).chunk_bytes(&runs, 250, 350, 400_000), 0, "near on average only");
    }

    #[test]
    fn entries_are_read_ahead_once_and_then_looked_at_in_batches() {
        let mut with = ahead(16 << 20);
        assert_eq!(with.entries(0, 1 << 20).series, ENTRIES);
        with.note(64, 64 * 1000);
        assert!(with.chunk_bytes(&dense(50_000), 0, 64, 20_000) > 0);
        let step = with.entries(64, 1 << 20);
        assert_eq!((step.series, step.at_once_bytes), (1310, None));
        let step = with.entries(4000, 1 << 20);
        assert_eq!((step.series, step.at_once_bytes), (MOST_ENTRIES, Some(ENTRIES_AT_ONCE_BYTES)));
        assert_eq!(with.entries(5000, 1 << 20).series, 1310);
        assert_eq!(with.entries(5000, 1000).series, LEAST_SERIES);
        let mut without = ahead(0);
        without.note(64, 64 * 1000);
        assert_eq!(
            (without.entries(0, 1 << 20).series, without.entries(4000, 1 << 20).series),
            (ENTRIES, ENTRIES)
        );
    }
}
