use super::*;
use crate::random::{Random, survives_damage};

/// A sample: start, time, bits of the value.
type SampleRow = (i64, i64, u64);

fn encode(samples: &[SampleRow]) -> Chunk {
    let mut encoder = Xor2Encoder::new();
    for &(start, t, v) in samples {
        encoder.append(Sample::new(t, f64::from_bits(v)), Timestamp::from_millis(start)).unwrap();
    }
    encoder.finish().unwrap()
}

fn decode_rows(data: &[u8]) -> Result<Vec<SampleRow>, ChunkError> {
    let chunk = Chunk { range: TimeRange::ALL, encoding: Encoding::Xor2, data: Bytes::copy_from_slice(data) };
    let (mut timestamps, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    chunk.decode_floats_with_starts(&mut timestamps, &mut values, &mut starts)?;
    let (mut plain_timestamps, mut plain_values) = (Vec::new(), Vec::new());
    chunk.decode_floats(&mut plain_timestamps, &mut plain_values).expect("it was read with its starts");
    let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!((&timestamps, bits(&values)), (&plain_timestamps, bits(&plain_values)));
    if starts.is_empty() {
        starts.resize(timestamps.len(), 0);
    }
    Ok(starts.into_iter().zip(timestamps).zip(bits(&values)).map(|((s, t), v)| (s, t, v)).collect())
}

/// Writes a chunk as FORMAT.md draws it, as a text of zeros and ones: slow, and without the code of the encoder.
fn write_slowly(samples: &[SampleRow]) -> Vec<u8> {
    fn bits(value: i128, width: usize) -> String {
        let value = value as u128;
        (0..width).rev().map(|bit| if value >> bit & 1 == 1 { '1' } else { '0' }).collect()
    }
    fn leb(mut value: u64) -> String {
        let mut out = String::new();
        while value >= 128 {
            out += &bits(i128::from(value % 128 + 128), 8);
            value /= 128;
        }
        out + &bits(i128::from(value), 8)
    }
    fn zigzag(value: i64) -> String {
        let doubled = i128::from(value) * 2;
        leb(u64::try_from(if value < 0 { -doubled - 1 } else { doubled }).unwrap())
    }
    /// Start timestamps: prefixes of ones, and signed numbers of the format.
    fn varbit(value: i64) -> String {
        if value == 0 {
            return "0".to_owned();
        }
        for (ones, width) in [3, 6, 9, 12, 18, 25, 56].into_iter().enumerate() {
            if value > -(1 << (width - 1)) && value <= 1 << (width - 1) {
                return "1".repeat(ones + 1) + "0" + &bits(i128::from(value), width);
            }
        }
        "1".repeat(8) + &bits(i128::from(value), 64)
    }
    const STALE: u64 = 0x7ff0_0000_0000_0002;
    let (mut out, mut window) = (String::new(), None::<(usize, usize)>);
    let mut value = |v: u64, unchanged: u64, reuse: &str, new: &str| {
        let xor = bits(i128::from(v ^ unchanged), 64);
        let leading = xor.find('1').unwrap().min(31);
        let end = xor.rfind('1').unwrap() + 1;
        match window {
            Some((from, to)) if from <= leading && end <= to => format!("{reuse}{}", &xor[from..to]),
            _ => {
                window = Some((leading, end));
                let length = (end - leading) as i128;
                format!("{new}{}{}{}", bits(leading as i128, 5), bits(length % 64, 6), &xor[leading..end])
            }
        }
    };
    let mut unchanged = 0u64;
    let (mut known, mut own_from) = (0u8, 0usize);
    for (index, &(start, t, v)) in samples.iter().enumerate() {
        let t_before = |back: usize| samples[index - back].1;
        let mut form_v = |v: u64| match v {
            STALE => "111".to_owned(),
            same if same == unchanged => "0".to_owned(),
            v => value(v, unchanged, "10", "110"),
        };
        match index {
            0 => {
                out += &zigzag(t);
                out += &bits(i128::from(v), 64);
            }
            1 => {
                out += &leb((t - t_before(1)) as u64);
                out += &form_v(v);
            }
            _ => {
                let dod = (t - t_before(1)) - (t_before(1) - t_before(2));
                out += &match dod {
                    0 if v == STALE => "11111".to_owned(),
                    0 if v == unchanged => "0".to_owned(),
                    0 => value(v, unchanged, "100", "101"),
                    -4_096..=4_095 => "110".to_owned() + &bits(i128::from(dod), 13) + &form_v(v),
                    -524_288..=524_287 => "1110".to_owned() + &bits(i128::from(dod), 20) + &form_v(v),
                    _ => "11110".to_owned() + &bits(i128::from(dod), 64) + &form_v(v),
                };
            }
        }
        if v != STALE {
            unchanged = v;
        }
        let start_before = |back: usize| samples[index - back].0;
        if index == 0 {
            if start != 0 {
                known = 0x80;
                out += &zigzag(t - start);
            }
        } else if own_from > 0 {
            let (diff, diff_before) = (t_before(1) - start, t_before(2) - start_before(1));
            out += &varbit(diff - diff_before);
        } else if start != start_before(1) || index == 127 {
            own_from = index;
            out += &varbit(t_before(1) - start);
        }
    }
    while !out.len().is_multiple_of(8) {
        out.push('0');
    }
    let mut bytes = u16::try_from(samples.len()).unwrap().to_be_bytes().to_vec();
    bytes.push(known | own_from as u8);
    bytes.extend(
        out.as_bytes().chunks(8).map(|byte| byte.iter().fold(0u8, |value, bit| value << 1 | (bit - b'0'))),
    );
    bytes
}

/// Samples of every shape that the encoding distinguishes: regular times, jitter, gaps, counters, gauges, markers, and
/// starts that are unknown, fixed, from a sample on, or of each sample.
fn random_samples(random: &mut Random) -> Vec<SampleRow> {
    let length = 1 + random.below(300);
    let (shape, jitter) = (random.below(5), [0, 3, 9_000, 70_000, 600_000][random.below(5)]);
    let starts = random.below(6);
    let (mut t, mut v) = (random.next() as i64 >> (4 + random.below(40)), 0.0f64);
    let (mut start, from) = (if starts == 1 { t - 5 } else { 0 }, random.below(200));
    (0..length)
        .map(|index| {
            let before = t;
            t += 1_000_000 + random.below(jitter + 1) as i64;
            if random.below(50) == 0 {
                t += random.next() as i64 >> 25 & i64::MAX >> 25;
            }
            v = match shape {
                0 => v,
                1 => v + random.below(100) as f64,
                2 => f64::from_bits(random.next()),
                3 => random.below(1000) as f64 / 8.0,
                _ => 1.0,
            };
            start = match starts {
                2 if index == from => t,
                3 if index >= from => before - 1,
                4 => before + random.below(40_000) as i64 - 20_000,
                5 if random.below(3) == 0 => [0, t, before, 1 << 50][random.below(4)],
                _ => start,
            };
            let stale = shape > 2 && random.below(4) == 0;
            (start, t, if stale { stale_nan().to_bits() } else { v.to_bits() })
        })
        .collect()
}

#[test]
fn samples_of_every_shape_are_written_as_the_format_draws_them_and_come_back_bit_by_bit() {
    for seed in 0..600 {
        let samples = random_samples(&mut Random::seeded(seed));
        let chunk = encode(&samples);
        assert!(*chunk.data == *write_slowly(&samples), "seed {seed}");
        assert!(decode_rows(&chunk.data).as_ref() == Ok(&samples), "seed {seed}");
        assert_eq!(chunk.sample_count(), samples.len());
        assert_eq!(chunk.range.min.as_millis(), samples[0].1);
        assert_eq!(chunk.range.max.as_millis(), samples[samples.len() - 1].1);
    }
}

/// Written by Prometheus 3.14.0 (commit d15adb9ad7e5): `chunkenc.NewXOR2Chunk()`, whose appender was given these samples
/// by a Go program of a few lines.
#[test]
fn chunks_that_prometheus_wrote_are_read_and_written() {
    fn check(samples: &[SampleRow], hex: &str) {
        let written: String = encode(samples).data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(written, hex);
        let digits: Vec<u8> = hex.bytes().map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        assert_eq!(decode_rows(&bytes).as_deref(), Ok(samples));
    }
    let f = |value: f64| value.to_bits();
    let stale = stale_nan().to_bits();
    // No start, every prefix, a marker with and without a step.
    check(
        &[
            (0, 1_700_000_000_000, f(3.0)),
            (0, 1_700_000_015_000, f(3.0)),
            (0, 1_700_000_030_000, f(3.0)),
            (0, 1_700_000_045_000, f(4.5)),
            (0, 1_700_000_060_007, f(4.5)),
            (0, 1_700_000_075_007, stale),
            (0, 1_700_000_090_000, stale),
            (0, 1_700_000_190_000, f(-7.25)),
            (0, 1_700_090_190_000, f(f64::INFINITY)),
        ],
        "00090080a0abfef962400800000000000098752ac4dc0076ffcfdff9fc2981f8084007f800000000156f0f82bfed",
    );
    // A start from the first sample on, a reset, and then deltas.
    check(
        &[
            (1_699_999_990_500, 1_700_000_000_000, f(10.0)),
            (1_699_999_990_500, 1_700_000_015_000, f(20.0)),
            (1_699_999_990_500, 1_700_000_030_000, f(30.0)),
            (1_700_000_030_250, 1_700_000_045_000, f(1.0)),
            (1_700_000_045_000, 1_700_000_060_000, f(2.0)),
            (1_700_000_060_000, 1_700_000_075_000, f(3.0)),
            (0, 1_700_000_090_000, f(4.0)),
        ],
        "00078380a0abfef9624024000000000000b894019875cb07581da13bfe7e834ffe39f5000440033f800062f3f9a33e00",
    );
    // A start that does not change is written again at sample 127.
    let long: Vec<SampleRow> = (0..130).map(|n| (500, 1_000 + n * 1_000, f(1.0))).collect();
    check(&long, "0082ffd00f3ff0000000000000e807e80700000000000000000000000000000001f3dc48f1f43c7d00");
}

#[test]
fn each_width_of_a_timestamp_holds_its_bounds() {
    for (dod, bits) in [
        (0, 1),
        (4_095, 17),
        (-4_096, 17),
        (4_096, 25),
        (-4_097, 25),
        (524_287, 25),
        (-524_288, 25),
        (524_288, 70),
        (-524_289, 70),
    ] {
        let start = 2_000_000;
        let chunk = encode(&[(0, 0, 0), (0, start, 0), (0, start + start + dod, 0)]);
        assert_eq!(decode_rows(&chunk.data).unwrap()[2].1, start + start + dod);
        // Header, varint 0, value, uvarint of three bytes, the value's bit; then the field.
        assert_eq!(chunk.data.len(), (8 * (3 + 1 + 8 + 3) + 1 + bits as usize).div_ceil(8), "{dod}");
    }
}

#[test]
fn damaged_chunks_are_read_whole_or_errors_that_name_the_encoding() {
    for seed in [7, 9, 12, 16] {
        let chunk = encode(&random_samples(&mut Random::seeded(seed)));
        survives_damage(chunk.encoding, &chunk.data, 15_000, seed, |data| {
            decode_rows(data).map(|samples| samples.len())
        });
    }
}

#[test]
fn memory_is_not_allocated_for_samples_that_do_not_fit_into_a_chunk() {
    let mut data = vec![0xff; 3];
    data.extend([0; 4_000]);
    let chunk = Chunk { range: TimeRange::ALL, encoding: Encoding::Xor2, data: data.into() };
    let (mut timestamps, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    let error = chunk.decode_floats_with_starts(&mut timestamps, &mut values, &mut starts).unwrap_err();
    assert_eq!(error.problem, ChunkProblem::Truncated { samples: 65_535 });
    assert_eq!((timestamps.capacity(), values.capacity(), starts.capacity()), (0, 0, 0));
}

#[test]
fn a_damaged_chunk_leaves_earlier_samples_unchanged() {
    let chunk = encode(&[(1, 10, 1), (2, 20, 2), (3, 30, 3)]);
    let cut = Chunk { data: chunk.data.slice(..chunk.data.len() - 2), ..chunk.clone() };
    for before in [vec![], vec![7]] {
        let (mut timestamps, mut values, mut starts) = (vec![-1], vec![0.5], before.clone());
        let error = cut.decode_floats_with_starts(&mut timestamps, &mut values, &mut starts).unwrap_err();
        assert!(error.to_string().starts_with("XOR2 chunk of "), "{error}");
        assert_eq!((timestamps, values, starts), (vec![-1], vec![0.5], before));
    }
}

fn decode_starts(chunk: &Chunk) -> Vec<i64> {
    let mut starts = Vec::new();
    chunk.decode_floats_with_starts(&mut Vec::new(), &mut Vec::new(), &mut starts).unwrap();
    starts
}

#[test]
fn starts_are_as_many_as_timestamps_or_none() {
    let unknown: Vec<SampleRow> = (0..200).map(|t| (0, t, 0)).collect();
    assert_eq!(decode_starts(&encode(&unknown)), Vec::<i64>::new());
    let (with, without) = (encode(&[(5, 10, 1), (5, 20, 2)]), encode(&[(0, 30, 3)]));
    let (mut timestamps, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    let mut append = |chunk: &Chunk| {
        chunk.decode_floats_with_starts(&mut timestamps, &mut values, &mut starts).unwrap();
        starts.clone()
    };
    assert_eq!(append(&without), Vec::<i64>::new());
    assert_eq!(append(&with), [0, 5, 5]);
    assert_eq!(append(&without), [0, 5, 5, 0]);
    let mut plain = crate::XorEncoder::new();
    plain.append(Sample::new(40, 1.0)).unwrap();
    assert_eq!(append(&plain.finish().unwrap()), [0, 5, 5, 0, 0]);
}

#[test]
fn the_encoder_rejects_samples_that_a_chunk_cannot_store() {
    let mut encoder = Xor2Encoder::new();
    assert!(encoder.is_empty());
    assert_eq!(encoder.clone().finish(), None);
    for t in 0..65_535 {
        encoder.append(Sample::new(t, 1.0), Timestamp::EPOCH).unwrap();
    }
    assert_eq!(encoder.append(Sample::new(70_000, 1.0), Timestamp::EPOCH), Err(AppendError::Full));
    assert_eq!(
        (encoder.len(), decode_rows(&encoder.finish().unwrap().data).unwrap().len()),
        (65_535, 65_535)
    );

    let mut encoder = Xor2Encoder::new();
    encoder.append(Sample::new(5, 1.0), Timestamp::EPOCH).unwrap();
    let refused = encoder.append(Sample::new(5, 2.0), Timestamp::EPOCH).unwrap_err();
    assert_eq!(refused.to_string(), "sample at 5 is not after the last one at 5");
}
