//! Reads the entries of many series in few reads.

use std::iter::Peekable;
use std::ops::Range;

use bytes::Bytes;

use crate::error::BlockError;
use crate::index::series::{self, RawEntry};
use crate::index::{Index, SeriesEntry};
use crate::reference::SeriesRef;

/// Entries are read together up to this size ...
const TOGETHER_BYTES: u64 = 512 << 10;
/// ... and where no more than this lies between two.
const GAP_BYTES: u64 = 16 << 10;
/// The length of an entry is known only after its beginning is read. This much of the last entry is read at first.
const GUESS_BYTES: u64 = 1 << 10;

/// Iterates over the entries of series: [`Index::scan`].
pub struct SeriesScan<'a, I: Iterator<Item = SeriesRef>> {
    index: &'a Index,
    series: Peekable<I>,
    /// The bytes that were read last, and their offset in the file.
    window: Bytes,
    start: u64,
    /// Series whose entries begin in the window and were not returned yet.
    waiting: std::vec::IntoIter<SeriesRef>,
}

impl<'a, I: Iterator<Item = SeriesRef>> SeriesScan<'a, I> {
    pub(super) fn new(index: &'a Index, series: I) -> Self {
        let waiting = Vec::new().into_iter();
        SeriesScan { index, series: series.peekable(), window: Bytes::new(), start: 0, waiting }
    }

    /// Reads the next entry into `raw`, without looking up its labels.
    pub(crate) fn next_raw(&mut self, raw: &mut RawEntry) -> Option<Result<SeriesRef, BlockError>> {
        let reference = match self.waiting.next() {
            Some(reference) => reference,
            None => match self.fill()? {
                Ok(reference) => reference,
                Err(error) => return Some(Err(error)),
            },
        };
        Some(self.entry(reference, raw).map(|()| reference))
    }

    /// Reads the next window. Returns the first of its series.
    fn fill(&mut self) -> Option<Result<SeriesRef, BlockError>> {
        let bounds = self.index.series_bounds();
        let offset_of = |reference: SeriesRef| reference.offset(self.index.version);
        let first = self.series.next()?;
        let start = offset_of(first);
        if !bounds.contains(&start) {
            return Some(Err(self.index.place.malformed(start, "no series begins here")));
        }
        let (mut last, mut waiting) = (start, Vec::new());
        while let Some(next) = self.series.next_if(|&next| {
            let offset = offset_of(next);
            offset > last
                && offset - last <= GAP_BYTES
                && offset - start <= TOGETHER_BYTES
                && bounds.contains(&offset)
        }) {
            last = offset_of(next);
            waiting.push(next);
        }
        let end = (last + GUESS_BYTES).min(bounds.end);
        match self.read(start..end) {
            Ok(window) => (self.window, self.start) = (window, start),
            Err(error) => return Some(Err(error)),
        }
        self.waiting = waiting.into_iter();
        Some(Ok(first))
    }

    fn entry(&mut self, reference: SeriesRef, raw: &mut RawEntry) -> Result<(), BlockError> {
        let offset = reference.offset(self.index.version);
        let place = &self.index.place;
        let mut bytes = self.window.slice((offset - self.start) as usize..);
        let body = loop {
            match series::body(&bytes) {
                Ok(body) => break body,
                Err(Some(needed)) => {
                    let left = self.index.series_bounds().end - offset;
                    if needed > left {
                        return Err(place.truncated(offset, needed, left));
                    }
                    bytes = self.read(offset..offset + needed)?;
                }
                Err(None) => return Err(place.malformed(offset, "no series begins here")),
            }
        };
        series::read(place, offset, &bytes, body, raw)
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes, BlockError> {
        let start = range.start;
        self.index.file.read_at(range).map_err(|error| self.index.place.io(start, error))
    }
}

/// After an error, the scan continues with the next series.
impl<I: Iterator<Item = SeriesRef>> Iterator for SeriesScan<'_, I> {
    type Item = Result<SeriesEntry, BlockError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut raw = RawEntry::default();
        let index = self.index;
        self.next_raw(&mut raw).map(|read| {
            let reference = read?;
            Ok(SeriesEntry { reference, labels: index.labels(reference, &raw)?, chunks: raw.chunks })
        })
    }
}
