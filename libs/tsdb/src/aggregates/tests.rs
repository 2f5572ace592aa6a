use model::{FloatHistogram, Sample, TimeRange, Timestamp};

use super::*;
use crate::{HistogramEncoder, XorEncoder};

fn floats(samples: &[(i64, f64)]) -> Chunk {
    let mut encoder = XorEncoder::new();
    for &(t, value) in samples {
        encoder.append(Sample::new(t, value)).unwrap();
    }
    Chunk { range: TimeRange::ALL, ..encoder.finish().unwrap() }
}

fn histograms() -> Chunk {
    let mut encoder = HistogramEncoder::float();
    encoder.append(Timestamp::from_millis(1), &FloatHistogram::default()).unwrap();
    Chunk { range: TimeRange::ALL, ..encoder.finish().unwrap() }
}

fn outer(data: &[u8]) -> Chunk {
    Chunk { range: TimeRange::ALL, encoding: Encoding::Aggregates, data: Bytes::copy_from_slice(data) }
}

/// A part written by hand, as FORMAT.md draws it: length, encoding, and a payload of at most 16,383 bytes.
fn part(chunk: Option<&Chunk>) -> Vec<u8> {
    let Some(chunk) = chunk else { return vec![0] };
    let length = chunk.data.len();
    let mut out = if length < 128 {
        vec![length as u8]
    } else {
        vec![0b1000_0000 | (length % 128) as u8, u8::try_from(length / 128).unwrap()]
    };
    out.push(chunk.encoding as u8);
    out.extend(&chunk.data);
    out
}

#[test]
fn parts_are_read_and_written_as_the_format_draws_them() {
    let long: Vec<(i64, f64)> = (0..300i32).map(|n| (i64::from(n * n), f64::from(n).sqrt())).collect();
    let (short, long, histograms) = (floats(&[(1, 2.0)]), floats(&long), histograms());
    assert!(long.data.len() > 128, "the length takes two bytes");
    for parts in [
        [Some(&short), Some(&long), Some(&short), Some(&long), Some(&short)],
        [Some(&long), Some(&histograms), None, None, Some(&histograms)],
        [None, None, None, None, None],
        [None, None, None, Some(&long), None],
    ] {
        let bytes: Vec<u8> = parts.iter().flat_map(|chunk| part(*chunk)).collect();
        let chunk = outer(&bytes);
        let aggregates = chunk.aggregates().unwrap();
        let Aggregates { count, sum, min, max, counter } = &aggregates;
        assert_eq!([count, sum, min, max, counter].map(Option::as_ref), parts);
        assert_eq!(aggregates.encode(TimeRange::ALL), chunk);
        assert_eq!(chunk.sample_count(), parts[0].map_or(0, Chunk::sample_count));
    }
}

#[test]
fn bytes_after_the_last_part_are_ignored() {
    let short = floats(&[(1, 2.0)]);
    let bytes = [part(Some(&short)), vec![0; 4], vec![9, 9]].concat();
    assert_eq!(outer(&bytes).aggregates().unwrap().count, Some(short));
}

#[test]
fn errors_name_the_damaged_part() {
    fn check(data: &[u8], expected: &str) {
        assert_eq!(outer(data).aggregates().unwrap_err().to_string(), expected);
    }
    let good = part(Some(&floats(&[(1, 2.0)])));
    check(
        &[],
        "aggregate chunk of 0 bytes is damaged near byte 0: the aggregate count is longer than the rest of the chunk",
    );
    check(
        &good[..good.len() - 1],
        "aggregate chunk of 12 bytes is damaged near byte 1: the aggregate count is longer than the rest of the chunk",
    );
    check(
        &good,
        "aggregate chunk of 13 bytes is damaged near byte 13: the aggregate sum is longer than the rest of the chunk",
    );
    check(
        &[0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0],
        "aggregate chunk of 8 bytes is damaged near byte 1: the aggregate sum is longer than the rest of the chunk",
    );
    check(
        &[0, 1, 7, 7],
        "aggregate chunk of 4 bytes is damaged near byte 2: the aggregate sum has the unknown encoding 7",
    );
    check(
        &[1, 255, 0, 0, 0, 0, 0],
        "aggregate chunk of 7 bytes is damaged near byte 1: the aggregate count has the unknown encoding 255",
    );
    assert_eq!(
        outer(&good).decode_floats(&mut Vec::new(), &mut Vec::new()).unwrap_err().to_string(),
        "aggregate chunk of 13 bytes is damaged near byte 0: it contains aggregates, expected floats"
    );
}

#[test]
fn no_damage_panics_or_makes_a_part_larger_than_the_chunk() {
    let (short, histograms) = (floats(&[(1, 2.0), (2, 2.0)]), histograms());
    let all = Aggregates {
        count: Some(short.clone()),
        sum: Some(histograms.clone()),
        min: Some(short.clone()),
        max: None,
        counter: Some(histograms),
    };
    let whole = all.encode(TimeRange::ALL).data;
    let mut random = crate::random::Random::seeded(11);
    for round in 0..20_000 {
        let mut damaged = whole.to_vec();
        for _ in 0..=random.below(3) {
            let at = random.below(damaged.len());
            damaged[at] ^= 1 << random.below(8);
        }
        damaged.truncate(random.below(damaged.len() * 4).max(1));
        match outer(&damaged).aggregates() {
            Ok(aggregates) => {
                let size: usize = aggregates.parts().flatten().map(|part| part.data.len()).sum();
                assert!(size < damaged.len(), "round {round}");
                for part in aggregates.parts().flatten() {
                    let _ = part.decode_floats(&mut Vec::new(), &mut Vec::new());
                    let _ = part.decode_histograms(&mut Vec::new());
                }
            }
            Err(error) => assert!(error.offset <= damaged.len(), "round {round}: {error}"),
        }
    }
}
