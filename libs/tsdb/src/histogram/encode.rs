//! Histograms to histogram chunks.

use bytes::Bytes;
use model::{CounterResetHint, FloatHistogram, TimeRange, Timestamp};

use super::layout::Layout;
use super::{GAUGE, HEADER_BYTES, NOT_RESET, RESET};
use crate::bits::BitWriter;
use crate::error::AppendError;
use crate::varbit::{write_signed, write_unsigned};
use crate::xor::{Window, write_xor};
use crate::{Chunk, Encoding};

/// Builds a chunk of histograms that share one layout.
///
/// The first histogram decides the layout (schema, zero threshold, spans, bounds) and whether the chunk is one of
/// gauges; a histogram that differs is refused and starts a new chunk. Spans are not merged and counter resets are
/// not looked for: a histogram whose hint says [`CounterResetHint::Reset`] starts a new chunk as well.
#[derive(Clone)]
pub struct HistogramEncoder {
    writer: BitWriter,
    samples: u16,
    layout: Layout,
    header: u8,
    first: Timestamp,
    t: i64,
    delta: i64,
    sum: XorFloat,
    stale: bool,
    counts: Counts,
}

/// Count, zero count, positive and negative buckets, in this order.
#[derive(Clone)]
enum Counts {
    Integers(Vec<DodInteger>),
    Floats(Vec<XorFloat>),
}

/// An integer (for buckets: the difference to the bucket before) and its last change.
#[derive(Clone, Copy)]
struct DodInteger {
    value: i64,
    delta: i64,
}

#[derive(Clone, Copy)]
struct XorFloat {
    bits: u64,
    window: Option<Window>,
}

impl XorFloat {
    fn first(value: f64, writer: &mut BitWriter) -> Self {
        writer.write(value.to_bits(), 64);
        XorFloat { bits: value.to_bits(), window: None }
    }

    fn next(&mut self, value: f64, writer: &mut BitWriter) {
        write_xor(writer, self.bits ^ value.to_bits(), &mut self.window);
        self.bits = value.to_bits();
    }
}

/// Largest integer below which every integer is a float.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

impl HistogramEncoder {
    /// An encoder of integer histograms, which takes only histograms whose counts are whole numbers up to 2^53.
    pub fn integer() -> Self {
        HistogramEncoder::with(Counts::Integers(Vec::new()))
    }

    /// An encoder of float histograms.
    pub fn float() -> Self {
        HistogramEncoder::with(Counts::Floats(Vec::new()))
    }

    fn with(counts: Counts) -> Self {
        HistogramEncoder {
            writer: BitWriter::after(&[0; HEADER_BYTES]),
            samples: 0,
            layout: Layout::default(),
            header: 0,
            first: Timestamp::EPOCH,
            t: 0,
            delta: 0,
            sum: XorFloat { bits: 0, window: None },
            stale: false,
            counts,
        }
    }

    /// Number of samples so far.
    pub fn len(&self) -> usize {
        usize::from(self.samples)
    }

    /// Whether there is no sample yet.
    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// Bytes of the payload so far.
    pub fn size_bytes(&self) -> usize {
        self.writer.size_bytes()
    }

    /// Appends a histogram observed at `at`.
    ///
    /// # Errors
    /// When the chunk is full, `at` is not later than the last sample, or the histogram does not fit the chunk; the
    /// chunk is unchanged.
    pub fn append(&mut self, at: Timestamp, histogram: &FloatHistogram) -> Result<(), AppendError> {
        self.check(at, histogram)?;
        let t = at.as_millis();
        if self.samples == 0 {
            self.append_first(at, histogram);
        } else {
            let delta = t.wrapping_sub(self.t);
            write_signed(&mut self.writer, delta.wrapping_sub(self.delta));
            self.delta = delta;
            self.append_next(histogram);
        }
        (self.t, self.stale) = (t, histogram.is_stale());
        self.samples += 1;
        Ok(())
    }

    fn check(&self, at: Timestamp, histogram: &FloatHistogram) -> Result<(), AppendError> {
        if let Counts::Integers(_) = self.counts
            && !histogram.is_stale()
            && !counts(histogram).all(|count| (0.0..=MAX_EXACT).contains(&count) && count.fract() == 0.0)
        {
            return Err(AppendError::Layout("kind of counts (not whole numbers)"));
        }
        let (positive, negative) = Layout::of(histogram).buckets();
        if (positive, negative) != (histogram.positive_buckets.len(), histogram.negative_buckets.len()) {
            return Err(AppendError::Layout("number of buckets (not that of its spans)"));
        }
        if self.samples == 0 {
            return Ok(());
        }
        if self.samples == u16::MAX {
            return Err(AppendError::Full);
        }
        if at.as_millis() <= self.t {
            return Err(AppendError::OutOfOrder { at, last: Timestamp::from_millis(self.t) });
        }
        if histogram.is_stale() {
            return Ok(());
        }
        if self.stale {
            return Err(AppendError::Layout("presence after a staleness marker"));
        }
        let gauge = histogram.counter_reset_hint == CounterResetHint::Gauge;
        if gauge != (self.header == GAUGE) || histogram.counter_reset_hint == CounterResetHint::Reset {
            return Err(AppendError::Layout("counter reset hint"));
        }
        if Layout::of(histogram) != self.layout {
            return Err(AppendError::Layout("layout of buckets"));
        }
        Ok(())
    }

    fn append_first(&mut self, at: Timestamp, histogram: &FloatHistogram) {
        let empty = FloatHistogram::stale();
        // The first marker of a chunk has neither buckets nor a layout, whatever the histogram holds.
        let histogram = if histogram.is_stale() { &empty } else { histogram };
        self.header = match histogram.counter_reset_hint {
            CounterResetHint::Unknown => 0,
            CounterResetHint::NotReset => NOT_RESET,
            CounterResetHint::Reset => RESET,
            CounterResetHint::Gauge => GAUGE,
        };
        self.layout = Layout::of(histogram);
        self.first = at;
        let writer = &mut self.writer;
        self.layout.write(writer);
        write_signed(writer, at.as_millis());
        match &mut self.counts {
            Counts::Integers(integers) => {
                let values = whole_counts(histogram);
                values[..2].iter().for_each(|&value| write_unsigned(writer, value as u64));
                self.sum = XorFloat::first(histogram.sum, writer);
                values[2..].iter().for_each(|&value| write_signed(writer, value));
                *integers = values.into_iter().map(|value| DodInteger { value, delta: 0 }).collect();
            }
            Counts::Floats(floats) => {
                let mut values = counts(histogram);
                floats.extend(values.by_ref().take(2).map(|value| XorFloat::first(value, writer)));
                self.sum = XorFloat::first(histogram.sum, writer);
                floats.extend(values.map(|value| XorFloat::first(value, writer)));
            }
        }
    }

    fn append_next(&mut self, histogram: &FloatHistogram) {
        let writer = &mut self.writer;
        match &mut self.counts {
            Counts::Integers(_) if histogram.is_stale() => {
                writer.write(0, 2);
                self.sum.next(histogram.sum, writer);
            }
            Counts::Floats(floats) if histogram.is_stale() => {
                floats[..2].iter_mut().for_each(|float| float.next(0.0, writer));
                self.sum.next(histogram.sum, writer);
            }
            Counts::Integers(integers) => {
                for (index, (integer, value)) in integers.iter_mut().zip(whole_counts(histogram)).enumerate()
                {
                    if index == 2 {
                        self.sum.next(histogram.sum, writer);
                    }
                    let delta = value.wrapping_sub(integer.value);
                    write_signed(writer, delta.wrapping_sub(integer.delta));
                    *integer = DodInteger { value, delta };
                }
                if integers.len() == 2 {
                    self.sum.next(histogram.sum, writer);
                }
            }
            Counts::Floats(floats) => {
                for (index, (float, value)) in floats.iter_mut().zip(counts(histogram)).enumerate() {
                    if index == 2 {
                        self.sum.next(histogram.sum, writer);
                    }
                    float.next(value, writer);
                }
                if floats.len() == 2 {
                    self.sum.next(histogram.sum, writer);
                }
            }
        }
    }

    /// The chunk with all samples, or none where there are none.
    pub fn finish(self) -> Option<Chunk> {
        let [high, low] = self.samples.to_be_bytes();
        let encoding = match self.counts {
            Counts::Integers(_) => Encoding::Histogram,
            Counts::Floats(_) => Encoding::FloatHistogram,
        };
        (self.samples > 0).then(|| Chunk {
            range: TimeRange::new(self.first, Timestamp::from_millis(self.t)),
            encoding,
            data: Bytes::from(self.writer.finish(&[high, low, self.header])),
        })
    }
}

/// Count, zero count, positive and negative buckets.
fn counts(histogram: &FloatHistogram) -> impl Iterator<Item = f64> {
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets).copied();
    [histogram.count, histogram.zero_count].into_iter().chain(buckets)
}

/// Count, zero count, and the buckets of each side as differences to the bucket before.
fn whole_counts(histogram: &FloatHistogram) -> Vec<i64> {
    let mut out = vec![histogram.count as i64, histogram.zero_count as i64];
    for side in [&histogram.positive_buckets, &histogram.negative_buckets] {
        let mut before = 0;
        for &bucket in side {
            out.push(bucket as i64 - before);
            before = bucket as i64;
        }
    }
    out
}
