//! Windows of floats.

use model::{Sample, TimeRange, Timestamp};
use tsdb::{Aggregate, Aggregates, AppendError, Chunk, XorEncoder};

use crate::Samples;
use crate::counter::CounterTotal;
use crate::downsample::windows::{MAX_SAMPLES, RAW_RESOLUTION, Windows, chunk_count, window_end};
use crate::downsample::{DownsampleProblem, part};

/// Aggregates of floats that are aggregated again, and space for decoding. One output chunk at a time.
#[derive(Default)]
pub(super) struct FloatWindows {
    /// The times of the windows, and their aggregates.
    times: Vec<i64>,
    counts: Vec<f64>,
    sums: Vec<f64>,
    mins: Vec<f64>,
    maxs: Vec<f64>,
    /// The counter with resets applied: its total over all input chunks.
    total: CounterTotal,
    totals: Samples,
    /// Space for the times of an aggregate, and for samples without NaN.
    decoded: Samples,
}

/// The growth of a counter from sample to sample.
struct Growth {
    total: f64,
    last: f64,
}

impl Growth {
    /// The counter that is first seen with this value.
    fn new(first: f64) -> Self {
        Self { total: first, last: first }
    }

    /// Adds the next value. A lower value than the last one means that the counter began again at 0.
    #[inline]
    fn add(&mut self, value: f64) {
        let grown = if value < self.last { value } else { value - self.last };
        // Infinity minus infinity would be NaN.
        self.total += if value == self.last { 0.0 } else { grown };
        self.last = value;
    }
}

/// The aggregates of an output chunk.
#[derive(Default)]
struct Encoders {
    count: XorEncoder,
    sum: XorEncoder,
    min: XorEncoder,
    max: XorEncoder,
    counter: XorEncoder,
}

impl Encoders {
    fn finish(self, range: TimeRange) -> Chunk {
        let parts = Aggregates {
            count: self.count.finish(),
            sum: self.sum.finish(),
            min: self.min.finish(),
            max: self.max.finish(),
            counter: self.counter.finish(),
        };
        parts.encode(range)
    }
}

impl FloatWindows {
    /// Downsamples raw samples without staleness markers.
    pub(super) fn raw(
        &mut self,
        samples: &Samples,
        resolution: i64,
        out: &mut Vec<Chunk>,
    ) -> Result<(), DownsampleProblem> {
        let (mut times, mut values) = (samples.timestamps.as_slice(), samples.values.as_slice());
        let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return Ok(()) };
        let chunks = chunk_count(first, last, RAW_RESOLUTION, resolution, times.len());
        let least = (times.len() / chunks + 1).min(MAX_SAMPLES);
        while !times.is_empty() {
            let mut end = least.min(times.len());
            // A chunk ends with a window.
            let window = window_end(times[end - 1], resolution);
            end += times[end..].iter().take_while(|t| **t <= window).count();
            if values[..end].iter().any(|value| value.is_nan()) {
                self.decoded.clear();
                self.decoded.timestamps.extend_from_slice(&times[..end]);
                self.decoded.values.extend_from_slice(&values[..end]);
                self.decoded.remove_floats(0, f64::is_nan);
                raw_chunk(&self.decoded.timestamps, &self.decoded.values, resolution, out)?;
            } else {
                raw_chunk(&times[..end], &values[..end], resolution, out)?;
            }
            (times, values) = (&times[end..], &values[end..]);
        }
        Ok(())
    }

    /// Forgets all windows.
    pub(super) fn clear(&mut self) {
        for list in [&mut self.counts, &mut self.sums, &mut self.mins, &mut self.maxs] {
            list.clear();
        }
        self.times.clear();
        self.total = CounterTotal::default();
        self.totals.clear();
    }

    /// Adds the windows of an input chunk, and returns their times.
    pub(super) fn add_aggregates(&mut self, aggregates: &Aggregates) -> Result<&[i64], DownsampleProblem> {
        let start = self.times.len();
        part(aggregates, Aggregate::Count)?.decode_floats(&mut self.times, &mut self.counts)?;
        for (aggregate, values) in [
            (Aggregate::Sum, &mut self.sums),
            (Aggregate::Min, &mut self.mins),
            (Aggregate::Max, &mut self.maxs),
        ] {
            self.decoded.timestamps.clear();
            part(aggregates, aggregate)?.decode_floats(&mut self.decoded.timestamps, values)?;
            if self.decoded.timestamps != self.times[start..] {
                return Err(DownsampleProblem::Unaligned);
            }
        }
        self.decoded.clear();
        self.decoded.append_chunk(part(aggregates, Aggregate::Counter)?, false)?;
        for (&t, &value) in self.decoded.timestamps.iter().zip(&self.decoded.values) {
            self.total.add(t, value, &mut self.totals);
        }
        Ok(&self.times[start..])
    }

    /// Aggregates the windows to wider ones, and appends the chunk to `out`.
    pub(super) fn coarser(&self, resolution: i64, out: &mut Vec<Chunk>) -> Result<(), DownsampleProblem> {
        let mut encoders = Encoders::default();
        let mut range: Option<TimeRange> = None;
        for (t, window) in Windows::new(&self.times, resolution) {
            encoders.count.append(Sample::new(t, total(&self.counts[window.clone()])))?;
            encoders.sum.append(Sample::new(t, total(&self.sums[window.clone()])))?;
            let (least, _) = extremes(&self.mins[window.clone()]);
            encoders.min.append(Sample::new(t, least))?;
            let (_, greatest) = extremes(&self.maxs[window]);
            encoders.max.append(Sample::new(t, greatest))?;
            grow(&mut range, t);
        }
        let (times, values) = (&self.totals.timestamps, &self.totals.values);
        let last = self.total.last_raw();
        if let (Some((t, first)), Some(last)) = (times.first().zip(values.first()), last) {
            let mut growth = Growth::new(*first);
            encoders.counter.append(Sample::new(*t, *first))?;
            for (t, window) in Windows::new(times, resolution) {
                values[window].iter().for_each(|value| growth.add(*value));
                encoders.counter.append_repeating(Sample::new(t, growth.total))?;
                grow(&mut range, t);
            }
            let end = times.last().copied().unwrap_or(*t);
            encoders.counter.append_repeating(Sample::new(end, last))?;
        } else if let Some(range) = range {
            // All values of the counter are NaN. Thanos cannot read a chunk without a counter; readers ignore a NaN.
            encoders.counter.append(Sample { timestamp: range.max, value: f64::NAN })?;
        }
        out.extend(range.map(|range| encoders.finish(range)));
        Ok(())
    }
}

/// Appends the chunk of raw samples without NaN to `out`, if there are any.
fn raw_chunk(
    times: &[i64],
    values: &[f64],
    resolution: i64,
    out: &mut Vec<Chunk>,
) -> Result<(), DownsampleProblem> {
    let (Some(&first), Some(&last)) = (values.first(), values.last()) else { return Ok(()) };
    let mut encoders = Encoders::default();
    let mut range: Option<TimeRange> = None;
    encoders.counter.append(Sample::new(times[0], first))?;
    let mut growth = Growth::new(first);
    for (t, window) in Windows::new(times, resolution) {
        let values = &values[window];
        encoders.append_window(t, values, &mut growth)?;
        grow(&mut range, t);
    }
    encoders.counter.append_repeating(Sample::new(times[times.len() - 1], last))?;
    out.extend(range.map(|range| encoders.finish(range)));
    Ok(())
}

impl Encoders {
    /// Appends the point of a window with raw `values`.
    #[inline]
    fn append_window(&mut self, t: i64, values: &[f64], growth: &mut Growth) -> Result<(), AppendError> {
        let (mut sum, mut min, mut max) = (0.0, values[0], values[0]);
        for &value in values {
            growth.add(value);
            sum += value;
            min = if value < min { value } else { min };
            max = if value > max { value } else { max };
        }
        self.count.append(Sample::new(t, values.len() as f64))?;
        self.sum.append(Sample::new(t, sum))?;
        self.min.append(Sample::new(t, min))?;
        self.max.append(Sample::new(t, max))?;
        self.counter.append_repeating(Sample::new(t, growth.total))
    }
}

/// The sum of `values`, from the first to the last.
fn total(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |sum, value| sum + value)
}

/// The least and the greatest of `values`; NaN is neither.
fn extremes(values: &[f64]) -> (f64, f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    values.iter().fold(start, |(min, max), &value| {
        (if value < min { value } else { min }, if value > max { value } else { max })
    })
}

/// Extends a range to `t`.
fn grow(range: &mut Option<TimeRange>, t: i64) {
    let t = Timestamp::from_millis(t);
    *range =
        Some(range.map_or(TimeRange::new(t, t), |range| TimeRange::new(range.min.min(t), range.max.max(t))));
}
