use model::Sample;

use super::*;
use crate::random::{Random, survives_damage};

fn encode(samples: &[(i64, f64)]) -> Chunk {
    let mut encoder = XorEncoder::new();
    for &(t, v) in samples {
        encoder.append(Sample::new(t, v)).unwrap();
    }
    encoder.finish().unwrap()
}

fn decode_all(data: &[u8]) -> Result<Vec<(i64, u64)>, ChunkError> {
    let (mut timestamps, mut values) = (Vec::new(), Vec::new());
    decode(data, &mut timestamps, &mut values)?;
    assert_eq!(timestamps.len(), values.len());
    Ok(timestamps.into_iter().zip(values.into_iter().map(f64::to_bits)).collect())
}

/// Reads a chunk bit by bit, as FORMAT.md draws it; none when bits are missing.
fn decode_slowly(data: &[u8]) -> Option<Vec<(i64, u64)>> {
    let mut bits =
        data.get(2..)?.iter().flat_map(|byte| (0..8).rev().map(move |bit| u64::from(byte >> bit & 1)));
    let mut read = |count: u32| (0..count).try_fold(0u64, |value, _| Some(value << 1 | bits.next()?));
    let (mut out, mut t, mut delta, mut v) = (Vec::new(), 0i64, 0i64, 0u64);
    let (mut leading, mut significant) = (0, 64);
    for index in 0..u16::from_be_bytes([data[0], data[1]]) {
        if index < 2 {
            let (mut number, mut shift) = (0u128, 0);
            loop {
                let byte = read(8)?;
                number |= u128::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 128 {
                    break;
                } else if shift >= 70 {
                    return None;
                }
            }
            let number = u64::try_from(number).ok()?;
            if index == 0 {
                (t, v) = ((number >> 1) as i64 ^ -((number & 1) as i64), read(64)?);
                out.push((t, v));
                continue;
            }
            delta = number as i64;
        } else {
            let mut ones = 0;
            while ones < 4 && read(1)? == 1 {
                ones += 1;
            }
            let bits = [0, 14, 17, 20, 64][ones];
            let raw = i128::from(read(bits)?);
            let wraps = if bits == 64 { raw >= 1 << 63 } else { bits > 0 && raw > 1 << (bits - 1) };
            delta = delta.wrapping_add((raw - if wraps { 1 << bits } else { 0 }) as i64);
        }
        t = t.wrapping_add(delta);
        if read(1)? == 1 {
            if read(1)? == 1 {
                leading = read(5)? as u32;
                significant = match read(6)? as u32 {
                    0 => 64,
                    bits => bits,
                };
            }
            let trailing = 64u32.checked_sub(leading + significant)?;
            v ^= read(significant)? << trailing;
        }
        out.push((t, v));
    }
    Some(out)
}

/// Samples of every shape that the encoding distinguishes: regular times, jitter, gaps, counters, gauges, NaNs.
fn random_samples(random: &mut Random) -> Vec<(i64, f64)> {
    let length = 1 + random.below(300);
    let (shape, jitter) = (random.below(5), [0, 3, 9_000, 70_000, 600_000][random.below(5)]);
    let (mut t, mut v) = (random.next() as i64 >> random.below(40), 0.0);
    (0..length)
        .map(|_| {
            t = t.saturating_add(1_000_000 + random.below(jitter + 1) as i64);
            if random.below(50) == 0 {
                t = t.saturating_add(random.next() as i64 >> 20 & i64::MAX >> 20);
            }
            v = match shape {
                0 => v,
                1 => v + random.below(100) as f64,
                2 => f64::from_bits(random.next()),
                3 => random.below(1000) as f64 / 8.0,
                _ if random.below(4) == 0 => model::stale_nan(),
                _ => 1.0,
            };
            (t, v)
        })
        .collect()
}

#[test]
fn samples_of_every_shape_come_back_bit_by_bit() {
    for seed in 0..400 {
        let samples = random_samples(&mut Random::seeded(seed));
        let chunk = encode(&samples);
        let expected: Vec<_> = samples.iter().map(|&(t, v)| (t, v.to_bits())).collect();
        assert_eq!(decode_all(&chunk.data).as_ref(), Ok(&expected), "seed {seed}");
        assert_eq!(decode_slowly(&chunk.data), Some(expected), "seed {seed}");
        assert_eq!(chunk.sample_count(), samples.len());
        assert_eq!(chunk.range.min.as_millis(), samples[0].0);
        assert_eq!(chunk.range.max.as_millis(), samples[samples.len() - 1].0);
    }
}

#[test]
fn each_width_of_a_timestamp_holds_its_bounds() {
    for (dod, bits) in [
        (0, 1),
        (1, 16),
        (8_192, 16),
        (-8_191, 16),
        (8_193, 20),
        (-8_192, 20),
        (65_536, 20),
        (-65_535, 20),
        (65_537, 24),
        (524_288, 24),
        (-524_287, 24),
        (524_289, 68),
        (-524_288, 68),
        (i64::MAX >> 8, 68),
    ] {
        let start = 2_000_000;
        let chunk = encode(&[(0, 0.0), (start, 0.0), (start + start + dod, 0.0)]);
        assert_eq!(decode_all(&chunk.data).unwrap()[2].0, start + start + dod);
        // Header, varint 0, value, uvarint of three bytes, the value's bit; then the field and another bit.
        assert_eq!(chunk.data.len(), (8 * (2 + 1 + 8 + 3) + 1 + bits + 1usize).div_ceil(8), "{dod}");
    }
}

#[test]
fn the_first_chunk_that_prometheus_ever_specified_is_read() {
    // tsdb/testdata/index_format_v1 of Prometheus: t=0, v=0 and a spare byte.
    let data = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(decode_all(&data), Ok(vec![(0, 0)]));
    assert_eq!(*encode(&[(0, 0.0)]).data, data[..11]);
    assert_eq!(decode_all(&[0, 0]), Ok(vec![]));
}

#[test]
fn damaged_chunks_are_read_whole_or_errors_that_name_the_encoding() {
    let samples = random_samples(&mut Random::seeded(7));
    let chunk = encode(&samples);
    survives_damage(chunk.encoding, &chunk.data, 60_000, 1, |data| {
        let fast = decode_all(data);
        assert_eq!(fast.as_ref().ok(), decode_slowly(data).as_ref().filter(|_| data.len() > 1), "{data:?}");
        fast.map(|samples| samples.len())
    });
}

#[test]
fn errors_name_the_problem_and_the_offset() {
    fn check(data: &[u8], expected: &str) {
        assert_eq!(decode_all(data).unwrap_err().to_string(), expected);
    }
    check(&[1], "XOR chunk of 1 bytes is damaged near byte 1: the header is incomplete");
    check(
        &[0, 2, 0, 0],
        "XOR chunk of 4 bytes is damaged near byte 2: it ends before the last of its 2 samples",
    );
    check(
        &[&[0, 1], [0xff; 18].as_slice()].concat(),
        "XOR chunk of 20 bytes is damaged near byte 12: a timestamp has more than 64 bits",
    );
    let window = [&[0, 2, 0], [0; 8].as_slice(), &[1, 0xff, 0xff, 0xff]].concat();
    check(
        &window,
        "XOR chunk of 15 bytes is damaged near byte 12: \
         a value has 31 leading zeros and 63 significant bits, together more than 64",
    );
    let histogram = Chunk { encoding: Encoding::Histogram, ..encode(&[(0, 0.0)]) };
    assert_eq!(
        histogram.decode_floats(&mut Vec::new(), &mut Vec::new()).unwrap_err().to_string(),
        "histogram chunk of 11 bytes is damaged near byte 0: it contains histograms, expected floats"
    );
}

#[test]
fn a_damaged_chunk_leaves_earlier_samples_unchanged() {
    let chunk = encode(&[(0, 1.0), (1, 2.0), (2, 3.0)]);
    let (mut timestamps, mut values) = (vec![-1], vec![0.5]);
    assert!(decode(&chunk.data[..chunk.data.len() - 2], &mut timestamps, &mut values).is_err());
    assert_eq!((timestamps, values), (vec![-1], vec![0.5]));
}

#[test]
fn the_encoder_rejects_samples_that_a_chunk_cannot_store() {
    let mut encoder = XorEncoder::new();
    assert!(encoder.is_empty());
    assert_eq!(encoder.clone().finish(), None);
    for t in 0..65_535 {
        encoder.append(Sample::new(t, 1.0)).unwrap();
    }
    assert_eq!(encoder.append(Sample::new(70_000, 1.0)), Err(AppendError::Full));
    assert_eq!((encoder.len(), decode_all(&encoder.finish().unwrap().data).unwrap().len()), (65_535, 65_535));

    let mut encoder = XorEncoder::new();
    encoder.append(Sample::new(5, 1.0)).unwrap();
    let refused = encoder.append(Sample::new(5, 2.0)).unwrap_err();
    assert_eq!(refused.to_string(), "sample at 5 is not after the last one at 5");
}

#[test]
fn only_a_repeating_sample_may_have_the_time_of_the_last_one() {
    let mut encoder = XorEncoder::new();
    for (t, v) in [(5, 1.0), (5, 2.0), (7, 3.0), (7, 4.0)] {
        encoder.append_repeating(Sample::new(t, v)).unwrap();
    }
    let last = Timestamp::from_millis(7);
    let out_of_order = |t| Err(AppendError::OutOfOrder { at: Timestamp::from_millis(t), last });
    assert_eq!(encoder.append(Sample::new(7, 5.0)), out_of_order(7));
    assert_eq!(encoder.append_repeating(Sample::new(6, 5.0)), out_of_order(6));
    let chunk = encoder.finish().unwrap();
    let expected = [(5, 1.0), (5, 2.0), (7, 3.0), (7, 4.0)].map(|(t, v): (i64, f64)| (t, v.to_bits()));
    assert_eq!(decode_all(&chunk.data).unwrap(), expected);
    assert_eq!((chunk.range.min.as_millis(), chunk.range.max.as_millis()), (5, 7));
}
