//! Tests of remote read decoding.

use rand::{Rng, SeedableRng};

use super::*;

fn samples_message() -> Vec<u8> {
    let series = |job: &str, samples: &[(i64, f64)]| wire::TimeSeries {
        labels: vec![wire::Label { name: "job".to_owned(), value: job.to_owned() }],
        samples: samples.iter().map(|&(timestamp, value)| wire::Sample { value, timestamp }).collect(),
        ..Default::default()
    };
    let timeseries = vec![series("b", &[(1, 1.5), (2, 2.5)]), series("empty", &[]), series("a", &[(3, 3.5)])];
    let response = wire::ReadResponse { results: vec![wire::QueryResult { timeseries }] };
    snap::raw::Encoder::new().compress_vec(&response.encode_to_vec()).unwrap()
}

#[test]
fn old_form_is_sorted_and_drops_empty_series() {
    let series = decode_samples(&samples_message(), 1 << 20).unwrap();
    let shown: Vec<_> = series.iter().map(|s| (s.labels.value("job").to_owned(), s.data.clone())).collect();
    let expected = [
        ("a".to_owned(), ReadData::Samples(vec![Sample::new(3, 3.5)])),
        ("b".to_owned(), ReadData::Samples(vec![Sample::new(1, 1.5), Sample::new(2, 2.5)])),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn old_form_above_the_limit_is_rejected_before_decompression() {
    let bomb = snap::raw::Encoder::new().compress_vec(&vec![0; 1 << 20]).unwrap();
    assert!(matches!(decode_samples(&bomb, 1000), Err(ReadError::TooLarge(1000, _))));
}

#[test]
fn damaged_messages_never_panic() {
    let intact = samples_message();
    for seed in 0..20_000u64 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let mut damaged = intact.clone();
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..damaged.len());
            damaged[at] = random.random();
        }
        damaged.truncate(random.random_range(0..=damaged.len()));
        // The result is random. The test is that both calls return.
        let _ = decode_samples(&damaged, 1 << 20);
        let mut stream = ReadStream {
            source: ReadSource::Finished,
            limits: limits(),
            ready: VecDeque::new(),
            last_bytes: 0,
        };
        let _ = stream.add_frame(damaged.into());
    }
}

fn limits() -> ReadLimits {
    ReadLimits { silence: Duration::from_secs(1), max_samples_bytes: 1 << 20 }
}

#[test]
fn series_split_over_frames_is_joined() {
    let frame = |job: &str, at: i64| {
        let labels = vec![wire::Label { name: "job".to_owned(), value: job.to_owned() }];
        let chunk =
            wire::Chunk { min_time_ms: at, max_time_ms: at + 1, r#type: 1, data: Bytes::from_static(b"x") };
        let series = wire::ChunkedSeries { labels, chunks: vec![chunk] };
        Bytes::from(
            wire::ChunkedReadResponse { chunked_series: vec![series], query_index: 0 }.encode_to_vec(),
        )
    };
    let mut stream =
        ReadStream { source: ReadSource::Finished, limits: limits(), ready: VecDeque::new(), last_bytes: 0 };
    for (job, at) in [("a", 0), ("a", 10), ("b", 0), ("b", 10), ("b", 20)] {
        stream.add_frame(frame(job, at)).unwrap();
    }
    let chunks: Vec<usize> = stream
        .ready
        .iter()
        .map(|series| match &series.data {
            ReadData::Chunks(chunks) => chunks.len(),
            ReadData::Samples(_) => 0,
        })
        .collect();
    assert_eq!(chunks, [2, 3]);
}

#[test]
fn unknown_encodings_keep_their_number() {
    let chunk = |kind: i32| ReadChunk::from(wire::Chunk { r#type: kind, ..Default::default() }).encoding;
    assert_eq!(
        [1, 2, 3].map(chunk),
        [ChunkEncoding::Xor, ChunkEncoding::Histogram, ChunkEncoding::FloatHistogram]
    );
    assert_eq!(
        [4, 5, 6].map(chunk),
        [ChunkEncoding::Xor2, ChunkEncoding::HistogramSt, ChunkEncoding::FloatHistogramSt]
    );
    assert_eq!([0, 7, 99].map(chunk), [0, 7, 99].map(ChunkEncoding::Unknown));
}
