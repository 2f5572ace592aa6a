//! Parts of pages: what is cached of a page is the bytes that were read of it, in one piece.
//!
//! A page is the place of bytes in the cache. Series that are far apart need little of each page, and a whole one would cost many times
//! what the answer needs.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::page_pool::PAGE_BYTES;

/// Parts begin and end at multiples of this, so that neighbours which overlap a little are found.
const ALIGN_BYTES: u32 = 512;

/// Bytes of a page that follow each other; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PagePart {
    /// Where they begin in the page.
    pub(crate) start: u32,
    pub(crate) bytes: Bytes,
}

impl PagePart {
    /// The bytes from the begin of a page on.
    #[cfg(test)]
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self { start: 0, bytes }
    }

    fn end(&self) -> u32 {
        self.start + self.bytes.len() as u32
    }

    /// Whether the part has all bytes of `wanted`.
    pub(crate) fn covers(&self, wanted: &Range<u32>) -> bool {
        self.start <= wanted.start && wanted.end <= self.end()
    }

    /// What must be read so that there is one piece with all bytes of `wanted`; empty if they are here.
    pub(crate) fn missing(&self, wanted: &Range<u32>) -> Range<u32> {
        match (wanted.start < self.start, wanted.end > self.end()) {
            (false, false) => wanted.start..wanted.start,
            (true, false) => wanted.start..self.start,
            (false, true) => self.end()..wanted.end,
            (true, true) => wanted.clone(),
        }
    }

    /// The bytes of this part before `other` and those after it, if the two are one piece.
    pub(crate) fn around(&self, other: &Range<u32>) -> Option<[&[u8]; 2]> {
        if self.end() < other.start || other.end < self.start {
            return None;
        }
        let before = other.start.saturating_sub(self.start) as usize;
        let after = (other.end.max(self.start) - self.start).min(self.bytes.len() as u32) as usize;
        Some([&self.bytes[..before], &self.bytes[after..]])
    }
}

/// What the ranges of one read need of each page, by its number.
#[derive(Debug, Default)]
pub(crate) struct WantedPages(pub(crate) BTreeMap<u32, Range<u32>>);

impl WantedPages {
    /// The pages of `ranges` of a file of `size_bytes`; with `is_whole`, all bytes of each.
    pub(crate) fn of(ranges: &[Range<u64>], size_bytes: u64, is_whole: bool) -> Self {
        let mut wanted: BTreeMap<u32, Range<u32>> = BTreeMap::new();
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            for page in page_of(range.start)..=page_of(range.end - 1) {
                let begin = u64::from(page) * PAGE_BYTES;
                let length = (size_bytes - begin).min(PAGE_BYTES) as u32;
                // Both are within the page.
                let from = range.start.saturating_sub(begin) as u32 / ALIGN_BYTES * ALIGN_BYTES;
                let to =
                    ((range.end - begin).min(PAGE_BYTES) as u32).next_multiple_of(ALIGN_BYTES).min(length);
                let part = if is_whole { 0..length } else { from..to };
                wanted
                    .entry(page)
                    .and_modify(|all| *all = all.start.min(part.start)..all.end.max(part.end))
                    .or_insert(part);
            }
        }
        Self(wanted)
    }
}

/// The bytes of one read: parts that were cached, and the ranges that were fetched.
#[derive(Default)]
pub(crate) struct ReadPages {
    pub(crate) cached: BTreeMap<u32, PagePart>,
    /// By the offset in the file.
    pub(crate) fetched: BTreeMap<u64, Bytes>,
    /// Whether more is read than is needed now. Then the fetched ranges are not kept: what is in the cache is enough.
    pub(crate) is_ahead: bool,
}

impl ReadPages {
    /// Whether a cached part has all bytes of `wanted`.
    pub(crate) fn covers(&self, page: u32, wanted: &Range<u32>) -> bool {
        self.cached.get(&page).is_some_and(|part| part.covers(wanted))
    }

    /// The bytes of one range. They are shared where they are in one part or one fetched range.
    pub(crate) fn assemble(&self, range: &Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let first = self.from(range.start)?;
        let length = (range.end - range.start) as usize;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        let mut out = BytesMut::with_capacity(length);
        out.extend_from_slice(&first);
        while out.len() < length {
            let part = self.from(range.start + out.len() as u64)?;
            out.extend_from_slice(&part[..part.len().min(length - out.len())]);
        }
        Ok(out.freeze())
    }

    /// The bytes from `offset` on that are together in memory; at least one.
    fn from(&self, offset: u64) -> io::Result<Bytes> {
        let within = |begin: u64, bytes: &Bytes| {
            let at = usize::try_from(offset.checked_sub(begin)?).ok()?;
            (at < bytes.len()).then(|| bytes.slice(at..))
        };
        let fetched = self.fetched.range(..=offset).next_back();
        let found = fetched.and_then(|(begin, bytes)| within(*begin, bytes));
        let found = found.or_else(|| {
            let (page, part) = self.cached.get_key_value(&page_of(offset))?;
            within(u64::from(*page) * PAGE_BYTES + u64::from(part.start), &part.bytes)
        });
        // The sizes of all answers were checked, so this is a mistake of this program.
        found.ok_or_else(|| io::Error::other(format!("internal error: no bytes at {offset} after a read")))
    }
}

/// The page with the byte at `offset`.
pub(crate) fn page_of(offset: u64) -> u32 {
    // Files of blocks have at most 64 GiB in practice; larger ones are refused when a block is opened.
    (offset / PAGE_BYTES) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_in_one_piece() {
        let content: Vec<u8> = (0..100).collect();
        for (start, end) in [(0, 100), (30, 60), (0, 10), (90, 100), (40, 41)] {
            let part =
                PagePart { start, bytes: Bytes::copy_from_slice(&content[start as usize..end as usize]) };
            for from in 0..100_u32 {
                for to in from + 1..=100 {
                    let wanted = from..to;
                    let missing = part.missing(&wanted);
                    assert_eq!(missing.is_empty(), part.covers(&wanted), "{start}..{end} and {wanted:?}");
                    if missing.is_empty() {
                        continue;
                    }
                    let [before, after] = part.around(&missing).expect("one piece");
                    let read = &content[missing.start as usize..missing.end as usize];
                    let joined = [before, read, after].concat();
                    let first = missing.start.min(start) as usize;
                    assert_eq!(joined, content[first..first + joined.len()], "{start}..{end} and {wanted:?}");
                    let all = PagePart { start: first as u32, bytes: joined.into() };
                    assert!(
                        all.covers(&wanted) && all.covers(&(start..end)),
                        "{start}..{end} and {wanted:?}"
                    );
                }
            }
        }
        let part = PagePart { start: 30, bytes: Bytes::copy_from_slice(&content[30..60]) };
        assert_eq!((part.around(&(0..29)), part.around(&(61..70))), (None, None));
    }

    #[test]
    fn wanted_bytes_are_aligned_and_within_the_file() {
        let page = PAGE_BYTES as u32;
        let check = |ranges: &[Range<u64>], is_whole, expected: &[(u32, Range<u32>)]| {
            let wanted = WantedPages::of(ranges, 2 * PAGE_BYTES + 700, is_whole);
            assert_eq!(wanted.0.into_iter().collect::<Vec<_>>(), expected, "{ranges:?}");
        };
        check(&[5..5, 600..601], false, &[(0, 512..1024)]);
        check(&[3000..3001, 600..601], false, &[(0, 512..3072)]);
        check(&[PAGE_BYTES - 1..PAGE_BYTES + 1, 5..5], false, &[(0, page - 512..page), (1, 0..512)]);
        let end = 2 * PAGE_BYTES + 700;
        check(&[end - 1..end, end..end], false, &[(2, 512..700)]);
        check(&[end - 1..end, end..end], true, &[(2, 0..700)]);
        check(&[600..601, 5..5], true, &[(0, 0..page)]);
    }
}
