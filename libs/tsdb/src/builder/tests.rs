//! Where chunks are cut, and that no sample is lost.

use model::BucketSpan;

use super::*;
use crate::random::Random;

const EPOCH: Timestamp = Timestamp::EPOCH;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A counter with these buckets, the first of which has the number `offset`.
fn histogram(offset: i32, buckets: &[f64]) -> Arc<FloatHistogram> {
    Arc::new(FloatHistogram {
        count: buckets.iter().sum(),
        sum: 1.5,
        positive_spans: vec![BucketSpan { offset, length: buckets.len() as u32 }],
        positive_buckets: buckets.to_vec(),
        ..FloatHistogram::default()
    })
}

/// Encoding and number of samples of each chunk.
fn shape(chunks: &[Chunk]) -> Vec<(Encoding, usize)> {
    chunks.iter().map(|chunk| (chunk.encoding, chunk.sample_count())).collect()
}

/// The chunks of histograms at 1, 2, 3 ... ms.
fn chunks_of(encoding: Encoding, histograms: &[Arc<FloatHistogram>]) -> Vec<Chunk> {
    let mut builder = ChunkBuilder::new();
    for (histogram, millis) in histograms.iter().zip(1..) {
        builder.append_histogram(encoding, at(millis), histogram, EPOCH).unwrap();
    }
    builder.finish().unwrap()
}

fn decoded(chunks: &[Chunk]) -> Vec<Arc<FloatHistogram>> {
    let mut out = Vec::new();
    chunks.iter().for_each(|chunk| chunk.decode_histograms(&mut out).unwrap());
    out.into_iter().map(|(_, histogram)| histogram).collect()
}

#[test]
fn a_chunk_ends_after_120_samples_and_where_the_encoding_changes() {
    let mut builder = ChunkBuilder::new();
    let mut millis = 0;
    let mut next = || {
        millis += 1;
        at(millis)
    };
    for encoding in [Encoding::Xor, Encoding::Xor2] {
        for _ in 0..130 {
            let sample = Sample { timestamp: next(), value: 1.0 };
            builder.append_float(encoding, sample, at(7)).unwrap();
        }
    }
    for encoding in [Encoding::Histogram, Encoding::FloatHistogramSt] {
        for _ in 0..121 {
            builder.append_histogram(encoding, next(), &histogram(0, &[1.0, 2.0]), at(7)).unwrap();
        }
    }
    let expected = [
        (Encoding::Xor, 120),
        (Encoding::Xor, 10),
        (Encoding::Xor2, 120),
        (Encoding::Xor2, 10),
        (Encoding::Histogram, 120),
        (Encoding::Histogram, 1),
        (Encoding::FloatHistogramSt, 120),
        (Encoding::FloatHistogramSt, 1),
    ];
    assert_eq!(shape(&builder.finish().unwrap()), expected);
    assert_eq!(ChunkBuilder::new().finish(), Ok(Vec::new()));
}

#[test]
fn a_new_bucket_does_not_end_the_chunk() {
    let grown = [histogram(4, &[2.0]), histogram(3, &[0.0, 2.0]), histogram(4, &[2.0, 0.0, 5.0])];
    let chunks = chunks_of(Encoding::Histogram, &grown);
    assert_eq!(shape(&chunks), [(Encoding::Histogram, 3)]);
    let buckets: Vec<Vec<f64>> = decoded(&chunks).iter().map(|h| h.positive_buckets.clone()).collect();
    assert_eq!(buckets, [[0.0, 2.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 2.0, 0.0, 5.0]]);
}

#[test]
fn a_counter_reset_ends_the_chunk_and_is_stored_in_the_next() {
    let same = |count| histogram(0, &[count, 1.0]);
    let missing = histogram(1, &[9.0]);
    for histograms in [[same(3.0), same(4.0), same(2.0)], [same(3.0), same(4.0), missing]] {
        let chunks = chunks_of(Encoding::FloatHistogram, &histograms);
        assert_eq!(shape(&chunks), [(Encoding::FloatHistogram, 2), (Encoding::FloatHistogram, 1)]);
        let hints: Vec<CounterResetHint> = decoded(&chunks).iter().map(|h| h.counter_reset_hint).collect();
        assert_eq!(hints[..2], [CounterResetHint::Unknown, CounterResetHint::NotReset]);
        let header = chunks[1].data[2] & 0b1100_0000;
        assert_eq!(header, 0b1000_0000, "reset");
    }
}

#[test]
fn gauges_may_fall_and_markers_end_a_chunk() {
    let gauge = |count| {
        let mut gauge = FloatHistogram::clone(&histogram(0, &[count]));
        gauge.counter_reset_hint = CounterResetHint::Gauge;
        Arc::new(gauge)
    };
    let stale = Arc::new(FloatHistogram::stale());
    let histograms = [gauge(3.0), gauge(1.0), stale.clone(), stale.clone(), gauge(2.0), histogram(0, &[2.0])];
    let chunks = chunks_of(Encoding::FloatHistogram, &histograms);
    let sizes: Vec<usize> = chunks.iter().map(Chunk::sample_count).collect();
    assert_eq!(sizes, [4, 1, 1]);
    let stale_first = chunks_of(Encoding::FloatHistogram, &[stale, histogram(0, &[2.0])]);
    assert_eq!(shape(&stale_first), [(Encoding::FloatHistogram, 1); 2]);
}

#[test]
fn samples_that_do_not_ascend_or_do_not_fit_the_encoding_are_rejected() {
    let mut builder = ChunkBuilder::new();
    builder.append_float(Encoding::Xor, Sample::new(2, 1.0), EPOCH).unwrap();
    let error = builder.append_float(Encoding::Xor2, Sample::new(2, 1.0), EPOCH).unwrap_err();
    assert_eq!(error, AppendError::OutOfOrder { at: at(2), last: at(2) });
    let error =
        builder.append_histogram(Encoding::Histogram, at(1), &histogram(0, &[1.0]), EPOCH).unwrap_err();
    assert_eq!(error, AppendError::OutOfOrder { at: at(1), last: at(2) });
    let error = builder.append_float(Encoding::Histogram, Sample::new(3, 1.0), EPOCH).unwrap_err();
    assert_eq!(error.to_string(), "histogram chunk: the sample is a float, expected histograms");
    let error = builder.append_histogram(Encoding::Xor, at(3), &histogram(0, &[1.0]), EPOCH).unwrap_err();
    assert_eq!(error.to_string(), "XOR chunk: the sample is a histogram, expected floats");
    let mut fraction = ChunkBuilder::new();
    fraction.append_histogram(Encoding::Histogram, at(1), &histogram(0, &[0.5]), EPOCH).unwrap();
    assert!(matches!(fraction.finish(), Err(AppendError::Layout(_))));
}

#[test]
fn random_histograms_come_back_with_the_counts_they_had() {
    for seed in 0..200 {
        let mut random = Random::seeded(seed);
        let mut counts = [0.0; 12];
        let histograms: Vec<Arc<FloatHistogram>> = (0..random.below(300))
            .map(|_| {
                if random.below(40) == 0 {
                    return Arc::new(FloatHistogram::stale());
                }
                if random.below(30) == 0 {
                    counts = [0.0; 12];
                }
                counts[random.below(12)] += random.below(9) as f64;
                let first = counts.iter().position(|&count| count > 0.0).unwrap_or(11);
                histogram(first as i32, &counts[first..])
            })
            .collect();
        let chunks = chunks_of(Encoding::Histogram, &histograms);
        let back = decoded(&chunks);
        assert_eq!(back.len(), histograms.len(), "seed {seed}");
        for (back, given) in back.iter().zip(&histograms) {
            assert_eq!(back.is_stale(), given.is_stale(), "seed {seed}");
            let compact = |histogram: &FloatHistogram| {
                let mut compact = histogram.clone();
                compact.compact();
                compact
            };
            let equal = given.is_stale() || compact(back).equals(&compact(given));
            assert!(equal, "seed {seed}: {back:?} instead of {given:?}");
        }
        // The hints of a chunk are correct: within one chunk, no count falls.
        for chunk in &chunks {
            let inside = decoded(std::slice::from_ref(chunk));
            let falls = |pair: &[Arc<FloatHistogram>]| !pair[1].is_stale() && pair[1].count < pair[0].count;
            assert!(!inside.windows(2).any(falls), "seed {seed}");
        }
    }
}
