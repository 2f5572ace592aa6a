//! Random series: counters with resets, gauges with special float values, classic and native histograms. With
//! gaps, late starts, early ends and staleness markers.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use model::{
    CUSTOM_BUCKETS_SCHEMA, FloatHistogram, Labels, Sample, TimeRange, Timestamp, is_stale_nan, stale_nan,
};
use promql::promqltest::Storage;
use series::{AggrChunk, SelectedSeries};
use tsdb::XorEncoder;

use crate::histogram::Histogram;
use crate::random::Random;

/// The labels of a series, including its name.
pub(crate) type LabelMap = BTreeMap<String, String>;

/// The value of a sample.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Float(f64),
    Histogram(Histogram),
}

impl Value {
    /// Whether it marks the end of the series.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Float(value) if is_stale_nan(*value))
    }
}

/// All series with their samples in order of time. Times are in milliseconds and are whole seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    pub(crate) series: BTreeMap<LabelMap, Vec<(i64, Value)>>,
}

/// Generates the values of a series, one at a time.
type Maker<'a> = dyn FnMut(&mut Random) -> Value + 'a;

/// Duration of the data in milliseconds.
pub(crate) const LENGTH: i64 = 3_600_000;

/// Upper bounds of the classic histograms.
pub(crate) const BOUNDS: [&str; 5] = ["0.1", "0.5", "1", "5", "+Inf"];

impl Data {
    /// Random series for the given number of instances of two jobs.
    pub(crate) fn random(random: &mut Random, instances: usize) -> Self {
        let mut data = Self::default();
        for job in ["api", "db"] {
            for instance in 0..instances {
                let instance = instance.to_string();
                let instance = instance.as_str();
                for code in ["200", "500"] {
                    if random.percent(85) {
                        let labels = [("job", job), ("instance", instance), ("code", code)];
                        data.add("requests_total", &labels, random, counter());
                    }
                }
                let labels = [("job", job), ("instance", instance)];
                data.add("up", &labels, random, |random| Value::Float(f64::from(random.percent(80))));
                data.add("temperature", &labels, random, gauge());
                data.add("fine", &labels, random, |random| {
                    Value::Float(random.between(-999, 999) as f64 / 10.0)
                });
                if random.percent(60) {
                    let negative = random.percent(40);
                    data.add("load", &labels, random, native(negative, false));
                }
                if random.percent(60) {
                    data.add("size", &labels, random, native(false, true));
                }
            }
            data.add_classic(job, random);
            let (mut floats, mut histograms) = (counter(), native(false, false));
            data.add("mixed", &[("job", job)], random, move |random| {
                if random.percent(70) { floats(random) } else { histograms(random) }
            });
        }
        data
    }

    /// Series of floats that Prometheus 2.42 can ingest: no staleness markers, gaps only in gauges, and
    /// samples a quarter of a second after full seconds, starting at `begin` (milliseconds).
    pub(crate) fn old(random: &mut Random, begin: i64) -> Self {
        let mut data = Self::default();
        let steady: Vec<i64> = (0..LENGTH / 15_000).map(|i| begin + i * 15_000 + 250).collect();
        let mut add =
            |name: &str, labels: &[(&str, &str)], gaps: bool, random: &mut Random, value: &mut Maker<'_>| {
                let mut points: Vec<(i64, Value)> = steady.iter().map(|at| (*at, value(random))).collect();
                points.retain(|_| !(gaps && random.percent(30)));
                data.insert(name, labels, points);
            };
        for job in ["api", "db"] {
            for instance in ["0", "1", "2"] {
                for code in ["200", "500"] {
                    let labels = [("job", job), ("instance", instance), ("code", code)];
                    add("requests_total", &labels, false, random, &mut counter());
                }
                let labels = [("job", job), ("instance", instance)];
                add("up", &labels, false, random, &mut |random| Value::Float(f64::from(random.percent(80))));
                add("fine", &labels, false, random, &mut |random| {
                    Value::Float(random.between(-999, 999) as f64 / 10.0)
                });
                add("temperature", &labels, true, random, &mut gauge());
            }
            let mut counts = vec![0; steady.len()];
            for le in BOUNDS {
                let (mut total, mut at) = (0, 0);
                add("latency_bucket", &[("job", job), ("le", le)], false, random, &mut |random| {
                    total += random.between(0, 6);
                    counts[at] += total;
                    at += 1;
                    Value::Float(f64::from(counts[at - 1] as i32))
                });
            }
        }
        data
    }

    /// The series in OpenMetrics format. They must not have histograms or staleness markers.
    pub(crate) fn exposition(&self) -> String {
        let mut text = String::new();
        for (labels, points) in &self.series {
            let pairs: Vec<String> =
                labels.iter().filter(|(n, _)| *n != "__name__").map(|(n, v)| format!("{n}={v:?}")).collect();
            for (at, value) in points {
                let Value::Float(value) = value else { unreachable!("floats only") };
                let at = *at as f64 / 1000.0;
                let _ = writeln!(text, "{}{{{}}} {value} {at}", labels["__name__"], pairs.join(","));
            }
        }
        text.push_str("# EOF\n");
        text
    }

    /// Adds a series. Its values are generated one at a time.
    fn add(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        random: &mut Random,
        mut value: impl FnMut(&mut Random) -> Value,
    ) {
        let interval = random.pick(&[15, 15, 30, 60]) * 1000;
        let steady = random.percent(50);
        let samples = times(random, interval, steady);
        let mut points: Vec<(i64, Value)> = samples
            .into_iter()
            .map(|(at, ends)| (at, if ends { Value::Float(stale_nan()) } else { value(random) }))
            .collect();
        points.dedup_by_key(|(at, _)| *at);
        self.insert(name, labels, points);
    }

    fn insert(&mut self, name: &str, labels: &[(&str, &str)], points: Vec<(i64, Value)>) {
        let pairs = labels.iter().copied().chain([("__name__", name)]);
        let labels = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.series.insert(labels, points);
    }

    /// Adds a classic histogram. Its buckets have samples at the same times. Some lack a bucket, some have
    /// wrong counts.
    fn add_classic(&mut self, job: &str, random: &mut Random) {
        let times = times(random, 15_000, true);
        let mut counts = [0i64; BOUNDS.len()];
        let missing = random.percent(20).then(|| random.below(BOUNDS.len() as u64) as usize);
        let mut series: Vec<Vec<(i64, Value)>> = vec![Vec::new(); BOUNDS.len()];
        for (at, ends) in times {
            if random.percent(1) {
                counts = [0; BOUNDS.len()];
            }
            let mut before = 0;
            for (bucket, points) in series.iter_mut().enumerate() {
                counts[bucket] += random.between(0, 6);
                before += counts[bucket];
                let wrong = if random.percent(1) { random.between(-9, 9) } else { 0 };
                let value = if ends { stale_nan() } else { (before + wrong) as f64 };
                points.push((at, Value::Float(value)));
            }
        }
        for (bucket, points) in series.into_iter().enumerate().filter(|(bucket, _)| Some(*bucket) != missing)
        {
            self.insert("latency_bucket", &[("job", job), ("le", BOUNDS[bucket])], points);
        }
    }

    /// The series in the form that the engine accepts, in label order. Series of floats have chunks of random
    /// lengths.
    pub(crate) fn selected(&self, random: &mut Random) -> Vec<SelectedSeries> {
        let mut storage = Storage::new();
        let mut selected = Vec::new();
        for (labels, points) in &self.series {
            let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let labels = Labels::from_pairs(pairs).expect("names differ");
            if let Some(floats) = floats(points) {
                let longest = random.pick(&[3, 20, 120]);
                let mut chunks = Vec::new();
                let mut rest = &floats[..];
                while !rest.is_empty() {
                    let (chunk, later) = rest.split_at(rest.len().min(random.between(1, longest) as usize));
                    let mut encoder = XorEncoder::new();
                    chunk.iter().for_each(|sample| encoder.append(*sample).expect("samples ascend"));
                    chunks.extend(encoder.finish().map(AggrChunk::raw));
                    rest = later;
                }
                selected.push(SelectedSeries { labels, replicas: vec![chunks] });
                continue;
            }
            let mut histograms = false;
            for (at, value) in points {
                let timestamp = Timestamp::from_millis(*at);
                histograms |= matches!(value, Value::Histogram(_));
                let stored = match value {
                    Value::Histogram(histogram) => {
                        storage.append_histogram(&labels, timestamp, &Arc::new(histogram.to_model()))
                    }
                    // A scrape marks the end of a native histogram with a stale histogram.
                    Value::Float(value) if is_stale_nan(*value) && histograms => {
                        storage.append_histogram(&labels, timestamp, &Arc::new(FloatHistogram::stale()))
                    }
                    Value::Float(value) => storage.append_float(&labels, Sample { timestamp, value: *value }),
                };
                stored.expect("samples ascend");
            }
        }
        selected.extend(storage.select(&[], TimeRange::ALL));
        selected.sort_by(|a, b| a.labels.cmp(&b.labels));
        selected
    }

    /// The series whose names occur in `text`, as a `load` command of a test script.
    pub(crate) fn notation(&self, text: &str) -> String {
        let mut script = "load 1s\n".to_owned();
        for (labels, points) in self.series.iter().filter(|(labels, _)| text.contains(&labels["__name__"])) {
            let pairs: Vec<String> =
                labels.iter().filter(|(n, _)| *n != "__name__").map(|(n, v)| format!("{n}={v:?}")).collect();
            let _ = write!(script, "  {}{{{}}}", labels["__name__"], pairs.join(","));
            let mut next = 0;
            for (at, value) in points {
                match at / 1000 - next {
                    0 => {}
                    gap => {
                        let _ = write!(script, " _x{gap}");
                    }
                }
                next = at / 1000 + 1;
                let _ = match value {
                    Value::Histogram(histogram) => write!(script, " {}", histogram.notation()),
                    Value::Float(value) if is_stale_nan(*value) => write!(script, " stale"),
                    Value::Float(value) if *value == 0.0 && value.is_sign_negative() => {
                        write!(script, " -0.0")
                    }
                    Value::Float(value) if value.is_infinite() => {
                        write!(script, " {}Inf", if *value > 0.0 { "" } else { "-" })
                    }
                    Value::Float(value) => write!(script, " {value}"),
                };
            }
            script.push('\n');
        }
        script
    }
}

/// The samples of a series without histograms.
fn floats(points: &[(i64, Value)]) -> Option<Vec<Sample>> {
    let float = |(at, value): &(i64, Value)| match value {
        Value::Float(value) => Some(Sample::new(*at, *value)),
        Value::Histogram(_) => None,
    };
    points.iter().map(float).collect()
}

/// The times of the samples, and `true` if the series ends there for a while.
fn times(random: &mut Random, interval: i64, steady: bool) -> Vec<(i64, bool)> {
    let mut times = Vec::new();
    let mut at = if random.percent(20) {
        random.between(0, LENGTH / 2000) * 1000
    } else {
        random.between(0, 14) * 1000
    };
    let end = if random.percent(20) { random.between(LENGTH / 2000, LENGTH / 1000) * 1000 } else { LENGTH };
    while at <= end {
        let jitter = if steady || random.percent(50) { 0 } else { random.between(0, 3) * 1000 };
        let ends = random.percent(1);
        times.push((at + jitter, ends));
        // A gap. Long gaps exceed the lookback.
        let missed = if ends || random.percent(2) { random.between(1, 30) } else { 0 };
        at += interval * (1 + missed);
    }
    times.sort_unstable();
    times.dedup_by_key(|(at, _)| *at);
    times
}

/// A counter with occasional resets, to zero or to another value.
fn counter() -> impl FnMut(&mut Random) -> Value {
    let mut total = 0;
    move |random| {
        total =
            if random.percent(3) { random.between(0, 5) } else { total + random.pick(&[0, 0, 1, 2, 7, 30]) };
        Value::Float(total as f64)
    }
}

/// A gauge with multiples of 0.25, whose sums are exact, and with special float values.
fn gauge() -> impl FnMut(&mut Random) -> Value {
    move |random| {
        Value::Float(match random.below(100) {
            0 | 1 => f64::NAN,
            2 => f64::INFINITY,
            3 => f64::NEG_INFINITY,
            4 | 5 => -0.0,
            6 | 7 => 0.0,
            8..30 => random.between(-3, 3) as f64,
            _ => random.between(-400, 400) as f64 / 4.0,
        })
    }
}

/// A native histogram as a counter, with occasional resets and changes of resolution.
fn native(negative: bool, custom: bool) -> impl FnMut(&mut Random) -> Value {
    let empty = move |schema| Histogram {
        schema,
        count: 0.0,
        sum: 0.0,
        zero_count: 0.0,
        positive: BTreeMap::new(),
        negative: BTreeMap::new(),
        bounds: if custom { vec![0.5, 1.0, 2.5, 10.0] } else { Vec::new() },
    };
    let mut now = empty(if custom { CUSTOM_BUCKETS_SCHEMA } else { 1 });
    move |random| {
        if !custom && random.percent(1) {
            now = now.at_schema((now.schema - 1).max(-1));
        } else if random.percent(2) {
            now = empty(if custom { CUSTOM_BUCKETS_SCHEMA } else { random.between(0, 2) as i32 });
        }
        let mut observe = |side: &mut BTreeMap<i32, f64>, index: i32, times: i64| {
            *side.entry(index).or_insert(0.0) += times as f64;
            now.count += times as f64;
        };
        // Each side in use has an observation from the start.
        let range = if custom { (0, 4) } else { (-2, 5) };
        let mut positive = std::mem::take(&mut now.positive);
        if positive.is_empty() {
            observe(&mut positive, 1, 1);
        }
        observe(&mut positive, random.between(range.0, range.1) as i32, random.between(0, 4));
        let mut other = std::mem::take(&mut now.negative);
        if negative {
            if other.is_empty() {
                observe(&mut other, 0, 1);
            }
            observe(&mut other, random.between(range.0, range.1) as i32, random.between(0, 3));
        }
        if !custom {
            let times = random.between(0, 1) as f64;
            now.zero_count += times;
            now.count += times;
        }
        (now.positive, now.negative) = (positive, other);
        now.sum += random.between(-8, 40) as f64 / 4.0;
        Value::Histogram(now.clone())
    }
}
