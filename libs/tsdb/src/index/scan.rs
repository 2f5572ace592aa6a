//! Reads the entries of many series in few reads.

use std::iter::Peekable;
use std::ops::Range;

use bytes::Bytes;

use crate::error::BlockError;
use crate::index::series::{self, RawEntry};
use crate::index::{Index, LastLabels, SeriesEntry};
use crate::reference::SeriesRef;

/// Entries are read together up to this size, unless [`SeriesScan::reading_at_once`] has another one ...
const TOGETHER_BYTES: u64 = 512 << 10;
/// ... and where no more than this lies between two.
const GAP_BYTES: u64 = 16 << 10;
/// Most windows that are read at once.
const WINDOWS_AT_ONCE: usize = 128;

/// Iterates over the entries of series: [`Index::scan`].
pub struct SeriesScan<'a, I: Iterator<Item = SeriesRef>> {
    index: &'a Index,
    series: Peekable<I>,
    /// The window whose entries are returned now.
    window: Window,
    /// Windows that were read with it and are not used yet.
    read: std::vec::IntoIter<Window>,
    /// The place of a series that is outside of the entries, to be reported after these windows.
    outside: Option<u64>,
    /// Bytes that are read at once.
    at_once_bytes: u64,
    last: LastLabels,
    /// Memory for the next entry.
    raw: RawEntry,
}

/// A range of the file with the entries of series.
#[derive(Default)]
struct Window {
    bytes: Bytes,
    /// Offset in the file.
    start: u64,
    /// Series whose entries begin in it and were not returned yet.
    waiting: std::vec::IntoIter<SeriesRef>,
}

impl<'a, I: Iterator<Item = SeriesRef>> SeriesScan<'a, I> {
    pub(super) fn new(index: &'a Index, series: I) -> Self {
        let read = Vec::new().into_iter();
        let (series, window) = (series.peekable(), Window::default());
        let (last, raw) = (LastLabels::default(), RawEntry::default());
        SeriesScan { index, series, window, read, outside: None, at_once_bytes: TOGETHER_BYTES, last, raw }
    }

    /// Reads about so many bytes of entries at once, which are in memory then.
    #[must_use]
    pub fn reading_at_once(self, at_once_bytes: u64) -> Self {
        Self { at_once_bytes, ..self }
    }

    /// Reads the next entry into `raw`, without looking up its labels.
    pub(crate) fn next_raw(&mut self, raw: &mut RawEntry) -> Option<Result<SeriesRef, BlockError>> {
        loop {
            if let Some(reference) = self.window.waiting.next() {
                return Some(self.entry(reference, raw).map(|()| reference));
            }
            match self.read.next() {
                Some(window) => self.window = window,
                None => {
                    if let Err(error) = self.fill()? {
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Reads the next windows, all at once: where series are far apart, each has one of its own.
    fn fill(&mut self) -> Option<Result<(), BlockError>> {
        let (mut windows, mut ranges, mut total) = (Vec::new(), Vec::new(), 0);
        while self.outside.is_none() && windows.len() < WINDOWS_AT_ONCE && total < self.at_once_bytes {
            let Some((range, waiting)) = self.next_window() else { break };
            if !self.index.series_bounds().contains(&range.start) {
                self.outside = Some(range.start);
                break;
            }
            total += range.end - range.start;
            windows.push(Window { bytes: Bytes::new(), start: range.start, waiting: waiting.into_iter() });
            ranges.push(range);
        }
        let Some(first) = ranges.first().map(|range| range.start) else {
            let outside = self.outside.take()?;
            return Some(Err(self.index.place.malformed(outside, "no series begins here")));
        };
        let read = self.index.file.read_many(&ranges).map_err(|error| self.index.place.io(first, error));
        Some(read.map(|read| {
            windows.iter_mut().zip(read).for_each(|(window, bytes)| window.bytes = bytes);
            self.read = windows.into_iter();
        }))
    }

    /// The range of the next series and of those that follow it closely.
    fn next_window(&mut self) -> Option<(Range<u64>, Vec<SeriesRef>)> {
        let bounds = self.index.series_bounds();
        let offset_of = |reference: SeriesRef| reference.offset(self.index.version);
        let first = self.series.next()?;
        let start = offset_of(first);
        if !bounds.contains(&start) {
            return Some((start..start, Vec::new()));
        }
        let (mut last, mut waiting) = (start, vec![first]);
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
        // The length of the last entry is known only after its beginning is read.
        Some((start..(last + self.index.entry_bytes).min(bounds.end), waiting))
    }

    fn entry(&mut self, reference: SeriesRef, raw: &mut RawEntry) -> Result<(), BlockError> {
        let offset = reference.offset(self.index.version);
        let place = &self.index.place;
        let mut bytes = self.window.bytes.slice((offset - self.window.start) as usize..);
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
        let mut raw = std::mem::take(&mut self.raw);
        let entry = self.next_raw(&mut raw).map(|read| {
            let reference = read?;
            let labels = self.index.labels_after(reference, &raw, &mut self.last)?;
            Ok(SeriesEntry { reference, labels, chunks: raw.chunks.clone() })
        });
        self.raw = raw;
        entry
    }
}
