//! A section of an index: `be32 length, content, crc`. It is read once as a whole; parts of it may be read again later.
//!
//! A small section stays in memory. For a large one, the checksum of each page is computed when the whole is checked, so that
//! a page that is read again is also checked again.

use std::ops::{ControlFlow, Range};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::ReadAt;
use crate::cursor::ByteCursor;
use crate::error::{BlockError, BlockLocation};

/// Bytes of a page.
const PAGE_BYTES: u64 = 16 << 10;
/// Pages that are read at once while all of a large section is: 1 MiB.
const SCAN_PAGES: u64 = 64;
/// A section up to this size is read at once when it is opened, and is in memory until [`Section::release`].
const OPEN_BYTES: u64 = 32 << 20;

/// The content of a section, which has its length and checksum around it.
pub(super) struct Section {
    place: BlockLocation,
    file: Arc<dyn ReadAt>,
    /// Offset of the content in the file.
    start: u64,
    length: u64,
    /// Most bytes of content that may stay in memory.
    keep_bytes: u64,
    content: SectionContent,
}

/// The part of the content that is in memory.
enum SectionContent {
    Whole(Bytes),
    Pages {
        checksums: Vec<u32>,
        /// The pages that were used last, each with its number. The slot of a page is its number modulo the number of slots.
        cached: Mutex<Vec<(u64, Bytes)>>,
    },
}

impl Section {
    /// Reads the section at `offset`, which ends before `limit`, and checks it. After [`Section::release`], at most
    /// `keep_bytes` of its content stay in memory.
    pub(super) fn open(
        place: BlockLocation,
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
        let whole_bytes = keep_bytes.max(OPEN_BYTES);
        let first = read(offset..if present - 8 <= whole_bytes { limit } else { offset + 4 })?;
        let start = offset + 4;
        let length = u64::from(ByteCursor::new(&first).be32().unwrap_or(0));
        if length > present - 8 {
            return Err(place.truncated(start, length + 4, present - 4));
        }
        let checksum_of = |bytes: &[u8]| ByteCursor::new(bytes).be32().unwrap_or(0);
        let content = if length <= whole_bytes {
            let rest = if first.len() > 4 { first.slice(4..) } else { read(start..start + length + 4)? };
            let (whole, after) = (rest.slice(..length as usize), &rest[length as usize..]);
            place.check(start, checksum_of(after), crc32c::crc32c(&whole))?;
            SectionContent::Whole(whole)
        } else {
            let (mut checksum, mut checksums) = (0, Vec::new());
            let at_once = PAGE_BYTES * SCAN_PAGES;
            for at in (0..length).step_by(at_once as usize) {
                let bytes = read(start + at..start + (at + at_once).min(length))?;
                checksum = crc32c::crc32c_append(checksum, &bytes);
                checksums.extend(page_checksums(&bytes));
            }
            let after = read(start + length..start + length + 4)?;
            place.check(start, checksum_of(&after), checksum)?;
            SectionContent::paged(checksums, keep_bytes)
        };
        Ok(Self { place, file: Arc::clone(file), start, length, keep_bytes, content })
    }

    /// Frees what is not to be kept. Called when the section has been parsed.
    pub(super) fn release(&mut self) {
        if let SectionContent::Whole(whole) = &self.content
            && self.length > self.keep_bytes
        {
            self.content = SectionContent::paged(page_checksums(whole).collect(), self.keep_bytes);
        }
    }

    pub(super) fn place(&self) -> &BlockLocation {
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

    /// Offset after the checksum.
    pub(super) fn end(&self) -> u64 {
        self.start + self.length + 4
    }

    /// Bytes of memory that it takes once its cache is full.
    pub(super) fn memory_bytes(&self) -> usize {
        match &self.content {
            SectionContent::Whole(whole) => whole.len(),
            SectionContent::Pages { checksums, cached } => {
                let slots = cached.lock().unwrap_or_else(PoisonError::into_inner).len();
                checksums.len() * size_of::<u32>() + slots * (PAGE_BYTES as usize + size_of::<(u64, Bytes)>())
            }
        }
    }

    /// The content, if it is in memory.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match &self.content {
            SectionContent::Whole(whole) => Some(whole),
            SectionContent::Pages { .. } => None,
        }
    }

    /// The content from `at` to the end of as many `pages`, or to its own end.
    fn read(&self, at: u64, pages: u64) -> Result<Bytes, BlockError> {
        let (checksums, cached) = match &self.content {
            SectionContent::Whole(whole) => return Ok(whole.slice(at as usize..)),
            SectionContent::Pages { checksums, cached } => (checksums, cached),
        };
        let number = at / PAGE_BYTES;
        let within = (at % PAGE_BYTES) as usize;
        let slot =
            |cached: &Vec<(u64, Bytes)>| number.checked_rem(cached.len() as u64).map(|slot| slot as usize);
        if pages == 1 {
            let cached = cached.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((cached_number, page)) = slot(&cached).map(|slot| &cached[slot])
                && *cached_number == number
            {
                return Ok(page.slice(within..));
            }
        }
        let first = number * PAGE_BYTES;
        let range = self.start + first..self.start + (first + pages * PAGE_BYTES).min(self.length);
        let bytes = self.file.read_at(range).map_err(|error| self.place.io(self.start + first, error))?;
        for (page, offset) in bytes.chunks(PAGE_BYTES as usize).zip((first..).step_by(PAGE_BYTES as usize)) {
            let expected = checksums[(offset / PAGE_BYTES) as usize];
            self.place.check(self.start + offset, expected, crc32c::crc32c(page))?;
        }
        if pages == 1 {
            let mut cached = cached.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(slot) = slot(&cached) {
                cached[slot] = (number, bytes.clone());
            }
        }
        Ok(bytes.slice(within..))
    }

    /// Calls `entry` for each entry from offset `at` of the content on, until it breaks or the section ends.
    ///
    /// `entry` gets the offset and a cursor. It must read the whole entry before it has an effect: when it returns `None`,
    /// bytes are missing, and it is called again with more bytes if there are more.
    pub(super) fn walk<B>(
        &self,
        mut at: u64,
        mut entry: impl FnMut(u64, &mut ByteCursor<'_>) -> Option<ControlFlow<B>>,
    ) -> Result<Option<B>, BlockError> {
        // A short look needs one page; a longer one reads more and more at once.
        let mut pages = 1;
        while at < self.length {
            let bytes = self.read(at, pages)?;
            let mut cursor = ByteCursor::new(&bytes);
            let mut read = 0;
            while !cursor.is_empty() {
                match entry(at + read, &mut cursor) {
                    Some(ControlFlow::Break(value)) => return Ok(Some(value)),
                    Some(ControlFlow::Continue(())) if cursor.at() as u64 > read => read = cursor.at() as u64,
                    _ => break,
                }
            }
            if read == 0 && at + bytes.len() as u64 == self.length {
                return Err(self.place.malformed(self.start + at, "the entry cannot be decoded"));
            }
            // An entry that is larger than all of these pages needs more of them.
            pages = if read == 0 { pages * 2 } else { (pages * 2).min(SCAN_PAGES.max(pages)) };
            at += read;
        }
        Ok(None)
    }
}

impl SectionContent {
    /// The checksums of the pages, and an empty cache of at most `cache_bytes`.
    fn paged(checksums: Vec<u32>, cache_bytes: u64) -> Self {
        let slots = (cache_bytes / PAGE_BYTES).min(checksums.len() as u64) as usize;
        let mut checksums = checksums;
        checksums.shrink_to_fit();
        Self::Pages { checksums, cached: Mutex::new(vec![(u64::MAX, Bytes::new()); slots]) }
    }
}

/// The checksum of each page of `bytes`, which begin with one.
fn page_checksums(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks(PAGE_BYTES as usize).map(crc32c::crc32c)
}
