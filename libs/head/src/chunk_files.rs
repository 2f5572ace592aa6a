//! Chunks of the head that are complete, in files.
//!
//! These files only save memory and time: the log has the same samples. So they are synced when they are complete, and a file
//! that is damaged is cut before the damage.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tsdb::Chunk;

use crate::chunk_format::{
    ChunkPlace, FoundChunk, HEADER, NO_SERIES, StoredChunk, parse_chunk, parse_file, put_chunk,
};
use crate::error::{HeadError, at};

const FILE_BYTES: u64 = 128 << 20;

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
    /// Whether that was zeros. A Prometheus that was killed leaves them, because it allocates files before it writes them.
    pub(crate) is_zero: bool,
}

impl ChunkFiles {
    /// Finds the chunks in the files of a directory, and the damage. Nothing is written: the caller calls [`ChunkFiles::repair`].
    ///
    /// # Errors
    /// When a file cannot be read, or was written by a later version.
    pub(crate) fn scan(dir: &Path) -> Result<(Self, Vec<FoundChunk>, Vec<DamagedFile>), HeadError> {
        let (mut files, mut chunks, mut damaged) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut number = 1;
        for (found, path) in numbered(dir).map_err(at(dir))? {
            number = number.max(found.saturating_add(1));
            let bytes = fs::read(&path).map_err(at(&path))?;
            let before = chunks.len();
            let parsed = parse_file(found, &bytes, &mut chunks);
            let good = parsed.map_err(|what| HeadError::Newer { path: path.clone(), what })?;
            if good < bytes.len() {
                let is_zero = good > 0 && bytes[good..].iter().all(|&byte| byte == 0);
                let lost = (bytes.len() - good) as u64;
                damaged.push(DamagedFile { path: path.clone(), at: good as u64, lost, is_zero });
                if good == 0 {
                    continue;
                }
            }
            let (late, in_order): (Vec<_>, Vec<_>) =
                chunks[before..].iter().partition(|chunk| chunk.is_out_of_order);
            let max_time = in_order.iter().map(|chunk| chunk.range.max.as_millis()).max();
            let file = OpenOptions::new().read(true).write(true).open(&path).map_err(at(&path))?;
            let max_time = max_time.unwrap_or(i64::MIN);
            let late = late.iter().filter(|chunk| !chunk.is_forgotten()).count();
            files.insert(found, OpenFile { file: Arc::new(file), max_time, late });
        }
        chunks.sort_by_key(|chunk| (chunk.place.file, chunk.place.offset));
        let writer = Mutex::new(Writer { number, file: None });
        Ok((Self { dir: dir.to_owned(), writer, files: RwLock::new(files) }, chunks, damaged))
    }

    /// Cuts damaged files before the damage, and creates the directory if it is missing.
    ///
    /// # Errors
    /// When a file cannot be cut.
    pub(crate) fn repair(&self, damaged: &[DamagedFile]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        damaged.iter().try_for_each(|file| match file.at {
            0 => fs::remove_file(&file.path),
            at => OpenOptions::new().write(true).open(&file.path)?.set_len(at),
        })
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
        let found = parse_chunk(&bytes).ok().filter(|(_, length)| *length == bytes.len());
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

/// The files in a directory with numbers as names; none if there is no such directory.
fn numbered(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        files.extend(number.map(|number| (number, entry.path())));
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
