//! Writes an index of version 2.
//!
//! Entries of series refer to symbols by their number in the sorted list, which is known only at the end. Until then the
//! series are in a temporary file. Then symbols, series, postings lists, their table and the table of contents are written.
//! The temporary file is read again to make the lists, as many at a time as fit in memory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use model::Labels;

use crate::ChunkMeta;
use crate::cursor::{put_bytes, put_uvarint, put_varint};
use crate::index::{HEADER_BYTES, MAGIC};
use crate::writer::error::{WriteError, at};
use crate::writer::labels::{LabelNumbers, LabelTable};
use crate::writer::spill::{SpillReader, SpillWriter, SpilledSeries};

/// The version that is written.
const VERSION: u8 = 2;
/// Size of the write buffer.
const BUFFER_BYTES: usize = 1 << 20;
/// Most series in the lists that are in memory: 64 MiB.
const LISTED_AT_ONCE: u64 = 16 << 20;

pub(super) struct IndexWriter {
    path: PathBuf,
    labels: LabelTable,
    spill: SpillWriter,
    series: u64,
    rest: Vec<u8>,
    /// [`LISTED_AT_ONCE`], or less in tests.
    pub(super) listed_at_once: u64,
}

/// A file that is written from its beginning.
struct IndexFile {
    file: BufWriter<File>,
    position: u64,
}

impl IndexFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn align(&mut self, to: u64) -> io::Result<()> {
        let missing = self.position.next_multiple_of(to) - self.position;
        self.write(&[0; 16][..missing as usize])
    }
}

/// A section that is being written. Its length is filled in at its end.
struct SectionOut<'a> {
    out: &'a mut IndexFile,
    /// Where the length is to be written.
    start: u64,
    checksum: u32,
    buffer: Vec<u8>,
}

impl<'a> SectionOut<'a> {
    fn begin(out: &'a mut IndexFile) -> io::Result<Self> {
        let start = out.position;
        out.write(&[0; 4])?;
        Ok(SectionOut { out, start, checksum: 0, buffer: Vec::new() })
    }

    /// Writes the buffer if it has `at_least` this many bytes.
    fn spill(&mut self, at_least: usize) -> io::Result<()> {
        if self.buffer.len() >= at_least {
            self.checksum = crc32c::crc32c_append(self.checksum, &self.buffer);
            self.out.write(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn end(mut self, what: &'static str) -> Result<(), SectionError> {
        self.spill(0)?;
        let length = self.out.position - self.start - 4;
        let length = u32::try_from(length).map_err(|_| SectionError::TooLarge(what))?;
        self.out.write(&self.checksum.to_be_bytes())?;
        self.out.file.flush()?;
        Ok(self.out.file.get_ref().write_all_at(&length.to_be_bytes(), self.start)?)
    }
}

/// An error without the path of the file.
enum SectionError {
    Io(io::Error),
    TooLarge(&'static str),
}

impl From<io::Error> for SectionError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl IndexWriter {
    pub(super) fn create(path: &Path) -> Result<Self, WriteError> {
        let waiting = path.with_extension("waiting");
        let spill = SpillWriter::create(&waiting).map_err(at(&waiting))?;
        Ok(Self {
            path: path.to_owned(),
            labels: LabelTable::default(),
            spill,
            series: 0,
            rest: Vec::new(),
            listed_at_once: LISTED_AT_ONCE,
        })
    }

    /// Adds the next series.
    pub(super) fn add(
        &mut self,
        labels: &Labels,
        chunks: impl ExactSizeIterator<Item = ChunkMeta>,
    ) -> Result<(), WriteError> {
        if self.series == u64::from(u32::MAX) {
            return Err(WriteError::TooLarge("more than 2^32 series"));
        }
        self.series += 1;
        let rest = &mut self.rest;
        rest.clear();
        put_uvarint(rest, chunks.len() as u64);
        let mut before: Option<ChunkMeta> = None;
        for chunk in chunks {
            let (min, max) = (chunk.range.min.as_millis(), chunk.range.max.as_millis());
            match before {
                None => put_varint(rest, min),
                Some(before) => put_uvarint(rest, min.wrapping_sub(before.range.max.as_millis()) as u64),
            }
            put_uvarint(rest, max.wrapping_sub(min) as u64);
            match before {
                None => put_uvarint(rest, chunk.reference.0),
                Some(before) => put_varint(rest, chunk.reference.0.wrapping_sub(before.reference.0) as i64),
            }
            before = Some(chunk);
        }
        let pairs = self.labels.add(labels)?;
        self.spill.add(pairs, rest).map_err(at(self.spill.path()))
    }

    /// Writes the index and syncs it. Returns the size of the largest entry.
    pub(super) fn finish(self) -> Result<u64, WriteError> {
        let Self { path, labels, spill, series, listed_at_once, .. } = self;
        let waiting = spill.path().to_owned();
        let waiting = spill.finish().map_err(at(&waiting))?;
        let written =
            write(&path, &waiting, labels, series, listed_at_once).map_err(|error| match error {
                SectionError::Io(error) => at(&path)(error),
                SectionError::TooLarge(what) => WriteError::TooLarge(what),
            })?;
        fs::remove_file(&waiting).map_err(at(&waiting))?;
        Ok(written)
    }
}

fn write(
    path: &Path,
    waiting: &Path,
    labels: LabelTable,
    series: u64,
    listed_at_once: u64,
) -> Result<u64, SectionError> {
    let file = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(path)?);
    let mut out = IndexFile { file, position: 0 };
    out.write(&MAGIC.to_be_bytes())?;
    out.write(&[VERSION])?;

    let (texts, places, pairs) = labels.finish();
    write_symbols(&mut out, &texts)?;
    let series_start = out.position;

    // Texts are sorted, so their numbers sort like them.
    let mut order: Vec<u32> = (0..pairs.len() as u32).collect();
    let key = |pair: &LabelNumbers| (places[pair.name as usize], places[pair.value as usize]);
    order.sort_unstable_by_key(|&number| key(&pairs[number as usize]));
    let mut groups = groups(&order, &pairs, listed_at_once).into_iter();

    // The first lists are collected while the series are written.
    let mut lists = PendingLists::new(&pairs, &order, groups.next().unwrap_or(0..0));
    let mut references = Vec::with_capacity(usize::try_from(series).unwrap_or(0));
    let mut largest = 0;
    let mut reader = SpillReader::open(waiting)?;
    let mut entry = SpilledSeries::default();
    let (mut body, mut head) = (Vec::new(), Vec::new());
    while reader.next(&mut entry)? {
        out.align(16)?;
        let reference = u32::try_from(out.position / 16)
            .map_err(|_| SectionError::TooLarge("more than 64 GiB of series"))?;
        body.clear();
        put_uvarint(&mut body, entry.pairs.len() as u64);
        for &pair in &entry.pairs {
            let (name, value) = key(&pairs[pair as usize]);
            put_uvarint(&mut body, u64::from(name));
            put_uvarint(&mut body, u64::from(value));
            lists.add(pair, reference);
        }
        body.extend_from_slice(&entry.rest);
        head.clear();
        put_uvarint(&mut head, body.len() as u64);
        out.write(&head)?;
        let checksum = crc32c::crc32c(&body);
        body.extend_from_slice(&checksum.to_be_bytes());
        out.write(&body)?;
        // Up to where the next entry can begin, as in Thanos: its store reads so many bytes of an entry.
        largest = largest.max((head.len() + body.len()).next_multiple_of(16) as u64);
        references.push(reference);
    }
    let series_end = out.position;

    let mut offsets = Vec::with_capacity(pairs.len() + 1);
    offsets.push(write_list(&mut out, &references, &mut body)?);
    loop {
        for list in lists.group.clone() {
            offsets.push(write_list(&mut out, lists.of(list), &mut body)?);
        }
        let Some(group) = groups.next() else { break };
        lists = PendingLists::new(&pairs, &order, group);
        let mut reader = SpillReader::open(waiting)?;
        let mut next = references.iter();
        while reader.next(&mut entry)? {
            let Some(&reference) = next.next() else { break };
            entry.pairs.iter().for_each(|&pair| lists.add(pair, reference));
        }
    }

    out.align(4)?;
    let table_start = out.position;
    let mut section = SectionOut::begin(&mut out)?;
    section.buffer.extend_from_slice(&(offsets.len() as u32).to_be_bytes());
    let names = std::iter::once(("", "")).chain(order.iter().map(|&number| {
        let (name, value) = key(&pairs[number as usize]);
        (&*texts[name as usize], &*texts[value as usize])
    }));
    for ((name, value), offset) in names.zip(offsets) {
        put_uvarint(&mut section.buffer, 2);
        put_bytes(&mut section.buffer, name.as_bytes());
        put_bytes(&mut section.buffer, value.as_bytes());
        put_uvarint(&mut section.buffer, offset);
        section.spill(BUFFER_BYTES)?;
    }
    section.end("more than 4 GiB of label values")?;

    write_contents(&mut out, series_start, series_end, table_start)?;
    out.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(largest)
}

/// Writes the symbols section.
fn write_symbols(out: &mut IndexFile, texts: &[Box<str>]) -> Result<(), SectionError> {
    let mut section = SectionOut::begin(out)?;
    section.buffer.extend_from_slice(&(texts.len() as u32).to_be_bytes());
    for text in texts {
        put_bytes(&mut section.buffer, text.as_bytes());
        section.spill(BUFFER_BYTES)?;
    }
    section.end("more than 4 GiB of label texts")
}

/// Writes the table of contents.
fn write_contents(
    out: &mut IndexFile,
    series_start: u64,
    series_end: u64,
    table_start: u64,
) -> Result<(), SectionError> {
    let mut contents = Vec::with_capacity(52);
    // The two label tables are no longer written; their offsets are those that Prometheus gives them.
    for offset in [HEADER_BYTES, series_start, series_end, table_start, series_end, table_start] {
        contents.extend_from_slice(&offset.to_be_bytes());
    }
    let checksum = crc32c::crc32c(&contents);
    contents.extend_from_slice(&checksum.to_be_bytes());
    Ok(out.write(&contents)?)
}

/// Writes a postings list and returns its offset.
fn write_list(out: &mut IndexFile, series: &[u32], buffer: &mut Vec<u8>) -> Result<u64, SectionError> {
    out.align(4)?;
    let offset = out.position;
    let length = u32::try_from(4 + 4 * series.len() as u64)
        .map_err(|_| SectionError::TooLarge("a postings list of 4 GiB"))?;
    buffer.clear();
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(&(series.len() as u32).to_be_bytes());
    series.iter().for_each(|series| buffer.extend_from_slice(&series.to_be_bytes()));
    let checksum = crc32c::crc32c(&buffer[4..]);
    buffer.extend_from_slice(&checksum.to_be_bytes());
    out.write(buffer)?;
    Ok(offset)
}

/// Cuts the sorted labels into groups whose lists fit in memory together.
fn groups(order: &[u32], pairs: &[LabelNumbers], listed_at_once: u64) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let (mut start, mut listed) = (0, 0);
    for (place, &number) in order.iter().enumerate() {
        let series = u64::from(pairs[number as usize].series);
        if place > start && listed + series > listed_at_once {
            groups.push(start..place);
            (start, listed) = (place, 0);
        }
        listed += series;
    }
    groups.push(start..order.len());
    groups
}

/// A group of postings lists that are being collected.
struct PendingLists {
    /// The range of the sorted labels.
    group: Range<usize>,
    /// For each label by number, the index of its next series; [`PendingLists::OTHER`] if it is not in the group.
    next: Vec<u32>,
    /// Where each list of the group ends in `series`.
    ends: Vec<u32>,
    series: Vec<u32>,
}

impl PendingLists {
    const OTHER: u32 = u32::MAX;

    fn new(pairs: &[LabelNumbers], order: &[u32], group: Range<usize>) -> Self {
        let mut next = vec![Self::OTHER; pairs.len()];
        let mut ends = Vec::with_capacity(group.len());
        let mut end = 0;
        for &number in &order[group.clone()] {
            next[number as usize] = end;
            // One list has less than 2^32 series, and several lists fit in memory together.
            end += pairs[number as usize].series;
            ends.push(end);
        }
        Self { group, next, ends, series: vec![0; end as usize] }
    }

    fn add(&mut self, pair: u32, series: u32) {
        let next = &mut self.next[pair as usize];
        if *next != Self::OTHER {
            self.series[*next as usize] = series;
            *next += 1;
        }
    }

    /// The list of the label with this index in the sorted labels.
    fn of(&self, place: usize) -> &[u32] {
        let index = place - self.group.start;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.series[start as usize..self.ends[index] as usize]
    }
}
