//! Writes segments.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::cursor::put_uvarint;
use crate::segments::{HEADER_BYTES, MAGIC, MAX_LENGTH_BYTES, VERSION};
use crate::{Chunk, ChunkRef};

/// Size of the write buffer.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes the files of a new `chunks` directory.
pub(crate) struct SegmentWriter {
    dir: PathBuf,
    /// A segment is larger than this only if a single chunk is.
    limit_bytes: u64,
    current: Option<BufWriter<File>>,
    /// Number of segments so far, with the current one.
    segments: u32,
    /// Bytes of the current one.
    length: u64,
    record: Vec<u8>,
}

impl SegmentWriter {
    /// Creates the directory, which must not exist.
    pub(crate) fn create(dir: &Path, limit_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            // An offset has 32 bits.
            limit_bytes: limit_bytes.min(u64::from(u32::MAX)),
            current: None,
            segments: 0,
            length: 0,
            record: Vec::new(),
        })
    }

    /// Appends the chunks of one series, and their references to `out`. A new segment begins before the first chunk that might
    /// not fit into the current one.
    pub(crate) fn write(&mut self, chunks: &[Chunk], out: &mut Vec<ChunkRef>) -> io::Result<()> {
        if self.current.is_none() {
            self.cut()?;
        }
        // Prometheus plans with the longest length for each record of the series. So do we, to cut segments at the same places.
        let mut planned = self.length;
        for chunk in chunks {
            let size = (MAX_LENGTH_BYTES + 1 + chunk.data.len() + 4) as u64;
            planned += size;
            if planned > self.limit_bytes && self.length > HEADER_BYTES {
                self.cut()?;
                planned = HEADER_BYTES + size;
            }
            self.append(chunk, out)?;
        }
        Ok(())
    }

    fn append(&mut self, chunk: &Chunk, out: &mut Vec<ChunkRef>) -> io::Result<()> {
        let Some(file) = &mut self.current else {
            return Err(io::Error::other("no segment is open"));
        };
        if u32::try_from(chunk.data.len()).is_err() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a chunk of 4 GiB or more"));
        }
        self.record.clear();
        put_uvarint(&mut self.record, chunk.data.len() as u64);
        let head = self.record.len();
        self.record.push(chunk.encoding.byte());
        self.record.extend_from_slice(&chunk.data);
        let checksum = crc32c::crc32c(&self.record[head..]);
        self.record.extend_from_slice(&checksum.to_be_bytes());
        file.write_all(&self.record)?;
        // The length is below the limit, which fits 32 bits.
        out.push(ChunkRef::new(self.segments - 1, self.length as u32));
        self.length += self.record.len() as u64;
        Ok(())
    }

    /// Completes the current segment and begins the next one.
    fn cut(&mut self) -> io::Result<()> {
        self.end()?;
        self.segments += 1;
        let path = self.dir.join(format!("{:06}", self.segments));
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create_new(path)?);
        file.write_all(&MAGIC.to_be_bytes())?;
        file.write_all(&[VERSION, 0, 0, 0])?;
        self.current = Some(file);
        self.length = HEADER_BYTES;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        match self.current.take() {
            Some(file) => file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Writes what is left in the buffer, and syncs everything.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end()?;
        File::open(&self.dir)?.sync_all()
    }
}
