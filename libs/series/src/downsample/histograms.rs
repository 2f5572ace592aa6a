//! Windows of native histograms.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram, Sample, TimeRange, Timestamp};
use tsdb::{Aggregate, Aggregates, Chunk, HistogramEncoder, XorEncoder};

use crate::downsample::windows::{MAX_SAMPLES, window_end};
use crate::downsample::{DownsampleProblem, part};

/// Collects the windows of an output chunk, and encodes it when it is complete.
pub(super) struct HistogramWindows {
    resolution: i64,
    /// A chunk with fewer samples than this ends only where the next histogram does not continue it.
    least: usize,
    open: Option<OpenChunk>,
}

/// An output chunk that is not complete.
struct OpenChunk {
    /// The first histogram of the counter, and whether it is the first one after a reset.
    first: (i64, Arc<FloatHistogram>),
    after_reset: bool,
    /// Number and greatest time of the samples.
    samples: usize,
    last: i64,
    windows: Vec<Window>,
}

/// What is known of a window so far.
struct Window {
    /// Its last millisecond.
    end: i64,
    count: f64,
    sum: Arc<FloatHistogram>,
    /// The histogram that was observed last.
    counter: Arc<FloatHistogram>,
}

/// A raw sample, or a window of the input.
struct Observed<'a> {
    t: i64,
    count: f64,
    sum: &'a Arc<FloatHistogram>,
    /// The first histogram of the counter that is not in an earlier sample, and the last one.
    first: &'a (i64, Arc<FloatHistogram>),
    counter: &'a Arc<FloatHistogram>,
}

/// How a histogram follows another one.
#[derive(Clone, Copy, PartialEq)]
enum Follows {
    InSameChunk,
    InNewChunk,
    AfterReset,
}

impl Follows {
    fn between(before: &FloatHistogram, next: &FloatHistogram) -> Self {
        if !have_same_layout(before, next) {
            Self::InNewChunk
        } else if next.counter_reset_hint != CounterResetHint::Gauge && next.detect_reset(before) {
            Self::AfterReset
        } else {
            Self::InSameChunk
        }
    }
}

/// Whether one chunk can have both.
fn have_same_layout(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let is_gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
    is_gauge(a) == is_gauge(b)
        && a.schema == b.schema
        && a.zero_threshold == b.zero_threshold
        && a.custom_values == b.custom_values
}

impl HistogramWindows {
    /// Windows of `resolution` in chunks that have `least` samples of the input or more.
    pub(super) fn new(resolution: i64, least: usize) -> Self {
        Self { resolution, least: least.min(MAX_SAMPLES), open: None }
    }

    /// Adds raw samples, and appends complete chunks to `out`.
    pub(super) fn add_raw(
        &mut self,
        samples: &[(i64, Arc<FloatHistogram>)],
        out: &mut Vec<Chunk>,
    ) -> Result<(), DownsampleProblem> {
        for first in samples.iter().filter(|(_, histogram)| !histogram.is_stale()) {
            let (t, histogram) = first;
            self.add(&Observed { t: *t, count: 1.0, sum: histogram, first, counter: histogram }, out)?;
        }
        Ok(())
    }

    /// Adds the windows of an input chunk, appends complete chunks to `out`, and returns the times of the windows.
    pub(super) fn add_aggregates(
        &mut self,
        aggregates: &Aggregates,
        out: &mut Vec<Chunk>,
    ) -> Result<Vec<i64>, DownsampleProblem> {
        let (mut times, mut counts, mut sums, mut counters) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        part(aggregates, Aggregate::Count)?.decode_floats(&mut times, &mut counts)?;
        part(aggregates, Aggregate::Sum)?.decode_histograms(&mut sums)?;
        part(aggregates, Aggregate::Counter)?.decode_histograms(&mut counters)?;
        // Before the first window there may be the first raw histogram.
        let extra = counters.len().checked_sub(times.len()).filter(|extra| *extra <= 1);
        let extra = extra.ok_or(DownsampleProblem::Unaligned)?;
        let aligned = |list: &[(i64, Arc<FloatHistogram>)]| list.iter().map(|(t, _)| t).eq(&times);
        if !aligned(&sums) || !aligned(&counters[extra..]) {
            return Err(DownsampleProblem::Unaligned);
        }
        let mut first = counters.first();
        for (((t, count), (_, sum)), last) in times.iter().zip(counts).zip(&sums).zip(&counters[extra..]) {
            let first = first.take().unwrap_or(last);
            self.add(&Observed { t: *t, count, sum, first, counter: &last.1 }, out)?;
        }
        Ok(times)
    }

    fn add(&mut self, sample: &Observed<'_>, out: &mut Vec<Chunk>) -> Result<(), DownsampleProblem> {
        let mut after_reset = false;
        if let Some(open) = &self.open
            && let Some(window) = open.windows.last()
        {
            let follows = Follows::between(&window.counter, &sample.first.1);
            let is_full = open.samples >= self.least && sample.t > window.end;
            after_reset = follows == Follows::AfterReset;
            if is_full || follows != Follows::InSameChunk || !have_same_sums(window, sample) {
                self.finish(out)?;
            }
        }
        let open = self.open.get_or_insert_with(|| OpenChunk {
            first: sample.first.clone(),
            after_reset,
            samples: 0,
            last: sample.t,
            windows: Vec::new(),
        });
        open.samples += 1;
        open.last = sample.t;
        match open.windows.last_mut() {
            Some(window) if sample.t <= window.end => {
                window.count += sample.count;
                // It fails only for different schemas, which are never in one chunk.
                let _ = Arc::make_mut(&mut window.sum).add(sample.sum);
                window.counter = Arc::clone(sample.counter);
            }
            _ => {
                let mut sum = Arc::clone(sample.sum);
                // A sum may be lower than the one before it.
                Arc::make_mut(&mut sum).counter_reset_hint = CounterResetHint::Gauge;
                open.windows.push(Window {
                    end: window_end(sample.t, self.resolution),
                    count: sample.count,
                    sum,
                    counter: Arc::clone(sample.counter),
                });
            }
        }
        Ok(())
    }

    /// Appends the last chunk to `out`.
    pub(super) fn finish(&mut self, out: &mut Vec<Chunk>) -> Result<(), DownsampleProblem> {
        if let Some(open) = self.open.take() {
            out.extend(open.encode()?);
        }
        Ok(())
    }
}

/// Whether one chunk can have the sums of both.
fn have_same_sums(window: &Window, sample: &Observed<'_>) -> bool {
    let (a, b) = (&window.sum, sample.sum);
    a.schema == b.schema && a.zero_threshold == b.zero_threshold && a.custom_values == b.custom_values
}

impl OpenChunk {
    fn encode(self) -> Result<Option<Chunk>, DownsampleProblem> {
        let mut counts = XorEncoder::new();
        let (mut sums, mut counters) = (Vec::new(), Vec::new());
        let mut range: Option<TimeRange> = None;
        for window in self.windows {
            let t = Timestamp::from_millis(window.end.min(self.last));
            range = Some(TimeRange::new(range.map_or(t, |range| range.min), t));
            counts.append(Sample { timestamp: t, value: window.count })?;
            sums.push((t, window.sum));
            if counters.is_empty() && self.first.0 < t.as_millis() {
                counters.push((Timestamp::from_millis(self.first.0), Arc::clone(&self.first.1)));
            }
            counters.push((t, window.counter));
        }
        if let Some((_, first)) = counters.first_mut()
            && first.counter_reset_hint != CounterResetHint::Gauge
        {
            let hint = if self.after_reset { CounterResetHint::Reset } else { CounterResetHint::Unknown };
            Arc::make_mut(first).counter_reset_hint = hint;
        }
        let parts = Aggregates {
            count: counts.finish(),
            sum: HistogramEncoder::encode_all(sums)?,
            counter: HistogramEncoder::encode_all(counters)?,
            ..Aggregates::default()
        };
        Ok(range.map(|range| parts.encode(range)))
    }
}
