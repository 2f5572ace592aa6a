//! The symbols of an index: each label name and value once.

use std::borrow::Cow;
use std::ops::ControlFlow;

use crate::cursor::ByteCursor;
use crate::error::BlockError;
use crate::index::IndexVersion;
use crate::index::section::Section;

/// Most offsets of symbols that are kept: 4 MiB.
const MAX_OFFSETS: u64 = 1 << 20;

/// The symbols of an index, looked up by reference.
pub(super) struct Symbols {
    section: Section,
    version: IndexVersion,
    count: u64,
    /// Offsets in the section of the symbols 0, `stride`, 2 · `stride` ...
    offsets: Vec<u32>,
    stride: u64,
}

impl Symbols {
    /// Finds the symbols in their section. Keeps the offset of every `stride`th, at most [`MAX_OFFSETS`].
    pub(super) fn open(mut section: Section, version: IndexVersion, stride: u32) -> Result<Self, BlockError> {
        let announced = section.walk(0, |_, cursor| cursor.be32().map(ControlFlow::Break))?;
        let count = u64::from(announced.unwrap_or(0));
        // Each has a byte of length at least.
        if count > section.length() {
            return Err(section.place().truncated(section.start(), count, section.length()));
        }
        let stride = count.div_ceil(MAX_OFFSETS).max(u64::from(stride)).next_power_of_two();
        let mut offsets = Vec::with_capacity(count.div_ceil(stride) as usize);
        let mut seen = 0;
        if count > 0 {
            section.walk(4, |offset, cursor| {
                cursor.bytes()?;
                if seen % stride == 0 {
                    // A section has less than 4 GiB.
                    offsets.push(offset as u32);
                }
                seen += 1;
                Some(if seen == count { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        if seen != count {
            let what = format!("{count} symbols are announced, but {seen} follow");
            return Err(section.place().malformed(section.start(), what));
        }
        section.release();
        Ok(Self { section, version, count, offsets, stride })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.section.memory_bytes() + self.offsets.capacity() * size_of::<u32>()
    }

    /// Offset after the section.
    pub(super) fn end(&self) -> u64 {
        self.section.end()
    }

    /// The symbol that the entry of a series refers to.
    pub(super) fn lookup(&self, reference: u64) -> Result<Cow<'_, str>, BlockError> {
        let (offset, bytes) = self.bytes(reference)?;
        match bytes {
            Cow::Borrowed(bytes) => self.text(offset, bytes).map(Cow::Borrowed),
            Cow::Owned(bytes) => self.text(offset, &bytes).map(|text| Cow::Owned(text.to_owned())),
        }
    }

    /// The bytes of that symbol, which may be no text, and their offset in the section.
    pub(super) fn bytes(&self, reference: u64) -> Result<(u64, Cow<'_, [u8]>), BlockError> {
        let (offset, mut skip) = match self.version {
            IndexVersion::V1 => (reference.checked_sub(self.section.start()), 0),
            IndexVersion::V2 => {
                let index = usize::try_from(reference / self.stride).unwrap_or(usize::MAX);
                (self.offsets.get(index).map(|&offset| u64::from(offset)), reference % self.stride)
            }
        };
        let unknown = || {
            let what = format!("symbol {reference} is used, but the index has {} symbols", self.count);
            self.section.place().malformed(None, what)
        };
        let offset = offset.filter(|&offset| offset >= 4).ok_or_else(unknown)?;
        if let Some(whole) = self.section.whole() {
            let mut cursor = ByteCursor::new(whole.get(offset as usize..).ok_or_else(unknown)?);
            for _ in 0..skip {
                cursor.bytes().ok_or_else(unknown)?;
            }
            return Ok((offset, Cow::Borrowed(cursor.bytes().ok_or_else(unknown)?)));
        }
        let found = self.section.walk(offset, |offset, cursor| {
            let bytes = cursor.bytes()?;
            if skip == 0 {
                return Some(ControlFlow::Break((offset, bytes.to_owned())));
            }
            skip -= 1;
            Some(ControlFlow::Continue(()))
        })?;
        found.map(|(offset, bytes)| (offset, Cow::Owned(bytes))).ok_or_else(unknown)
    }

    /// Calls `visit` with each symbol in order, and its offset in the file.
    pub(super) fn for_each(&self, mut visit: impl FnMut(u64, &[u8])) -> Result<(), BlockError> {
        let mut left = self.count;
        if left > 0 {
            self.section.walk(4, |offset, cursor| {
                visit(self.section.start() + offset, cursor.bytes()?);
                left -= 1;
                Some(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        Ok(())
    }

    fn text<'a>(&self, offset: u64, bytes: &'a [u8]) -> Result<&'a str, BlockError> {
        std::str::from_utf8(bytes).map_err(|_| {
            self.section.place().malformed(self.section.start() + offset, "the symbol is not valid UTF-8")
        })
    }
}
