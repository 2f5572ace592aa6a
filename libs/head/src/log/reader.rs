//! Reads the records of a segment.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::log::{HEADER_BYTES, PAGE_BYTES, SNAPPY, ZSTD};

/// Most bytes of a record, compressed or not. Prometheus' largest have some megabytes.
const MOST_RECORD_BYTES: usize = 256 << 20;

/// Where a segment ends early, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Torn {
    /// The end of the last whole record, in bytes from the begin of the file.
    pub(crate) at: u64,
    /// Bytes of the file behind it.
    pub(crate) lost: u64,
    pub(crate) reason: &'static str,
}

/// The reason of a segment that a later version wrote: its records have a type or a compression that is not known. A flipped bit can
/// do that to one record, but not to two that follow each other.
pub(crate) const NEWER: &str = "the type of the records";

/// Reads the records of one segment, in order.
pub(crate) struct SegmentReader {
    file: File,
    length: u64,
    /// Nothing at or after this byte is read.
    limit: u64,
    page: Box<[u8]>,
    /// Bytes of the page that the file has, and those that were read.
    filled: usize,
    at: usize,
    /// Where the page begins in the file.
    page_begin: u64,
    /// The end of the last whole record.
    good: u64,
    data: Vec<u8>,
    record: Vec<u8>,
    torn: Option<Torn>,
}

/// A fragment of a record.
struct Fragment {
    /// 1 a whole record, 2 its first part, 3 a middle one, 4 the last one.
    kind: u8,
    /// The bits for compression.
    compression: u8,
}

impl SegmentReader {
    /// A reader from the begin of the segment.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self {
            length: file.metadata()?.len(),
            limit: u64::MAX,
            file,
            page: vec![0; PAGE_BYTES].into_boxed_slice(),
            filled: 0,
            at: 0,
            page_begin: 0,
            good: 0,
            data: Vec::new(),
            record: Vec::new(),
            torn: None,
        })
    }

    /// A reader from the end of a record on, which reads nothing at or after `limit`: the file may be written meanwhile.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub(crate) fn open_at(path: &Path, offset: u64, limit: u64) -> io::Result<Self> {
        let mut reader = Self::open(path)?;
        let in_page = offset % PAGE_BYTES as u64;
        (reader.limit, reader.page_begin, reader.good) = (limit, offset - in_page, offset);
        reader.file.seek(SeekFrom::Start(reader.page_begin))?;
        reader.read_page()?;
        reader.at = reader.filled.min(in_page as usize);
        Ok(reader)
    }

    /// The end of the last record that was read, in bytes from the begin of the file.
    pub(crate) fn position(&self) -> u64 {
        self.good
    }

    /// The limit of [`Self::open_at`].
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// The next record; none at the end, and where the segment is [torn](Self::torn).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn next_record(&mut self) -> io::Result<Option<&[u8]>> {
        if self.torn.is_some() {
            return Ok(None);
        }
        match self.read_record()? {
            Ok(true) => Ok(Some(&self.record)),
            Ok(false) => Ok(None),
            Err(reason) => {
                self.torn = Some(Torn { at: self.good, lost: self.length.saturating_sub(self.good), reason });
                Ok(None)
            }
        }
    }

    /// Where the segment cannot be read any further, if that is before its end.
    pub(crate) fn torn(&self) -> Option<Torn> {
        self.torn.clone()
    }

    /// Reads the next record. False at the end. The inner error says why there is none.
    fn read_record(&mut self) -> io::Result<Result<bool, &'static str>> {
        self.data.clear();
        let mut is_first = true;
        loop {
            let fragment = match self.read_fragment()? {
                Ok(Some(fragment)) => fragment,
                Ok(None) if is_first => return Ok(Ok(false)),
                Ok(None) => return Ok(Err("the segment ends within a record")),
                Err(reason) => return Ok(Err(reason)),
            };
            if matches!(fragment.kind, 1 | 2) != is_first {
                return Ok(Err("the parts of a record are not in order"));
            }
            if self.data.len() > MOST_RECORD_BYTES {
                return Ok(Err("a record is too large"));
            }
            is_first = false;
            if matches!(fragment.kind, 1 | 4) {
                let result = self.decompress(fragment.compression);
                self.good = self.page_begin + self.at as u64;
                return Ok(result.map(|()| true));
            }
        }
    }

    /// Appends the data of the next fragment to `data`. None at the end of the file.
    fn read_fragment(&mut self) -> io::Result<Result<Option<Fragment>, &'static str>> {
        loop {
            if self.at == self.filled && !self.read_page()? {
                return Ok(Ok(None));
            }
            let rest = &self.page[self.at..self.filled];
            if rest[0] & 7 == 0 || rest.len() < HEADER_BYTES && self.filled == PAGE_BYTES {
                if rest.iter().any(|&byte| byte != 0) {
                    return Ok(Err("the rest of a page is not zero"));
                }
                self.at = self.filled;
                continue;
            }
            let Some((header, data)) = rest.split_at_checked(HEADER_BYTES) else {
                return Ok(Err("the segment ends within a record"));
            };
            let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
            let checksum = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
            let Some(data) = data.get(..length) else {
                let is_end = self.filled < PAGE_BYTES;
                let reason =
                    if is_end { "the segment ends within a record" } else { "a record crosses its page" };
                return Ok(Err(reason));
            };
            if crc32c::crc32c(data) != checksum {
                return Ok(Err("a checksum does not match"));
            }
            let fragment = Fragment { kind: header[0] & 7, compression: header[0] & !7 };
            if let Some(reason) = unknown_type(header[0]) {
                let follows =
                    is_whole_of_unknown_type(&self.page[self.at + HEADER_BYTES + length..self.filled]);
                return Ok(Err(if length > 0 && follows { NEWER } else { reason }));
            }
            self.data.extend_from_slice(data);
            self.at += HEADER_BYTES + length;
            return Ok(Ok(Some(fragment)));
        }
    }

    /// Reads the next page. False at the end of the file.
    fn read_page(&mut self) -> io::Result<bool> {
        if self.filled > 0 && self.filled < PAGE_BYTES {
            return Ok(false);
        }
        self.page_begin += self.filled as u64;
        (self.filled, self.at) = (0, 0);
        let left = self.limit.saturating_sub(self.page_begin);
        let end = usize::try_from(left).unwrap_or(usize::MAX).min(PAGE_BYTES);
        while self.filled < end {
            match self.file.read(&mut self.page[self.filled..end]) {
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.filled > 0)
    }

    /// Fills `record` with the data of a whole record.
    fn decompress(&mut self, compression: u8) -> Result<(), &'static str> {
        match compression {
            0 => std::mem::swap(&mut self.record, &mut self.data),
            SNAPPY => {
                let length = snap::raw::decompress_len(&self.data).unwrap_or(usize::MAX);
                if length > MOST_RECORD_BYTES {
                    return Err("a record is too large");
                }
                self.record.resize(length, 0);
                let mut decoder = snap::raw::Decoder::new();
                let read = decoder.decompress(&self.data, &mut self.record);
                if read != Ok(length) {
                    return Err("a record cannot be decompressed");
                }
            }
            ZSTD => {
                self.record.clear();
                let read = zstd::stream::read::Decoder::new(&self.data[..]).and_then(|decoder| {
                    decoder.take(MOST_RECORD_BYTES as u64 + 1).read_to_end(&mut self.record)
                });
                read.map_err(|_| "a record cannot be decompressed")?;
                if self.record.len() > MOST_RECORD_BYTES {
                    return Err("a record is too large");
                }
            }
            _ => return Err(UNKNOWN_COMPRESSION),
        }
        Ok(())
    }
}

/// Whether these bytes are data that snappy has compressed.
pub(crate) fn is_compressed(bytes: &[u8]) -> bool {
    let length = snap::raw::decompress_len(bytes).unwrap_or(usize::MAX);
    length <= MOST_RECORD_BYTES && snap::raw::Decoder::new().decompress_vec(bytes).is_ok()
}

const UNKNOWN_COMPRESSION: &str = "a record has an unknown compression";

/// What is not known of the first byte of a fragment.
fn unknown_type(byte: u8) -> Option<&'static str> {
    match (byte & 7, byte & !7) {
        (5.., _) => Some("a record has an unknown type"),
        (_, 0 | SNAPPY | ZSTD) => None,
        _ => Some(UNKNOWN_COMPRESSION),
    }
}

/// Whether a page continues with a fragment of an unknown type that is not damaged.
fn is_whole_of_unknown_type(rest: &[u8]) -> bool {
    let Some((header, rest)) = rest.split_at_checked(HEADER_BYTES) else { return false };
    let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
    let checksum = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    let data = rest.get(..length).filter(|data| !data.is_empty());
    unknown_type(header[0]).is_some() && data.is_some_and(|data| crc32c::crc32c(data) == checksum)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::log::segments::list;
    use crate::log::writer::LogWriter;

    fn segment(records: &[Vec<u8>]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        LogWriter::create(dir.path()).unwrap().log(records).unwrap();
        let path = list(dir.path()).unwrap().remove(0).path;
        (dir, path)
    }

    fn read(path: &Path) -> (Vec<Vec<u8>>, Option<Torn>) {
        let mut reader = SegmentReader::open(path).unwrap();
        let mut out = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            out.push(record.to_vec());
        }
        (out, reader.torn())
    }

    /// Records of random bytes, so that they are not compressed.
    fn records() -> Vec<Vec<u8>> {
        let mut state = 1u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..12).map(|n| (0..n * 1_500 + 1).map(|_| next()).collect()).collect()
    }

    #[test]
    fn a_segment_that_is_cut_gives_the_records_before() {
        let all = records();
        let (_dir, path) = segment(&all);
        let bytes = fs::read(&path).unwrap();
        for cut in (0..bytes.len()).step_by(397) {
            fs::write(&path, &bytes[..cut]).unwrap();
            let (read, torn) = read(&path);
            assert_eq!(read, all[..read.len()], "cut at {cut}");
            let at = torn.as_ref().map_or(cut as u64, |torn| torn.at);
            assert!(at <= cut as u64 && torn.is_none_or(|torn| torn.at + torn.lost == cut as u64), "{cut}");
            // What is kept by a repair is the same.
            fs::write(&path, &bytes[..at as usize]).unwrap();
            assert_eq!(self::read(&path), (read, None), "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_segment_before_its_record() {
        let all = records();
        let (_dir, path) = segment(&all);
        let bytes = fs::read(&path).unwrap();
        for bit in (0..bytes.len() * 8).step_by(1_013) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &damaged).unwrap();
            let (read, torn) = read(&path);
            assert_eq!(read, all[..read.len()], "bit {bit}");
            assert!(torn.is_some() && read.len() < all.len(), "bit {bit}");
        }
    }

    #[test]
    fn zstd_records_are_read_and_bombs_are_not() {
        let (_dir, path) = segment(&[]);
        let write = |kind: u8, data: &[u8]| {
            let mut out = vec![kind];
            out.extend_from_slice(&(data.len() as u16).to_be_bytes());
            out.extend_from_slice(&crc32c::crc32c(data).to_be_bytes());
            out.extend_from_slice(data);
            fs::write(&path, out).unwrap();
        };
        write(1 | ZSTD, &zstd::bulk::compress(&[5; 1_000], 1).unwrap());
        assert_eq!(read(&path), (vec![vec![5; 1_000]], None));
        // Snappy that announces 4 GiB.
        write(1 | SNAPPY, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert_eq!(read(&path).1.map(|torn| torn.reason), Some("a record is too large"));
        write(1 | SNAPPY | ZSTD, &[0]);
        assert_eq!(read(&path).1.map(|torn| torn.reason), Some("a record has an unknown compression"));
        write(7, &[0]);
        assert_eq!(read(&path).1.map(|torn| torn.reason), Some("a record has an unknown type"));
        write(3, &[0]);
        assert_eq!(read(&path).1.map(|torn| torn.reason), Some("the parts of a record are not in order"));
    }
}
