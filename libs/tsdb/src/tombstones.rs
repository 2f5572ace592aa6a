//! `tombstones`: the samples that were deleted from a block after it was written.
//!
//! ```text
//! be32 0130ba30, u8 1, then uvarint series, varint min, varint max for each interval, crc of these
//! ```

use std::collections::BTreeMap;

use model::{TimeRange, Timestamp};

use crate::SeriesRef;
use crate::cursor::{ByteCursor, put_uvarint, put_varint};
use crate::error::{BlockError, BlockLocation};

/// The name of the file inside a block's directory.
pub const TOMBSTONES_FILE: &str = "tombstones";

const MAGIC: u32 = 0x0130_BA30;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Deleted intervals of series. The samples are still in their chunks; the reader of the chunks has to drop them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    /// For each series disjoint intervals, sorted, with gaps between them.
    intervals: BTreeMap<SeriesRef, Vec<TimeRange>>,
    /// Number of intervals of series that no index can have, because their numbers have more than 32 bits.
    beyond: u64,
}

impl Tombstones {
    /// Nothing deleted.
    pub(crate) const fn none() -> Self {
        Self { intervals: BTreeMap::new(), beyond: 0 }
    }

    /// Marks the samples of `series` in `range`, both ends included, as deleted. An empty range changes nothing.
    pub fn delete(&mut self, series: SeriesRef, range: TimeRange) {
        if range.is_empty() {
            return;
        }
        let intervals = self.intervals.entry(series).or_default();
        // Intervals that overlap or touch become one.
        let first = intervals.partition_point(|other| other.max.offset_millis(1) < range.min);
        let last = intervals.partition_point(|other| other.min.offset_millis(-1) <= range.max);
        let joined = intervals[first..last].iter().fold(range, |joined, other| TimeRange {
            min: joined.min.min(other.min),
            max: joined.max.max(other.max),
        });
        intervals.splice(first..last, [joined]);
    }

    /// The deleted intervals of `series`: sorted, disjoint, both ends included.
    pub fn of(&self, series: SeriesRef) -> &[TimeRange] {
        self.intervals.get(&series).map_or(&[], Vec::as_slice)
    }

    /// Number of intervals of all series.
    pub fn count(&self) -> u64 {
        self.beyond + self.intervals.values().map(|intervals| intervals.len() as u64).sum::<u64>()
    }

    /// Number of intervals of series that no index can have. They delete nothing, and are not written again.
    pub fn beyond(&self) -> u64 {
        self.beyond
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// The series with deleted intervals.
    pub(crate) fn series(&self) -> impl Iterator<Item = SeriesRef> + '_ {
        self.intervals.keys().copied()
    }

    /// Reads the content of the file.
    pub(crate) fn parse(place: &BlockLocation, bytes: &[u8]) -> Result<Self, BlockError> {
        let size = bytes.len() as u64;
        let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(place.truncated(0, HEADER_BYTES as u64, size));
        };
        place.check_magic(ByteCursor::new(header).be32(), MAGIC, "a tombstones file")?;
        if header[4] != VERSION {
            return Err(place.version(header[4], VERSION));
        }
        let Some((stones, checksum)) = rest.split_last_chunk::<4>() else {
            return Err(place.truncated(HEADER_BYTES as u64, 4, rest.len() as u64));
        };
        place.check(HEADER_BYTES as u64, u32::from_be_bytes(*checksum), crc32c::crc32c(stones))?;
        let mut out = Self::default();
        let mut cursor = ByteCursor::new(stones);
        while !cursor.is_empty() {
            let offset = (HEADER_BYTES + cursor.at()) as u64;
            let (series, range) = stone(&mut cursor)
                .ok_or_else(|| place.malformed(offset, "the interval cannot be decoded"))?;
            match u32::try_from(series) {
                Ok(series) => out.delete(SeriesRef(series), range),
                Err(_) => out.beyond += 1,
            }
        }
        Ok(out)
    }

    /// The content of the file: the same bytes for the same intervals.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = MAGIC.to_be_bytes().to_vec();
        out.push(VERSION);
        for (series, intervals) in &self.intervals {
            for range in intervals {
                put_uvarint(&mut out, u64::from(series.0));
                put_varint(&mut out, range.min.as_millis());
                put_varint(&mut out, range.max.as_millis());
            }
        }
        let checksum = crc32c::crc32c(&out[HEADER_BYTES..]);
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }
}

fn stone(cursor: &mut ByteCursor<'_>) -> Option<(u64, TimeRange)> {
    let series = cursor.uvarint()?;
    let (min, max) = (cursor.varint()?, cursor.varint()?);
    let range = TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max));
    Some((series, range))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::BlockPart;
    use crate::random::Random;

    fn range(min: i64, max: i64) -> TimeRange {
        TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max))
    }

    fn place() -> BlockLocation {
        BlockLocation::new(&Arc::from("b"), BlockPart::Tombstones)
    }

    fn sample() -> Tombstones {
        let mut stones = Tombstones::default();
        stones.delete(SeriesRef(7), range(-5, 10));
        stones.delete(SeriesRef(7), range(20, 30));
        stones.delete(SeriesRef(u32::MAX), TimeRange::ALL);
        stones
    }

    #[test]
    fn an_empty_file_is_the_one_that_prometheus_writes() {
        let bytes = [0x01, 0x30, 0xba, 0x30, 0x01, 0, 0, 0, 0];
        assert_eq!(Tombstones::default().to_bytes(), bytes);
        assert!(Tombstones::parse(&place(), &bytes).unwrap().is_empty());
    }

    #[test]
    fn intervals_that_overlap_or_touch_become_one() {
        let mut random = Random::seeded(3);
        for round in 0..500 {
            let (mut stones, mut deleted) = (Tombstones::default(), [false; 64]);
            for _ in 0..random.below(12) {
                let min = random.below(60);
                let max = (min + random.below(8)).min(63);
                stones.delete(SeriesRef(1), range(min as i64, max as i64));
                deleted[min..=max].fill(true);
            }
            let of = stones.of(SeriesRef(1));
            let contained = |t: usize| of.iter().any(|r| r.contains(Timestamp::from_millis(t as i64)));
            assert!((0..64).all(|t| contained(t) == deleted[t]), "round {round}: {of:?}");
            assert!(of.windows(2).all(|pair| pair[0].max.offset_millis(1) < pair[1].min), "{of:?}");
            assert_eq!(stones.count(), of.len() as u64);
        }
        let mut stones = Tombstones::default();
        stones.delete(SeriesRef(1), range(5, 4));
        assert!(stones.is_empty());
    }

    #[test]
    fn intervals_of_series_that_no_index_can_have_are_counted_and_delete_nothing() {
        let mut bytes = sample().to_bytes();
        bytes.truncate(bytes.len() - 4);
        put_uvarint(&mut bytes, 1 << 40);
        put_varint(&mut bytes, 1);
        put_varint(&mut bytes, 2);
        let checksum = crc32c::crc32c(&bytes[HEADER_BYTES..]);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        let parsed = Tombstones::parse(&place(), &bytes).unwrap();
        assert_eq!((parsed.count(), parsed.beyond()), (sample().count() + 1, 1));
        assert_eq!(parsed.to_bytes(), sample().to_bytes());
    }

    #[test]
    fn intervals_come_back_and_damage_is_an_error() {
        let bytes = sample().to_bytes();
        assert_eq!(Tombstones::parse(&place(), &bytes).unwrap(), sample());
        for length in 0..bytes.len() {
            let error = Tombstones::parse(&place(), &bytes[..length]).unwrap_err();
            assert!(error.to_string().starts_with("block b: tombstones at byte "), "{error}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Tombstones::parse(&place(), &damaged).is_err(), "bit {bit}");
        }
    }
}
