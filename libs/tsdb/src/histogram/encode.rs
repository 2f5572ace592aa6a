//! Encodes histogram chunks.

use bytes::Bytes;
use model::{CounterResetHint, FloatHistogram, TimeRange, Timestamp};

use crate::bits::BitWriter;
use crate::chunk::MAX_ST_HISTOGRAMS;
use crate::error::AppendError;
use crate::histogram::layout::Layout;
use crate::histogram::{GAUGE, HEADER_BYTES, NOT_RESET, RESET};
use crate::starts::StartWriter;
use crate::varbit::{write_signed, write_unsigned};
use crate::xor::{XorWindow, write_xor};
use crate::{Chunk, Encoding};

/// Builds a chunk of histograms that share one layout.
///
/// The first histogram decides the layout (schema, zero threshold, spans, bounds) and whether the chunk has gauges. A
/// histogram that differs is rejected: it needs a new chunk. Also a histogram with the hint [`CounterResetHint::Reset`] needs
/// a new chunk. Spans are not merged and counter resets are not detected; [`ChunkBuilder`](crate::ChunkBuilder) does both.
#[derive(Clone)]
pub struct HistogramEncoder {
    writer: BitWriter,
    samples: u16,
    layout: Layout,
    /// Kind of counter.
    header: u8,
    /// None when the encoding has no start timestamps.
    starts: Option<StartWriter>,
    first: Timestamp,
    t: i64,
    delta: i64,
    sum: XorFloatWriter,
    stale: bool,
    counts: Counts,
}

/// The numbers of the last histogram, which the next one is encoded with.
#[derive(Clone)]
enum Counts {
    Integers(LastNumbers<DodIntegerWriter>),
    Floats(LastNumbers<XorFloatWriter>),
}

/// The counts of a histogram. In the stream, the sum is between totals and buckets.
#[derive(Clone)]
struct LastNumbers<T> {
    /// Count and zero count.
    totals: Vec<T>,
    /// Positive buckets, then negative ones.
    buckets: Vec<T>,
}

impl<T> LastNumbers<T> {
    const NONE: Self = Self { totals: Vec::new(), buckets: Vec::new() };
}

/// An integer (for buckets: the difference to the bucket before) and its last change.
#[derive(Clone, Copy)]
struct DodIntegerWriter {
    value: i64,
    delta: i64,
}

impl DodIntegerWriter {
    fn first(value: i64) -> Self {
        Self { value, delta: 0 }
    }

    fn next(&mut self, value: i64, writer: &mut BitWriter) {
        let delta = value.wrapping_sub(self.value);
        write_signed(writer, delta.wrapping_sub(self.delta));
        *self = Self { value, delta };
    }
}

/// A float and the window of its last change.
#[derive(Clone, Copy)]
struct XorFloatWriter {
    bits: u64,
    window: Option<XorWindow>,
}

impl XorFloatWriter {
    fn first(value: f64, writer: &mut BitWriter) -> Self {
        writer.write(value.to_bits(), 64);
        Self { bits: value.to_bits(), window: None }
    }

    fn next(&mut self, value: f64, writer: &mut BitWriter) {
        write_xor(writer, self.bits ^ value.to_bits(), &mut self.window);
        self.bits = value.to_bits();
    }
}

/// Largest integer below which every integer is a float.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

impl HistogramEncoder {
    /// An encoder of integer histograms. Their counts must be whole numbers up to 2^53.
    pub fn integer() -> Self {
        Self::with(Counts::Integers(LastNumbers::NONE), None)
    }

    /// An encoder of float histograms.
    pub fn float() -> Self {
        Self::with(Counts::Floats(LastNumbers::NONE), None)
    }

    /// Like [`HistogramEncoder::integer`], with start timestamps.
    pub fn integer_with_starts() -> Self {
        Self::with(Counts::Integers(LastNumbers::NONE), Some(StartWriter::default()))
    }

    /// Like [`HistogramEncoder::float`], with start timestamps.
    pub fn float_with_starts() -> Self {
        Self::with(Counts::Floats(LastNumbers::NONE), Some(StartWriter::default()))
    }

    /// An encoder of chunks with `encoding`, one of histograms.
    pub(crate) fn with_encoding(encoding: Encoding) -> Self {
        let counts = match encoding.has_integer_counts() {
            true => Counts::Integers(LastNumbers::NONE),
            false => Counts::Floats(LastNumbers::NONE),
        };
        Self::with(counts, encoding.may_hold_starts().then(StartWriter::default))
    }

    fn with(counts: Counts, starts: Option<StartWriter>) -> Self {
        Self {
            writer: BitWriter::after(&[0; HEADER_BYTES]),
            samples: 0,
            layout: Layout::default(),
            header: 0,
            starts,
            first: Timestamp::EPOCH,
            t: 0,
            delta: 0,
            sum: XorFloatWriter { bits: 0, window: None },
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

    /// The time of the last sample; the epoch without samples.
    pub(crate) fn last_time(&self) -> Timestamp {
        Timestamp::from_millis(self.t)
    }

    /// Bytes of the payload so far.
    pub fn size_bytes(&self) -> usize {
        self.writer.size_bytes()
    }

    /// Appends a histogram observed at `at`, with an unknown start.
    ///
    /// # Errors
    /// When the chunk is full, `at` is not later than the last sample, or the histogram does not fit the chunk; the
    /// chunk is unchanged.
    pub fn append(&mut self, at: Timestamp, histogram: &FloatHistogram) -> Result<(), AppendError> {
        self.append_with_start(at, histogram, Timestamp::EPOCH)
    }

    /// Appends a histogram observed at `at` that began at `start`; the epoch means that the start is unknown. An encoder
    /// without start timestamps drops it.
    ///
    /// # Errors
    /// As [`HistogramEncoder::append`].
    pub fn append_with_start(
        &mut self,
        at: Timestamp,
        histogram: &FloatHistogram,
        start: Timestamp,
    ) -> Result<(), AppendError> {
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
        if let Some(starts) = &mut self.starts {
            starts.write(&mut self.writer, usize::from(self.samples), t, self.t, start.as_millis());
        }
        (self.t, self.stale) = (t, histogram.is_stale());
        self.samples += 1;
        Ok(())
    }

    fn check(&self, at: Timestamp, histogram: &FloatHistogram) -> Result<(), AppendError> {
        if let Counts::Integers(_) = self.counts
            && !histogram.is_stale()
            && !buckets(histogram)
                .chain(totals(histogram))
                .all(|count| (0.0..=MAX_EXACT).contains(&count) && count.fract() == 0.0)
        {
            return Err(AppendError::Layout("its counts are not whole numbers"));
        }
        let (positive, negative) = Layout::of(histogram).buckets();
        if (positive, negative) != (histogram.positive_buckets.len(), histogram.negative_buckets.len()) {
            return Err(AppendError::Layout("its spans do not describe as many buckets as it has"));
        }
        if self.samples == 0 {
            return Ok(());
        }
        let most = if self.starts.is_some() { MAX_ST_HISTOGRAMS } else { usize::from(u16::MAX) };
        if self.len() == most {
            return Err(AppendError::Full);
        }
        if at.as_millis() <= self.t {
            return Err(AppendError::OutOfOrder { at, last: Timestamp::from_millis(self.t) });
        }
        if histogram.is_stale() {
            return Ok(());
        }
        if self.stale {
            return Err(AppendError::Layout("only staleness markers may follow a staleness marker"));
        }
        let gauge = histogram.counter_reset_hint == CounterResetHint::Gauge;
        if gauge != (self.header == GAUGE) || histogram.counter_reset_hint == CounterResetHint::Reset {
            return Err(AppendError::Layout("its counter reset hint differs"));
        }
        if Layout::of(histogram) != self.layout {
            return Err(AppendError::Layout("its buckets differ"));
        }
        Ok(())
    }

    fn append_first(&mut self, at: Timestamp, histogram: &FloatHistogram) {
        let empty = FloatHistogram::stale();
        // A marker at the beginning of a chunk has no buckets and no layout, whatever the histogram has.
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
            Counts::Integers(numbers) => {
                let (totals, buckets) = (whole_totals(histogram), whole_buckets(histogram));
                totals.iter().for_each(|&total| write_unsigned(writer, total as u64));
                self.sum = XorFloatWriter::first(histogram.sum, writer);
                buckets.iter().for_each(|&bucket| write_signed(writer, bucket));
                numbers.totals = totals.into_iter().map(DodIntegerWriter::first).collect();
                numbers.buckets = buckets.into_iter().map(DodIntegerWriter::first).collect();
            }
            Counts::Floats(numbers) => {
                numbers.totals = totals(histogram).map(|total| XorFloatWriter::first(total, writer)).into();
                self.sum = XorFloatWriter::first(histogram.sum, writer);
                numbers.buckets =
                    buckets(histogram).map(|bucket| XorFloatWriter::first(bucket, writer)).collect();
            }
        }
    }

    fn append_next(&mut self, histogram: &FloatHistogram) {
        let writer = &mut self.writer;
        let stale = histogram.is_stale();
        match &mut self.counts {
            // A staleness marker has no counts: integers repeat their delta, floats become zero, buckets are not written.
            Counts::Integers(_) if stale => writer.write(0, 2),
            Counts::Integers(numbers) => {
                numbers
                    .totals
                    .iter_mut()
                    .zip(whole_totals(histogram))
                    .for_each(|(n, total)| n.next(total, writer));
            }
            Counts::Floats(numbers) => {
                let totals = if stale { [0.0; 2] } else { totals(histogram) };
                numbers.totals.iter_mut().zip(totals).for_each(|(n, total)| n.next(total, writer));
            }
        }
        self.sum.next(histogram.sum, writer);
        match &mut self.counts {
            _ if stale => {}
            Counts::Integers(numbers) => {
                numbers
                    .buckets
                    .iter_mut()
                    .zip(whole_buckets(histogram))
                    .for_each(|(n, next)| n.next(next, writer));
            }
            Counts::Floats(numbers) => {
                numbers.buckets.iter_mut().zip(buckets(histogram)).for_each(|(n, next)| n.next(next, writer));
            }
        }
    }

    /// The chunk with all samples; none without samples.
    pub fn finish(self) -> Option<Chunk> {
        let [high, low] = self.samples.to_be_bytes();
        let (encoding, header) = match (&self.counts, &self.starts) {
            (Counts::Integers(_), None) => (Encoding::Histogram, [high, low, self.header]),
            (Counts::Floats(_), None) => (Encoding::FloatHistogram, [high, low, self.header]),
            (Counts::Integers(_), Some(starts)) => {
                (Encoding::HistogramSt, [high | self.header, low, starts.header()])
            }
            (Counts::Floats(_), Some(starts)) => {
                (Encoding::FloatHistogramSt, [high | self.header, low, starts.header()])
            }
        };
        (self.samples > 0).then(|| Chunk {
            range: TimeRange::new(self.first, Timestamp::from_millis(self.t)),
            encoding,
            data: Bytes::from(self.writer.finish(&header)),
        })
    }
}

/// Count and zero count.
fn totals(histogram: &FloatHistogram) -> [f64; 2] {
    [histogram.count, histogram.zero_count]
}

/// Positive buckets, then negative ones.
fn buckets(histogram: &FloatHistogram) -> impl Iterator<Item = f64> {
    histogram.positive_buckets.iter().chain(&histogram.negative_buckets).copied()
}

fn whole_totals(histogram: &FloatHistogram) -> [i64; 2] {
    totals(histogram).map(|total| total as i64)
}

/// The buckets of each side as differences to the bucket before.
fn whole_buckets(histogram: &FloatHistogram) -> Vec<i64> {
    let mut differences = Vec::new();
    for side in [&histogram.positive_buckets, &histogram.negative_buckets] {
        let mut before = 0;
        for &bucket in side {
            differences.push(bucket as i64 - before);
            before = bucket as i64;
        }
    }
    differences
}
