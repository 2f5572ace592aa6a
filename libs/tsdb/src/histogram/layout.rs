//! The layout that all histograms of a chunk share.

use model::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram};

use crate::bits::{BitReader, BitWriter};
use crate::error::ChunkProblem;
use crate::varbit;

/// The exponential schemas. Those above 8 are reserved for finer resolutions.
const KNOWN_SCHEMAS: std::ops::RangeInclusive<i64> = -9..=52;

/// Largest multiple of 0.001 that a custom bound stores as an integer.
const MAX_MILLI_BOUND: f64 = 33_554_430.0;

/// Schema, bounds and spans: the layout that all histograms of a chunk share.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) positive_spans: Vec<BucketSpan>,
    pub(super) negative_spans: Vec<BucketSpan>,
    pub(super) custom_values: Vec<f64>,
}

impl Layout {
    /// The layout of `histogram`.
    pub(super) fn of(histogram: &FloatHistogram) -> Self {
        Self {
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            positive_spans: histogram.positive_spans.clone(),
            negative_spans: histogram.negative_spans.clone(),
            custom_values: histogram.custom_values.clone(),
        }
    }

    /// Number of positive and of negative buckets.
    pub(super) fn buckets(&self) -> (usize, usize) {
        let count = |spans: &[BucketSpan]| spans.iter().map(|s| s.length as usize).sum();
        (count(&self.positive_spans), count(&self.negative_spans))
    }

    /// Reads a layout. Allocates at most a small multiple of the rest of the chunk: each bucket takes at least one bit in the
    /// first sample.
    pub(super) fn read(reader: &mut BitReader<'_>) -> Result<Self, ChunkProblem> {
        let zero_threshold = read_zero_threshold(reader);
        let schema = varbit::read_signed(reader);
        let custom = schema == i64::from(CUSTOM_BUCKETS_SCHEMA);
        if !custom && !KNOWN_SCHEMAS.contains(&schema) {
            return Err(ChunkProblem::Schema(schema));
        }
        let positive_spans = read_spans(reader)?;
        let negative_spans = read_spans(reader)?;
        let custom_values = if custom { read_bounds(reader)? } else { Vec::new() };
        let layout =
            Self { schema: schema as i32, zero_threshold, positive_spans, negative_spans, custom_values };
        let (positive, negative) = layout.buckets();
        if positive.saturating_add(negative) > reader.left() {
            return Err(ChunkProblem::Spans);
        }
        Ok(layout)
    }

    /// Writes the layout.
    pub(super) fn write(&self, writer: &mut BitWriter) {
        write_zero_threshold(writer, self.zero_threshold);
        varbit::write_signed(writer, i64::from(self.schema));
        for spans in [&self.positive_spans, &self.negative_spans] {
            varbit::write_unsigned(writer, spans.len() as u64);
            for span in spans {
                varbit::write_unsigned(writer, u64::from(span.length));
                varbit::write_signed(writer, i64::from(span.offset));
            }
        }
        if self.schema == CUSTOM_BUCKETS_SCHEMA {
            varbit::write_unsigned(writer, self.custom_values.len() as u64);
            self.custom_values.iter().for_each(|&bound| write_bound(writer, bound));
        }
    }
}

fn read_zero_threshold(reader: &mut BitReader<'_>) -> f64 {
    match reader.read(8) {
        0 => 0.0,
        255 => f64::from_bits(reader.read(64)),
        // 0.5 * 2^(byte - 243); all of these are normal numbers.
        byte => f64::from_bits((byte + 1023 - 244) << 52),
    }
}

fn write_zero_threshold(writer: &mut BitWriter, threshold: f64) {
    let bits = threshold.to_bits();
    let (power_of_two, exponent) = (bits << 12 == 0, bits >> 52);
    if bits == 0 {
        writer.write(0, 8);
    } else if power_of_two && (1..=254).contains(&(exponent as i64 + 244 - 1023)) {
        writer.write(exponent + 244 - 1023, 8);
    } else {
        writer.write(255, 8);
        writer.write(bits, 64);
    }
}

fn read_spans(reader: &mut BitReader<'_>) -> Result<Vec<BucketSpan>, ChunkProblem> {
    let count = varbit::read_unsigned(reader);
    // A span takes at least two bits.
    if count > reader.left() as u64 / 2 {
        return Err(ChunkProblem::Spans);
    }
    let span = |_| {
        let length = u32::try_from(varbit::read_unsigned(reader));
        let offset = i32::try_from(varbit::read_signed(reader));
        match (length, offset) {
            (Ok(length), Ok(offset)) => Ok(BucketSpan { offset, length }),
            _ => Err(ChunkProblem::Spans),
        }
    };
    (0..count).map(span).collect()
}

fn read_bounds(reader: &mut BitReader<'_>) -> Result<Vec<f64>, ChunkProblem> {
    let count = varbit::read_unsigned(reader);
    // A bound takes at least five bits.
    if count > reader.left() as u64 / 5 {
        return Err(ChunkProblem::Spans);
    }
    let bound = |_| match varbit::read_unsigned(reader) {
        0 => f64::from_bits(reader.read(64)),
        thousandths => (thousandths - 1) as f64 / 1000.0,
    };
    Ok((0..count).map(bound).collect())
}

fn write_bound(writer: &mut BitWriter, bound: f64) {
    let thousandths = (bound * 1000.0).round();
    if (0.0..=MAX_MILLI_BOUND).contains(&thousandths) && (thousandths / 1000.0).to_bits() == bound.to_bits() {
        varbit::write_unsigned(writer, thousandths as u64 + 1);
    } else {
        writer.write(0, 1);
        writer.write(bound.to_bits(), 64);
    }
}
