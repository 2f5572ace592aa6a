//! Sets of series as sorted lists, and their intersection, union and difference.
//!
//! A list from an index keeps its bytes, which are big-endian and shared; only results are new lists. When two lists differ
//! much in length, the longer one is searched by galloping, so that the cost depends on the shorter one.

use std::ops::Range;

use bytes::Bytes;

use crate::SeriesRef;

/// Series in ascending order, each once.
#[derive(Clone, Debug)]
pub struct Postings(Repr);

#[derive(Clone, Debug)]
enum Repr {
    /// Bytes of an index: be32 each.
    Encoded(Bytes),
    Decoded(Vec<u32>),
}

/// A sorted list with access by position.
trait Sorted: Copy {
    fn len(self) -> usize;
    fn at(self, index: usize) -> u32;

    /// The first index from `from` on whose number is not below `target`.
    #[inline]
    fn seek(self, from: usize, target: u32) -> usize {
        if from >= self.len() || self.at(from) >= target {
            return from;
        }
        // `low` is below the target, `high` is not, or is the end.
        let (mut low, mut step) = (from, 1);
        while low + step < self.len() && self.at(low + step) < target {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(self.len());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if self.at(middle) < target { low = middle } else { high = middle }
        }
        high
    }
}

impl Sorted for &[[u8; 4]] {
    #[inline]
    fn len(self) -> usize {
        <[[u8; 4]]>::len(self)
    }
    #[inline]
    fn at(self, index: usize) -> u32 {
        u32::from_be_bytes(self[index])
    }
}

impl Sorted for &[u32] {
    #[inline]
    fn len(self) -> usize {
        <[u32]>::len(self)
    }
    #[inline]
    fn at(self, index: usize) -> u32 {
        self[index]
    }
}

/// Runs `$body` with `$list` as the sorted list of `$postings`, in either form.
macro_rules! with {
    ($postings:expr, $list:ident => $body:expr) => {
        match &$postings.0 {
            Repr::Encoded(bytes) => {
                let $list = bytes.as_chunks::<4>().0;
                $body
            }
            Repr::Decoded(numbers) => {
                let $list = numbers.as_slice();
                $body
            }
        }
    };
}

impl Postings {
    /// No series.
    pub fn empty() -> Self {
        Self(Repr::Decoded(Vec::new()))
    }

    /// The series of a list of an index, four bytes each; `None` when they do not ascend or a number is incomplete.
    pub(crate) fn encoded(bytes: Bytes) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<4>();
        // Big-endian numbers compare like their bytes, but as numbers they compare faster.
        let ascend = numbers.is_sorted_by(|a, b| u32::from_be_bytes(*a) < u32::from_be_bytes(*b));
        (rest.is_empty() && ascend).then_some(Self(Repr::Encoded(bytes)))
    }

    /// Number of series.
    pub fn len(&self) -> usize {
        with!(self, list => Sorted::len(list))
    }

    /// Whether there is no series.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The series at `index`, counted from 0.
    pub fn at(&self, index: usize) -> Option<SeriesRef> {
        with!(self, list => (index < Sorted::len(list)).then(|| SeriesRef(list.at(index))))
    }

    /// The series at the positions `range`, counted from 0. The bytes of a list of an index are shared, not copied.
    ///
    /// Positions after the end are ignored.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        Self(match &self.0 {
            Repr::Encoded(bytes) => Repr::Encoded(bytes.slice(start * 4..end * 4)),
            Repr::Decoded(numbers) => Repr::Decoded(numbers[start..end].to_vec()),
        })
    }

    /// Bytes of memory of the list.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Repr::Encoded(bytes) => bytes.len(),
            Repr::Decoded(numbers) => numbers.capacity() * size_of::<u32>(),
        }
    }

    /// The series in order.
    pub fn iter(&self) -> impl Iterator<Item = SeriesRef> + '_ {
        let mut index = 0;
        std::iter::from_fn(move || {
            index += 1;
            self.at(index - 1)
        })
    }

    /// Whether `series` is one of them.
    pub fn contains(&self, series: SeriesRef) -> bool {
        with!(self, list => {
            let at = list.seek(0, series.0);
            at < Sorted::len(list) && list.at(at) == series.0
        })
    }

    /// The series that are in both sets.
    pub fn intersect(&self, other: &Self) -> Self {
        let (short, long) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        let out = with!(short, a => with!(long, b => intersect(a, b)));
        Self(Repr::Decoded(out))
    }

    /// The series of this set that are not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        if other.is_empty() {
            return self.clone();
        }
        let out = with!(self, a => with!(other, b => difference(a, b)));
        Self(Repr::Decoded(out))
    }

    /// The series that are in at least one of `lists`.
    pub fn union(lists: &[Self]) -> Self {
        match lists {
            [] => return Self::empty(),
            [only] => return only.clone(),
            _ => {}
        }
        let mut union = Union::default();
        union.numbers.reserve(lists.iter().map(Self::len).sum());
        for list in lists {
            with!(list, list => union.push(list));
        }
        union.finish()
    }
}

/// Equal when they have the same series, in either form.
impl PartialEq for Postings {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Postings {}

impl FromIterator<SeriesRef> for Postings {
    /// From series in any order.
    fn from_iter<I: IntoIterator<Item = SeriesRef>>(series: I) -> Self {
        let mut numbers: Vec<u32> = series.into_iter().map(|series| series.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        Self(Repr::Decoded(numbers))
    }
}

/// The series of [`Postings`], in order.
pub struct IntoIter {
    postings: Postings,
    next: usize,
}

impl Iterator for IntoIter {
    type Item = SeriesRef;

    fn next(&mut self) -> Option<SeriesRef> {
        let series = self.postings.at(self.next)?;
        self.next += 1;
        Some(series)
    }
}

impl IntoIterator for Postings {
    type Item = SeriesRef;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter { postings: self, next: 0 }
    }
}

fn intersect(short: impl Sorted, long: impl Sorted) -> Vec<u32> {
    let mut out = Vec::with_capacity(short.len());
    let (mut i, mut j) = (0, 0);
    while i < short.len() && j < long.len() {
        let (a, b) = (short.at(i), long.at(j));
        if a == b {
            out.push(a);
            i += 1;
            j += 1;
        } else if a < b {
            i = short.seek(i + 1, b);
        } else {
            j = long.seek(j + 1, a);
        }
    }
    out
}

fn difference(from: impl Sorted, without: impl Sorted) -> Vec<u32> {
    let mut out = Vec::with_capacity(from.len().saturating_sub(without.len()));
    let (mut i, mut j) = (0, 0);
    while i < from.len() {
        let a = from.at(i);
        j = without.seek(j, a);
        // Keep all up to the next one that is removed.
        let stop = if j < without.len() { from.seek(i, without.at(j)) } else { from.len() };
        out.extend((i..stop).map(|index| from.at(index)));
        i = stop;
        if i < from.len() && j < without.len() && from.at(i) == without.at(j) {
            i += 1;
        }
    }
    out
}

/// Collects lists for a union.
#[derive(Default)]
pub(crate) struct Union {
    numbers: Vec<u32>,
    /// Whether some number is not greater than the one before it.
    is_mixed: bool,
}

/// With at least this many numbers, a bitmap may be used.
const BITMAP_FROM: usize = 1024;

impl Union {
    fn push(&mut self, list: impl Sorted) {
        if list.len() > 0 {
            self.is_mixed |= self.numbers.last().is_some_and(|&last| last >= list.at(0));
        }
        self.numbers.extend((0..list.len()).map(|index| list.at(index)));
    }

    /// Adds the series of a list of an index; `None` when they do not ascend or a number is incomplete.
    pub(crate) fn push_encoded(&mut self, bytes: &[u8]) -> Option<()> {
        let (numbers, rest) = bytes.as_chunks::<4>();
        let ascend = numbers.is_sorted_by(|a, b| u32::from_be_bytes(*a) < u32::from_be_bytes(*b));
        if !rest.is_empty() || !ascend {
            return None;
        }
        self.push(numbers);
        Some(())
    }

    pub(crate) fn finish(self) -> Postings {
        let mut numbers = self.numbers;
        if !self.is_mixed {
            return Postings(Repr::Decoded(numbers));
        }
        let (min, max) = numbers.iter().fold((u32::MAX, 0), |(min, max), &n| (min.min(n), max.max(n)));
        let words = ((max - min) / 64 + 1) as usize;
        if numbers.len() >= BITMAP_FROM && words / 4 <= numbers.len() {
            // Dense enough: setting and reading bits is faster than sorting.
            let mut bits = vec![0u64; words];
            numbers.iter().for_each(|&n| bits[((n - min) / 64) as usize] |= 1 << ((n - min) % 64));
            numbers.clear();
            for (word, &set) in bits.iter().enumerate() {
                let mut set = set;
                while set != 0 {
                    numbers.push(min + (word as u32) * 64 + set.trailing_zeros());
                    set &= set - 1;
                }
            }
        } else {
            numbers.sort_unstable();
            numbers.dedup();
        }
        Postings(Repr::Decoded(numbers))
    }
}

#[cfg(test)]
mod tests;
