//! Chunks of the head that are complete, in files, in the format of Prometheus (`tsdb/chunks/head_chunks.go`).
//!
//! ```text
//! chunks_head/000003     be32 magic, byte 1, three zeros, then chunks; at most 128 MiB
//! chunk                  be64 series, be64 min time, be64 max time, byte encoding (bit 7: out of order),
//!                        uvarint length, data, be32 CRC-32C of all of this
//! ```
//!
//! These files only save memory and time: the log has the same samples. So they are synced when they are complete, and a file
//! that is damaged is cut before the damage.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use model::{TimeRange, Timestamp};
use tsdb::{ByteCursor, Chunk, Encoding, put_bytes};

const MAGIC: u32 = 0x0130_BC91;
const HEADER: [u8; 8] = [0x01, 0x30, 0xBC, 0x91, 1, 0, 0, 0];
const FILE_BYTES: u64 = 128 << 20;
const OUT_OF_ORDER: u8 = 0x80;

/// A number that no series has.
const NO_SERIES: u64 = 0;

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    file: u32,
    offset: u32,
    /// Bytes with header and checksum.
    length: u32,
}

/// A chunk of a series in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoredChunk {
    pub(crate) range: TimeRange,
    pub(crate) place: ChunkPlace,
}

impl ChunkPlace {
    /// Its number in the log of out-of-order samples.
    pub(crate) fn number(self) -> u64 {
        u64::from(self.file) << 32 | u64::from(self.offset)
    }
}

/// A chunk that was found in a file.
#[derive(Clone, Debug)]
pub(crate) struct FoundChunk {
    /// The number of its series in the log.
    pub(crate) series: u64,
    pub(crate) range: TimeRange,
    pub(crate) place: ChunkPlace,
    pub(crate) is_out_of_order: bool,
}

impl FoundChunk {
    /// Whether it is out of order, and its samples are in a block.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.is_out_of_order && self.series == NO_SERIES
    }
}

/// The files of a head.
pub(crate) struct ChunkFiles {
    dir: PathBuf,
    writer: Mutex<Writer>,
    files: RwLock<BTreeMap<u32, OpenFile>>,
}

/// A file that is read.
struct OpenFile {
    file: Arc<File>,
    /// The time of its last sample that is in order.
    max_time: i64,
    /// Chunks of out-of-order samples that are still needed.
    late: usize,
}

struct Writer {
    /// The number of the file that is written; the next one if there is none.
    number: u32,
    file: Option<(File, u64)>,
}

/// Damage that was found in the files: what was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DamagedFile {
    pub(crate) path: PathBuf,
    pub(crate) at: u64,
    pub(crate) lost: u64,
}

impl ChunkFiles {
    /// Opens the files in a directory, which is created if it is missing, and finds their chunks.
    ///
    /// A damaged file is cut before the damage.
    ///
    /// # Errors
    /// When a file cannot be read or cut.
    pub(crate) fn open(dir: &Path) -> io::Result<(Self, Vec<FoundChunk>, Vec<DamagedFile>)> {
        fs::create_dir_all(dir)?;
        let (mut files, mut chunks, mut damaged) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut number = 1;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(found) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            number = number.max(found.saturating_add(1));
            let bytes = fs::read(entry.path())?;
            let before = chunks.len();
            let good = parse_file(found, &bytes, &mut chunks);
            if good < bytes.len() {
                let lost = (bytes.len() - good) as u64;
                // A Prometheus that was killed leaves zeros, because it allocates files before it writes them.
                if good == 0 || bytes[good..].iter().any(|&byte| byte != 0) {
                    damaged.push(DamagedFile { path: entry.path(), at: good as u64, lost });
                }
                if good == 0 {
                    fs::remove_file(entry.path())?;
                    continue;
                }
                OpenOptions::new().write(true).open(entry.path())?.set_len(good as u64)?;
            }
            let (late, in_order): (Vec<_>, Vec<_>) =
                chunks[before..].iter().partition(|chunk| chunk.is_out_of_order);
            let max_time = in_order.iter().map(|chunk| chunk.range.max.as_millis()).max();
            let file = Arc::new(OpenOptions::new().read(true).write(true).open(entry.path())?);
            let max_time = max_time.unwrap_or(i64::MIN);
            let late = late.iter().filter(|chunk| !chunk.is_forgotten()).count();
            files.insert(found, OpenFile { file, max_time, late });
        }
        chunks.sort_by_key(|chunk| (chunk.place.file, chunk.place.offset));
        let writer = Mutex::new(Writer { number, file: None });
        Ok((Self { dir: dir.to_owned(), writer, files: RwLock::new(files) }, chunks, damaged))
    }

    /// Appends chunks with the numbers of their series, and returns where they are.
    ///
    /// # Errors
    /// When a file cannot be written. What was written of it is not used.
    pub(crate) fn append(&self, chunks: &[(u64, &Chunk)]) -> io::Result<Vec<ChunkPlace>> {
        self.append_kind(chunks, false)
    }

    /// The same for chunks of out-of-order samples. They are kept until [`ChunkFiles::release_late`].
    ///
    /// # Errors
    /// As [`ChunkFiles::append`].
    pub(crate) fn append_late(&self, chunks: &[(u64, &Chunk)]) -> io::Result<Vec<ChunkPlace>> {
        self.append_kind(chunks, true)
    }

    fn append_kind(&self, chunks: &[(u64, &Chunk)], is_late: bool) -> io::Result<Vec<ChunkPlace>> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.chunks(1_000).try_fold(Vec::new(), |mut places, part| {
            places.extend(self.append_part(&mut writer, part, is_late)?);
            Ok(places)
        })
    }

    fn append_part(
        &self,
        writer: &mut Writer,
        chunks: &[(u64, &Chunk)],
        is_late: bool,
    ) -> io::Result<Vec<ChunkPlace>> {
        let (mut out, mut places) = (Vec::new(), Vec::with_capacity(chunks.len()));
        let mut max_time = i64::MIN;
        let begin = self.file_with_room(writer, chunks)?;
        for (series, chunk) in chunks {
            let at = out.len();
            put_chunk(&mut out, *series, chunk, is_late);
            let offset = u32::try_from(begin + at as u64).map_err(io::Error::other)?;
            places.push(ChunkPlace { file: writer.number, offset, length: (out.len() - at) as u32 });
            max_time = max_time.max(chunk.range.max.as_millis());
        }
        if let Some((file, length)) = &mut writer.file {
            if let Err(error) = file.write_all(&out) {
                // The file may end within a chunk. If it cannot be cut, the next chunks begin a new one.
                let cut = file.set_len(*length).and_then(|()| file.seek(SeekFrom::Start(*length)));
                if cut.is_err() {
                    writer.number = writer.number.saturating_add(1);
                    writer.file = None;
                }
                return Err(error);
            }
            *length += out.len() as u64;
        }
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = files.get_mut(&writer.number) {
            match is_late {
                true => open.late += chunks.len(),
                false => open.max_time = open.max_time.max(max_time),
            }
        }
        Ok(places)
    }

    /// Makes sure that the file has room for these chunks, and returns its length.
    fn file_with_room(&self, writer: &mut Writer, chunks: &[(u64, &Chunk)]) -> io::Result<u64> {
        let needed: u64 = chunks.iter().map(|(_, chunk)| chunk.data.len() as u64 + 40).sum();
        if let Some((file, length)) = &writer.file {
            if length + needed <= FILE_BYTES {
                return Ok(*length);
            }
            file.sync_all()?;
            writer.number += 1;
            writer.file = None;
        }
        let path = self.dir.join(format!("{:06}", writer.number));
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let copy = match file.write_all(&HEADER).and_then(|()| file.try_clone()) {
            Ok(copy) => copy,
            Err(error) => {
                // The next attempt creates it again: the numbers of files follow each other.
                fs::remove_file(&path)?;
                return Err(error);
            }
        };
        let open = OpenFile { file: Arc::new(copy), max_time: i64::MIN, late: 0 };
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(writer.number, open);
        writer.file = Some((file, HEADER.len() as u64));
        Ok(HEADER.len() as u64)
    }

    /// A file that is open.
    fn file(&self, number: u32) -> io::Result<Arc<File>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let file = files.get(&number).map(|open| Arc::clone(&open.file));
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reads a chunk.
    ///
    /// # Errors
    /// When the file cannot be read, or the chunk is damaged.
    pub(crate) fn read(&self, place: ChunkPlace) -> io::Result<Chunk> {
        let file = self.file(place.file)?;
        let mut bytes = vec![0; place.length as usize];
        file.read_exact_at(&mut bytes, u64::from(place.offset))?;
        let found = parse_chunk(&bytes).filter(|(_, length)| *length == bytes.len());
        found.map(|(found, _)| found.chunk).ok_or_else(|| {
            let name = self.dir.join(format!("{:06}", place.file));
            let text = format!("{} at byte {}: a chunk is damaged", name.display(), place.offset);
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    /// The number of the first file; none without files.
    pub(crate) fn first_file(&self) -> Option<u32> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).keys().next().copied()
    }

    /// Chunks of out-of-order samples are in a block: the next start ignores them, because they get the number of no series.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn forget_late(&self, chunks: &[StoredChunk]) -> io::Result<()> {
        for StoredChunk { place, .. } in chunks {
            let file = self.file(place.file)?;
            let mut bytes = vec![0; place.length as usize];
            file.read_exact_at(&mut bytes, u64::from(place.offset))?;
            let Some(end) = bytes.len().checked_sub(4) else { continue };
            bytes[..8].copy_from_slice(&NO_SERIES.to_be_bytes());
            let checksum = crc32c::crc32c(&bytes[..end]);
            bytes[end..].copy_from_slice(&checksum.to_be_bytes());
            file.write_all_at(&bytes, u64::from(place.offset))?;
        }
        Ok(())
    }

    /// Chunks of out-of-order samples are no longer needed.
    pub(crate) fn release_late<'a>(&self, chunks: impl IntoIterator<Item = &'a StoredChunk>) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        for chunk in chunks {
            if let Some(open) = files.get_mut(&chunk.place.file) {
                open.late = open.late.saturating_sub(1);
            }
        }
    }

    /// Removes the first files that have no sample at `min_time` or later, and no out-of-order chunk that is needed.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn truncate(&self, min_time: i64) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        // Prometheus requires that the numbers of files follow each other.
        while let Some(first) = files.first_entry().filter(|file| {
            let file = file.get();
            file.max_time < min_time && file.late == 0
        }) {
            if *first.key() == writer.number && writer.file.take().is_some() {
                writer.number += 1;
            }
            fs::remove_file(self.dir.join(format!("{:06}", first.key())))?;
            first.remove();
        }
        Ok(())
    }
}

fn put_chunk(out: &mut Vec<u8>, series: u64, chunk: &Chunk, is_late: bool) {
    let begin = out.len();
    out.extend_from_slice(&series.to_be_bytes());
    out.extend_from_slice(&chunk.range.min.as_millis().to_be_bytes());
    out.extend_from_slice(&chunk.range.max.as_millis().to_be_bytes());
    out.push(chunk.encoding.byte() | if is_late { OUT_OF_ORDER } else { 0 });
    put_bytes(out, &chunk.data);
    let checksum = crc32c::crc32c(&out[begin..]);
    out.extend_from_slice(&checksum.to_be_bytes());
}

struct ParsedChunk {
    series: u64,
    chunk: Chunk,
    is_out_of_order: bool,
}

/// The chunk at the begin of `bytes` and its length; none if it is damaged.
fn parse_chunk(bytes: &[u8]) -> Option<(ParsedChunk, usize)> {
    let mut cursor = ByteCursor::new(bytes);
    let series = cursor.be64()?;
    let [min, max] = [cursor.be64()?, cursor.be64()?].map(|time| Timestamp::from_millis(time as i64));
    let encoding = cursor.take(1)?[0];
    let data = cursor.bytes()?;
    let end = cursor.at();
    if cursor.be32()? != crc32c::crc32c(&bytes[..end]) {
        return None;
    }
    let chunk = Chunk {
        range: TimeRange::new(min, max),
        encoding: Encoding::from_byte(encoding & !OUT_OF_ORDER)?,
        data: Bytes::copy_from_slice(data),
    };
    Some((ParsedChunk { series, chunk, is_out_of_order: encoding & OUT_OF_ORDER != 0 }, cursor.at()))
}

/// Appends the chunks of a file and returns where the first damage begins, or its length. Zeros at the end are no chunk: a
/// crash can leave them.
fn parse_file(file: u32, bytes: &[u8], out: &mut Vec<FoundChunk>) -> usize {
    let mut cursor = ByteCursor::new(bytes);
    if cursor.be32() != Some(MAGIC) || cursor.take(4) != Some(&HEADER[4..]) {
        return 0;
    }
    let mut at = HEADER.len();
    while at < bytes.len() {
        let Some((found, length)) = parse_chunk(&bytes[at..]) else { return at };
        let (Ok(offset), Ok(place_length)) = (u32::try_from(at), u32::try_from(length)) else { return at };
        out.push(FoundChunk {
            series: found.series,
            range: found.chunk.range,
            place: ChunkPlace { file, offset, length: place_length },
            is_out_of_order: found.is_out_of_order,
        });
        at += length;
    }
    at
}

#[cfg(test)]
mod tests;
