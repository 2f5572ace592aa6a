//! Reads postings lists: neighbours in one read, each with its checksum checked.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use crate::cursor::ByteCursor;
use crate::error::{BlockError, BlockLocation, BlockPart};
use crate::index::{Index, IndexVersion, ListPlace};
use crate::postings::{Postings, Union};
use crate::reference::SeriesRef;

/// Neighbours are read together up to this size.
const TOGETHER_BYTES: u64 = 1 << 20;
/// Several ranges are read at once up to this size.
const AT_ONCE_BYTES: u64 = 16 << 20;

impl Index {
    fn lists_place(&self) -> BlockLocation {
        self.place.at(BlockPart::Postings)
    }

    /// Reads one list. Its bytes are shared, not copied.
    pub(crate) fn read_list(&self, list: ListPlace) -> Result<Postings, BlockError> {
        let place = self.lists_place();
        let bytes = self.read(&place, self.range_of(&place, list)?)?;
        let numbers = content(&place, list.offset, &bytes)?;
        let out = Postings::encoded(bytes.slice(numbers))
            .ok_or_else(|| place.malformed(list.offset, "the series of the list do not ascend"))?;
        self.check_bounds(&place, list, out.at(0), out.at(out.len().wrapping_sub(1)))?;
        Ok(out)
    }

    /// The series that are in at least one of `lists`.
    pub(crate) fn read_union(&self, lists: Vec<ListPlace>) -> Result<Postings, BlockError> {
        if let [only] = lists.as_slice() {
            return self.read_list(*only);
        }
        Ok(self.read_unions(vec![lists])?.pop().unwrap_or_else(Postings::empty))
    }

    /// For each group of lists, the series that are in at least one of its lists. All groups are read at once.
    pub(crate) fn read_unions(&self, groups: Vec<Vec<ListPlace>>) -> Result<Vec<Postings>, BlockError> {
        let place = self.lists_place();
        let mut unions: Vec<Union> = groups.iter().map(|_| Union::default()).collect();
        let of_group =
            |(group, lists): (usize, Vec<ListPlace>)| lists.into_iter().map(move |list| (list, group));
        let mut lists: Vec<(ListPlace, usize)> = groups.into_iter().enumerate().flat_map(of_group).collect();
        lists.sort_unstable_by_key(|(list, _)| list.offset);
        // Lists that follow each other in the file form a run, which is one read. Several runs are read at once, up to a limit.
        let (mut runs, mut ranges, mut waiting) = (Vec::new(), Vec::new(), 0);
        let mut rest = lists.as_slice();
        while let Some((first, _)) = rest.first() {
            let follows = |pair: &[(ListPlace, usize)]| {
                pair[0].0.limit == pair[1].0.offset && pair[1].0.limit - first.offset <= TOGETHER_BYTES
            };
            let count = 1 + rest.windows(2).take_while(|pair| follows(pair)).count();
            let (run, after) = rest.split_at(count);
            rest = after;
            let range = match run {
                [.., (last, _)] if count > 1 => first.offset..last.limit,
                _ => self.range_of(&place, *first)?,
            };
            waiting += range.end - range.start;
            runs.push(run);
            ranges.push(range);
            if waiting >= AT_ONCE_BYTES {
                self.read_runs(&place, &runs, &ranges, &mut unions)?;
                runs.clear();
                ranges.clear();
                waiting = 0;
            }
        }
        self.read_runs(&place, &runs, &ranges, &mut unions)?;
        Ok(unions.into_iter().map(Union::finish).collect())
    }

    /// Reads `ranges`, each of which contains the lists of a run, into the unions of their groups.
    fn read_runs(
        &self,
        place: &BlockLocation,
        runs: &[&[(ListPlace, usize)]],
        ranges: &[Range<u64>],
        unions: &mut [Union],
    ) -> Result<(), BlockError> {
        let Some(first) = ranges.first() else { return Ok(()) };
        let read = self.file.read_many(ranges).map_err(|error| place.io(first.start, error))?;
        for ((run, range), bytes) in runs.iter().zip(ranges).zip(&read) {
            for (list, group) in *run {
                let own = &bytes[(list.offset - range.start) as usize..];
                let numbers = &own[content(place, list.offset, own)?];
                unions[*group]
                    .push_encoded(numbers)
                    .ok_or_else(|| place.malformed(list.offset, "the series of the list do not ascend"))?;
                let end = |bytes: Option<&[u8; 4]>| bytes.map(|b| SeriesRef(u32::from_be_bytes(*b)));
                self.check_bounds(place, *list, end(numbers.first_chunk()), end(numbers.last_chunk()))?;
            }
        }
        Ok(())
    }

    /// The range to read for a list: up to its limit if that is near or known to be its end; otherwise its length is read first.
    fn range_of(&self, place: &BlockLocation, list: ListPlace) -> Result<Range<u64>, BlockError> {
        if list.limit - list.offset <= TOGETHER_BYTES || self.ends_at_limit(list) {
            return Ok(list.offset..list.limit);
        }
        self.whole_list(place, list)
    }

    /// All values of label `name`, sorted, each with the number of series that have it; none when no series has the label.
    ///
    /// The lists themselves are not read: a list ends where the next one begins, so its length is known. Only the length of
    /// the last list of the index is read. Memory: all values of the name.
    ///
    /// # Errors
    /// When the table or the last list is damaged or cannot be read.
    pub fn series_by_value(&self, name: &str) -> Result<Vec<(String, u64)>, BlockError> {
        let mut places = Vec::new();
        if !name.is_empty() {
            self.table.for_each(name, "", &mut |value, place| {
                places.push((value.to_owned(), place));
                ControlFlow::Continue(())
            })?;
        }
        places.into_iter().map(|(value, place)| Ok((value, self.series_in(place)?))).collect()
    }

    /// Number of series of a list. It is read only where the next list does not show where this one ends.
    pub(crate) fn series_in(&self, place: ListPlace) -> Result<u64, BlockError> {
        match self.ends_at_limit(place) {
            true => Ok((place.limit - place.offset).saturating_sub(12) / 4),
            false => self.list_length(place),
        }
    }

    /// Whether the limit of a list is its end: another list follows. A list of n series has 12 + 4 n bytes, and so no padding
    /// after it.
    fn ends_at_limit(&self, list: ListPlace) -> bool {
        self.version == IndexVersion::V2 && list.limit < self.contents.postings_table
    }

    /// Number of series that a list announces.
    pub(crate) fn list_length(&self, list: ListPlace) -> Result<u64, BlockError> {
        let place = self.lists_place();
        Ok((self.whole_list(&place, list)?.end - list.offset - 12) / 4)
    }

    /// The range of a list with its length and checksum.
    fn whole_list(&self, place: &BlockLocation, list: ListPlace) -> Result<Range<u64>, BlockError> {
        let present = list.limit - list.offset;
        if present < 12 {
            return Err(place.truncated(list.offset, 12, present));
        }
        let bytes = self.read(place, list.offset..list.offset + 4)?;
        let length = u64::from(ByteCursor::new(&bytes).be32().unwrap_or(0));
        if length < 4 || length + 8 > present {
            return Err(place.truncated(list.offset, length.max(4) + 8, present));
        }
        Ok(list.offset..list.offset + length + 8)
    }

    fn read(&self, place: &BlockLocation, range: Range<u64>) -> Result<Bytes, BlockError> {
        let start = range.start;
        self.file.read_at(range).map_err(|error| place.io(start, error))
    }

    /// Checks that the first and last series of a list are within the series section.
    fn check_bounds(
        &self,
        place: &BlockLocation,
        list: ListPlace,
        first: Option<SeriesRef>,
        last: Option<SeriesRef>,
    ) -> Result<(), BlockError> {
        let bounds = self.series_bounds();
        let outside = |series: &SeriesRef| !bounds.contains(&series.offset(self.version));
        match [first, last].into_iter().flatten().find(outside) {
            Some(series) => {
                let what =
                    format!("the list has series {}, which is outside of the series section", series.0);
                Err(place.malformed(list.offset, what))
            }
            None => Ok(()),
        }
    }
}

/// The range of the series of a list within `bytes`, which begin with its length at `offset` of the file.
fn content(place: &BlockLocation, offset: u64, bytes: &[u8]) -> Result<Range<usize>, BlockError> {
    let mut cursor = ByteCursor::new(bytes);
    let short = |needed| place.truncated(offset, needed, bytes.len() as u64);
    let length = cursor.be32().ok_or_else(|| short(12))? as usize;
    let body = cursor.take(length).ok_or_else(|| short(length as u64 + 8))?;
    let expected = cursor.be32().ok_or_else(|| short(length as u64 + 8))?;
    place.check(offset + 4, expected, crc32c::crc32c(body))?;
    let count = ByteCursor::new(body).be32().map(|count| count as usize);
    if count.and_then(|count| count.checked_mul(4)) != length.checked_sub(4) {
        return Err(place.malformed(offset, "the length of the list does not fit its number of series"));
    }
    Ok(8..4 + length)
}
