//! Native histograms in records of the log.
//!
//! ```text
//! byte reset hint, varint schema, be64 zero threshold, zero count, count, be64 sum,
//! spans, spans of negative buckets, buckets, negative buckets, [bounds if the schema is -53]
//!
//! spans      uvarint n, n x (varint offset, uvarint length)
//! counts     integer: uvarint; float: be64
//! buckets    uvarint n; integer: n x varint, each the difference to the one before; float: n x be64
//! bounds     uvarint n, n x be64
//! ```

use model::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram};
use tsdb::{ByteCursor, put_uvarint, put_varint};

/// Appends a histogram. With `integer`, its counts must be whole numbers.
pub(crate) fn put(out: &mut Vec<u8>, histogram: &FloatHistogram, integer: bool) {
    out.push(match histogram.counter_reset_hint {
        CounterResetHint::Unknown => 0,
        CounterResetHint::Reset => 1,
        CounterResetHint::NotReset => 2,
        CounterResetHint::Gauge => 3,
    });
    put_varint(out, i64::from(histogram.schema));
    put_float(out, histogram.zero_threshold);
    for count in [histogram.zero_count, histogram.count] {
        if integer { put_uvarint(out, count as u64) } else { put_float(out, count) }
    }
    put_float(out, histogram.sum);
    for spans in [&histogram.positive_spans, &histogram.negative_spans] {
        put_uvarint(out, spans.len() as u64);
        for span in spans {
            put_varint(out, i64::from(span.offset));
            put_uvarint(out, u64::from(span.length));
        }
    }
    for buckets in [&histogram.positive_buckets, &histogram.negative_buckets] {
        put_uvarint(out, buckets.len() as u64);
        let mut before = 0;
        for &bucket in buckets {
            if integer {
                put_varint(out, (bucket as i64).wrapping_sub(before));
                before = bucket as i64;
            } else {
                put_float(out, bucket);
            }
        }
    }
    if histogram.schema == CUSTOM_BUCKETS_SCHEMA {
        put_uvarint(out, histogram.custom_values.len() as u64);
        histogram.custom_values.iter().for_each(|bound| put_float(out, *bound));
    }
}

/// Reads a histogram; none when bytes are missing or invalid.
pub(crate) fn parse(cursor: &mut ByteCursor<'_>, integer: bool) -> Option<FloatHistogram> {
    let counter_reset_hint = match cursor.take(1)?[0] {
        0 => CounterResetHint::Unknown,
        1 => CounterResetHint::Reset,
        2 => CounterResetHint::NotReset,
        3 => CounterResetHint::Gauge,
        _ => return None,
    };
    let schema = i32::try_from(cursor.varint()?).ok()?;
    let zero_threshold = parse_float(cursor)?;
    let mut count = || if integer { cursor.uvarint().map(|count| count as f64) } else { parse_float(cursor) };
    let (zero_count, count) = (count()?, count()?);
    let sum = parse_float(cursor)?;
    let (positive_spans, negative_spans) = (parse_spans(cursor)?, parse_spans(cursor)?);
    let positive_buckets = parse_buckets(cursor, integer)?;
    let negative_buckets = parse_buckets(cursor, integer)?;
    let mut bounds = Vec::new();
    if schema == CUSTOM_BUCKETS_SCHEMA {
        let length = length(cursor, 8)?;
        bounds.reserve(length);
        for _ in 0..length {
            bounds.push(parse_float(cursor)?);
        }
    }
    Some(FloatHistogram {
        counter_reset_hint,
        schema,
        zero_threshold,
        zero_count,
        count,
        sum,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        custom_values: bounds,
    })
}

fn put_float(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_bits().to_be_bytes());
}

fn parse_float(cursor: &mut ByteCursor<'_>) -> Option<f64> {
    cursor.be64().map(f64::from_bits)
}

/// The length of a list whose entries take at least this many bytes.
fn length(cursor: &mut ByteCursor<'_>, bytes: usize) -> Option<usize> {
    usize::try_from(cursor.uvarint()?).ok().filter(|length| *length <= cursor.left() / bytes)
}

fn parse_spans(cursor: &mut ByteCursor<'_>) -> Option<Vec<BucketSpan>> {
    let length = length(cursor, 2)?;
    let span = |_| {
        let offset = i32::try_from(cursor.varint()?).ok()?;
        Some(BucketSpan { offset, length: u32::try_from(cursor.uvarint()?).ok()? })
    };
    (0..length).map(span).collect()
}

fn parse_buckets(cursor: &mut ByteCursor<'_>, integer: bool) -> Option<Vec<f64>> {
    let length = length(cursor, if integer { 1 } else { 8 })?;
    let mut before = 0i64;
    let bucket = |_| {
        if integer {
            before = before.wrapping_add(cursor.varint()?);
            return Some(before as f64);
        }
        parse_float(cursor)
    };
    (0..length).map(bucket).collect()
}
