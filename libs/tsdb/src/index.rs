//! Reads an index: the series of a block, which of them match, and where their chunks are.
//!
//! ```text
//! contents   header and table of contents          symbols    texts by reference
//! memory     what is kept in memory                sampled    some values of a label name
//! section    checked bytes, in memory or by page   table      label -> value -> postings list
//! lists      postings lists from the file          matching   matchers -> postings
//! series     one entry                             scan       entries of many series, in few reads
//! salvage    entries of a damaged index, without postings lists
//! ```
//!
//! Opening an index reads and checks symbols and the postings offset table once. Lists and entries are read and checked when
//! they are needed. FORMAT.md draws the bytes.

mod contents;
mod lists;
mod matching;
mod memory;
mod salvage;
mod sampled;
mod scan;
mod section;
mod series;
mod symbols;
mod table;

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use model::{Label, Labels};
use ulid::Ulid;

use crate::ReadAt;
use crate::error::{BlockError, BlockLocation, BlockPart};
use crate::postings::Postings;
use crate::read::first_read_bytes;
use crate::reference::SeriesRef;

use contents::CONTENTS_BYTES;
pub(crate) use contents::{HEADER_BYTES, MAGIC};
pub use contents::{IndexSections, IndexVersion};
pub use memory::IndexMemory;
pub(crate) use salvage::IndexSalvage;
pub use salvage::SalvagedSeries;
pub use scan::SeriesScan;
use section::Section;
pub(crate) use series::RawEntry;
pub use series::SeriesEntry;
use symbols::Symbols;
pub(crate) use table::ListPlace;
use table::PostingsTable;

/// An index, opened for reading. Shared between threads.
///
/// Memory and reads are those of the [`IndexMemory`] that it is opened with.
pub struct Index {
    file: Arc<dyn ReadAt>,
    place: BlockLocation,
    version: IndexVersion,
    contents: contents::Contents,
    symbols: Symbols,
    table: PostingsTable,
    /// This much of an entry is read at first.
    entry_bytes: u64,
}

impl Index {
    /// Opens the index of block `block`, and keeps the parts in memory that `memory` selects.
    ///
    /// # Errors
    /// When the file cannot be read, is not an index, or its table of contents, symbols or postings offset table are damaged.
    pub fn open(block: Ulid, file: Arc<dyn ReadAt>, memory: IndexMemory) -> Result<Self, BlockError> {
        Self::open_named(&Arc::from(block.to_string()), file, memory)
    }

    /// Opens the index of a block whose name in errors is `block`.
    pub(crate) fn open_named(
        block: &Arc<str>,
        file: Arc<dyn ReadAt>,
        memory: IndexMemory,
    ) -> Result<Self, BlockError> {
        let place = BlockLocation::new(block, BlockPart::IndexHeader);
        let (version, contents) = contents::read(&place, &file)?;
        let section = |part, from, to, keep_bytes| Section::open(place.at(part), &file, from, to, keep_bytes);
        let symbols = section(BlockPart::Symbols, contents.symbols, contents.series, memory.symbols_bytes)?;
        let symbols = Symbols::open(symbols, version, memory.symbol_stride)?;
        let end = file.size_bytes() - CONTENTS_BYTES;
        let table =
            section(BlockPart::PostingsTable, contents.postings_table, end, memory.postings_table_bytes)?;
        let table = PostingsTable::open(table, contents.postings_table, version, memory.value_stride)?;
        let place = place.at(BlockPart::Series);
        Ok(Self { file, place, version, contents, symbols, table, entry_bytes: first_read_bytes(None) })
    }

    /// The same index, of which the largest entry is known to have `largest_entry_bytes`.
    pub(crate) fn with_largest_entry(self, largest_entry_bytes: Option<u64>) -> Self {
        Self { entry_bytes: first_read_bytes(largest_entry_bytes), ..self }
    }

    /// The version of the format.
    pub fn version(&self) -> IndexVersion {
        self.version
    }

    /// Bytes of memory that it takes once its caches are full.
    pub fn memory_bytes(&self) -> usize {
        self.symbols.memory_bytes() + self.table.memory_bytes()
    }

    /// All label names, sorted, each with the number of its values.
    pub fn label_names(&self) -> impl Iterator<Item = (&str, u64)> {
        self.table.names()
    }

    /// All values of label `name`, sorted; none when no series has the label.
    ///
    /// # Errors
    /// When the table cannot be read again.
    pub fn label_values(&self, name: &str) -> Result<Vec<String>, BlockError> {
        let mut values = Vec::new();
        if !name.is_empty() {
            self.table.for_each(name, "", &mut |value, _| {
                values.push(value.to_owned());
                ControlFlow::Continue(())
            })?;
        }
        Ok(values)
    }

    /// All series, in the order of their labels.
    ///
    /// # Errors
    /// When the list is damaged or cannot be read.
    pub fn all_postings(&self) -> Result<Postings, BlockError> {
        match self.table.lookup("", "")? {
            Some(place) => self.read_list(place),
            None => Ok(Postings::empty()),
        }
    }

    /// The series with the label `name="value"`. An empty value gives no series: it does not find series without the label.
    ///
    /// # Errors
    /// When the table or the list is damaged or cannot be read.
    pub fn postings(&self, name: &str, value: &str) -> Result<Postings, BlockError> {
        match self.table.lookup(name, value)? {
            Some(place) if !name.is_empty() => self.read_list(place),
            _ => Ok(Postings::empty()),
        }
    }

    /// The entry of one series.
    ///
    /// # Errors
    /// When no series begins at `reference`, or its entry is damaged or cannot be read.
    pub fn series(&self, reference: SeriesRef) -> Result<SeriesEntry, BlockError> {
        let mut raw = RawEntry::default();
        self.scan(std::iter::once(reference)).next_raw(&mut raw).unwrap_or_else(|| {
            Err(self.place.malformed(reference.offset(self.version), "no series begins here"))
        })?;
        Ok(SeriesEntry { reference, labels: self.labels(reference, &raw)?, chunks: raw.chunks })
    }

    /// Reads the entries of `series`, which ascend, in few large reads.
    pub fn scan<I: Iterator<Item = SeriesRef>>(&self, series: I) -> SeriesScan<'_, I> {
        SeriesScan::new(self, series)
    }

    /// Looks up the labels of an entry.
    pub(crate) fn labels(&self, reference: SeriesRef, raw: &RawEntry) -> Result<Labels, BlockError> {
        self.labels_after(reference, raw, &mut LastLabels::default())
    }

    /// Looks up the labels of an entry. Those that `last` has at the same positions are taken from there; it becomes this entry.
    fn labels_after(
        &self,
        reference: SeriesRef,
        raw: &RawEntry,
        last: &mut LastLabels,
    ) -> Result<Labels, BlockError> {
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(raw.labels.len());
        let mut known = last.references.iter().zip(last.labels.iter());
        for place in &raw.labels {
            match known.next() {
                Some((same, label)) if same == place => {
                    pairs.push((Cow::Borrowed(label.name), Cow::Borrowed(label.value)));
                }
                _ => {
                    let (name, value) = (self.symbols.lookup(place.0)?, self.symbols.lookup(place.1)?);
                    pairs.push((name, value));
                }
            }
        }
        // In a label set, labels are sorted, and those with an empty value are missing.
        let has_order =
            pairs.is_sorted_by(|a, b| a.0 < b.0) && pairs.iter().all(|(_, value)| !value.is_empty());
        let labels = Labels::from_pairs(pairs)
            .map_err(|error| self.place.malformed(reference.offset(self.version), error.to_string()))?;
        last.references.clear();
        if has_order {
            last.references.extend_from_slice(&raw.labels);
        }
        last.labels = labels.clone();
        Ok(labels)
    }

    /// Whether the labels of an entry are sorted by name, without duplicate names.
    pub(crate) fn labels_are_sorted(&self, raw: &RawEntry) -> Result<bool, BlockError> {
        let mut last = None;
        for &(name, _) in &raw.labels {
            let name = self.symbols.lookup(name)?;
            if last.is_some_and(|last| last >= name) {
                return Ok(false);
            }
            last = Some(name);
        }
        Ok(true)
    }

    /// Offset of the entry of a series in the file.
    pub(crate) fn series_offset(&self, reference: SeriesRef) -> u64 {
        reference.offset(self.version)
    }

    /// Size of the file.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    /// Number of series, without reading them.
    pub(crate) fn series_count(&self) -> Result<u64, BlockError> {
        match self.table.lookup("", "")? {
            Some(place) => self.series_in(place),
            None => Ok(0),
        }
    }

    pub(crate) fn place(&self) -> &BlockLocation {
        &self.place
    }

    /// Calls `visit` with each symbol's offset in the file and its bytes.
    pub(crate) fn for_each_symbol(&self, visit: impl FnMut(u64, &[u8])) -> Result<(), BlockError> {
        self.symbols.for_each(visit)
    }

    /// Calls `visit` with each value of `name` and the place of its list.
    pub(crate) fn for_each_list(
        &self,
        name: &str,
        visit: &mut dyn FnMut(&str, ListPlace) -> ControlFlow<()>,
    ) -> Result<(), BlockError> {
        self.table.for_each(name, "", visit)
    }

    /// The range of the file in which entries can be.
    fn series_bounds(&self) -> std::ops::Range<u64> {
        self.contents.series.max(self.symbols.end())..self.contents.postings
    }
}

/// The labels of the series before. Neighbours have most labels in common, and comparing two numbers is faster than looking up texts.
#[derive(Default)]
pub(crate) struct LastLabels {
    /// References of names and values, at the positions of `labels`; empty where the index has another order.
    references: Vec<(u64, u64)>,
    labels: Labels,
}

/// A hash of a label: equal labels have equal hashes, and different labels almost never.
pub(crate) fn label_hash(label: Label<'_>) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    label.hash(&mut hasher);
    hasher.finish()
}

/// The structure of an index file, for tests of damage.
#[cfg(test)]
pub(crate) mod testing {
    use std::ops::Range;

    use super::*;

    /// The ranges of an undamaged index that are followed by a checksum; the first three are contents, symbols and table.
    pub(crate) fn checked_spans(bytes: &[u8]) -> Vec<Range<usize>> {
        let file: Arc<dyn ReadAt> = Arc::new(bytes::Bytes::copy_from_slice(bytes));
        let index = Index::open(Ulid::nil(), file, IndexMemory::default()).expect("a sound index");
        let be32 = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
        let section = |at: u64| {
            let start = at as usize + 4;
            start..start + be32(at as usize)
        };
        let contents = bytes.len() - CONTENTS_BYTES as usize;
        let mut spans = vec![
            contents..contents + 48,
            section(index.contents.symbols),
            section(index.contents.postings_table),
        ];
        for series in index.all_postings().expect("a list").iter() {
            let at = index.series_offset(series) as usize;
            let body = series::body(&bytes[at..]).expect("an entry");
            spans.push(at + body.start..at + body.end);
        }
        for name in index.label_names().map(|(name, _)| name).chain([""]) {
            let visit = &mut |_: &str, list: ListPlace| {
                spans.push(section(list.offset));
                ControlFlow::Continue(())
            };
            index.for_each_list(name, visit).expect("a sound table");
        }
        for span in &spans {
            assert_eq!(crc32c::crc32c(&bytes[span.clone()]) as usize, be32(span.end));
        }
        spans
    }
}

#[cfg(test)]
mod tests;
