//! A section of an index: `be32 length, content, crc`, read once as a whole and any part of it later.
//!
//! A small one stays in memory. Of a large one the checksum of each page is taken while that of the whole is checked, so
//! that a page that is read again later is checked again, too.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::ReadAt;
use crate::block::{BlockError, Place};
use crate::cursor::Cursor;

/// Bytes of a page.
const PAGE_BYTES: u64 = 64 << 10;
/// Bytes that are read at once while all of a large section is; a multiple of a page.
const READ_BYTES: u64 = 4 << 20;
/// Pages that are kept of a large section, those used last: 4 MiB.
const KEPT_PAGES: usize = 64;

/// The content of a section, which has its length and checksum around it.
pub(super) struct Section {
    place: Place,
    /// Offset of the content in the file.
    start: u64,
    length: u64,
    held: Held,
}

enum Held {
    Whole(Bytes),
    Pages { file: Arc<dyn ReadAt>, checksums: Vec<u32>, kept: Mutex<Kept> },
}

/// Pages by their number, with the time of their last use.
#[derive(Default)]
struct Kept {
    pages: HashMap<u64, (Bytes, u64)>,
    clock: u64,
}

impl Section {
    /// Reads the section at `offset`, which ends before `limit`, and checks it. It stays in memory if it has at most
    /// `keep_bytes`.
    pub(super) fn open(
        place: Place,
        file: &Arc<dyn ReadAt>,
        offset: u64,
        limit: u64,
        keep_bytes: u64,
    ) -> Result<Self, BlockError> {
        let present = limit.saturating_sub(offset);
        if present < 8 {
            return Err(place.truncated(offset, 8, present));
        }
        let read = |range: Range<u64>| {
            let start = range.start;
            file.read_at(range).map_err(|error| place.io(start, error))
        };
        // What may stay in memory is had with one read.
        let first = read(offset..if present <= keep_bytes + 8 { limit } else { offset + 4 })?;
        let start = offset + 4;
        let length = u64::from(Cursor::new(&first).be32().unwrap_or(0));
        if length > present - 8 {
            return Err(place.truncated(start, length + 4, present - 4));
        }
        let checksum_of = |bytes: &[u8]| Cursor::new(bytes).be32().unwrap_or(0);
        let held = if length <= keep_bytes {
            let rest = if first.len() > 4 { first.slice(4..) } else { read(start..start + length + 4)? };
            let (whole, behind) = (rest.slice(..length as usize), &rest[length as usize..]);
            place.check(start, checksum_of(behind), crc32c::crc32c(&whole))?;
            Held::Whole(whole)
        } else {
            let (mut checksum, mut checksums) = (0, Vec::new());
            for at in (0..length).step_by(READ_BYTES as usize) {
                let bytes = read(start + at..start + (at + READ_BYTES).min(length))?;
                for page in bytes.chunks(PAGE_BYTES as usize) {
                    let own = crc32c::crc32c(page);
                    checksum = crc32c::crc32c_combine(checksum, own, page.len());
                    checksums.push(own);
                }
            }
            let behind = read(start + length..start + length + 4)?;
            place.check(start, checksum_of(&behind), checksum)?;
            Held::Pages { file: file.clone(), checksums, kept: Mutex::default() }
        };
        Ok(Section { place, start, length, held })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Offset of the content in the file.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Bytes of content.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Offset behind the checksum.
    pub(super) fn end(&self) -> u64 {
        self.start + self.length + 4
    }

    /// Bytes of memory that are held, at most.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.held {
            Held::Whole(whole) => whole.len(),
            Held::Pages { checksums, .. } => checksums.len() * 4 + KEPT_PAGES * PAGE_BYTES as usize,
        }
    }

    /// The content, if it is in memory.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match &self.held {
            Held::Whole(whole) => Some(whole),
            Held::Pages { .. } => None,
        }
    }

    /// Bytes of the content; `range` may reach past its end and is cut there.
    fn read(&self, range: Range<u64>) -> Result<Bytes, BlockError> {
        let (start, end) = (range.start.min(self.length), range.end.min(self.length));
        match &self.held {
            Held::Whole(whole) => Ok(whole.slice(start as usize..end as usize)),
            Held::Pages { .. } => {
                let mut out = Vec::with_capacity((end - start) as usize);
                for number in start / PAGE_BYTES..end.div_ceil(PAGE_BYTES) {
                    let page = self.page(number)?;
                    let first = number * PAGE_BYTES;
                    let from = start.saturating_sub(first) as usize;
                    let to = (end - first).min(page.len() as u64) as usize;
                    if from == 0 && to == page.len() && end - start == page.len() as u64 {
                        return Ok(page);
                    }
                    out.extend_from_slice(&page[from..to]);
                }
                Ok(Bytes::from(out))
            }
        }
    }

    fn page(&self, number: u64) -> Result<Bytes, BlockError> {
        let Held::Pages { file, checksums, kept } = &self.held else {
            return Ok(Bytes::new());
        };
        {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.clock += 1;
            let now = kept.clock;
            if let Some((page, used)) = kept.pages.get_mut(&number) {
                *used = now;
                return Ok(page.clone());
            }
        }
        let first = self.start + number * PAGE_BYTES;
        let range = first..(first + PAGE_BYTES).min(self.start + self.length);
        let page = file.read_at(range).map_err(|error| self.place.io(first, error))?;
        self.place.check(first, checksums[number as usize], crc32c::crc32c(&page))?;
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.pages.len() >= KEPT_PAGES
            && let Some(oldest) = kept.pages.iter().min_by_key(|(_, (_, used))| *used).map(|(n, _)| *n)
        {
            kept.pages.remove(&oldest);
        }
        let now = kept.clock;
        kept.pages.insert(number, (page.clone(), now));
        Ok(page)
    }

    /// Calls `entry` for entry after entry from offset `at` of the content on, until it breaks or the section ends.
    ///
    /// `entry` gets the offset and a cursor, and must read the entry whole before it acts: `None` says that bytes are
    /// missing, and it is called again with more of them, if there are more.
    pub(super) fn walk<B>(
        &self,
        mut at: u64,
        mut entry: impl FnMut(u64, &mut Cursor<'_>) -> Option<ControlFlow<B>>,
    ) -> Result<Option<B>, BlockError> {
        let mut window = PAGE_BYTES;
        while at < self.length {
            // From here to the end of the last page of the window.
            let end = if self.whole().is_some() {
                self.length
            } else {
                ((at + window).div_ceil(PAGE_BYTES) * PAGE_BYTES).min(self.length)
            };
            let bytes = self.read(at..end)?;
            let mut cursor = Cursor::new(&bytes);
            let mut read = 0;
            while !cursor.is_empty() {
                match entry(at + read, &mut cursor) {
                    Some(ControlFlow::Break(value)) => return Ok(Some(value)),
                    Some(ControlFlow::Continue(())) if cursor.at() as u64 > read => read = cursor.at() as u64,
                    _ => break,
                }
            }
            if read == 0 && end == self.length {
                return Err(self.place.malformed(self.start + at, "no entry can be read here"));
            }
            window = if read == 0 { window * 2 } else { PAGE_BYTES };
            at += read;
        }
        Ok(None)
    }
}
