//! Decodes histogram chunks.

use std::sync::Arc;

use model::{BucketSpan, CounterResetHint, FloatHistogram, MAX_EXPONENTIAL_SCHEMA, is_stale_nan};

use crate::Encoding;
use crate::bits::BitReader;
use crate::chunk::UNKNOWN_START;
use crate::error::{ChunkError, ChunkProblem};
use crate::histogram::layout::Layout;
use crate::histogram::{GAUGE, HEADER_BYTES};
use crate::starts::StartReader;
use crate::varbit::{read_signed, read_unsigned};
use crate::xor::{XorWindow, read_xor};

/// The list that decoded histograms are appended to: times in milliseconds.
type DecodedHistograms = Vec<(i64, Arc<FloatHistogram>)>;

/// Appends the samples of a chunk of histograms to `out`, and their start timestamps to `starts` where the chunk has any;
/// `starts` is filled up to `out` before.
pub(crate) fn decode(
    encoding: Encoding,
    data: &[u8],
    out: &mut DecodedHistograms,
    starts: Option<&mut Vec<i64>>,
) -> Result<(), ChunkError> {
    let mut starts = starts;
    let old = (out.len(), starts.as_ref().map_or(0, |starts| starts.len()));
    let mut reader = BitReader::new(data, HEADER_BYTES);
    let decode = match encoding {
        Encoding::Histogram | Encoding::HistogramSt => decode_from::<IntegerReader>,
        _ => decode_from::<FloatReader>,
    };
    decode(&mut reader, encoding, data, out, starts.as_deref_mut()).map_err(|problem| {
        out.truncate(old.0);
        starts.into_iter().for_each(|starts| starts.truncate(old.1));
        ChunkError { encoding, size_bytes: data.len(), offset: reader.offset(), problem }
    })
}

/// Memory of the decoded samples in bytes, estimated from what is before the first sample.
pub(crate) fn decoded_bytes(encoding: Encoding, data: &[u8]) -> usize {
    let mut reader = BitReader::new(data, HEADER_BYTES);
    let (Some(samples), Ok(layout)) = (crate::chunk::sample_count(encoding, data), Layout::read(&mut reader))
    else {
        return 0;
    };
    let (positive, negative) = layout.buckets();
    let spans = layout.positive_spans.len() + layout.negative_spans.len();
    let each = size_of::<(i64, Arc<FloatHistogram>)>()
        + size_of::<FloatHistogram>()
        + spans * size_of::<BucketSpan>()
        + layout.custom_values.len() * size_of::<f64>();
    // A sample takes at least four bits, and each of its buckets one.
    let samples = samples.min(reader.left() / 4);
    let buckets = samples.saturating_mul(positive + negative).min(reader.left());
    samples.saturating_mul(each).saturating_add(buckets.saturating_mul(size_of::<f64>()))
}

/// Time of the first sample in milliseconds; none without samples. Reads only what is before the first sample.
pub(crate) fn first_timestamp(encoding: Encoding, data: &[u8]) -> Option<i64> {
    crate::chunk::sample_count(encoding, data).filter(|samples| *samples > 0)?;
    let mut reader = BitReader::new(data, HEADER_BYTES);
    Layout::read(&mut reader).ok()?;
    let t = read_signed(&mut reader);
    (!reader.is_overrun()).then_some(t)
}

/// The numbers of the histogram that was read last, in the form that the next one is decoded with.
pub(super) trait NumbersReader: Sized {
    /// Reads the numbers of the first sample.
    fn first(reader: &mut BitReader<'_>, positive: usize, negative: usize) -> Self;
    /// Reads count, zero count and sum of the next sample.
    fn next_totals(&mut self, reader: &mut BitReader<'_>) -> Result<(), ChunkProblem>;
    /// Reads the buckets of the next sample.
    fn next_buckets(&mut self, reader: &mut BitReader<'_>) -> Result<(), ChunkProblem>;
    /// Reads the next sample. A staleness marker has no buckets.
    fn next(&mut self, reader: &mut BitReader<'_>) -> Result<(), ChunkProblem> {
        self.next_totals(reader)?;
        if is_stale_nan(self.totals().2) { Ok(()) } else { self.next_buckets(reader) }
    }
    /// Count, zero count and sum.
    fn totals(&self) -> (f64, f64, f64);
    /// Absolute counts of the positive and of the negative buckets.
    fn buckets(&self) -> (Vec<f64>, Vec<f64>);
}

fn decode_from<N: NumbersReader>(
    reader: &mut BitReader<'_>,
    encoding: Encoding,
    data: &[u8],
    out: &mut DecodedHistograms,
    mut starts: Option<&mut Vec<i64>>,
) -> Result<(), ChunkProblem> {
    let (Some(samples), Some(&[first, _, third])) =
        (crate::chunk::sample_count(encoding, data), data.first_chunk::<HEADER_BYTES>())
    else {
        return Err(ChunkProblem::Header);
    };
    if samples == 0 {
        return Ok(());
    }
    let (counter, mut start_reader) = if encoding.may_hold_starts() {
        (first, StartReader::new(third))
    } else {
        (third, StartReader::new(0))
    };
    // Four bits are the least that a sample takes.
    if reader.left() < samples * 4 {
        return Err(ChunkProblem::Truncated { samples });
    }
    starts = starts.filter(|_| start_reader.has_any());
    if let Some(starts) = &mut starts {
        starts.resize(out.len(), UNKNOWN_START);
    }
    let layout = Layout::read(reader)?;
    let (positive, negative) = layout.buckets();
    let (mut t, mut delta) = (read_signed(reader), 0i64);
    let mut numbers = N::first(reader, positive, negative);
    let gauge = counter & GAUGE == GAUGE;
    out.reserve(samples);
    for index in 0..samples {
        let start = if index == 0 {
            start_reader.first(reader, t)?
        } else {
            delta = delta.wrapping_add(read_signed(reader));
            let before = t;
            t = t.wrapping_add(delta);
            numbers.next(reader)?;
            start_reader.next(reader, index, before)
        };
        // The number of reads between two of these checks is bounded by the layout, which is bounded by the chunk.
        if reader.is_overrun() {
            return Err(ChunkProblem::Truncated { samples });
        }
        let hint = match (gauge, index) {
            (true, _) => CounterResetHint::Gauge,
            // The header compares this chunk with the one before it, which may be missing here, so it is not used.
            (false, 0) => CounterResetHint::Unknown,
            (false, _) => CounterResetHint::NotReset,
        };
        out.push((t, Arc::new(histogram(&layout, &numbers, hint))));
        if let Some(starts) = &mut starts {
            starts.push(start);
        }
    }
    Ok(())
}

fn histogram<N: NumbersReader>(
    layout: &Layout,
    numbers: &N,
    counter_reset_hint: CounterResetHint,
) -> FloatHistogram {
    let (count, zero_count, sum) = numbers.totals();
    if is_stale_nan(sum) {
        return FloatHistogram::stale();
    }
    let (positive_buckets, negative_buckets) = numbers.buckets();
    let as_stored = FloatHistogram {
        counter_reset_hint,
        schema: layout.schema,
        zero_threshold: layout.zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans: layout.positive_spans.clone(),
        negative_spans: layout.negative_spans.clone(),
        positive_buckets,
        negative_buckets,
        custom_values: layout.custom_values.clone(),
    };
    if layout.schema > MAX_EXPONENTIAL_SCHEMA {
        // Finer resolutions are reserved for future writers; Prometheus reads them the same way.
        return FloatHistogram { counter_reset_hint, ..as_stored.to_schema(MAX_EXPONENTIAL_SCHEMA) };
    }
    as_stored
}

/// A float that is stored as XOR with the one before it.
#[derive(Clone, Copy)]
struct XorFloatReader {
    bits: u64,
    window: XorWindow,
}

impl XorFloatReader {
    fn first(reader: &mut BitReader<'_>) -> Self {
        Self { bits: reader.read(64), window: XorWindow::WHOLE }
    }

    fn next(&mut self, reader: &mut BitReader<'_>) -> Result<(), ChunkProblem> {
        self.bits ^= read_xor(reader, &mut self.window)?;
        Ok(())
    }

    fn value(&self) -> f64 {
        f64::from_bits(self.bits)
    }
}

/// An integer that is stored as delta of delta.
#[derive(Clone, Copy)]
struct DodIntegerReader {
    value: i64,
    delta: i64,
}

impl DodIntegerReader {
    fn first(value: i64) -> Self {
        Self { value, delta: 0 }
    }

    fn next(&mut self, reader: &mut BitReader<'_>) {
        self.delta = self.delta.wrapping_add(read_signed(reader));
        self.value = self.value.wrapping_add(self.delta);
    }
}

/// Integer histograms: buckets are differences to the bucket before.
pub(super) struct IntegerReader {
    /// Count and zero count, unsigned.
    counts: [DodIntegerReader; 2],
    sum: XorFloatReader,
    positive: Vec<DodIntegerReader>,
    negative: Vec<DodIntegerReader>,
}

impl NumbersReader for IntegerReader {
    fn first(reader: &mut BitReader<'_>, positive: usize, negative: usize) -> Self {
        let counts = [(); 2].map(|()| DodIntegerReader::first(read_unsigned(reader) as i64));
        let sum = XorFloatReader::first(reader);
        let mut buckets = |count| (0..count).map(|_| DodIntegerReader::first(read_signed(reader))).collect();
        Self { counts, sum, positive: buckets(positive), negative: buckets(negative) }
    }

    fn next_totals(&mut self, reader: &mut BitReader<'_>) -> Result<(), ChunkProblem> {
        self.counts.iter_mut().for_each(|count| count.next(reader));
        self.sum.next(reader)
    }

    fn next_buckets(&mut self, reader: &mut BitReader<'_>) -> Result<(), ChunkProblem> {
        self.positive.iter_mut().chain(&mut self.negative).for_each(|bucket| bucket.next(reader));
        Ok(())
    }

    fn totals(&self) -> (f64, f64, f64) {
        let [count, zero_count] = self.counts.map(|count| count.value as u64 as f64);
        (count, zero_count, self.sum.value())
    }

    fn buckets(&self) -> (Vec<f64>, Vec<f64>) {
        let absolute = |buckets: &[DodIntegerReader]| {
            let mut count = 0i64;
            let running = buckets.iter().map(|bucket| {
                count = count.wrapping_add(bucket.value);
                count as f64
            });
            // The length of the iterator is known, so no more than that is allocated.
            running.collect()
        };
        (absolute(&self.positive), absolute(&self.negative))
    }
}

/// Float histograms: buckets are absolute.
pub(super) struct FloatReader {
    count: XorFloatReader,
    zero_count: XorFloatReader,
    sum: XorFloatReader,
    positive: Vec<XorFloatReader>,
    negative: Vec<XorFloatReader>,
}

impl NumbersReader for FloatReader {
    fn first(reader: &mut BitReader<'_>, positive: usize, negative: usize) -> Self {
        let [count, zero_count, sum] = [(); 3].map(|()| XorFloatReader::first(reader));
        let mut buckets = |count| (0..count).map(|_| XorFloatReader::first(reader)).collect();
        Self { count, zero_count, sum, positive: buckets(positive), negative: buckets(negative) }
    }

    fn next_totals(&mut self, reader: &mut BitReader<'_>) -> Result<(), ChunkProblem> {
        self.count.next(reader)?;
        self.zero_count.next(reader)?;
        self.sum.next(reader)
    }

    fn next_buckets(&mut self, reader: &mut BitReader<'_>) -> Result<(), ChunkProblem> {
        self.positive.iter_mut().chain(&mut self.negative).try_for_each(|bucket| bucket.next(reader))
    }

    fn totals(&self) -> (f64, f64, f64) {
        (self.count.value(), self.zero_count.value(), self.sum.value())
    }

    fn buckets(&self) -> (Vec<f64>, Vec<f64>) {
        let values = |buckets: &[XorFloatReader]| buckets.iter().map(XorFloatReader::value).collect();
        (values(&self.positive), values(&self.negative))
    }
}
