//! A temporary file of series until the symbols are known: the numbers of their labels, and the rest of their entries.
//!
//! ```text
//! uvarint labels, labels × uvarint number, uvarint size of the rest, rest
//! ```

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::cursor::put_uvarint;

/// Size of the buffers.
const BUFFER_BYTES: usize = 1 << 20;

pub(super) struct SpillWriter {
    path: PathBuf,
    file: BufWriter<File>,
    record: Vec<u8>,
}

/// A series in the file.
#[derive(Default)]
pub(super) struct SpilledSeries {
    /// Numbers of its labels.
    pub(super) pairs: Vec<u32>,
    /// The part of its entry that follows the labels.
    pub(super) rest: Vec<u8>,
}

impl SpillWriter {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(path)?);
        Ok(Self { path: path.to_owned(), file, record: Vec::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn add(&mut self, pairs: &[u32], rest: &[u8]) -> io::Result<()> {
        self.record.clear();
        put_uvarint(&mut self.record, pairs.len() as u64);
        pairs.iter().for_each(|&pair| put_uvarint(&mut self.record, u64::from(pair)));
        put_uvarint(&mut self.record, rest.len() as u64);
        self.file.write_all(&self.record)?;
        self.file.write_all(rest)
    }

    /// Completes the file. Returns its path.
    pub(super) fn finish(mut self) -> io::Result<PathBuf> {
        self.file.flush()?;
        Ok(self.path)
    }
}

/// Reads the file from its beginning.
pub(super) struct SpillReader {
    file: BufReader<File>,
}

impl SpillReader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufReader::with_capacity(BUFFER_BYTES, File::open(path)?) })
    }

    /// Reads the next series into `waiting`; false at the end.
    pub(super) fn next(&mut self, waiting: &mut SpilledSeries) -> io::Result<bool> {
        if self.file.fill_buf()?.is_empty() {
            return Ok(false);
        }
        waiting.pairs.clear();
        for _ in 0..self.uvarint()? {
            let pair = self.uvarint()?;
            waiting.pairs.push(u32::try_from(pair).map_err(io::Error::other)?);
        }
        let size = usize::try_from(self.uvarint()?).map_err(io::Error::other)?;
        waiting.rest.resize(size, 0);
        self.file.read_exact(&mut waiting.rest)?;
        Ok(true)
    }

    fn uvarint(&mut self) -> io::Result<u64> {
        let (mut value, mut shift) = (0, 0);
        loop {
            let mut byte = [0];
            self.file.read_exact(&mut byte)?;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }
}
