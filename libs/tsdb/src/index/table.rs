//! The postings offset table: the values of each label, and where the postings list of each value is.
//!
//! Of each label name, every Nth value is kept in memory ([`IndexMemory`](crate::IndexMemory)). The values between two of them
//! are read again when one is looked up. In version 1 the table may be unsorted, so all values are kept.

use std::ops::ControlFlow;

use crate::cursor::ByteCursor;
use crate::error::BlockError;
use crate::index::IndexVersion;
use crate::index::sampled::SampledValues;
use crate::index::section::Section;

/// Where a postings list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListPlace {
    /// Offset of its first byte in the file.
    pub(crate) offset: u64,
    /// The greatest offset at which it can end: there begins what follows it.
    pub(crate) limit: u64,
}

/// A label name and some of its values.
struct TableName {
    name: Box<str>,
    /// Number of its values.
    values: u64,
    /// Every `stride`-th value with the offset of its entry in the section, sorted.
    sampled: SampledValues,
}

pub(super) struct PostingsTable {
    section: Section,
    /// Sorted. The first may be empty; its list has all series.
    names: Vec<TableName>,
    stride: u64,
    /// Offset of the table in the file: all lists end before it.
    begin: u64,
}

/// An entry of the table.
struct TableEntry<'a> {
    name: &'a [u8],
    value: &'a [u8],
    offset: u64,
}

impl<'a> TableEntry<'a> {
    fn read(cursor: &mut ByteCursor<'a>) -> Option<Self> {
        if cursor.uvarint()? != 2 {
            return None;
        }
        Some(TableEntry { name: cursor.bytes()?, value: cursor.bytes()?, offset: cursor.uvarint()? })
    }
}

impl PostingsTable {
    /// Finds the names in the table, whose section begins at `begin` of the file.
    pub(super) fn open(
        mut section: Section,
        begin: u64,
        version: IndexVersion,
        value_stride: u32,
    ) -> Result<Self, BlockError> {
        let announced = section.walk(0, |_, cursor| cursor.be32().map(ControlFlow::Break))?;
        let announced = u64::from(announced.unwrap_or(0));
        let mut names: Vec<TableName> = Vec::new();
        let mut last: Vec<u8> = Vec::new();
        let mut seen = 0;
        let stride = match version {
            IndexVersion::V1 => 1,
            IndexVersion::V2 => u64::from(value_stride.max(1)),
        };
        let mut take = |at: u64, entry: &TableEntry<'_>| -> Result<(), String> {
            let text =
                |bytes| std::str::from_utf8(bytes).map_err(|_| "a label is not valid UTF-8".to_owned());
            let begins = names.last().is_none_or(|name| name.name.as_bytes() != entry.name);
            if version == IndexVersion::V2 {
                let ascends = match names.last() {
                    Some(name) if begins => name.name.as_bytes() < entry.name,
                    Some(_) => *last < *entry.value,
                    None => true,
                };
                if !ascends {
                    return Err("the table is not sorted".to_owned());
                }
                last.clear();
                last.extend_from_slice(entry.value);
            }
            if begins {
                names.push(TableName {
                    name: text(entry.name)?.into(),
                    values: 0,
                    sampled: SampledValues::default(),
                });
            }
            if let Some(name) = names.last_mut() {
                if name.values.is_multiple_of(stride) {
                    // A section has less than 4 GiB.
                    name.sampled.push(text(entry.value)?, at as u32);
                }
                name.values += 1;
            }
            Ok(())
        };
        if announced > 0 {
            let failed = section.walk(4, |at, cursor| {
                let entry = TableEntry::read(cursor)?;
                seen += 1;
                Some(match take(at, &entry) {
                    Err(what) => {
                        ControlFlow::Break(Some(section.place().malformed(section.start() + at, what)))
                    }
                    Ok(()) if seen == announced => ControlFlow::Break(None),
                    Ok(()) => ControlFlow::Continue(()),
                })
            })?;
            if let Some(Some(error)) = failed {
                return Err(error);
            }
        }
        if seen != announced {
            let what = format!("{announced} entries are announced, but {seen} follow");
            return Err(section.place().malformed(section.start(), what));
        }
        if version == IndexVersion::V1 {
            names = merged(names);
        }
        names.iter_mut().for_each(|name| name.sampled.shrink_to_fit());
        section.release();
        Ok(Self { section, names, stride, begin })
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let name = |name: &TableName| size_of::<TableName>() + name.name.len() + name.sampled.memory_bytes();
        self.section.memory_bytes() + self.names.iter().map(name).sum::<usize>()
    }

    /// All names, sorted, each with the number of its values.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, u64)> {
        self.names.iter().filter(|name| !name.name.is_empty()).map(|name| (&*name.name, name.values))
    }

    fn name(&self, name: &str) -> Option<&TableName> {
        self.names.binary_search_by(|n| (*n.name).cmp(name)).ok().map(|index| &self.names[index])
    }

    /// The list of `name="value"`.
    pub(super) fn lookup(&self, name: &str, value: &str) -> Result<Option<ListPlace>, BlockError> {
        let mut found = None;
        self.for_each(name, value, &mut |other, place| {
            if other == value {
                found = Some(place);
            }
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Calls `visit` with the values of `name` from `from` on, sorted, until it breaks.
    pub(super) fn for_each(
        &self,
        name: &str,
        from: &str,
        visit: &mut dyn FnMut(&str, ListPlace) -> ControlFlow<()>,
    ) -> Result<(), BlockError> {
        let Some(name) = self.name(name) else { return Ok(()) };
        let first = name.sampled.last_up_to(from);
        if self.stride == 1 {
            for (value, at) in name.sampled.iter_from(first) {
                if value < from {
                    continue;
                }
                let offset = self.section.walk(u64::from(at), |_, cursor| {
                    TableEntry::read(cursor).map(|entry| ControlFlow::Break(entry.offset))
                })?;
                if visit(value, self.place(offset.unwrap_or(0), None)?).is_break() {
                    return Ok(());
                }
            }
            return Ok(());
        }
        // An entry is passed on when the next one is read, which shows where its list ends.
        let mut held: Option<u64> = None;
        let mut value = String::new();
        let mut left = name.values - (first as u64) * self.stride;
        let done = self.section.walk(u64::from(name.sampled.offset(first)), |at, cursor| {
            let entry = TableEntry::read(cursor)?;
            let step = (|| {
                if let Some(offset) = held.take()
                    && visit(&value, self.place(offset, Some(entry.offset))?).is_break()
                {
                    return Ok(ControlFlow::Break(()));
                }
                if left == 0 {
                    return Ok(ControlFlow::Break(()));
                }
                left -= 1;
                if entry.value >= from.as_bytes() {
                    let text = std::str::from_utf8(entry.value).map_err(|_| {
                        self.section
                            .place()
                            .malformed(self.section.start() + at, "a label is not valid UTF-8")
                    })?;
                    value.clear();
                    value.push_str(text);
                    held = Some(entry.offset);
                }
                Ok(ControlFlow::Continue(()))
            })();
            Some(match step {
                Ok(ControlFlow::Continue(())) => ControlFlow::Continue(()),
                Ok(ControlFlow::Break(())) => ControlFlow::Break(Ok(())),
                Err(error) => ControlFlow::Break(Err(error)),
            })
        })?;
        if let Some(result) = done {
            return result;
        }
        // The last entry of the table.
        if let Some(offset) = held {
            let _ = visit(&value, self.place(offset, None)?);
        }
        Ok(())
    }

    /// The place of a list at `offset`, when the next list begins at `next`.
    fn place(&self, offset: u64, next: Option<u64>) -> Result<ListPlace, BlockError> {
        if offset >= self.begin {
            let what = format!("a postings list at byte {offset}, after the end of all lists");
            return Err(self.section.place().malformed(None, what));
        }
        let limit = next.filter(|next| (offset..=self.begin).contains(next)).unwrap_or(self.begin);
        Ok(ListPlace { offset, limit })
    }
}

/// Sorts names and values, and joins names that occur several times.
fn merged(mut names: Vec<TableName>) -> Vec<TableName> {
    names.sort_by(|a, b| a.name.cmp(&b.name));
    let mut out: Vec<TableName> = Vec::new();
    for name in names {
        match out.last_mut().filter(|last| last.name == name.name) {
            Some(last) => {
                last.values += name.values;
                last.sampled.append(&name.sampled);
            }
            None => out.push(name),
        }
    }
    out.iter_mut().for_each(|name| name.sampled.sort());
    out
}
