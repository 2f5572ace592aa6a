//! Joins the counter aggregates of downsampled chunks.
//!
//! A counter aggregate is a counter with its resets applied, within its chunk: it starts at the first raw value and only
//! grows. Its last entry repeats the timestamp of the one before it and has the last *raw* value of the chunk. When the first
//! value of the next chunk is lower, the counter was reset between the two chunks. See `ApplyCounterResetsSeriesIterator` in
//! `pkg/compact/downsample` of Thanos. A running total has no start timestamps, because the resets are applied already.

use model::TimeRange;
use tsdb::Aggregate;

use crate::error::DecodeProblem;
use crate::{AggrChunk, Samples};

/// Appends the running total of a counter over chunks that are sorted by time: counter aggregates, and raw chunks where
/// samples were not downsampled. NaNs, and so staleness markers, are dropped. Histograms are not changed.
///
/// # Errors
/// The range of the chunk that cannot be decoded, and the problem.
pub(crate) fn decode<'a>(
    lane: impl Iterator<Item = &'a AggrChunk>,
    out: &mut Samples,
) -> Result<(), (TimeRange, DecodeProblem)> {
    let mut total = CounterTotal::default();
    let mut samples = Samples::new();
    for chunk in lane {
        samples.clear();
        let part = chunk.raw.as_ref().or(chunk.counter.as_ref());
        part.ok_or(DecodeProblem::MissingAggregate(Aggregate::Counter))
            .and_then(|part| Ok(samples.append_chunk(part, false)?))
            .map_err(|problem| (chunk.range(), problem))?;
        total.begin_chunk();
        for (&t, &value) in samples.timestamps.iter().zip(&samples.values) {
            total.add(t, value, out);
        }
        let after = out.histograms.last().map_or(i64::MIN, |(t, _)| *t);
        let later = samples.histograms.drain(..).filter(|(t, _)| *t > after || after == i64::MIN);
        out.histograms.extend(later);
        if !out.histograms.is_sorted_by(|a, b| a.0 < b.0) {
            return Err((chunk.range(), DecodeProblem::Unsorted));
        }
    }
    Ok(())
}

/// The value of a counter since the beginning of the series, with resets applied.
#[derive(Default)]
pub(crate) struct CounterTotal {
    value: f64,
    /// Time and raw value of the last sample.
    last: Option<(i64, f64)>,
    /// Time and value of the last sample of the current chunk, if another chunk has samples at that time or later.
    overlapped: Option<(i64, f64)>,
}

impl CounterTotal {
    fn begin_chunk(&mut self) {
        self.overlapped = None;
    }

    /// Adds a sample and appends the total to `out`, unless the sample only repeats the last raw value.
    pub(crate) fn add(&mut self, t: i64, value: f64, out: &mut Samples) {
        if value.is_nan() {
            return;
        }
        match self.last {
            None => self.value = value,
            Some((last_t, last)) if t > last_t => self.value += self.growth((last_t, last), (t, value)),
            Some((last_t, _)) => {
                // Where two chunks overlap, samples before the end of the earlier one do not count.
                if t == last_t {
                    self.last = Some((t, value));
                }
                self.overlapped = Some((t, value));
                return;
            }
        }
        self.overlapped = None;
        self.last = Some((t, value));
        out.timestamps.push(t);
        out.values.push(self.value);
    }

    /// The raw value that was added last; none if all values were NaN.
    pub(crate) fn last_raw(&self) -> Option<f64> {
        self.last.map(|(_, value)| value)
    }

    /// How much the counter grew between two samples.
    fn growth(&self, (last_t, last): (i64, f64), (t, value): (i64, f64)) -> f64 {
        let growth = if value >= last { value - last } else { value };
        match self.overlapped {
            // The value of this chunk may contain resets since its beginning, the last one those since its own.
            Some((own_t, own)) if own_t < last_t && value >= own && growth > value - own => {
                let share = (t.abs_diff(last_t)) as f64 / (t.abs_diff(own_t)) as f64;
                (value - own) * share
            }
            _ => growth,
        }
    }
}
