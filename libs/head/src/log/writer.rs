//! Writes records to segments.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::log::segments::{last_checkpoint, list, segment_name};
use crate::log::{HEADER_BYTES, PAGE_BYTES, SEGMENT_BYTES, SNAPPY};

/// Bytes of data in a page with one fragment.
const DATA_BYTES: usize = PAGE_BYTES - HEADER_BYTES;

/// Appends records to the last segment of a log.
///
/// A record is in the file when [`LogWriter::log`] returns, and on the disk after [`LogWriter::sync`]. If a write fails, the
/// segment is cut to its last whole record, and continued there. If that fails, too, the next record begins a new one.
pub(crate) struct LogWriter {
    dir: PathBuf,
    number: u32,
    file: File,
    /// The bytes of the current page that are filled, all of them written.
    page: usize,
    /// Pages before the current one.
    pages: usize,
    /// Length of the file up to the last record, and `page` and `pages` there.
    written: u64,
    written_page: (usize, usize),
    /// Whether a write failed and the file may end within a record.
    is_broken: bool,
    /// Bytes to write for the records of one call.
    out: Vec<u8>,
    compressed: Vec<u8>,
    encoder: snap::raw::Encoder,
    /// Most bytes of a segment: a multiple of a page.
    segment_bytes: usize,
}

impl LogWriter {
    /// Begins a new segment after those in `dir`, which is created if it is missing.
    ///
    /// # Errors
    /// When a file cannot be created.
    pub(crate) fn create(dir: &Path) -> io::Result<Self> {
        Self::with_segments(dir, SEGMENT_BYTES)
    }

    /// The same with segments of another size, a multiple of a page.
    pub(crate) fn with_segments(dir: &Path, segment_bytes: usize) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let last = list(dir)?.last().map(|last| last.number);
        // A segment that a checkpoint replaces would be removed.
        let number = last.max(last_checkpoint(dir)?.map(|last| last.number)).map_or(0, |last| last + 1);
        Ok(Self {
            dir: dir.to_owned(),
            number,
            file: create(dir, number)?,
            page: 0,
            pages: 0,
            written: 0,
            written_page: (0, 0),
            is_broken: false,
            out: Vec::new(),
            compressed: Vec::new(),
            encoder: snap::raw::Encoder::new(),
            segment_bytes,
        })
    }

    /// The number of the current segment.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Bytes of the current segment that have whole records.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Whether records fit into segments.
    ///
    /// # Errors
    /// When one does not.
    pub(crate) fn check(&self, records: &[Vec<u8>]) -> io::Result<()> {
        let most = self.segment_bytes / PAGE_BYTES * DATA_BYTES;
        if let Some(record) = records.iter().find(|record| record.len() > most) {
            let text = format!("a record of {} bytes does not fit into a segment", record.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(())
    }

    /// Appends records. If that fails, the first ones may be in the log nevertheless.
    ///
    /// # Errors
    /// When the file cannot be written, or a record does not fit into a segment.
    pub(crate) fn log(&mut self, records: &[Vec<u8>]) -> io::Result<()> {
        self.check(records)?;
        if self.is_broken {
            self.next_segment()?;
        }
        for record in records {
            self.add(record)?;
        }
        self.flush()
    }

    /// Completes the segment and begins the next one.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub(crate) fn next_segment(&mut self) -> io::Result<()> {
        self.flush()?;
        if self.is_broken {
            self.file.set_len(self.written)?;
        }
        self.file.sync_all()?;
        let file = create(&self.dir, self.number + 1)?;
        self.number += 1;
        (self.file, self.page, self.pages, self.written, self.is_broken) = (file, 0, 0, 0, false);
        self.written_page = (0, 0);
        Ok(())
    }

    /// Cuts the segment after the last whole record.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.written)?;
        self.file.seek(SeekFrom::Start(self.written))?;
        (self.page, self.pages) = self.written_page;
        Ok(())
    }

    /// Writes to another file from now on, and returns the one before.
    #[cfg(test)]
    pub(crate) fn replace_file(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    /// Waits until all records are on the disk.
    ///
    /// # Errors
    /// When the disk reports an error.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Adds the fragments of a record to `out`.
    fn add(&mut self, record: &[u8]) -> io::Result<()> {
        let bound = snap::raw::max_compress_len(record.len());
        self.compressed.resize(bound, 0);
        let length = self.encoder.compress(record, &mut self.compressed).map_err(io::Error::other)?;
        let is_smaller = length < record.len();
        let data = if is_smaller { std::mem::take(&mut self.compressed) } else { record.to_vec() };
        let (mut rest, bits) = if is_smaller { (&data[..length], SNAPPY) } else { (&data[..], 0) };
        self.make_room(rest.len())?;
        let mut is_first = true;
        loop {
            let part = rest.len().min(PAGE_BYTES - self.page - HEADER_BYTES);
            let kind = match (is_first, part == rest.len()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            self.out.push(kind | bits);
            self.out.extend_from_slice(&(part as u16).to_be_bytes());
            self.out.extend_from_slice(&crc32c::crc32c(&rest[..part]).to_be_bytes());
            self.out.extend_from_slice(&rest[..part]);
            rest = &rest[part..];
            self.page += HEADER_BYTES + part;
            if PAGE_BYTES - self.page < HEADER_BYTES {
                self.end_page();
            }
            is_first = false;
            if rest.is_empty() {
                break;
            }
        }
        if is_smaller {
            self.compressed = data;
        }
        Ok(())
    }

    /// Begins a new segment if the current one has no room for this many bytes of data.
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        let pages = self.segment_bytes / PAGE_BYTES - self.pages;
        let left = (pages * DATA_BYTES).saturating_sub(self.page);
        if pages == 0 || bytes > left {
            self.next_segment()?;
        }
        Ok(())
    }

    /// Fills the page with zeros.
    fn end_page(&mut self) {
        self.out.resize(self.out.len() + PAGE_BYTES - self.page, 0);
        self.page = 0;
        self.pages += 1;
    }

    /// Writes what was added.
    fn flush(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        let result = self.file.write_all(&out);
        match &result {
            Ok(()) => {
                self.written += out.len() as u64;
                self.written_page = (self.page, self.pages);
            }
            Err(_) => self.is_broken = self.cut().is_err(),
        }
        self.out = out;
        self.out.clear();
        result
    }
}

fn create(dir: &Path, number: u32) -> io::Result<File> {
    let path = dir.join(segment_name(number));
    let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    if let Err(error) = File::open(dir).and_then(|dir| dir.sync_all()) {
        // The next attempt creates it again.
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::reader::SegmentReader;

    /// Records of all sizes: empty pages, several pages, and those that do not compress.
    fn records(seed: u64) -> Vec<Vec<u8>> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let record = |_| {
            let bytes = [1, 6, 7, 100, 3_000, 32_754, 32_761, 32_768, 100_000][(next() % 9) as usize];
            let is_random = next() % 2 == 0;
            (0..bytes).map(|_| if is_random { next() as u8 } else { 7 }).collect()
        };
        (0..60).map(record).collect()
    }

    fn read_all(dir: &Path) -> (Vec<Vec<u8>>, usize) {
        let segments = list(dir).unwrap();
        let mut out = Vec::new();
        for segment in &segments {
            let mut reader = SegmentReader::open(&segment.path).unwrap();
            while let Some(record) = reader.next_record().unwrap() {
                out.push(record.to_vec());
            }
            assert_eq!(reader.torn(), None);
        }
        (out, segments.len())
    }

    #[test]
    fn records_of_all_sizes_come_back_from_segments() {
        for seed in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let all = records(seed);
            let mut writer = LogWriter::with_segments(dir.path(), 8 * PAGE_BYTES).unwrap();
            for batch in all.chunks(7) {
                writer.log(batch).unwrap();
            }
            drop(writer);
            // A log that is opened again continues in a new segment.
            LogWriter::with_segments(dir.path(), 8 * PAGE_BYTES).unwrap().log(&all[..3]).unwrap();
            let (read, segments) = read_all(dir.path());
            assert_eq!(read, [&all[..], &all[..3]].concat(), "seed {seed}");
            assert!(segments > 2, "{segments}");
            for segment in list(dir.path()).unwrap() {
                let length = fs::metadata(&segment.path).unwrap().len();
                assert!(length <= 8 * PAGE_BYTES as u64, "{segment:?}: {length}");
            }
        }
    }

    #[test]
    fn a_record_that_does_not_fit_is_refused_and_others_are_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::with_segments(dir.path(), PAGE_BYTES).unwrap();
        writer.log(&[vec![1; 10]]).unwrap();
        let error = writer.log(&[vec![2; 10], vec![3; PAGE_BYTES]]).unwrap_err();
        assert_eq!(error.to_string(), "a record of 32768 bytes does not fit into a segment");
        writer.log(&[vec![4; 10]]).unwrap();
        assert_eq!(read_all(dir.path()).0, [vec![1; 10], vec![4; 10]]);
    }

    /// A device that is always full, and cannot be cut.
    #[test]
    fn after_a_write_that_failed_the_next_segment_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::create(dir.path()).unwrap();
        writer.log(&[vec![1; 10]]).unwrap();
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let segment = writer.replace_file(file);
        let error = writer.log(&[vec![2; 100_000]]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(writer.is_broken && writer.log(&[vec![2; 10]]).is_err());
        writer.replace_file(segment);
        writer.log(&[vec![3; 10]]).unwrap();
        assert_eq!(read_all(dir.path()), (vec![vec![1; 10], vec![3; 10]], 2));
    }
}
