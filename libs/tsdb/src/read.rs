//! Bytes at offsets: the trait through which the files of a block are read.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

/// A file of known size, of which any range can be read: a local file, or an object in a bucket.
///
/// Synchronous, because this crate has no async runtime: an implementation for an object blocks its thread. All
/// methods may be called from several threads at once.
///
/// # Contract
/// The content does not change while it is read. A read returns all bytes of its range, or an error, never fewer. A range
/// that ends after the file is an error of the kind [`io::ErrorKind::UnexpectedEof`].
pub trait ReadAt: Send + Sync {
    /// Size of the file in bytes.
    fn size_bytes(&self) -> u64;

    /// The bytes of `range`.
    ///
    /// # Errors
    /// When they cannot be read, or the file ends before the range does.
    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes>;

    /// The bytes of each of `ranges`, in their order. An implementation whose reads are expensive may read neighbours
    /// together, or several ranges at once. By default they are read one by one.
    ///
    /// # Errors
    /// When one of them cannot be read.
    fn read_many(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        ranges.iter().map(|range| self.read_at(range.clone())).collect()
    }
}

/// A local file, read with `pread`.
///
/// It is not mapped into memory: a file that shrinks is then an error, not a signal that kills the process, and memory is
/// counted where it is kept.
#[derive(Debug)]
pub struct LocalFile {
    file: File,
    size_bytes: u64,
}

impl LocalFile {
    /// Opens `path` for reading. Its size is read once, now.
    ///
    /// # Errors
    /// When it cannot be opened, or is a directory.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { file, size_bytes: metadata.len() })
    }
}

impl ReadAt for LocalFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = checked_length(&range, self.size_bytes)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, range.start)?;
        Ok(Bytes::from(bytes))
    }
}

/// Bytes in memory; reading shares them.
impl ReadAt for Bytes {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = checked_length(&range, self.len() as u64)?;
        // Both ends are at most the length of a buffer in memory.
        let start = range.start as usize;
        Ok(self.slice(start..start + length))
    }
}

/// Bytes of a record that are read before its length is known. `largest` is the largest record, where `meta.json` says so: it may be
/// wrong, and then the rest is read by a second read.
pub(crate) fn first_read_bytes(largest: Option<u64>) -> u64 {
    /// Where nothing is known. Most records are smaller.
    const UNKNOWN: u64 = 4 << 10;
    /// One very large record is not worth reading this much for each of the others.
    const MOST: u64 = 16 << 10;
    const LEAST: u64 = 64;
    largest.unwrap_or(UNKNOWN).clamp(LEAST, MOST)
}

/// The length of `range`, which must be within `size_bytes`: memory is allocated only for bytes that exist.
fn checked_length(range: &Range<u64>, size_bytes: u64) -> io::Result<usize> {
    if range.start > range.end || range.end > size_bytes {
        let message =
            format!("bytes {} to {} are not in the file of {size_bytes} bytes", range.start, range.end);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    usize::try_from(range.end - range.start).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_bytes_give_the_same_and_reject_ranges_after_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("digits");
        std::fs::write(&path, b"0123456789").unwrap();
        let sources: [Box<dyn ReadAt>; 2] =
            [Box::new(LocalFile::open(&path).unwrap()), Box::new(Bytes::from_static(b"0123456789"))];
        for source in &sources {
            assert_eq!(source.size_bytes(), 10);
            assert_eq!(source.read_at(3..6).unwrap(), "345");
            assert_eq!(source.read_at(10..10).unwrap(), "");
            assert_eq!(source.read_many(&[0..1, 9..10]).unwrap(), ["0", "9"]);
            for range in [(5, 11), (11, 11), (0, u64::MAX), (6, 5)] {
                let error = source.read_at(range.0..range.1).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{range:?}");
            }
        }
        assert!(LocalFile::open(dir.path()).is_err(), "a directory is not a file");
    }

    #[test]
    fn a_file_that_shrinks_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("digits");
        std::fs::write(&path, b"0123456789").unwrap();
        let file = LocalFile::open(&path).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(4).unwrap();
        assert_eq!(file.read_at(2..8).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
