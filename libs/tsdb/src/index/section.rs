//! A section of an index: `be32 length, content, crc`, read once as a whole and any part of it later.
//!
//! A small one stays in memory. Of a large one the checksum of each page is taken while that of the whole is checked, so
//! that a page that is read again later is checked again, too.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::ReadAt;
use crate::block::{BlockError, Place};
use crate::cursor::Cursor;

/// Bytes of a page.
const PAGE_BYTES: u64 = 16 << 10;
/// Pages that are read at once while all of a large section is: 1 MiB.
const SCAN_PAGES: u64 = 64;

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
    Pages {
        file: Arc<dyn ReadAt>,
        checksums: Vec<u32>,
        /// Pages that were used last, each with its number. A page has one place, which is its number modulo the places.
        kept: Mutex<Vec<(u64, Bytes)>>,
    },
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
            let at_once = PAGE_BYTES * SCAN_PAGES;
            for at in (0..length).step_by(at_once as usize) {
                let bytes = read(start + at..start + (at + at_once).min(length))?;
                checksum = crc32c::crc32c_append(checksum, &bytes);
                checksums.extend(bytes.chunks(PAGE_BYTES as usize).map(crc32c::crc32c));
            }
            let behind = read(start + length..start + length + 4)?;
            place.check(start, checksum_of(&behind), checksum)?;
            let places = (keep_bytes / PAGE_BYTES).max(4) as usize;
            let kept = Mutex::new(vec![(u64::MAX, Bytes::new()); places]);
            Held::Pages { file: file.clone(), checksums, kept }
        };
        Ok(Self { place, start, length, held })
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
            Held::Pages { checksums, kept, .. } => {
                let places = kept.lock().unwrap_or_else(PoisonError::into_inner).len();
                checksums.len() * 4 + places * PAGE_BYTES as usize
            }
        }
    }

    /// The content, if it is in memory.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match &self.held {
            Held::Whole(whole) => Some(whole),
            Held::Pages { .. } => None,
        }
    }

    /// The content from `at` on: at least up to the end of the page, and of as many `pages`, unless it ends before.
    fn read(&self, at: u64, pages: u64) -> Result<Bytes, BlockError> {
        let Held::Pages { file, checksums, kept } = &self.held else {
            return Ok(self.whole().map_or_else(Bytes::new, |whole| whole.slice(at as usize..)));
        };
        let number = at / PAGE_BYTES;
        let within = (at % PAGE_BYTES) as usize;
        let place = |kept: &Vec<(u64, Bytes)>| (number % kept.len() as u64) as usize;
        if pages == 1 {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let (kept_number, page) = &kept[place(&kept)]
                && *kept_number == number
            {
                return Ok(page.slice(within..));
            }
        }
        let first = number * PAGE_BYTES;
        let range = self.start + first..self.start + (first + pages * PAGE_BYTES).min(self.length);
        let bytes = file.read_at(range).map_err(|error| self.place.io(self.start + first, error))?;
        for (page, offset) in bytes.chunks(PAGE_BYTES as usize).zip((first..).step_by(PAGE_BYTES as usize)) {
            let expected = checksums[(offset / PAGE_BYTES) as usize];
            self.place.check(self.start + offset, expected, crc32c::crc32c(page))?;
        }
        if pages == 1 {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let place = place(&kept);
            kept[place] = (number, bytes.clone());
        }
        Ok(bytes.slice(within..))
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
        // A short look needs one page; who goes on gets more and more at once.
        let mut pages = 1;
        while at < self.length {
            let bytes = self.read(at, pages)?;
            let mut cursor = Cursor::new(&bytes);
            let mut read = 0;
            while !cursor.is_empty() {
                match entry(at + read, &mut cursor) {
                    Some(ControlFlow::Break(value)) => return Ok(Some(value)),
                    Some(ControlFlow::Continue(())) if cursor.at() as u64 > read => read = cursor.at() as u64,
                    _ => break,
                }
            }
            if read == 0 && at + bytes.len() as u64 == self.length {
                return Err(self.place.malformed(self.start + at, "no entry can be read here"));
            }
            // An entry that is larger than all of these needs more still.
            pages = if read == 0 { pages * 2 } else { (pages * 2).min(SCAN_PAGES.max(pages)) };
            at += read;
        }
        Ok(None)
    }
}
