//! Entries in the order of an answer, where the order of the index is another one: as many as there is memory for. The next ones are
//! found by another pass over the index.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use model::Labels;
use series::DeletedTimes;
use tsdb::{ChunkMeta, SeriesRef};

use crate::memory_pool::{MemoryPool, TakenMemory};

/// Memory is taken in steps of this size.
const STEP_BYTES: u64 = 256 << 10;
/// What an entry takes besides its labels and chunks.
const ENTRY_BYTES: usize = 64;

/// Where an entry is in the answer. Entries with equal labels have the order of the index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The labels as they are sent.
    pub(crate) labels: Labels,
    pub(crate) reference: SeriesRef,
}

/// A series with the places of its chunks.
#[derive(Clone, Debug)]
pub(crate) struct SortedEntry {
    pub(crate) place: Place,
    pub(crate) chunks: Vec<ChunkMeta>,
    /// What of these chunks is deleted.
    pub(crate) deleted: DeletedTimes,
}

impl SortedEntry {
    fn bytes(&self) -> u64 {
        let lists = size_of_val(&*self.chunks) + size_of_val(self.deleted.ranges());
        (self.place.labels.size_bytes() + lists + ENTRY_BYTES + size_of::<Self>()) as u64
    }
}

impl PartialEq for SortedEntry {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for SortedEntry {}

impl PartialOrd for SortedEntry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SortedEntry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place.cmp(&other.place)
    }
}

/// The first entries after a place, as many as there is memory for; at least one.
pub(crate) struct FirstEntries {
    after: Option<Place>,
    /// The last entry is at the top.
    entries: BinaryHeap<SortedEntry>,
    used_bytes: u64,
    taken: TakenMemory,
    /// Whether entries were left out for want of memory.
    is_cut: bool,
}

impl FirstEntries {
    /// The entries after `after`, or from the first one on.
    pub(crate) fn new(memory: &Arc<MemoryPool>, after: Option<Place>) -> Self {
        Self { after, entries: BinaryHeap::new(), used_bytes: 0, taken: memory.begin(), is_cut: false }
    }

    pub(crate) fn offer(&mut self, entry: SortedEntry) {
        if self.after.as_ref().is_some_and(|after| entry.place <= *after) {
            return;
        }
        if self.is_cut && self.entries.peek().is_some_and(|last| entry > *last) {
            return;
        }
        self.used_bytes += entry.bytes();
        self.entries.push(entry);
        // One step belongs to each request, whatever the others take.
        while self.used_bytes > STEP_BYTES + self.taken.bytes() {
            if !self.is_cut && self.taken.grow(STEP_BYTES) {
                continue;
            }
            if self.entries.len() <= 1 {
                return;
            }
            self.is_cut = true;
            let last = self.entries.pop();
            self.used_bytes -= last.map_or(0, |entry| entry.bytes());
        }
    }

    /// The entries in their order.
    pub(crate) fn finish(self) -> SortedEntries {
        let mut entries = self.entries.into_sorted_vec();
        let after = entries.last().filter(|_| self.is_cut).map(|entry| entry.place.clone());
        entries.reverse();
        SortedEntries { entries, after, _taken: self.taken }
    }
}

/// Entries in the order of the answer.
pub(crate) struct SortedEntries {
    /// The next one is at the end.
    entries: Vec<SortedEntry>,
    after: Option<Place>,
    _taken: TakenMemory,
}

impl SortedEntries {
    pub(crate) fn pop(&mut self) -> Option<SortedEntry> {
        self.entries.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The place after which more entries follow; `None` after the last ones.
    pub(crate) fn after(&self) -> Option<&Place> {
        self.after.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u32) -> SortedEntry {
        // Three entries have equal labels.
        let labels =
            Labels::from_pairs([("pod", format!("{:09}", number.wrapping_mul(7_919) % 9_973 / 3))]).unwrap();
        SortedEntry {
            place: Place { labels, reference: SeriesRef(number) },
            chunks: Vec::new(),
            deleted: DeletedTimes::default(),
        }
    }

    fn all(memory: &Arc<MemoryPool>, count: u32) -> (Vec<Place>, usize) {
        let (mut places, mut passes, mut after) = (Vec::new(), 0, None);
        loop {
            let mut first = FirstEntries::new(memory, after);
            (0..count).for_each(|number| first.offer(entry(number)));
            let mut sorted = first.finish();
            passes += 1;
            while let Some(entry) = sorted.pop() {
                places.push(entry.place);
            }
            match sorted.after() {
                Some(place) => after = Some(place.clone()),
                None => return (places, passes),
            }
        }
    }

    #[test]
    fn passes_with_little_memory_give_the_order_of_one_with_much() {
        let mut expected: Vec<Place> = (0..9_000).map(|number| entry(number).place).collect();
        expected.sort();
        let much = Arc::new(MemoryPool::new(100 << 20));
        let (places, passes) = all(&much, 9_000);
        assert!(places == expected && passes == 1, "{passes} passes");
        assert_eq!(much.free_bytes(), 100 << 20);
        let none = Arc::new(MemoryPool::new(0));
        let (places, passes) = all(&none, 9_000);
        assert!(places == expected && (3..30).contains(&passes), "{passes} passes");
        let other = Arc::new(MemoryPool::new(2 * STEP_BYTES));
        assert!(other.take(STEP_BYTES) && !other.take(2 * STEP_BYTES));
        let (places, fewer) = all(&other, 9_000);
        assert!(places == expected && fewer < passes, "{fewer} of {passes} passes");
        assert_eq!(other.free_bytes(), STEP_BYTES);
    }

    #[test]
    fn an_entry_that_is_larger_than_the_memory_is_found() {
        let large = Labels::from_pairs([("pod", "x".repeat(2 * STEP_BYTES as usize))]).unwrap();
        let large = SortedEntry {
            place: Place { labels: large, reference: SeriesRef(1) },
            chunks: Vec::new(),
            deleted: DeletedTimes::default(),
        };
        let memory = Arc::new(MemoryPool::new(0));
        let mut first = FirstEntries::new(&memory, None);
        first.offer(large.clone());
        let mut sorted = first.finish();
        assert!(sorted.pop() == Some(large) && sorted.is_empty() && sorted.after().is_none());
    }
}
