//! Reads the series of a damaged index: the entries in their section, one after the other, without postings lists.
//!
//! Each entry has a checksum, so an entry that is found is one that was written. After bytes that are not an entry, the
//! search continues at the next place where one can begin.

use std::ops::Range;
use std::sync::Arc;

use model::Labels;

use crate::ReadAt;
use crate::error::{BlockError, BlockLocation, BlockPart};
use crate::index::contents::{self, Contents};
use crate::index::section::Section;
use crate::index::series::{self, RawEntry};
use crate::index::symbols::Symbols;
use crate::index::{IndexMemory, IndexVersion};
use crate::reference::{ChunkMeta, SeriesRef};

/// Entries begin at multiples of this since version 2. Fewer zero bytes than this between two entries are padding.
const ALIGNMENT: u64 = 16;

/// A series of a damaged block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SalvagedSeries {
    /// Its place in the index.
    pub reference: SeriesRef,
    /// Its labels, at least one. Bytes that are not UTF-8 are replaced by U+FFFD, one character for each byte.
    pub labels: Labels,
    /// What was changed in the labels, one clause for each change.
    pub changes: Vec<String>,
    /// Its chunks in the order of the index, which may be wrong.
    pub chunks: Vec<ChunkMeta>,
}

/// The parts of an index without which no series can be read.
pub(crate) struct IndexSalvage {
    file: Arc<dyn ReadAt>,
    place: BlockLocation,
    version: IndexVersion,
    symbols: Symbols,
    /// The section of the series.
    series: Range<u64>,
}

impl IndexSalvage {
    /// Opens the index of the block with this name.
    ///
    /// # Errors
    /// When header, table of contents or symbols cannot be read: without them, no labels are known.
    pub(crate) fn open(block: &Arc<str>, file: Arc<dyn ReadAt>) -> Result<Self, BlockError> {
        let place = BlockLocation::new(block, BlockPart::IndexHeader);
        let memory = IndexMemory::default();
        let (version, contents) = contents::read(&place, &file)?;
        let Contents { symbols, series, series_end, .. } = contents;
        let symbols =
            Section::open(place.at(BlockPart::Symbols), &file, symbols, series, memory.symbols_bytes)?;
        let symbols = Symbols::open(symbols, version, memory.symbol_stride)?;
        let series = series.max(symbols.end())..series_end;
        Ok(Self { file, place: place.at(BlockPart::Series), version, symbols, series })
    }

    /// Calls `visit` with each series, in the order of the file, and with an error for each run of bytes without one.
    ///
    /// Memory: the section of the series.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn for_each(
        &self,
        visit: &mut dyn FnMut(Result<SalvagedSeries, BlockError>),
    ) -> Result<(), BlockError> {
        let Range { start, end } = self.series.clone();
        if start >= end {
            return Ok(());
        }
        let bytes = self.file.read_at(start..end).map_err(|error| self.place.io(start, error))?;
        let step = match self.version {
            IndexVersion::V1 => 1,
            IndexVersion::V2 => ALIGNMENT,
        };
        let mut at = start.next_multiple_of(step);
        let mut raw = RawEntry::default();
        let mut unread: Option<(u64, BlockError)> = None;
        let flush = |unread: Option<(u64, BlockError)>, to: u64, visit: &mut dyn FnMut(_)| {
            let Some((from, error)) = unread else { return };
            let skipped = &bytes[(from - start) as usize..(to - start) as usize];
            if (skipped.len() as u64) < ALIGNMENT && skipped.iter().all(|byte| *byte == 0) {
                return;
            }
            let what = format!("no series can be read from here to byte {to}: {}", error.problem);
            visit(Err(self.place.malformed(from, what)));
        };
        while at < end {
            match self.entry(at, &bytes[(at - start) as usize..], &mut raw) {
                Ok(length) => {
                    flush(unread.take(), at, visit);
                    visit(self.series(at, &raw));
                    at = (at + length).next_multiple_of(step);
                }
                Err(error) => {
                    unread.get_or_insert((at, error));
                    at += step;
                }
            }
        }
        flush(unread, end, visit);
        Ok(())
    }

    /// Reads the entry with which `bytes` begin, at `offset` of the file. Returns its length.
    fn entry(&self, offset: u64, bytes: &[u8], raw: &mut RawEntry) -> Result<u64, BlockError> {
        let body = series::body(bytes).map_err(|needed| match needed {
            Some(needed) => self.place.truncated(offset, needed, bytes.len() as u64),
            None => self.place.malformed(offset, "no series begins here"),
        })?;
        let length = body.end as u64 + 4;
        series::read(&self.place, offset, bytes, body, raw)?;
        Ok(length)
    }

    fn series(&self, offset: u64, raw: &RawEntry) -> Result<SalvagedSeries, BlockError> {
        let number = match self.version {
            IndexVersion::V1 => offset,
            IndexVersion::V2 => offset / ALIGNMENT,
        };
        let reference = u32::try_from(number)
            .map_err(|_| self.place.malformed(offset, "the series is too far from the start of the file"))?;
        let mut changes = Vec::new();
        let mut pairs: Vec<(String, String)> = Vec::with_capacity(raw.labels.len());
        for &(name, value) in &raw.labels {
            let (name, name_changed) = text(&self.symbols.bytes(name)?.1);
            let (value, value_changed) = text(&self.symbols.bytes(value)?.1);
            if name_changed || value_changed {
                changes.push(format!("bytes of label {name:?} that are not UTF-8 were replaced"));
            }
            if name.is_empty() {
                changes.push(format!("value {value:?} of a label without a name was dropped"));
            } else if let Some((_, first)) = pairs.iter().find(|(other, _)| *other == name) {
                changes.push(format!("label {name:?} is there twice, {first:?} was kept"));
            } else {
                pairs.push((name, value));
            }
        }
        let labels =
            Labels::from_pairs(pairs).map_err(|error| self.place.malformed(offset, error.to_string()))?;
        if labels.is_empty() {
            return Err(self.place.malformed(offset, "the series has no labels"));
        }
        Ok(SalvagedSeries { reference: SeriesRef(reference), labels, changes, chunks: raw.chunks.clone() })
    }
}

/// The text of a symbol, and whether bytes of it were replaced.
fn text(bytes: &[u8]) -> (String, bool) {
    let (mut text, mut replaced) = (String::with_capacity(bytes.len()), false);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for _ in chunk.invalid() {
            text.push(char::REPLACEMENT_CHARACTER);
            replaced = true;
        }
    }
    (text, replaced)
}
