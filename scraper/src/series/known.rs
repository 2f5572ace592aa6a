//! The series that a target has exposed, by their texts.

use std::collections::HashMap;

use head::SeriesHandle;
use xxhash_rust::xxh64::xxh64;

/// No series.
const NONE: u32 = u32::MAX;

/// Stands for the text of a series, which takes several times its memory: two hashes with different seeds. Two texts of a target have
/// the same ones by chance once in 10^26 targets with a million series; a target that makes two of them mixes its own series only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct SeriesKey([u64; 2]);

impl SeriesKey {
    fn of(text: &[u8]) -> Self {
        Self([xxh64(text, 0), xxh64(text, 0x9e37_79b9_7f4a_7c15)])
    }
}

/// A series that the target has exposed.
pub(super) struct KnownSeries {
    key: SeriesKey,
    /// The one that followed it in a scrape.
    next: u32,
    /// None if relabelling drops it.
    pub(super) handle: Option<SeriesHandle>,
    pub(super) kind: SampleKind,
    /// The scrape in which it was there last, and the one in which it had a sample without a timestamp of its own.
    pub(super) seen: u64,
    pub(super) sampled: u64,
    /// Whether it becomes stale when it is not in the next scrape.
    pub(super) is_tracked: bool,
}

/// The kind of the last sample, for the staleness marker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SampleKind {
    Float,
    Histogram { integer: bool },
}

/// The series that a target has exposed, by their texts; for protobuf, by their labels as a text.
///
/// Targets expose series in the same order each time, so that a series is found as the one that followed the last one, and the hash of its
/// text is rarely looked up.
#[derive(Default)]
pub(super) struct KnownSeriesTable {
    entries: Vec<Option<KnownSeries>>,
    free: Vec<u32>,
    by_key: HashMap<SeriesKey, u32>,
    /// The one that was found last in this scrape.
    last: Option<u32>,
    first: u32,
}

impl KnownSeriesTable {
    /// Begins a scrape.
    pub(super) fn begin(&mut self) {
        self.last = None;
    }

    /// Finds a series; its place.
    pub(super) fn find(&mut self, text: &[u8]) -> Option<u32> {
        let key = SeriesKey::of(text);
        let expected = match self.last {
            Some(last) => self.get(last).map_or(NONE, |last| last.next),
            None => self.first,
        };
        let found = match self.get(expected) {
            Some(known) if known.key == key => expected,
            _ => {
                let found = *self.by_key.get(&key)?;
                self.link(found);
                found
            }
        };
        self.last = Some(found);
        Some(found)
    }

    /// Adds a series that is not there; its place.
    pub(super) fn insert(&mut self, text: &[u8], handle: Option<SeriesHandle>) -> u32 {
        let key = SeriesKey::of(text);
        let known = KnownSeries {
            key,
            next: NONE,
            handle,
            kind: SampleKind::Float,
            seen: 0,
            sampled: 0,
            is_tracked: false,
        };
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.entries.push(None);
                // A body has a bound, and each series has a line in it.
                u32::try_from(self.entries.len() - 1).unwrap_or(NONE)
            }
        };
        if let Some(entry) = self.entries.get_mut(place as usize) {
            *entry = Some(known);
        }
        self.by_key.insert(key, place);
        self.link(place);
        self.last = Some(place);
        place
    }

    fn link(&mut self, place: u32) {
        match self.last.and_then(|last| self.entries.get_mut(last as usize)).and_then(Option::as_mut) {
            Some(last) => last.next = place,
            None => self.first = place,
        }
    }

    fn get(&self, place: u32) -> Option<&KnownSeries> {
        self.entries.get(place as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut KnownSeries> {
        self.entries.get_mut(place as usize)?.as_mut()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut KnownSeries> {
        self.entries.iter_mut().flatten()
    }

    /// Removes the series that were not in this scrape.
    pub(super) fn forget_unseen(&mut self, scrape: u64) {
        for (place, entry) in (0u32..).zip(&mut self.entries) {
            if let Some(known) = entry.take_if(|known| known.seen != scrape) {
                self.by_key.remove(&known.key);
                self.free.push(place);
            }
        }
        // After a large scrape, memory is given back.
        if self.free.len() > self.by_key.len() * 2 + 1_000 {
            let kept: Vec<Option<KnownSeries>> =
                std::mem::take(&mut self.entries).into_iter().filter(Option::is_some).collect();
            self.entries = kept;
            self.free = Vec::new();
            self.by_key = (0u32..)
                .zip(self.entries.iter().flatten())
                .map(|(place, known)| (known.key, place))
                .collect();
            self.first = 0;
        }
    }

    /// Takes all series out.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = KnownSeries> + use<> {
        std::mem::take(self).entries.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exposes series in this order; how many are new.
    fn scrape(table: &mut KnownSeriesTable, scrape: u64, keys: &[String]) -> usize {
        let mut new = 0;
        table.begin();
        for key in keys {
            let place = table.find(key.as_bytes()).unwrap_or_else(|| {
                new += 1;
                table.insert(key.as_bytes(), None)
            });
            let known = table.get_mut(place).unwrap();
            assert!(known.key == SeriesKey::of(key.as_bytes()));
            known.seen = scrape;
        }
        table.forget_unseen(scrape);
        assert_eq!(table.iter_mut().count(), table.by_key.len());
        new
    }

    #[test]
    fn series_are_found_in_any_order() {
        let mut table = KnownSeriesTable::default();
        let keys = |range: std::ops::Range<usize>| range.map(|at| format!("series {at}")).collect::<Vec<_>>();
        let all = keys(0..50);
        assert_eq!(scrape(&mut table, 1, &all), 50);
        assert_eq!(scrape(&mut table, 2, &all), 0);
        let reversed: Vec<String> = all.iter().rev().cloned().collect();
        assert_eq!(scrape(&mut table, 3, &reversed), 0);
        let doubled = [all.clone(), all.clone()].concat();
        assert_eq!(scrape(&mut table, 4, &doubled), 0);
        assert_eq!(scrape(&mut table, 5, &keys(40..60)), 10);
        assert_eq!(scrape(&mut table, 6, &keys(0..60)), 40);
        assert_eq!(table.entries.len(), 60, "free places are used again");
        assert_eq!(scrape(&mut table, 7, &[]), 0);
        assert_eq!(scrape(&mut table, 8, &all), 50);
    }

    #[test]
    fn memory_of_many_series_is_given_back() {
        let mut table = KnownSeriesTable::default();
        let all: Vec<String> = (0..5_000).map(|at| format!("series {at}")).collect();
        scrape(&mut table, 1, &all);
        assert_eq!(scrape(&mut table, 2, &all[2_000..2_100]), 0);
        assert_eq!(table.entries.len(), 100);
        assert_eq!(scrape(&mut table, 3, &all[2_000..2_101]), 1);
    }
}
