//! Exemplars and metadata in records of the log.
//!
//! ```text
//! 4  exemplars    be64 ref0, be64 t0, then varint ref - ref0, varint t - t0, be64 value, labels          repeated
//! 6  metadata     uvarint ref, byte type, uvarint fields, fields x (key, value)          repeated
//!                 type: 0 unknown, 1 counter, 2 gauge, 3 histogram, 4 gauge histogram, 5 summary, 6 info, 7 state set
//!                 keys: UNIT, HELP; others are ignored
//! ```

use model::{Labels, MetricKind, Timestamp};
use tsdb::{ByteCursor, put_bytes, put_uvarint, put_varint};

use crate::exemplars::Exemplar;
use crate::log::labels::{parse_labels, put_labels};
use crate::metadata::Metadata;

/// The kind of records of exemplars.
pub(crate) const EXEMPLARS: u8 = 4;

/// The kind of records of metadata.
pub(crate) const METADATA: u8 = 6;

/// An exemplar and the number of its series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoggedExemplar {
    pub(crate) reference: u64,
    pub(crate) exemplar: Exemplar,
}

/// The metadata of a series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoggedMetadata {
    pub(crate) reference: u64,
    pub(crate) metadata: Metadata,
}

const KINDS: [MetricKind; 8] = [
    MetricKind::Unknown,
    MetricKind::Counter,
    MetricKind::Gauge,
    MetricKind::Histogram,
    MetricKind::GaugeHistogram,
    MetricKind::Summary,
    MetricKind::Info,
    MetricKind::StateSet,
];
const UNIT: &[u8] = b"UNIT";
const HELP: &[u8] = b"HELP";

/// The record of these exemplars, which are not empty.
pub(crate) fn exemplar_record<'a>(exemplars: impl IntoIterator<Item = (u64, &'a Exemplar)>) -> Vec<u8> {
    let mut out = vec![EXEMPLARS];
    let mut base: Option<(u64, i64)> = None;
    for (reference, exemplar) in exemplars {
        let time = exemplar.time.as_millis();
        let (first, first_time) = *base.get_or_insert_with(|| {
            out.extend_from_slice(&reference.to_be_bytes());
            out.extend_from_slice(&time.to_be_bytes());
            (reference, time)
        });
        put_varint(&mut out, reference.wrapping_sub(first) as i64);
        put_varint(&mut out, time.wrapping_sub(first_time));
        out.extend_from_slice(&exemplar.value.to_bits().to_be_bytes());
        put_labels(&mut out, &exemplar.labels);
    }
    out
}

/// The record of the metadata of these series.
pub(crate) fn metadata_record<'a>(metadata: impl IntoIterator<Item = (u64, &'a Metadata)>) -> Vec<u8> {
    let mut out = vec![METADATA];
    for (reference, metadata) in metadata {
        put_uvarint(&mut out, reference);
        let kind = KINDS.iter().position(|kind| *kind == metadata.kind).unwrap_or(0);
        out.push(kind as u8);
        put_uvarint(&mut out, 2);
        for (key, value) in [(UNIT, &metadata.unit), (HELP, &metadata.help)] {
            put_bytes(&mut out, key);
            put_bytes(&mut out, value.as_bytes());
        }
    }
    out
}

pub(crate) fn parse_exemplars(cursor: &mut ByteCursor<'_>) -> Option<Vec<LoggedExemplar>> {
    let mut out = Vec::new();
    if cursor.is_empty() {
        return Some(out);
    }
    let (reference, time) = (cursor.be64()?, cursor.be64()? as i64);
    while !cursor.is_empty() {
        let reference = reference.wrapping_add(cursor.varint()? as u64);
        let time = Timestamp::from_millis(time.wrapping_add(cursor.varint()?));
        let value = f64::from_bits(cursor.be64()?);
        let labels: Labels = parse_labels(cursor)?;
        out.push(LoggedExemplar {
            reference,
            exemplar: Exemplar { labels, value, time, has_own_time: false },
        });
    }
    Some(out)
}

pub(crate) fn parse_metadata(cursor: &mut ByteCursor<'_>) -> Option<Vec<LoggedMetadata>> {
    let mut out = Vec::new();
    while !cursor.is_empty() {
        let reference = cursor.uvarint()?;
        // A type of a later version is not known.
        let kind = KINDS.get(usize::from(cursor.take(1)?[0])).copied().unwrap_or_default();
        let mut metadata = Metadata { kind, ..Metadata::default() };
        for _ in 0..cursor.uvarint()? {
            let (key, value) = (cursor.bytes()?, cursor.bytes()?);
            let value = || std::str::from_utf8(value).ok().map(Box::from);
            match key {
                UNIT => metadata.unit = value()?,
                HELP => metadata.help = value()?,
                _ => {}
            }
        }
        out.push(LoggedMetadata { reference, metadata });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::Record;

    #[test]
    fn exemplars_and_metadata_come_back() {
        let exemplar = |time: i64, value: f64, pairs: &[(&str, &str)]| Exemplar {
            labels: Labels::from_pairs(pairs.iter().copied()).unwrap(),
            value,
            time: Timestamp::from_millis(time),
            has_own_time: false,
        };
        let exemplars = [
            (5, exemplar(1_000, 0.5, &[("trace_id", "ü")])),
            (2, exemplar(-7, -0.0, &[])),
            (u64::MAX, exemplar(i64::MAX, f64::INFINITY, &[("a", "1"), ("b", "2")])),
        ];
        let record = exemplar_record(exemplars.iter().map(|(reference, exemplar)| (*reference, exemplar)));
        let logged = exemplars.map(|(reference, exemplar)| LoggedExemplar { reference, exemplar });
        assert_eq!(Record::parse(&record), Ok(Record::Exemplars(logged.to_vec())));
        let all: Vec<(u64, Metadata)> = (0..8)
            .map(|n| {
                let metadata = Metadata {
                    kind: KINDS[n],
                    unit: ["", "seconds"][n % 2].into(),
                    help: "ü".repeat(n * 20).into(),
                };
                (u64::MAX >> (n * 8), metadata)
            })
            .collect();
        let record = metadata_record(all.iter().map(|(reference, metadata)| (*reference, metadata)));
        let logged = all.into_iter().map(|(reference, metadata)| LoggedMetadata { reference, metadata });
        assert_eq!(Record::parse(&record), Ok(Record::Metadata(logged.collect())));
    }

    /// Written by the encoder of Prometheus 3.9.
    #[test]
    fn records_of_prometheus_are_read_and_written() {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let metadata = Metadata { kind: MetricKind::Counter, unit: "bytes".into(), help: "Bytes.".into() };
        let expected = [(100, metadata), (128, Metadata::default())];
        let written =
            bytes("0664010204554e49540562797465730448454c500642797465732e8001000204554e4954000448454c5000");
        let refs = expected.iter().map(|(reference, metadata)| (*reference, metadata));
        assert_eq!(metadata_record(refs), written);
        let logged = expected.map(|(reference, metadata)| LoggedMetadata { reference, metadata });
        assert_eq!(Record::parse(&written), Ok(Record::Metadata(logged.to_vec())));
        // Fields of a later version are passed over.
        let mut later = [&written[..27], b"\x05LATER\x01x"].concat();
        later[3] = 3;
        assert_eq!(Record::parse(&later), Ok(Record::Metadata(logged[..1].to_vec())));
        let written = bytes(
            "04000000000000000500000000000003e800003fe0000000000000010874726163655f6964016105c701400000000000000002\
             0161013101620132",
        );
        let exemplar = |time: i64, value: f64, pairs: &[(&str, &str)]| Exemplar {
            labels: Labels::from_pairs(pairs.iter().copied()).unwrap(),
            value,
            time: Timestamp::from_millis(time),
            has_own_time: false,
        };
        let expected = [
            (5, exemplar(1_000, 0.5, &[("trace_id", "a")])),
            (2, exemplar(900, 2.0, &[("a", "1"), ("b", "2")])),
        ];
        assert_eq!(
            exemplar_record(expected.iter().map(|(reference, exemplar)| (*reference, exemplar))),
            written
        );
        let logged = expected.map(|(reference, exemplar)| LoggedExemplar { reference, exemplar });
        assert_eq!(Record::parse(&written), Ok(Record::Exemplars(logged.to_vec())));
    }
}
