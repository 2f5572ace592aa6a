//! Series that [`crate::data`] omits because the slow evaluator does not support them: native histograms of
//! all schemas, with all kinds of zero buckets and custom bounds, including gauges; UTF-8 names; extreme
//! floats; start timestamps; info metrics.

use std::sync::Arc;

use model::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Labels, TimeRange, Timestamp,
    stale_nan,
};
use promql::promqltest::{SequenceValue, Storage};
use series::SelectedSeries;

use crate::data::{Data, LENGTH};
use crate::random::Random;

/// The series of [`Data::random`] and additional ones, in label order.
pub(crate) fn series(random: &mut Random, instances: usize) -> Vec<SelectedSeries> {
    let mut series = Data::random(random, instances).selected(random);
    let mut storage = Storage::new();
    for job in ["api", "db"] {
        for instance in ["0", "1", "2"] {
            let labels = [("job", job), ("instance", instance)];
            let zone = random.pick(&["é", "south"]);
            add(&mut storage, "extreme", &labels, random, extreme);
            add(
                &mut storage,
                "heat.total",
                &[&labels[..], &[("zone.name", zone)]].concat(),
                random,
                counter(),
            );
            add(&mut storage, "started_total", &labels, random, counter());
            add(&mut storage, "spread", &labels, random, exponential());
            add(&mut storage, "sizes", &labels, random, custom());
            for version in ["1", "2"] {
                if random.percent(60) {
                    let region = random.pick(&["eu", "us"]);
                    let labels = [&labels[..], &[("version", version), ("region", region)]].concat();
                    add(&mut storage, "target_info", &labels, random, |_| SequenceValue::Float(1.0));
                }
            }
            if random.percent(70) {
                let labels = [&labels[..], &[("version", "b"), ("code", "7")]].concat();
                add(&mut storage, "build_info", &labels, random, |_| SequenceValue::Float(1.0));
            }
        }
        add(&mut storage, "latency", &[("job", job)], random, exponential());
    }
    series.extend(storage.select(&[], TimeRange::ALL));
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    series
}

fn add(
    storage: &mut Storage,
    name: &str,
    labels: &[(&str, &str)],
    random: &mut Random,
    mut value: impl FnMut(&mut Random) -> SequenceValue,
) {
    let pairs = labels.iter().copied().chain([("__name__", name)]);
    let labels = Labels::from_pairs(pairs).expect("names differ");
    let interval = random.pick(&[15_000, 15_000, 30_000]);
    let starts = name == "started_total" || random.percent(20);
    let (mut at, mut start) = (random.between(0, 14) * 1000, 0);
    while at < LENGTH {
        let (value, again) = if random.percent(1) {
            (SequenceValue::Float(stale_nan()), true)
        } else {
            (value(random), random.percent(4))
        };
        if again {
            start = at - random.pick(&[0, 1000, 15_000, 40_000, -5000]);
        }
        let from = (starts && start > 0).then(|| start - at);
        storage
            .append_sequence_with_starts(&labels, Timestamp::from_millis(at), 1, &[value], &[from])
            .expect("samples ascend");
        at += interval * if random.percent(3) { random.between(2, 30) } else { 1 };
    }
}

fn counter() -> impl FnMut(&mut Random) -> SequenceValue {
    let mut total = 0.0;
    move |random| {
        total = if random.percent(4) { 0.0 } else { total + random.unit() * 10.0 };
        SequenceValue::Float(total)
    }
}

fn extreme(random: &mut Random) -> SequenceValue {
    SequenceValue::Float(random.pick(&[
        f64::MAX,
        f64::MIN_POSITIVE,
        1e300,
        -1e17,
        0.1,
        -0.0,
        1.0,
        1e-17,
        9_007_199_254_740_993.0,
    ]))
}

fn exponential() -> impl FnMut(&mut Random) -> SequenceValue {
    let mut now = FloatHistogram::default();
    let mut hint = CounterResetHint::Unknown;
    move |random| {
        if now.count == 0.0 || random.percent(5) {
            hint = if random.percent(15) { CounterResetHint::Gauge } else { CounterResetHint::Unknown };
            let schema = random.pick(&[0, 0, 1, 1, 2, 3, -1, -4, 8]);
            // The buckets are outside of the zero bucket. Its bounds are bucket bounds in every schema,
            // because Prometheus counts observations twice that are both in the zero bucket and in a bucket
            // that overlaps it.
            let zero_threshold = random.pick(&[0.0, 1e-128, 1.0 / 65536.0, 1.0 / 65536.0, 1.0, 65536.0]);
            let first = match schema {
                0.. if zero_threshold > 1.0 => 17,
                _ if zero_threshold > 1.0 => 9,
                ..0 => random.between(1, 4),
                _ if zero_threshold == 1.0 => random.between(1, 4),
                _ => random.between(-4, 4),
            } as i32;
            let first = if schema > 0 { first << schema } else { first };
            let gap = random.between(0, 3) as i32;
            let spans = vec![BucketSpan { offset: first, length: 2 }, BucketSpan { offset: gap, length: 1 }];
            now = FloatHistogram {
                schema,
                zero_threshold,
                positive_buckets: vec![0.0; 3],
                positive_spans: spans.clone(),
                ..FloatHistogram::default()
            };
            if random.percent(40) {
                now.negative_spans = spans;
                now.negative_buckets = vec![0.0; 3];
            }
        }
        for count in now.positive_buckets.iter_mut().chain(&mut now.negative_buckets) {
            *count += random.between(0, 4) as f64;
        }
        now.zero_count += random.between(0, 2) as f64;
        finish(&mut now, random);
        now.counter_reset_hint = hint;
        SequenceValue::Histogram {
            histogram: Arc::new(now.clone()),
            hint_given: hint != CounterResetHint::Unknown,
        }
    }
}

fn custom() -> impl FnMut(&mut Random) -> SequenceValue {
    let mut now = FloatHistogram::default();
    move |random| {
        if now.count == 0.0 || random.percent(4) {
            let bounds: &[f64] = random.pick(&[
                &[0.5, 1.0, 2.5][..],
                &[0.5, 2.5],
                &[0.5, 1.0, 2.5],
                &[-1.0, 0.0, 7.0],
                &[3.0],
                &[],
            ]);
            now = FloatHistogram {
                schema: CUSTOM_BUCKETS_SCHEMA,
                custom_values: bounds.to_vec(),
                positive_spans: vec![BucketSpan { offset: 0, length: bounds.len() as u32 + 1 }],
                positive_buckets: vec![0.0; bounds.len() + 1],
                ..FloatHistogram::default()
            };
        }
        for count in &mut now.positive_buckets {
            *count += random.between(0, 4) as f64;
        }
        finish(&mut now, random);
        SequenceValue::Histogram { histogram: Arc::new(now.clone()), hint_given: false }
    }
}

/// Computes the count, and a sum that is consistent with it or not.
fn finish(histogram: &mut FloatHistogram, random: &mut Random) {
    let buckets = histogram.positive_buckets.iter().chain(&histogram.negative_buckets);
    histogram.count = buckets.sum::<f64>() + histogram.zero_count;
    histogram.sum += random.between(-8, 40) as f64 / 4.0;
    match random.below(200) {
        0 => histogram.sum = f64::NAN,
        1 => histogram.sum = f64::INFINITY,
        _ if !histogram.sum.is_finite() => histogram.sum = 0.0,
        _ => {}
    }
}
