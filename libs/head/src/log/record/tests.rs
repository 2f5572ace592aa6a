use model::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, MetricKind, Timestamp};
use tsdb::put_uvarint;

use super::*;
use crate::exemplars::Exemplar;
use crate::log::exemplar::{exemplar_record, metadata_record};
use crate::log::marker::marker_record;
use crate::metadata::Metadata;

fn sample<V>(reference: u64, time: i64, start: i64, value: V) -> LoggedSample<V> {
    LoggedSample { reference, time, start, value }
}

fn histogram(integer: bool, custom: bool) -> LoggedHistogram {
    let bounds = if custom { vec![0.5, 1.0] } else { Vec::new() };
    LoggedHistogram {
        integer,
        histogram: Arc::new(FloatHistogram {
            counter_reset_hint: CounterResetHint::NotReset,
            schema: if custom { CUSTOM_BUCKETS_SCHEMA } else { 3 },
            zero_threshold: if custom { 0.0 } else { 0.001 },
            zero_count: if custom { 0.0 } else { 2.0 },
            count: if integer { 9.0 } else { 9.5 },
            sum: -4.25,
            positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
            positive_buckets: vec![4.0, if integer { 1.0 } else { 1.5 }],
            negative_spans: if custom { vec![] } else { vec![BucketSpan { offset: -3, length: 1 }] },
            negative_buckets: if custom { vec![] } else { vec![2.0] },
            custom_values: bounds,
        }),
    }
}

fn round_trip(bytes: &[u8]) -> Record {
    Record::parse(bytes).unwrap()
}

#[test]
fn records_of_every_kind_come_back() {
    let labels = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied()).unwrap();
    let series = vec![
        LoggedSeries { reference: 1, labels: labels(&[("__name__", "up"), ("job", "ü")]) },
        LoggedSeries { reference: u64::MAX, labels: labels(&[("__name__", "down")]) },
    ];
    let record = series_record(series.iter().map(|series| (series.reference, &series.labels)));
    assert_eq!(round_trip(&record), Record::Series(series));
    let floats =
        [sample(5, 1_000, 0, 1.5), sample(2, -7, 0, -0.0), sample(u64::MAX, i64::MAX, 0, f64::INFINITY)];
    let record = float_record(&floats);
    assert_eq!((record[0], round_trip(&record)), (FLOATS, Record::Floats(floats.to_vec())));
    let started =
        [sample(5, 1_000, 900, 1.5), sample(2, -7, 900, 2.0), sample(9, 1, 0, 3.0), sample(9, 2, 1, 4.0)];
    let record = float_record(&started);
    assert_eq!((record[0], round_trip(&record)), (FLOATS_WITH_STARTS, Record::Floats(started.to_vec())));
    let deletions = vec![LoggedDeletion { reference: 3, min: i64::MIN, max: i64::MAX }];
    assert_eq!(round_trip(&deletion_record(&deletions)), Record::Deletions(deletions));
    assert_eq!(Record::parse(&[99, 1, 2]), Ok(Record::Other(99)));
    // Written by the encoder of Prometheus 3.9.
    let marker = LoggedMarker { reference: 7, place: 3 << 32 | 8 };
    let record = [[5u8].as_slice(), &7u64.to_be_bytes(), &[0, 0, 0, 3, 0, 0, 0, 8]].concat();
    assert_eq!((marker_record(&[marker]), round_trip(&record)), (record, Record::Markers(vec![marker])));
    assert_eq!(Record::parse(&[]), Err(DamagedRecord(0)));
    let late = late_record(&float_record(&floats));
    assert_eq!((late[0], round_trip(&late)), (200, Record::Late(Box::new(Record::Floats(floats.to_vec())))));
    for inner in [late, deletion_record(&[]), vec![99], vec![]] {
        assert_eq!(Record::parse(&late_record(&inner)), Err(DamagedRecord(LATE)), "only samples can be late");
    }
}

#[test]
fn histograms_of_every_kind_come_back() {
    let mut all = Vec::new();
    for integer in [true, false] {
        for custom in [true, false] {
            for start in [0, 77] {
                all.push(sample(all.len() as u64, 1_000, start, histogram(integer, custom)));
            }
        }
    }
    let records = histogram_records(&all);
    assert_eq!(records.iter().map(|record| record[0]).collect::<Vec<_>>(), [7, 8, 9, 10, 12, 13]);
    let mut back = Vec::new();
    for record in &records {
        let Record::Histograms(samples) = round_trip(record) else { panic!("{record:?}") };
        back.extend(samples);
    }
    back.sort_by_key(|sample| sample.reference);
    assert_eq!(back, all);
}

#[test]
fn damaged_records_are_errors_and_take_no_memory() {
    let floats: Vec<_> = (0..50).map(|n| sample(n, n as i64 * 15_000, n as i64 % 3, n as f64)).collect();
    let labels = Labels::from_pairs([("__name__", "up"), ("job", "api")]).unwrap();
    let mut records = histogram_records(&[sample(1, 2, 0, histogram(true, false))]);
    records.extend(histogram_records(&[sample(1, 2, 3, histogram(false, true))]));
    records.push(float_record(&floats));
    records.push(series_record([(1, &labels), (2, &labels)]));
    records.push(marker_record(&[LoggedMarker { reference: 1, place: 8 }; 3]));
    let exemplar =
        Exemplar { labels: labels.clone(), value: 1.0, time: Timestamp::EPOCH, has_own_time: true };
    records.push(exemplar_record([(1, &exemplar), (70_000, &exemplar)]));
    let metadata = Metadata { kind: MetricKind::Info, unit: "s".into(), help: "A help text.".into() };
    records.push(metadata_record([(1, &metadata), (70_000, &metadata)]));
    let mut state = 9u64;
    let mut next = move |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % bound
    };
    for record in &records {
        for _ in 0..3_000 {
            let mut damaged = record.clone();
            for _ in 0..1 + next(4) {
                let at = next(damaged.len());
                damaged[at] = next(256) as u8;
            }
            damaged.truncate(1 + next(damaged.len()));
            let _ = Record::parse(&damaged);
        }
    }
    // Lists that announce 2^60 entries.
    let mut huge = vec![SERIES, 0, 0, 0, 0, 0, 0, 0, 1];
    put_uvarint(&mut huge, 1 << 60);
    assert_eq!(Record::parse(&huge), Err(DamagedRecord(SERIES)));
    let mut huge = vec![METADATA, 1, 1];
    put_uvarint(&mut huge, u64::MAX);
    assert_eq!(Record::parse(&huge), Err(DamagedRecord(METADATA)));
}
