//! Compares the hand-written frame codec with the generated one, and tests it with hostile bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use model::{Labels, TimeRange, Timestamp};
use proptest::prelude::*;
use prost::Message;
use proto::thanos as wire;
use series::{AggrChunk, Producer, Series};
use tsdb::{Chunk, Encoding};
use xxhash_rust::xxh64::xxh64;

use super::{info_from_wire, info_to_wire, read, write};
use crate::{AnswerLimits, LabelLimits, SeriesFrame, StoreInfo, WireLimits};

fn write_frame(frame: &SeriesFrame) -> Bytes {
    let (mut measured, mut out) = (write::Measured::default(), BytesMut::new());
    let length = measured.measure(frame);
    measured.write(frame, &mut out);
    assert_eq!(out.len(), length, "the measured length must be the written one");
    out.freeze()
}

fn read_frame(bytes: &Bytes) -> Result<SeriesFrame, String> {
    let read =
        read::frame(bytes, &WireLimits::default(), &AnswerLimits::default()).map_err(|e| e.to_string())?;
    assert_eq!(read.dropped.count, 0);
    Ok(read.frame)
}

fn chunk() -> impl Strategy<Value = Chunk> {
    // Aggregates are sent as their parts.
    let encoding = proptest::sample::select(&Encoding::ALL[..6]);
    (encoding, proptest::collection::vec(any::<u8>(), 0..200)).prop_map(|(encoding, data)| Chunk {
        range: TimeRange::ALL,
        encoding,
        data: data.into(),
    })
}

fn series() -> impl Strategy<Value = Series> {
    let labels = proptest::collection::btree_map("[a-zé]{1,9}", "[ -~ü]{1,300}", 0..6);
    let part = || proptest::option::of(chunk());
    // 0 is a producer or a resolution that is not known.
    let numbers = (0..3u64, 0..3u64);
    let aggr = (any::<(i64, i64)>(), numbers, chunk(), part(), part(), part(), part(), part());
    let chunks = proptest::collection::vec(aggr, 0..4);
    (labels, chunks).prop_map(|(labels, chunks)| Series {
        labels: Labels::from_pairs(labels).expect("generated labels are well formed"),
        chunks: chunks
            .into_iter()
            .map(|((min, max), (producer, resolution), raw, count, sum, min_of, max_of, counter)| {
                let range = TimeRange::new(Timestamp::from_millis(min), Timestamp::from_millis(max));
                let at = |chunk: Option<Chunk>| chunk.map(|c| Chunk { range, ..c });
                AggrChunk {
                    raw: at(Some(raw)),
                    count: at(count),
                    sum: at(sum),
                    min: at(min_of),
                    max: at(max_of),
                    counter: at(counter),
                    producer: Producer::from_number(producer * 0x0123_4567_89ab_cdef),
                    resolution: Duration::from_millis(resolution * 300_000),
                }
            })
            .collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn frames_survive_the_wire_and_the_generated_code_agrees(batch in proptest::collection::vec(series(), 1..5)) {
        let frame = SeriesFrame::Series(batch.clone());
        let bytes = write_frame(&frame);
        prop_assert_eq!(read_frame(&bytes), Ok(frame.clone()));
        let generated = wire::SeriesResponse::decode(bytes.clone()).unwrap();
        // Generated code writes fields that are zero differently, so only what it reads is compared.
        prop_assert_eq!(read_frame(&generated.encode_to_vec().into()), Ok(frame));
        let first = match generated.result.unwrap() {
            wire::series_response::Result::Series(series) => series,
            wire::series_response::Result::Batch(batch) => batch.series[0].clone(),
            other => panic!("{other:?}"),
        };
        for chunk in &first.chunks {
            let raw = chunk.raw.as_ref().unwrap();
            prop_assert_eq!(raw.hash, xxh64(&raw.data, 0));
        }
    }

    #[test]
    fn damaged_frames_are_errors_and_never_panics(
        batch in proptest::collection::vec(series(), 1..3),
        edits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8),
        cut in any::<usize>(),
    ) {
        let mut bytes = write_frame(&SeriesFrame::Series(batch)).to_vec();
        for (at, value) in edits {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(1 + cut % bytes.len());
        let _ = read_frame(&bytes.into());
    }
}

#[test]
fn payloads_are_slices_of_the_frame() {
    let chunk = Chunk { range: TimeRange::ALL, encoding: Encoding::Xor, data: Bytes::from(vec![7; 4096]) };
    let frame = write_frame(&SeriesFrame::Series(vec![Series {
        labels: Labels::from_pairs([("a", "b")]).unwrap(),
        chunks: vec![AggrChunk::raw(chunk)],
    }]));
    let Ok(SeriesFrame::Series(series)) = read_frame(&frame) else { panic!("not series") };
    let data = &series[0].chunks[0].raw.as_ref().unwrap().data;
    let within = frame.as_ptr_range();
    assert!(within.contains(&data.as_ptr()) && data.len() == 4096);
}

#[test]
fn warnings_and_hints_are_frames_too() {
    let warning = SeriesFrame::Warning("one store is away".to_owned());
    assert_eq!(read_frame(&write_frame(&warning)), Ok(warning));
    let hints = wire::SeriesResponse {
        result: Some(wire::series_response::Result::Hints(prost_types::Any::default())),
    };
    assert_eq!(read_frame(&hints.encode_to_vec().into()), Ok(SeriesFrame::Series(vec![])));
    assert_eq!(read_frame(&Bytes::new()), Ok(SeriesFrame::Series(vec![])));
}

fn refused(series: wire::Series, part: &str) {
    let message = wire::SeriesResponse { result: Some(wire::series_response::Result::Series(series)) };
    let error = read_frame(&message.encode_to_vec().into()).unwrap_err();
    assert!(error.contains(part), "{error}");
}

fn wire_label(name: &str, value: &str) -> wire::Label {
    wire::Label { name: name.to_owned(), value: value.to_owned() }
}

#[test]
fn label_sets_that_are_not_valid_are_rejected() {
    let labels = |labels| wire::Series { labels, ..Default::default() };
    refused(labels(vec![wire_label("a", "1"), wire_label("a", "2")]), "occurs twice");
    refused(labels(vec![wire_label("", "2")]), "empty label name");
}

/// The series of one message, and the warnings about series that are over the limits.
fn within(limits: LabelLimits, series: Vec<wire::Series>) -> (Vec<String>, Vec<String>) {
    let batch = wire::SeriesBatch { series };
    let message = wire::SeriesResponse { result: Some(wire::series_response::Result::Batch(batch)) };
    let limits = WireLimits { labels: limits, ..WireLimits::default() };
    let read = read::frame(&message.encode_to_vec().into(), &limits, &AnswerLimits::default()).unwrap();
    let SeriesFrame::Series(series) = read.frame else { panic!("not series") };
    assert_eq!(read.dropped.count, read.dropped.described.len() as u64);
    (series.iter().map(|series| series.labels.to_string()).collect(), read.dropped.described)
}

/// Prometheus has no limit by default: annotations of Kubernetes objects have values of any length.
#[test]
fn only_series_over_a_limit_on_labels_are_left_out() {
    let series = |name: &str, labels: Vec<wire::Label>| wire::Series {
        labels: [vec![wire_label("__name__", name)], labels].concat(),
        ..Default::default()
    };
    let all = || {
        vec![
            series("a", vec![]),
            series("long_value", vec![wire_label("annotation", &"v".repeat(20_000))]),
            series("long_name", vec![wire_label(&"n".repeat(2000), "x")]),
            series("many", (0..200).map(|i| wire_label(&format!("l{i:03}"), "x")).collect()),
            series("z", vec![wire_label("annotation", &"v".repeat(16_000))]),
        ]
    };
    assert_eq!(within(LabelLimits::OFF, all()).0.len(), 5);
    let limits =
        LabelLimits { labels: Some(100), name_bytes: Some(1000), value_bytes: Some(16_000), flags: "--x" };
    let (kept, warnings) = within(limits, all());
    assert!(kept.len() == 2 && kept[0] == "a" && kept[1].starts_with("z{"), "{kept:?}");
    let begins = [
        r#"series long_value{annotation="vvvv"#,
        r#"series long_name{"nnnn"#,
        r#"series many{l000="x", l001="x", "#,
    ];
    let ends = [
        "is dropped: a value of label \"annotation\" has 20000 bytes, the limit is 16000 (--x.label-value-length-limit)",
        "has 2000 bytes, the limit is 1000 (--x.label-name-length-limit)",
        "is dropped: it has 201 labels, the limit is 100 (--x.label-limit)",
    ];
    for ((warning, begin), end) in warnings.iter().zip(begins).zip(ends) {
        assert!(warning.starts_with(begin) && warning.ends_with(end) && warning.len() < 600, "{warning}");
    }
    assert_eq!(warnings.len(), 3);
}

#[test]
fn an_unknown_chunk_encoding_is_an_error_that_names_the_series() {
    let raw = wire::Chunk { r#type: 6, data: Bytes::from_static(b"x"), hash: 0 };
    let chunks = vec![wire::AggrChunk { raw: Some(raw), ..Default::default() }];
    refused(
        wire::Series { labels: vec![wire_label("__name__", "up")], chunks, ..Default::default() },
        "series up: chunk encoding is 6",
    );
}

#[test]
fn a_small_message_cannot_become_a_large_structure() {
    // Two bytes each on the wire, hundreds in memory.
    let empty_chunks = [0x12, 0x00].repeat(4 << 20);
    let mut bytes = BytesMut::new();
    prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(empty_chunks.len() as u64, &mut bytes);
    bytes.extend_from_slice(&empty_chunks);
    let error = read_frame(&bytes.freeze()).unwrap_err();
    assert!(error.contains("bytes of memory, the limit for one store is"), "{error}");
}

#[test]
fn warnings_of_a_component_survive_the_wire_and_are_bounded() {
    let mut info = StoreInfo::new("sidecar", Vec::new(), TimeRange::ALL);
    info.warnings = vec!["blocks are not uploaded".to_owned()];
    assert_eq!(info_from_wire(info_to_wire(&info)).unwrap(), info);
    info.warnings = vec!["\u{20ac}".repeat(3000); 40];
    let back = info_from_wire(info_to_wire(&info)).unwrap();
    assert_eq!((back.warnings.len(), back.warnings[0].chars().count()), (16, 2000));
}
