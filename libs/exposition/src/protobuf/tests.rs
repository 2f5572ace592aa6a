use prost::Message;
use prost::encoding::encode_varint;

use super::*;
use crate::protobuf::message::{Bucket, Counter, Gauge, LabelPair, Quantile, Span};

/// A family as a target sends it.
#[derive(Clone, PartialEq, prost::Message)]
struct WholeFamily {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    help: String,
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
    #[prost(string, tag = "5")]
    unit: String,
}

fn encode(families: &[WholeFamily]) -> Vec<u8> {
    let mut out = Vec::new();
    for family in families {
        encode_varint(family.encoded_len() as u64, &mut out);
        out.extend(family.encode_to_vec());
    }
    out
}

fn family(name: &str, kind: i32, metric: Vec<Metric>) -> WholeFamily {
    WholeFamily { name: name.to_owned(), help: "help".to_owned(), kind, metric, unit: String::new() }
}

fn with_label(metric: Metric) -> Metric {
    Metric { label: vec![LabelPair { name: "job".to_owned(), value: "api".to_owned() }], ..metric }
}

/// Labels and values of all samples.
fn read(bytes: &[u8], keep_classic: bool) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    for entry in ProtobufParser::new(bytes, keep_classic) {
        match entry.map_err(|error| error.to_string())? {
            ProtobufEntry::Family { name, kind, .. } => out.push(format!("{name} {kind:?}")),
            ProtobufEntry::Samples(samples) => out.extend(samples.into_iter().map(|sample| {
                let value = match sample.value {
                    ProtobufValue::Float(value) => value.to_string(),
                    ProtobufValue::Histogram { integer, histogram } => {
                        format!("{integer} {} {:?}", histogram.count, histogram.positive_buckets)
                    }
                };
                let time = sample.timestamp.map_or(String::new(), |time| format!(" @{time}"));
                let start = sample.start.map_or(String::new(), |start| format!(" since {start}"));
                let exemplars = sample.exemplars.iter().map(|e| format!(" # {} {}", e.labels, e.value));
                format!("{} {value}{time}{start}{}", sample.labels, exemplars.collect::<String>())
            })),
        }
    }
    Ok(out)
}

fn native() -> Histogram {
    Histogram {
        sample_count: 9,
        sample_sum: 2.5,
        schema: 3,
        zero_threshold: 0.001,
        zero_count: 1,
        positive_span: vec![Span { offset: 0, length: 2 }, Span { offset: 3, length: 1 }],
        positive_delta: vec![3, 1, -3],
        bucket: vec![Bucket { cumulative_count: 5, upper_bound: 0.5, ..Bucket::default() }],
        ..Histogram::default()
    }
}

#[test]
fn metrics_become_the_series_of_the_text_format() {
    let exemplar = Exemplar {
        label: vec![LabelPair { name: "id".to_owned(), value: "7".to_owned() }],
        value: 0.25,
        timestamp: None,
    };
    let created = Some(Timestamp { seconds: 5, nanos: 6_000_000 });
    let counter = Counter { value: 3.0, exemplar: Some(exemplar.clone()), created };
    let bucket =
        |upper_bound, cumulative_count| Bucket { upper_bound, cumulative_count, ..Bucket::default() };
    let classic = Histogram {
        sample_count: 9,
        sample_sum: 2.5,
        bucket: vec![Bucket { exemplar: Some(exemplar), ..bucket(1.0, 4) }, bucket(1e6, 8)],
        ..Histogram::default()
    };
    let summary = Summary {
        sample_count: 2,
        sample_sum: 1.5,
        quantile: vec![Quantile { quantile: 0.5, value: 0.7 }],
        created: None,
    };
    let bytes = encode(&[
        family(
            "c",
            0,
            vec![with_label(Metric { counter: Some(counter), timestamp_ms: 1_000, ..Metric::default() })],
        ),
        family("empty", 0, vec![]),
        family(
            "g",
            1,
            vec![with_label(Metric { gauge: Some(Gauge { value: f64::NAN }), ..Metric::default() })],
        ),
        family("s", 2, vec![Metric { summary: Some(summary), ..Metric::default() }]),
        family("h", 4, vec![with_label(Metric { histogram: Some(classic), ..Metric::default() })]),
        family("n", 4, vec![Metric { histogram: Some(native()), ..Metric::default() }]),
    ]);
    let with_classic = read(&bytes, true).unwrap();
    let expected = [
        "c Counter",
        "c{job=\"api\"} 3 @1000 since 5006 # {id=\"7\"} 0.25",
        "g Gauge",
        "g{job=\"api\"} NaN",
        "s Summary",
        "s_count 2",
        "s_sum 1.5",
        "s{quantile=\"0.5\"} 0.7",
        "h Histogram",
        "h_count{job=\"api\"} 9",
        "h_sum{job=\"api\"} 2.5",
        "h_bucket{job=\"api\", le=\"1.0\"} 4 # {id=\"7\"} 0.25",
        "h_bucket{job=\"api\", le=\"1e+06\"} 8",
        "h_bucket{job=\"api\", le=\"+Inf\"} 9",
        "n Histogram",
        "n true 9 [3.0, 4.0, 1.0]",
        "n_count 9",
        "n_sum 2.5",
        "n_bucket{le=\"0.5\"} 5",
        "n_bucket{le=\"+Inf\"} 9",
    ];
    assert_eq!(with_classic, expected);
    assert_eq!(read(&bytes, false).unwrap(), expected[..16]);
}

#[test]
fn float_and_gauge_histograms_are_told_apart() {
    let float = Histogram {
        sample_count_float: 1.5,
        positive_span: vec![Span { offset: 0, length: 1 }],
        positive_count: vec![1.5],
        ..Histogram::default()
    };
    let (integer, histogram) = native::convert(&float, true).unwrap();
    assert_eq!((integer, histogram.counter_reset_hint), (false, model::CounterResetHint::Gauge));
    assert_eq!(histogram.positive_buckets, [1.5]);
    // A histogram without observations is native because of its empty span.
    let empty = Histogram { positive_span: vec![Span::default()], ..Histogram::default() };
    assert!(native::is_native(&empty) && native::convert(&empty, false).unwrap().0);
    assert!(!native::is_native(&Histogram::default()));
}

#[test]
fn mistakes_are_named_with_their_family() {
    let check = |bytes: &[u8], expected: &str| assert_eq!(read(bytes, true).unwrap_err(), expected);
    check(&[5, 1], "metric family 1: the exposition ends within a message");
    check(&encode(&[family("", 0, vec![Metric::default()])]), "metric family 1: it has no name");
    check(
        &encode(&[family("x", 9, vec![Metric::default()])]),
        "metric family 1: metric x has the unknown type 9",
    );
    let mut broken = native();
    broken.positive_delta.push(1);
    let bytes = encode(&[family("x", 4, vec![Metric { histogram: Some(broken), ..Metric::default() }])]);
    assert!(
        read(&bytes, false).unwrap_err().starts_with("metric family 1 (x): "),
        "{:?}",
        read(&bytes, false)
    );
    let pair = LabelPair { name: "a".repeat(MOST_METRIC_BYTES), value: "b".to_owned() };
    let bytes = encode(&[family("x", 1, vec![Metric { label: vec![pair], ..Metric::default() }])]);
    check(&bytes, "metric family 1 (x): a metric has 1048587 bytes, more than 1048576");
    let twice = vec![LabelPair { name: "a".to_owned(), value: "b".to_owned() }; 2];
    let bytes = encode(&[family("x", 1, vec![Metric { label: twice, ..Metric::default() }])]);
    check(&bytes, "metric family 1 (x): label \"a\" occurs twice in one label set");
}

#[test]
fn random_damage_is_an_error_or_another_exposition() {
    let whole = encode(&[
        family("n", 4, vec![with_label(Metric { histogram: Some(native()), ..Metric::default() }); 3]),
        family("c", 0, vec![Metric { counter: Some(Counter::default()), ..Metric::default() }; 3]),
    ]);
    let mut state = 5u64;
    let mut next = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) as usize % bound
    };
    for _ in 0..20_000 {
        let mut damaged = whole.clone();
        for _ in 0..1 + next(3) {
            let at = next(damaged.len());
            damaged[at] = next(256) as u8;
        }
        damaged.truncate(1 + next(damaged.len()));
        let _ = read(&damaged, true);
    }
}
