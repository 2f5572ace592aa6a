//! Random series are downsampled, and compared with what a few slow lines make of their samples.
//!
//! Values are multiples of a quarter and not large, so that sums are exact in any order.

use std::collections::BTreeMap;

use model::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, Timestamp, stale_nan};
use tsdb::Encoding;

use super::*;
use crate::testing::{OPTIONS, Random, decode_all};
use crate::{AggrChunk, ChunkSample, ChunkSampleValue, DecodeOptions, encode_chunks};

const FIVE_MINUTES: i64 = 300_000;
const HOUR: i64 = 3_600_000;

/// Number of random series; `ISTHMUS_CASES` sets another one.
fn cases() -> u64 {
    std::env::var("ISTHMUS_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

/// What the samples of a stretch of time are.
#[derive(Clone, Copy)]
enum Shape {
    Counter,
    Gauge,
    Histogram { bounds: usize, gauge: bool, integer: bool },
}

fn random_shape(random: &mut Random) -> Shape {
    match random.below(6) {
        0..=2 => Shape::Counter,
        3 => Shape::Gauge,
        _ => Shape::Histogram {
            bounds: random.below(3),
            gauge: random.below(5) == 0,
            integer: random.below(2) == 0,
        },
    }
}

/// Whether gauges fall below zero. A counter never does, so the growth of such a series means nothing.
fn has_negative_values(seed: u64) -> bool {
    seed % 4 == 3
}

/// Samples with resets, gaps, staleness markers, NaN, and changes of kind.
fn random_series(seed: u64) -> Vec<ChunkSample> {
    let mut random = Random::seeded(seed);
    let changes = [0, 0, 0, 300, 20][random.below(5)];
    let step = [1_000, 15_000, 30_000, 60_000, 400_000][random.below(5)];
    let mut t = random.below(4) as i64 * 86_400_000 - 100_000_000 + random.below(3) as i64 * 50_000;
    let (mut shape, mut value) = (random_shape(&mut random), 0.0);
    let mut histogram = FloatHistogram::default();
    let mut out = Vec::new();
    for _ in 0..1 + random.below(3_000) {
        t += 1 + (step + random.below(3) * random.below(step)) as i64 / 2;
        if random.below(200) == 0 {
            t += random.below(20 * HOUR as usize) as i64;
        }
        if changes > 0 && random.below(changes) == 0 {
            (shape, histogram) = (random_shape(&mut random), FloatHistogram::default());
        }
        let reset = random.below(80) == 0;
        let (sample, encoding) = match shape {
            Shape::Counter => {
                value = if reset { 0.0 } else { value } + random.below(40) as f64 / 4.0;
                (ChunkSampleValue::Float(value), [Encoding::Xor, Encoding::Xor2][seed as usize % 2])
            }
            Shape::Gauge => {
                value = random.below(400) as f64 / 4.0 - if has_negative_values(seed) { 50.0 } else { 0.0 };
                let value = [value, value, value, f64::NAN, stale_nan()][random.below(8) % 5];
                (ChunkSampleValue::Float(value), Encoding::Xor)
            }
            Shape::Histogram { bounds, gauge, integer } => {
                grow(&mut histogram, reset, bounds, gauge, &mut random);
                let value = match random.below(60) {
                    0 => FloatHistogram::stale(),
                    _ => histogram.clone(),
                };
                let encoding = if integer { Encoding::Histogram } else { Encoding::FloatHistogramSt };
                (ChunkSampleValue::Histogram(Arc::new(value)), encoding)
            }
        };
        out.push(ChunkSample {
            at: Timestamp::from_millis(t),
            start: Timestamp::EPOCH,
            value: sample,
            encoding,
        });
    }
    out
}

/// The next histogram: with more observations, after a reset, or with other buckets.
fn grow(histogram: &mut FloatHistogram, reset: bool, bounds: usize, gauge: bool, random: &mut Random) {
    if reset || histogram.positive_buckets.is_empty() {
        let buckets = 1 + random.below(4);
        *histogram = FloatHistogram {
            schema: if bounds == 0 { 1 + random.below(2) as i32 } else { CUSTOM_BUCKETS_SCHEMA },
            counter_reset_hint: if gauge { CounterResetHint::Gauge } else { CounterResetHint::Unknown },
            positive_spans: vec![BucketSpan {
                offset: if bounds == 0 { 3 } else { 0 },
                length: buckets as u32,
            }],
            positive_buckets: vec![0.0; buckets],
            custom_values: (0..if bounds == 0 { 0 } else { 5 }).map(|n| (n * bounds) as f64).collect(),
            ..FloatHistogram::default()
        };
    } else if random.below(30) == 0 && histogram.positive_buckets.len() < 5 {
        histogram.positive_spans[0].length += 1;
        histogram.positive_buckets.push(0.0);
    }
    for bucket in &mut histogram.positive_buckets {
        let by = random.below(5) as f64;
        *bucket += by;
        histogram.count += by;
        histogram.sum += by * 1.5;
    }
}

/// Count, sum, least and greatest of a window; count and observations of the histograms in it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Window {
    floats: f64,
    sum: f64,
    min: f64,
    max: f64,
    histograms: f64,
    observations: f64,
    observed_sum: f64,
}

impl Window {
    const EMPTY: Self = Self {
        floats: 0.0,
        sum: 0.0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        histograms: 0.0,
        observations: 0.0,
        observed_sum: 0.0,
    };
}

fn window_of(windows: &mut BTreeMap<i64, Window>, t: i64, resolution: i64) -> &mut Window {
    windows.entry(t.div_euclid(resolution)).or_insert(Window::EMPTY)
}

/// The windows of raw samples.
fn expected_windows(samples: &[ChunkSample], resolution: i64) -> BTreeMap<i64, Window> {
    let mut windows = BTreeMap::new();
    for sample in samples {
        let t = sample.at.as_millis();
        match &sample.value {
            ChunkSampleValue::Float(value) if value.is_nan() => {}
            ChunkSampleValue::Float(value) => {
                let window = window_of(&mut windows, t, resolution);
                window.floats += 1.0;
                window.sum += value;
                window.min = window.min.min(*value);
                window.max = window.max.max(*value);
            }
            ChunkSampleValue::Histogram(histogram) if histogram.is_stale() => {}
            ChunkSampleValue::Histogram(histogram) => {
                let window = window_of(&mut windows, t, resolution);
                window.histograms += 1.0;
                window.observations += histogram.count;
                window.observed_sum += histogram.sum;
            }
        }
    }
    windows
}

/// The windows that downsampled chunks claim.
fn windows(chunks: &[Chunk], resolution: i64) -> BTreeMap<i64, Window> {
    let mut windows = BTreeMap::new();
    for chunk in chunks {
        let parts = chunk.aggregates().unwrap();
        let floats = |aggregate| {
            let (mut times, mut values) = (Vec::new(), Vec::new());
            parts.get(aggregate).unwrap().decode_floats(&mut times, &mut values).unwrap();
            times.into_iter().zip(values)
        };
        let is_float = parts.sum.as_ref().unwrap().encoding.holds_floats();
        for (t, count) in floats(Aggregate::Count) {
            let window = window_of(&mut windows, t, resolution);
            *if is_float { &mut window.floats } else { &mut window.histograms } += count;
        }
        if !is_float {
            let mut sums = Vec::new();
            parts.sum.unwrap().decode_histograms(&mut sums).unwrap();
            for (t, sum) in sums {
                let window = window_of(&mut windows, t, resolution);
                window.observations += sum.count;
                window.observed_sum += sum.sum;
                assert_eq!(sum.positive_buckets.iter().sum::<f64>(), sum.count);
            }
            continue;
        }
        for (t, sum) in floats(Aggregate::Sum) {
            window_of(&mut windows, t, resolution).sum += sum;
        }
        for ((t, min), (_, max)) in floats(Aggregate::Min).zip(floats(Aggregate::Max)) {
            let window = window_of(&mut windows, t, resolution);
            (window.min, window.max) = (window.min.min(min), window.max.max(max));
        }
    }
    windows
}

/// The growth of the floats up to each sample, with resets applied.
fn expected_growth(samples: &[ChunkSample]) -> Vec<(i64, f64)> {
    let (mut last, mut total) = (None, 0.0);
    let mut out = Vec::new();
    for sample in samples {
        let ChunkSampleValue::Float(value) = sample.value else { continue };
        if !value.is_nan() {
            total += match last {
                Some(last) if value >= last => value - last,
                _ => value,
            };
            last = Some(value);
            out.push((sample.at.as_millis(), total));
        }
    }
    out
}

/// Observations that counters of histograms gained from the first to the last, as `increase` counts them. Gauges are left out.
fn gained<'a>(histograms: impl Iterator<Item = &'a Arc<FloatHistogram>>) -> (f64, f64) {
    let mut gained = (0.0, 0.0);
    let mut before: Option<&FloatHistogram> = None;
    for histogram in histograms.filter(|h| h.counter_reset_hint != CounterResetHint::Gauge && !h.is_stale()) {
        if let Some(before) = before {
            let reset = histogram.detect_reset(before);
            gained.0 += histogram.count - if reset { 0.0 } else { before.count };
            gained.1 += histogram.sum - if reset { 0.0 } else { before.sum };
        }
        before = Some(histogram);
    }
    gained
}

fn read(chunks: &[Chunk], aggregate: Aggregate) -> Samples {
    let lane =
        chunks.iter().map(|chunk| AggrChunk::from_block(chunk.clone(), &[aggregate]).unwrap()).collect();
    decode_all(vec![lane], &DecodeOptions { aggregate, counter: true, ..OPTIONS }).unwrap()
}

fn check_counters(samples: &[ChunkSample], raw: &[Chunk], chunks: &[Chunk], resolution: i64, case: &str) {
    let growth = expected_growth(samples);
    let counters = read(chunks, Aggregate::Counter);
    let mut expected = growth.iter().copied().peekable();
    let mut total = None;
    for (t, value) in counters.timestamps.iter().zip(&counters.values) {
        while let Some((_, up_to)) = expected.next_if(|(at, _)| at <= t) {
            total = Some(up_to);
        }
        assert_eq!(Some(*value), total, "{case}: total at {t}");
    }
    assert_eq!(counters.values.last(), growth.last().map(|(_, total)| total), "{case}: the last total");
    let points = counters.values.len() + counters.histograms.len();
    let most = 3 * windows(chunks, resolution).len() + 3 * chunks.len();
    assert!(points <= most, "{case}: {points} points, at most {most} expected");

    let of_raw = read(raw, Aggregate::Raw).histograms;
    let gained_of = |histograms: &[(i64, Arc<FloatHistogram>)]| gained(histograms.iter().map(|(_, h)| h));
    assert_eq!(gained_of(&counters.histograms), gained_of(&of_raw), "{case}: observations gained");
}

fn check_order(chunks: &[Chunk], case: &str) {
    for (chunk, next) in chunks.iter().zip(&chunks[1.min(chunks.len())..]) {
        assert!(chunk.range.max < next.range.min, "{case}: {:?} {:?}", chunk.range, next.range);
    }
    for chunk in chunks {
        let parts = chunk.aggregates().unwrap();
        let count = parts.count.as_ref().unwrap();
        let (mut times, mut counts) = (Vec::new(), Vec::new());
        count.decode_floats(&mut times, &mut counts).unwrap();
        let claimed = (chunk.range.min.as_millis(), chunk.range.max.as_millis());
        assert_eq!(claimed, (times[0], times[times.len() - 1]), "{case}");
        assert!(parts.counter.is_some(), "{case}: Thanos reads no chunk without a counter");
    }
}

#[test]
fn random_series_are_downsampled_as_the_slow_way_does() {
    let mut mixed = 0;
    for seed in 0..cases() {
        let samples = random_series(seed);
        let raw = encode_chunks(&samples).unwrap();
        let millis = |millis: i64| Duration::from_millis(millis as u64);
        let fine = Downsampler::new(Duration::ZERO, millis(FIVE_MINUTES)).series(&raw).unwrap();
        let coarse = Downsampler::new(Duration::ZERO, millis(HOUR)).series(&raw).unwrap();
        let twice = Downsampler::new(millis(FIVE_MINUTES), millis(HOUR)).series(&fine).unwrap();
        for (chunks, resolution, way) in
            [(&fine, FIVE_MINUTES, "raw to 5m"), (&coarse, HOUR, "raw to 1h"), (&twice, HOUR, "5m to 1h")]
        {
            let case = format!("seed {seed}, {way}");
            assert_eq!(windows(chunks, resolution), expected_windows(&samples, resolution), "{case}");
            if !has_negative_values(seed) {
                check_counters(&samples, &raw, chunks, resolution, &case);
            }
            check_order(chunks, &case);
        }
        mixed += usize::from(fine.windows(2).any(|pair| {
            let sum = |chunk: &Chunk| chunk.aggregates().unwrap().sum.unwrap().encoding;
            sum(&pair[0]) != sum(&pair[1])
        }));
    }
    assert!(mixed > 10, "only {mixed} series changed their kind");
}

#[test]
fn damaged_chunks_are_errors_or_other_samples_but_never_panics() {
    let mut random = Random::seeded(77);
    let (mut failed, rounds) = (0, 4_000);
    for round in 0..rounds {
        let samples = random_series(round % 40);
        let mut chunks = encode_chunks(&samples[..samples.len().min(300)]).unwrap();
        if round % 2 == 0 {
            chunks = Downsampler::new(Duration::ZERO, Duration::from_secs(300)).series(&chunks).unwrap();
        }
        if chunks.is_empty() {
            continue;
        }
        let at = random.below(chunks.len());
        let mut data = chunks[at].data.to_vec();
        for _ in 0..=random.below(3) {
            let bit = random.below(data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
        }
        data.truncate(1 + random.below(data.len() * 3));
        chunks[at].data = data.into();
        let result = Downsampler::new(Duration::from_secs(300), Duration::from_secs(3600)).series(&chunks);
        failed += u64::from(result.is_err());
    }
    assert!(failed > rounds / 10, "only {failed} of {rounds} damaged series were rejected");
}
