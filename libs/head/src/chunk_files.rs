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
use std::io::{self, Write};
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

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkPlace {
    file: u32,
    offset: u32,
    /// Bytes with header and checksum.
    length: u32,
}

/// A chunk in a file.
#[derive(Clone, Debug)]
pub(crate) struct FoundChunk {
    /// The number of its series in the log.
    pub(crate) series: u64,
    pub(crate) range: TimeRange,
    pub(crate) place: ChunkPlace,
    pub(crate) is_out_of_order: bool,
}

/// The files of a head.
pub(crate) struct ChunkFiles {
    dir: PathBuf,
    writer: Mutex<Writer>,
    files: RwLock<BTreeMap<u32, OpenFile>>,
}

/// A file that is read, and the time of its last sample.
struct OpenFile {
    file: Arc<File>,
    max_time: i64,
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
                damaged.push(DamagedFile { path: entry.path(), at: good as u64, lost });
                if good == 0 {
                    fs::remove_file(entry.path())?;
                    continue;
                }
                OpenOptions::new().write(true).open(entry.path())?.set_len(good as u64)?;
            }
            let max_time = chunks[before..].iter().map(|chunk| chunk.range.max.as_millis()).max();
            let file = Arc::new(File::open(entry.path())?);
            files.insert(found, OpenFile { file, max_time: max_time.unwrap_or(i64::MIN) });
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
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let result = chunks.chunks(1_000).try_fold(Vec::new(), |mut places, part| {
            places.extend(self.append_part(&mut writer, part)?);
            Ok(places)
        });
        if result.is_err() {
            // The file may end within a chunk. The next chunks begin a new file.
            writer.number = writer.number.saturating_add(1);
            writer.file = None;
        }
        result
    }

    fn append_part(&self, writer: &mut Writer, chunks: &[(u64, &Chunk)]) -> io::Result<Vec<ChunkPlace>> {
        let (mut out, mut places) = (Vec::new(), Vec::with_capacity(chunks.len()));
        let mut max_time = i64::MIN;
        let begin = self.file_with_room(writer, chunks)?;
        for (series, chunk) in chunks {
            let at = out.len();
            put_chunk(&mut out, *series, chunk);
            let offset = u32::try_from(begin + at as u64).map_err(io::Error::other)?;
            places.push(ChunkPlace { file: writer.number, offset, length: (out.len() - at) as u32 });
            max_time = max_time.max(chunk.range.max.as_millis());
        }
        if let Some((file, length)) = &mut writer.file {
            file.write_all(&out)?;
            *length += out.len() as u64;
        }
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = files.get_mut(&writer.number) {
            open.max_time = open.max_time.max(max_time);
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
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.write_all(&HEADER)?;
        let open = OpenFile { file: Arc::new(file.try_clone()?), max_time: i64::MIN };
        self.files.write().unwrap_or_else(PoisonError::into_inner).insert(writer.number, open);
        writer.file = Some((file, HEADER.len() as u64));
        Ok(HEADER.len() as u64)
    }

    /// Reads a chunk.
    ///
    /// # Errors
    /// When the file cannot be read, or the chunk is damaged.
    pub(crate) fn read(&self, place: ChunkPlace) -> io::Result<Chunk> {
        let file = {
            let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
            files.get(&place.file).map(|open| Arc::clone(&open.file))
        };
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; place.length as usize];
        file.read_exact_at(&mut bytes, u64::from(place.offset))?;
        let found = parse_chunk(&bytes).filter(|(_, length)| *length == bytes.len());
        found.map(|(found, _)| found.chunk).ok_or_else(|| {
            let name = self.dir.join(format!("{:06}", place.file));
            let text = format!("{} at byte {}: a chunk is damaged", name.display(), place.offset);
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    /// Removes the first files that have no sample at `min_time` or later.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub(crate) fn truncate(&self, min_time: i64) -> io::Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        // Prometheus requires that the numbers of files follow each other.
        while let Some(first) = files.first_entry().filter(|file| file.get().max_time < min_time) {
            if *first.key() == writer.number && writer.file.take().is_some() {
                writer.number += 1;
            }
            fs::remove_file(self.dir.join(format!("{:06}", first.key())))?;
            first.remove();
        }
        Ok(())
    }
}

fn put_chunk(out: &mut Vec<u8>, series: u64, chunk: &Chunk) {
    let begin = out.len();
    out.extend_from_slice(&series.to_be_bytes());
    out.extend_from_slice(&chunk.range.min.as_millis().to_be_bytes());
    out.extend_from_slice(&chunk.range.max.as_millis().to_be_bytes());
    out.push(chunk.encoding.byte());
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
mod tests {
    use model::Sample;
    use tsdb::XorEncoder;

    use super::*;

    fn chunk(at: i64) -> Chunk {
        let mut encoder = XorEncoder::new();
        (0..5).for_each(|n| encoder.append(Sample::new(at + n, at as f64)).unwrap());
        encoder.finish().unwrap()
    }

    #[test]
    fn chunks_are_found_again_and_files_without_recent_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let chunks: Vec<Chunk> = (0..10).map(|n| chunk(n * 100)).collect();
        let append = |range: std::ops::Range<usize>| {
            let (files, found, damaged) = ChunkFiles::open(dir.path()).unwrap();
            assert_eq!((found.len(), damaged.len()), (range.start, 0));
            let pairs: Vec<(u64, &Chunk)> = range.map(|n| (n as u64, &chunks[n])).collect();
            let places = files.append(&pairs).unwrap();
            for (place, (_, chunk)) in places.iter().zip(pairs) {
                assert_eq!(files.read(*place).unwrap(), *chunk);
            }
            files
        };
        append(0..4);
        append(4..7);
        let files = append(7..10);
        let (_, found, _) = ChunkFiles::open(dir.path()).unwrap();
        for (n, found) in found.iter().enumerate() {
            assert_eq!((found.series, found.range), (n as u64, chunks[n].range));
            assert_eq!(files.read(found.place).unwrap(), chunks[n]);
        }
        files.truncate(600).unwrap();
        assert_eq!(ChunkFiles::open(dir.path()).unwrap().1.len(), 6);
        files.truncate(10_000).unwrap();
        assert_eq!(ChunkFiles::open(dir.path()).unwrap().1.len(), 0);
        assert_eq!(files.read(found[9].place).unwrap_err().kind(), io::ErrorKind::NotFound);
        // What comes now is in a new file.
        let place = files.append(&[(1, &chunks[0])]).unwrap()[0];
        assert_eq!((files.read(place).unwrap(), place.file), (chunks[0].clone(), 4));
    }

    #[test]
    fn damage_costs_what_lies_behind_it_in_its_file() {
        let chunks: Vec<Chunk> = (0..5).map(|n| chunk(n * 100)).collect();
        let pairs: Vec<(u64, &Chunk)> =
            chunks.iter().enumerate().map(|(n, chunk)| (n as u64, chunk)).collect();
        let dir = tempfile::tempdir().unwrap();
        ChunkFiles::open(dir.path()).unwrap().0.append(&pairs).unwrap();
        let path = dir.path().join("000001");
        let bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            fs::write(&path, &damaged).unwrap();
            let (files, found, reported) = ChunkFiles::open(dir.path()).unwrap();
            assert!(found.len() < 5, "byte {at}");
            assert_eq!((reported.len(), reported[0].at + reported[0].lost), (1, bytes.len() as u64));
            for (n, found) in found.iter().enumerate() {
                assert_eq!(files.read(found.place).unwrap(), chunks[n], "byte {at}");
            }
            // What is left is whole.
            assert_eq!(ChunkFiles::open(dir.path()).unwrap().2, []);
        }
    }
}
