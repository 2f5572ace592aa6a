//! Chunks without the samples of times that were deleted.
//!
//! ```text
//! raw chunk      no deleted sample: stays byte for byte; otherwise the samples that are left are encoded again
//! aggregates     a window is dropped when any of its time is deleted: what it would be without the deleted samples is not known
//! ```
//!
//! Where windows at the end of a counter are dropped, the last raw value moves to the last window that is left, so that the next chunk
//! continues from it. Where windows at its beginning are dropped, the chunk begins with the total of its first window.

use std::time::Duration;

use model::{CounterResetHint, Sample, TimeRange, Timestamp};
use tsdb::{Aggregates, Chunk, ChunkError, Encoding, HistogramEncoder, XorEncoder};

use crate::join::ChunkJoinError;
use crate::stored::{decode_chunk, encode_chunks};

/// The deleted times of one series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletedTimes {
    /// Sorted, disjoint, with gaps between them.
    ranges: Vec<TimeRange>,
}

impl DeletedTimes {
    /// The times of `ranges`, in any order, of a series whose windows have this length; zero for raw samples. Windows are deleted
    /// whole.
    pub fn new(ranges: impl IntoIterator<Item = TimeRange>, resolution: Duration) -> Self {
        let window = i64::try_from(resolution.as_millis()).unwrap_or(i64::MAX).max(1);
        let widened = |range: TimeRange| {
            let (min, max) = (range.min.as_millis(), range.max.as_millis());
            let end = max.saturating_add(window - 1 - max.rem_euclid(window));
            TimeRange::new(
                Timestamp::from_millis(min.saturating_sub(min.rem_euclid(window))),
                Timestamp::from_millis(end),
            )
        };
        let mut all: Vec<TimeRange> =
            ranges.into_iter().filter(|range| !range.is_empty()).map(widened).collect();
        all.sort_by_key(|range| (range.min, range.max));
        let mut joined: Vec<TimeRange> = Vec::with_capacity(all.len());
        for range in all {
            match joined.last_mut() {
                Some(last) if range.min <= last.max.offset_millis(1) => last.max = last.max.max(range.max),
                _ => joined.push(range),
            }
        }
        Self { ranges: joined }
    }

    /// Whether nothing is deleted.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges: sorted, disjoint, both ends included.
    pub fn ranges(&self) -> &[TimeRange] {
        &self.ranges
    }

    /// Whether a sample, or the point of a window, is deleted.
    pub fn contains(&self, at: Timestamp) -> bool {
        let next = self.ranges.partition_point(|range| range.max < at);
        self.ranges.get(next).is_some_and(|range| range.contains(at))
    }

    /// Whether all of the time of a chunk is deleted.
    pub fn covers(&self, chunk: &TimeRange) -> bool {
        let next = self.ranges.partition_point(|range| range.max < chunk.min);
        self.ranges.get(next).is_some_and(|range| range.contains(chunk.min) && range.contains(chunk.max))
    }

    /// Whether it cannot be told from the times of a chunk alone whether anything of it is left: its first and its last sample are
    /// deleted, and others may be left between them.
    pub fn may_empty(&self, chunk: &TimeRange) -> bool {
        self.contains(chunk.min) && self.contains(chunk.max)
    }

    /// What is left of a chunk.
    ///
    /// # Errors
    /// When the chunk has deleted samples and is damaged.
    pub fn leave(&self, chunk: Chunk) -> Result<Vec<Chunk>, ChunkJoinError> {
        if !self.ranges.iter().any(|range| range.overlaps(&chunk.range)) {
            return Ok(vec![chunk]);
        }
        if self.covers(&chunk.range) {
            return Ok(Vec::new());
        }
        if chunk.encoding == Encoding::Aggregates {
            return Ok(self.leave_windows(&chunk)?.into_iter().collect());
        }
        let mut samples = Vec::new();
        decode_chunk(&chunk, &mut samples)?;
        let before = samples.len();
        samples.retain(|sample| !self.contains(sample.at));
        if samples.len() == before { Ok(vec![chunk]) } else { Ok(encode_chunks(&samples)?) }
    }

    /// The windows of a chunk of aggregates that are left.
    fn leave_windows(&self, chunk: &Chunk) -> Result<Option<Chunk>, ChunkJoinError> {
        let stored = chunk.aggregates()?;
        let mut range: Option<TimeRange> = None;
        if let Some(count) = &stored.count {
            for (at, _) in floats(count)?.into_iter().filter(|(at, _)| !self.contains(*at)) {
                range = Some(TimeRange::new(range.map_or(at, |range: TimeRange| range.min), at));
            }
        }
        let Some(range) = range else { return Ok(None) };
        let part = |part: &Option<Chunk>| part.as_ref().map(|part| self.leave_points(part)).transpose();
        let counter = stored.counter.as_ref().map(|counter| self.leave_counter(counter)).transpose()?;
        let left = Aggregates {
            count: part(&stored.count)?.flatten(),
            sum: part(&stored.sum)?.flatten(),
            min: part(&stored.min)?.flatten(),
            max: part(&stored.max)?.flatten(),
            counter: counter.flatten(),
        };
        Ok(Some(left.encode(range)))
    }

    /// The points of an aggregate that are left.
    fn leave_points(&self, part: &Chunk) -> Result<Option<Chunk>, ChunkJoinError> {
        if part.encoding.holds_histograms() {
            let mut points = Vec::new();
            part.decode_histograms(&mut points)?;
            let mut left: Vec<_> = points
                .into_iter()
                .map(|(t, histogram)| (Timestamp::from_millis(t), histogram))
                .filter(|(at, _)| !self.contains(*at))
                .collect();
            // What came before the first one that is left is not known any more.
            if let Some((_, first)) = left.first_mut()
                && first.counter_reset_hint != CounterResetHint::Gauge
            {
                std::sync::Arc::make_mut(first).counter_reset_hint = CounterResetHint::Unknown;
            }
            return Ok(HistogramEncoder::encode_all(left)?);
        }
        let mut encoder = XorEncoder::new();
        for (timestamp, value) in floats(part)?.into_iter().filter(|(at, _)| !self.contains(*at)) {
            encoder.append(Sample { timestamp, value })?;
        }
        Ok(encoder.finish())
    }

    /// The counter that is left. Its last two points have the same time.
    fn leave_counter(&self, counter: &Chunk) -> Result<Option<Chunk>, ChunkJoinError> {
        if counter.encoding.holds_histograms() {
            return self.leave_points(counter);
        }
        let points = floats(counter)?;
        let last_raw = match points.as_slice() {
            [.., before, last] if before.0 == last.0 => Some(last.1),
            _ => None,
        };
        let totals = if last_raw.is_some() { &points[..points.len() - 1] } else { &points[..] };
        let mut encoder = XorEncoder::new();
        let mut last = None;
        for (timestamp, value) in totals.iter().copied().filter(|(at, _)| !self.contains(*at)) {
            // The first raw value may have the time of the first window.
            encoder.append_repeating(Sample { timestamp, value })?;
            last = Some(timestamp);
        }
        if let Some((timestamp, value)) = last.zip(last_raw) {
            encoder.append_repeating(Sample { timestamp, value })?;
        }
        Ok(encoder.finish())
    }
}

/// The times and values of a chunk of floats.
fn floats(part: &Chunk) -> Result<Vec<(Timestamp, f64)>, ChunkError> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    part.decode_floats(&mut times, &mut values)?;
    Ok(times.into_iter().map(Timestamp::from_millis).zip(values).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::FloatHistogram;
    use tsdb::Aggregate;

    use super::*;
    use crate::testing::{OPTIONS, Random, chunk, decode_all};
    use crate::{AggrChunk, ChunkSample, ChunkSampleValue, DecodeOptions, Downsampler};

    const FIVE_MINUTES: Duration = Duration::from_secs(300);

    fn range(min: i64, max: i64) -> TimeRange {
        TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max))
    }

    fn random_ranges(random: &mut Random, end: usize) -> Vec<TimeRange> {
        (0..random.below(4))
            .map(|_| {
                let from = random.below(end) as i64;
                range(from, from + random.below(end / 3) as i64)
            })
            .collect()
    }

    #[test]
    fn the_samples_of_raw_chunks_that_are_left_are_those_outside_of_the_ranges() {
        for seed in 0..500 {
            let mut random = Random::seeded(seed);
            let samples: Vec<ChunkSample> = (0..400)
                .filter(|_| random.below(10) > 0)
                .map(|n| {
                    let (value, encoding) = match (n / 50) % 2 {
                        0 => (ChunkSampleValue::Float(n as f64), Encoding::Xor),
                        _ => {
                            let histogram = FloatHistogram { count: n as f64, ..FloatHistogram::default() };
                            (ChunkSampleValue::Histogram(Arc::new(histogram)), Encoding::Histogram)
                        }
                    };
                    let at = Timestamp::from_millis(n * 1000);
                    ChunkSample { at, start: Timestamp::EPOCH, value, encoding }
                })
                .collect();
            let ranges = random_ranges(&mut random, 400_000);
            let deleted = DeletedTimes::new(ranges.iter().copied(), Duration::ZERO);
            let mut left = Vec::new();
            for chunk in encode_chunks(&samples).unwrap() {
                let (whole, may_be_empty) = (deleted.covers(&chunk.range), deleted.may_empty(&chunk.range));
                let kept = deleted.leave(chunk).unwrap();
                assert!(!whole || kept.is_empty(), "seed {seed}");
                assert!(may_be_empty || !kept.is_empty(), "seed {seed}");
                kept.iter().for_each(|chunk| decode_chunk(chunk, &mut left).unwrap());
            }
            let is_left = |sample: &&ChunkSample| !ranges.iter().any(|range| range.contains(sample.at));
            let expected: Vec<ChunkSample> = samples.iter().filter(is_left).cloned().collect();
            assert_eq!(left, expected, "seed {seed}: {ranges:?}");
        }
    }

    /// The windows of one aggregate: time and value.
    fn windows(chunks: &[Chunk], aggregate: Aggregate) -> Vec<(i64, f64)> {
        let part = |chunk: &Chunk| chunk.aggregates().unwrap().get(aggregate).cloned();
        let parts = chunks.iter().filter_map(part);
        parts.flat_map(|part| floats(&part).unwrap()).map(|(at, value)| (at.as_millis(), value)).collect()
    }

    #[test]
    fn a_window_of_which_any_time_is_deleted_is_dropped_and_the_others_stay_as_they_are() {
        for seed in 0..200 {
            let mut random = Random::seeded(seed);
            let mut value = 0.0;
            let samples: Vec<(i64, f64)> = (0..3000)
                .map(|n| {
                    value = if random.below(200) == 0 { 0.0 } else { value + random.below(5) as f64 };
                    (n * 60_000, value)
                })
                .collect();
            let whole = Downsampler::new(Duration::ZERO, FIVE_MINUTES).series(&[chunk(&samples)]).unwrap();
            let ranges = random_ranges(&mut random, 3000 * 60_000);
            let deleted = DeletedTimes::new(ranges.iter().copied(), FIVE_MINUTES);
            let left: Vec<Chunk> =
                whole.iter().flat_map(|chunk| deleted.leave(chunk.clone()).unwrap()).collect();
            let is_left = |(t, _): &(i64, f64)| {
                let begin = t - t.rem_euclid(300_000);
                !ranges.iter().any(|r| r.overlaps(&range(begin, begin + 299_999)))
            };
            for aggregate in [Aggregate::Count, Aggregate::Sum, Aggregate::Min, Aggregate::Max] {
                let expected: Vec<(i64, f64)> =
                    windows(&whole, aggregate).into_iter().filter(is_left).collect();
                assert_eq!(windows(&left, aggregate), expected, "seed {seed}: {aggregate:?}");
            }
            // The counter never grows by more than the whole one does, and never falls.
            let read = |chunks: &[Chunk]| {
                let wanted = [Aggregate::Counter];
                let lane = chunks.iter().map(|c| AggrChunk::from_block(c.clone(), &wanted).unwrap());
                let options = DecodeOptions { aggregate: Aggregate::Counter, counter: true, ..OPTIONS };
                decode_all(vec![lane.collect()], &options).unwrap()
            };
            let (before, after) = (read(&whole), read(&left));
            let grown = |samples: &crate::Samples| {
                samples.values.last().zip(samples.values.first()).map_or(0.0, |(b, a)| b - a)
            };
            assert!(after.values.is_sorted(), "seed {seed}");
            assert!(grown(&after) <= grown(&before) + 1e-6, "seed {seed}");
            let times: Vec<(i64, f64)> = after.timestamps.iter().map(|t| (*t, 0.0)).collect();
            assert!(times.iter().all(is_left), "seed {seed}: a point of a deleted window is left");
        }
    }

    #[test]
    fn windows_of_histograms_are_dropped_too() {
        let samples: Vec<ChunkSample> = (0..40)
            .map(|n| {
                let histogram = FloatHistogram { count: n as f64, ..FloatHistogram::default() };
                ChunkSample {
                    at: Timestamp::from_millis(n * 60_000),
                    start: Timestamp::EPOCH,
                    value: ChunkSampleValue::Histogram(Arc::new(histogram)),
                    encoding: Encoding::Histogram,
                }
            })
            .collect();
        let whole = Downsampler::new(Duration::ZERO, FIVE_MINUTES);
        let whole = { whole }.series(&encode_chunks(&samples).unwrap()).unwrap();
        let deleted = DeletedTimes::new([range(0, 1), range(1_000_000, 1_000_001)], FIVE_MINUTES);
        let left: Vec<Chunk> = whole.into_iter().flat_map(|chunk| deleted.leave(chunk).unwrap()).collect();
        let mut counters = Vec::new();
        for chunk in &left {
            chunk.aggregates().unwrap().counter.unwrap().decode_histograms(&mut counters).unwrap();
        }
        let times: Vec<(i64, f64)> = counters.iter().map(|(t, histogram)| (*t, histogram.count)).collect();
        let expected = [599_999, 899_999, 1_499_999, 1_799_999, 2_099_999, 2_340_000];
        assert_eq!(times.iter().map(|(t, _)| *t).collect::<Vec<_>>(), expected);
        assert_eq!(times[2].1, 24.0);
        assert_eq!(windows(&left, Aggregate::Count).len(), expected.len());
    }

    #[test]
    fn ranges_that_touch_become_one_and_damaged_chunks_are_errors() {
        let deleted = DeletedTimes::new([range(5, 9), range(0, 4), range(3, 2)], Duration::ZERO);
        assert_eq!(deleted.ranges(), [range(0, 9)]);
        assert!(deleted.covers(&range(0, 9)) && !deleted.covers(&range(0, 10)));
        let whole = chunk(&[(1, 1.0), (20, 2.0)]);
        let damaged = Chunk { data: whole.data.slice(..whole.data.len() - 3), ..whole };
        assert!(deleted.leave(damaged).is_err());
    }
}
