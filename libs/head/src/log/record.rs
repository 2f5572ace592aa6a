//! Records of the log: the kinds that a head writes and reads.
//!
//! ```text
//! 1  series       be64 ref, uvarint labels, labels x (name, value)          repeated
//! 2  floats       be64 ref0, be64 t0, then varint ref - ref0, varint t - t0, be64 value          repeated
//! 3  deletions    be64 ref, varint min, varint max          repeated
//! 7 to 10         histograms: integer, float, and both with custom bounds; as 2 with a histogram in place of the value
//! 11              floats with starts          12, 13  histograms with starts, integer and float
//!                 first: varint ref, varint t, varint start, value
//!                 later: varint ref - that before, varint t - first t, start, value
//!                 start: byte 0 unknown, 1 as before, otherwise and varint start - first start
//! 200             late samples: one of the kinds 2 and 7 to 13
//! ```
//!
//! Late samples are out of order. The head has them from their own log; here they are for those that follow the log, and Prometheus
//! ignores the kind.
//!
//! Exemplars (4) and metadata (6): [`exemplar`](crate::log::exemplar). Marks (5): [`marker`](crate::log::marker).
//!
//! Specified by `tsdb/record/record.go` of
//! Prometheus 3.14.

use std::sync::Arc;

use model::{FloatHistogram, Labels};
use tsdb::{ByteCursor, put_varint};

use crate::log::exemplar::{
    EXEMPLARS, LoggedExemplar, LoggedMetadata, METADATA, parse_exemplars, parse_metadata,
};
use crate::log::histogram;
use crate::log::labels::{parse_labels, put_labels};
use crate::log::marker::{LoggedMarker, MARKERS, parse_markers};

/// A series and the number that stands for it in later records.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoggedSeries {
    pub(crate) reference: u64,
    pub(crate) labels: Labels,
}

/// A sample. Times are in milliseconds since the epoch; a start of 0 is unknown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoggedSample<V> {
    pub(crate) reference: u64,
    pub(crate) time: i64,
    pub(crate) start: i64,
    pub(crate) value: V,
}

/// A histogram, and whether its counts are integers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoggedHistogram {
    pub(crate) integer: bool,
    pub(crate) histogram: Arc<FloatHistogram>,
}

/// A time range of a series that was deleted, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LoggedDeletion {
    pub(crate) reference: u64,
    pub(crate) min: i64,
    pub(crate) max: i64,
}

/// A record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Series(Vec<LoggedSeries>),
    Floats(Vec<LoggedSample<f64>>),
    Histograms(Vec<LoggedSample<LoggedHistogram>>),
    Deletions(Vec<LoggedDeletion>),
    Exemplars(Vec<LoggedExemplar>),
    Metadata(Vec<LoggedMetadata>),
    Markers(Vec<LoggedMarker>),
    /// Samples that are out of order: a record of floats or histograms.
    Late(Box<Self>),
    /// A kind that is not read.
    Other(u8),
}

/// Why a record cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamagedRecord(pub(crate) u8);

const SERIES: u8 = 1;
const FLOATS: u8 = 2;
const DELETIONS: u8 = 3;
const INTEGER_HISTOGRAMS: u8 = 7;
const FLOAT_HISTOGRAMS: u8 = 8;
const INTEGER_CUSTOM: u8 = 9;
const FLOAT_CUSTOM: u8 = 10;
const FLOATS_WITH_STARTS: u8 = 11;
const INTEGER_WITH_STARTS: u8 = 12;
const FLOAT_WITH_STARTS: u8 = 13;
const LATE: u8 = 200;

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    /// When bytes are missing or invalid; the kind.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DamagedRecord> {
        let Some((&kind, rest)) = bytes.split_first() else { return Err(DamagedRecord(0)) };
        let mut cursor = ByteCursor::new(rest);
        let read = |cursor: &mut ByteCursor<'_>, integer| {
            Some(LoggedHistogram { integer, histogram: Arc::new(histogram::parse(cursor, integer)?) })
        };
        let record = match kind {
            SERIES => parse_series(&mut cursor).map(Self::Series),
            FLOATS => parse_samples(&mut cursor, parse_float).map(Self::Floats),
            FLOATS_WITH_STARTS => parse_started(&mut cursor, parse_float).map(Self::Floats),
            DELETIONS => parse_deletions(&mut cursor).map(Self::Deletions),
            EXEMPLARS => parse_exemplars(&mut cursor).map(Self::Exemplars),
            METADATA => parse_metadata(&mut cursor).map(Self::Metadata),
            MARKERS => parse_markers(&mut cursor).map(Self::Markers),
            LATE => parse_late(rest),
            INTEGER_HISTOGRAMS | INTEGER_CUSTOM => {
                parse_samples(&mut cursor, |cursor| read(cursor, true)).map(Self::Histograms)
            }
            FLOAT_HISTOGRAMS | FLOAT_CUSTOM => {
                parse_samples(&mut cursor, |cursor| read(cursor, false)).map(Self::Histograms)
            }
            INTEGER_WITH_STARTS => {
                parse_started(&mut cursor, |cursor| read(cursor, true)).map(Self::Histograms)
            }
            FLOAT_WITH_STARTS => {
                parse_started(&mut cursor, |cursor| read(cursor, false)).map(Self::Histograms)
            }
            kind => Some(Self::Other(kind)),
        };
        record.ok_or(DamagedRecord(kind))
    }
}

/// The record of these series.
pub(crate) fn series_record<'a>(series: impl IntoIterator<Item = (u64, &'a Labels)>) -> Vec<u8> {
    let mut out = vec![SERIES];
    for (reference, labels) in series {
        out.extend_from_slice(&reference.to_be_bytes());
        put_labels(&mut out, labels);
    }
    out
}

/// The record of these floats, which are not empty.
pub(crate) fn float_record(samples: &[LoggedSample<f64>]) -> Vec<u8> {
    let has_starts = samples.iter().any(|sample| sample.start != 0);
    let value = |out: &mut Vec<u8>, value: &f64| out.extend_from_slice(&value.to_bits().to_be_bytes());
    match has_starts {
        false => samples_record(FLOATS, samples, value),
        true => started_record(FLOATS_WITH_STARTS, samples, value),
    }
}

/// The records of these histograms: one for each kind.
pub(crate) fn histogram_records(samples: &[LoggedSample<LoggedHistogram>]) -> Vec<Vec<u8>> {
    let kind = |sample: &LoggedSample<LoggedHistogram>| match (
        sample.value.integer,
        sample.value.histogram.uses_custom_buckets(),
        sample.start != 0,
    ) {
        (true, _, true) => INTEGER_WITH_STARTS,
        (false, _, true) => FLOAT_WITH_STARTS,
        (true, true, _) => INTEGER_CUSTOM,
        (true, false, _) => INTEGER_HISTOGRAMS,
        (false, true, _) => FLOAT_CUSTOM,
        (false, false, _) => FLOAT_HISTOGRAMS,
    };
    let value =
        |out: &mut Vec<u8>, value: &LoggedHistogram| histogram::put(out, &value.histogram, value.integer);
    let mut records = Vec::new();
    for wanted in INTEGER_HISTOGRAMS..=FLOAT_WITH_STARTS {
        let of_kind: Vec<_> = samples.iter().filter(|sample| kind(sample) == wanted).cloned().collect();
        if of_kind.is_empty() {
            continue;
        }
        records.push(match wanted {
            INTEGER_WITH_STARTS | FLOAT_WITH_STARTS => started_record(wanted, &of_kind, value),
            _ => samples_record(wanted, &of_kind, value),
        });
    }
    records
}

/// The record of samples that are out of order, of a record of samples.
pub(crate) fn late_record(samples: &[u8]) -> Vec<u8> {
    [&[LATE], samples].concat()
}

/// The record of these deletions.
pub(crate) fn deletion_record(deletions: &[LoggedDeletion]) -> Vec<u8> {
    let mut out = vec![DELETIONS];
    for deletion in deletions {
        out.extend_from_slice(&deletion.reference.to_be_bytes());
        put_varint(&mut out, deletion.min);
        put_varint(&mut out, deletion.max);
    }
    out
}

fn samples_record<V>(kind: u8, samples: &[LoggedSample<V>], put_value: impl Fn(&mut Vec<u8>, &V)) -> Vec<u8> {
    let mut out = Vec::with_capacity(17 + samples.len() * 14);
    out.push(kind);
    let Some(first) = samples.first() else { return out };
    out.extend_from_slice(&first.reference.to_be_bytes());
    out.extend_from_slice(&first.time.to_be_bytes());
    for sample in samples {
        put_varint(&mut out, sample.reference.wrapping_sub(first.reference) as i64);
        put_varint(&mut out, sample.time.wrapping_sub(first.time));
        put_value(&mut out, &sample.value);
    }
    out
}

fn started_record<V>(kind: u8, samples: &[LoggedSample<V>], put_value: impl Fn(&mut Vec<u8>, &V)) -> Vec<u8> {
    let mut out = vec![kind];
    let Some(first) = samples.first() else { return out };
    put_varint(&mut out, first.reference as i64);
    put_varint(&mut out, first.time);
    put_varint(&mut out, first.start);
    put_value(&mut out, &first.value);
    for pair in samples.windows(2) {
        let (before, sample) = (&pair[0], &pair[1]);
        put_varint(&mut out, sample.reference.wrapping_sub(before.reference) as i64);
        put_varint(&mut out, sample.time.wrapping_sub(first.time));
        match sample.start {
            0 => out.push(0),
            start if start == before.start => out.push(1),
            start => {
                out.push(2);
                put_varint(&mut out, start.wrapping_sub(first.start));
            }
        }
        put_value(&mut out, &sample.value);
    }
    out
}

fn parse_series(cursor: &mut ByteCursor<'_>) -> Option<Vec<LoggedSeries>> {
    let mut out = Vec::new();
    while !cursor.is_empty() {
        let reference = cursor.be64()?;
        out.push(LoggedSeries { reference, labels: parse_labels(cursor)? });
    }
    Some(out)
}

fn parse_late(bytes: &[u8]) -> Option<Record> {
    if bytes.first() == Some(&LATE) {
        return None;
    }
    match Record::parse(bytes) {
        Ok(samples @ (Record::Floats(_) | Record::Histograms(_))) => Some(Record::Late(Box::new(samples))),
        _ => None,
    }
}

fn parse_deletions(cursor: &mut ByteCursor<'_>) -> Option<Vec<LoggedDeletion>> {
    let mut out = Vec::new();
    while !cursor.is_empty() {
        out.push(LoggedDeletion { reference: cursor.be64()?, min: cursor.varint()?, max: cursor.varint()? });
    }
    Some(out)
}

fn parse_float(cursor: &mut ByteCursor<'_>) -> Option<f64> {
    cursor.be64().map(f64::from_bits)
}

fn parse_samples<V>(
    cursor: &mut ByteCursor<'_>,
    mut parse_value: impl FnMut(&mut ByteCursor<'_>) -> Option<V>,
) -> Option<Vec<LoggedSample<V>>> {
    if cursor.is_empty() {
        return Some(Vec::new());
    }
    let (reference, time) = (cursor.be64()?, cursor.be64()? as i64);
    // A float takes at least ten bytes.
    let mut out = Vec::with_capacity(cursor.left() / 10);
    while !cursor.is_empty() {
        out.push(LoggedSample {
            reference: reference.wrapping_add(cursor.varint()? as u64),
            time: time.wrapping_add(cursor.varint()?),
            start: 0,
            value: parse_value(cursor)?,
        });
    }
    Some(out)
}

fn parse_started<V>(
    cursor: &mut ByteCursor<'_>,
    mut parse_value: impl FnMut(&mut ByteCursor<'_>) -> Option<V>,
) -> Option<Vec<LoggedSample<V>>> {
    let mut out: Vec<LoggedSample<V>> = Vec::new();
    while !cursor.is_empty() {
        let reference = cursor.varint()?;
        let time = cursor.varint()?;
        let sample = match (out.first(), out.last()) {
            (Some(first), Some(before)) => {
                let start = match cursor.take(1)?[0] {
                    0 => 0,
                    1 => before.start,
                    _ => first.start.wrapping_add(cursor.varint()?),
                };
                LoggedSample {
                    reference: before.reference.wrapping_add(reference as u64),
                    time: first.time.wrapping_add(time),
                    start,
                    value: parse_value(cursor)?,
                }
            }
            _ => LoggedSample {
                reference: reference as u64,
                time,
                start: cursor.varint()?,
                value: parse_value(cursor)?,
            },
        };
        out.push(sample);
    }
    Some(out)
}

#[cfg(test)]
mod tests;
