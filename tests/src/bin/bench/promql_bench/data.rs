//! The series of the cases, by the name of their metric.
//!
//! `bench_total` has the same samples as those that [`load`] writes for a real Prometheus: whole numbers at exact intervals. The
//! other metrics resemble those of a real cluster: a dozen labels, varying scrape times, missed scrapes, fractions, counter
//! resets.

use model::{BucketSpan, FloatHistogram, Labels, Sample, TimeRange, Timestamp, stale_nan};
use series::{AggrChunk, SelectedSeries};
use tsdb::HistogramEncoder;

use crate::load::{BEGIN, INTERVAL};

/// Number of histograms per chunk. They are larger than floats, so a chunk has fewer of them.
const HISTOGRAMS: usize = 40;
/// Number of series of `bench_total` with different samples. The samples repeat every 97 series, so this is a multiple of it.
const PLAIN: i64 = 970;
/// Number of series of the other metrics with different samples. Further series share their samples.
const REAL: i64 = 10_000;
/// Number of native histograms with different samples.
const NATIVE: i64 = 250;
/// Series per instance: codes and methods, or buckets.
const PER_INSTANCE: i64 = 10;
const CODES: [&str; 5] = ["200", "204", "404", "500", "503"];
/// Upper bounds of buckets in the order of labels.
const BOUNDS: [&str; 10] = ["+Inf", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5"];
/// Number of buckets of a native histogram.
const NATIVE_BUCKETS: usize = 24;

/// A metric of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// `bench_total`.
    Plain,
    /// `bench_bucket`: the samples of `bench_total`, with the labels of buckets.
    PlainBuckets,
    /// `requests_total`: a counter for each code and method of an instance.
    Requests,
    /// `latency_bucket`: ten buckets for each instance.
    Buckets,
    /// `latency`: a native histogram for each instance.
    Native,
    /// `instance_info`: a series for each instance of `requests_total`, with additional labels.
    Info,
    /// `leader_info`: series of which only one exists at a time.
    Leader,
}

/// The series of one metric. Series that differ only in their labels share their samples, so that most memory that is used during
/// a query is the engine's.
pub(super) struct Data {
    metric: Metric,
    pub(super) series: i64,
    /// The chunks by series with different samples, then by replica.
    chunks: Vec<Vec<Vec<AggrChunk>>>,
}

impl Metric {
    /// The metric with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "bench_total" => Self::Plain,
            "bench_bucket" => Self::PlainBuckets,
            "requests_total" => Self::Requests,
            "latency_bucket" => Self::Buckets,
            "latency" => Self::Native,
            "instance_info" => Self::Info,
            "leader_info" => Self::Leader,
            _ => return None,
        })
    }

    fn distinct(self) -> i64 {
        match self {
            Self::Plain | Self::PlainBuckets => PLAIN,
            Self::Native => NATIVE,
            Self::Requests | Self::Buckets | Self::Info | Self::Leader => REAL,
        }
    }

    fn chunks(self, number: i64, series: i64, samples: i64, replica: u64) -> Vec<AggrChunk> {
        match self {
            Self::Plain | Self::PlainBuckets => plain(number, samples),
            Self::Requests => counter(&mut SplitMix::of(number, replica), number % 2 == 1, samples),
            Self::Buckets => bucket(number, replica, samples),
            Self::Native => native(&mut SplitMix::of(number, replica), samples),
            Self::Info => {
                let scrapes = scrapes(&mut SplitMix::of(number, replica), samples);
                floats(scrapes.into_iter().map(|time| Sample::new(time, 1.0)).collect())
            }
            Self::Leader => leader(number, series, samples),
        }
    }

    /// The labels of a series. They ascend with its number.
    fn labels(self, number: i64, series: i64) -> Labels {
        let at = |list: &[&'static str], at: i64| list[usize::try_from(at).unwrap_or(0) % list.len()];
        let instances = (series / PER_INSTANCE).max(1);
        let (instance, bound, code, method) = match self {
            Self::Plain => (number, None, None, None),
            Self::PlainBuckets | Self::Buckets => {
                (number / PER_INSTANCE, Some(at(&BOUNDS, number % PER_INSTANCE)), None, None)
            }
            Self::Requests => {
                let (code, rest) = (number / (2 * instances), number % (2 * instances));
                (rest / 2, None, Some(at(&CODES, code)), Some(at(&["GET", "POST"], rest % 2)))
            }
            Self::Native | Self::Info | Self::Leader => (number, None, None, None),
        };
        let name = match self {
            Self::Plain => "bench_total",
            Self::PlainBuckets => "bench_bucket",
            Self::Requests => "requests_total",
            Self::Buckets => "latency_bucket",
            Self::Native => "latency",
            Self::Info => "instance_info",
            Self::Leader => "leader_info",
        };
        let job = format!("job-{}", instance % 10);
        let mut pairs = vec![("__name__", name)];
        pairs.extend(bound.map(|bound| ("le", bound)));
        if matches!(self, Self::Plain | Self::PlainBuckets) {
            let host = format!("host-{instance:05}");
            pairs.extend([("instance", host.as_str()), ("job", job.as_str())]);
            return Labels::from_pairs(pairs).expect("a label set");
        }
        let host = format!(
            "10.{}.{}.{}:8443",
            100 + instance / 22_500,
            100 + instance / 150 % 150,
            100 + instance % 150
        );
        let pod = format!("checkout-api-7c9f6bd5f4-{instance:05x}");
        let node = format!("ip-10-{}.eu-central-1.compute.internal", instance / 30);
        let version = format!("v2.{}.1", instance % 3);
        let owner = format!("team-{}", instance % 7);
        pairs.extend([("instance", host.as_str()), ("job", job.as_str())]);
        match self {
            Self::Info => pairs.extend([
                ("kernel_version", "6.8.0-1021-aws"),
                ("node", node.as_str()),
                ("os_image", "Ubuntu 24.04.1 LTS"),
                ("owner", owner.as_str()),
                ("region", "eu-central-1"),
                ("version", version.as_str()),
            ]),
            Self::Leader => pairs.push(("leader", pod.as_str())),
            _ => {
                pairs.extend(code.map(|code| ("code", code)));
                pairs.extend(method.map(|method| ("method", method)));
                pairs.extend([
                    ("cluster", "eu-central-1-production-3"),
                    ("container", "checkout-api"),
                    ("endpoint", "https-metrics"),
                    ("environment", "production"),
                    ("namespace", "payments"),
                    ("node", node.as_str()),
                    ("pod", pod.as_str()),
                    ("route", "/api/v1/orders/{order}/payments"),
                    ("service", "checkout-api-headless"),
                ]);
            }
        }
        Labels::from_pairs(pairs).expect("a label set")
    }
}

impl Data {
    /// Creates `series` series with `samples` scrapes in the given number of replicas.
    pub(super) fn new(metric: Metric, series: i64, samples: i64, replicas: u64) -> Self {
        let series = if metric == Metric::Info { (series / PER_INSTANCE).max(1) } else { series };
        let of =
            |number| (0..replicas).map(|replica| metric.chunks(number, series, samples, replica)).collect();
        Self { metric, series, chunks: (0..metric.distinct().min(series)).map(of).collect() }
    }

    /// One series with the chunks that overlap `range`, as a store returns it.
    pub(super) fn series(&self, number: i64, range: TimeRange) -> SelectedSeries {
        let known = self.chunks.len();
        let replicas = &self.chunks[usize::try_from(number).unwrap_or(0) % known];
        let wanted =
            |chunks: &Vec<AggrChunk>| chunks.iter().filter(|c| c.range().overlaps(&range)).cloned().collect();
        SelectedSeries {
            labels: self.metric.labels(number, self.series),
            replicas: replicas.iter().map(wanted).collect(),
        }
    }
}

/// A random number generator (SplitMix64) with the same numbers on every machine.
struct SplitMix {
    state: u64,
}

impl SplitMix {
    fn of(series: i64, replica: u64) -> Self {
        Self { state: series.unsigned_abs() << 8 | replica }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `bound`, exclusive.
    fn below(&mut self, bound: u64) -> i64 {
        i64::try_from(self.next() % bound).unwrap_or(0)
    }

    /// True with a probability of 1 in `times`.
    fn once_in(&mut self, times: u64) -> bool {
        self.next().is_multiple_of(times)
    }
}

/// The same samples as those of [`crate::load`].
fn plain(series: i64, samples: i64) -> Vec<AggrChunk> {
    let mut total = 0;
    let sample = |i| {
        total += (series * 31 + i * 17) % 97;
        Sample::new((BEGIN + i * INTERVAL) * 1000, total as f64)
    };
    floats((0..samples).map(sample).collect())
}

/// The scrape times of an instance in milliseconds: at a fixed offset within the interval, slightly early or late. One in 300
/// scrapes is missed.
fn scrapes(random: &mut SplitMix, samples: i64) -> Vec<i64> {
    let first = BEGIN * 1000 + random.below(INTERVAL.unsigned_abs() * 1000);
    let mut times = Vec::new();
    for i in 0..samples {
        let late = if random.once_in(100) { random.below(900) } else { random.below(8) };
        if !random.once_in(300) {
            times.push(first + i * INTERVAL * 1000 + late);
        }
    }
    times
}

/// A counter of events or of seconds. It is reset about once in 1500 scrapes, and its rate varies.
fn counter(random: &mut SplitMix, seconds: bool, samples: i64) -> Vec<AggrChunk> {
    let scale = 1 + random.below(400);
    let mut total = random.below(1_000_000) as f64;
    let mut sample = |time, random: &mut SplitMix| {
        if random.once_in(1500) {
            total = 0.0;
        }
        let events = random.below(scale.unsigned_abs()) + random.below(scale.unsigned_abs());
        total += if seconds { events as f64 * (random.below(1_000_000) as f64 / 1e6) } else { events as f64 };
        Sample::new(time, total)
    };
    let times = scrapes(random, samples);
    floats(times.into_iter().map(|time| sample(time, random)).collect())
}

/// One of the ten cumulative buckets of an instance.
fn bucket(number: i64, replica: u64, samples: i64) -> Vec<AggrChunk> {
    let bound = usize::try_from(number % PER_INSTANCE).unwrap_or(0);
    // The label `+Inf` sorts first but has the largest bound.
    let included = if bound == 0 { BOUNDS.len() } else { bound };
    let random = &mut SplitMix::of(number / PER_INSTANCE, replica);
    let mut total = 0;
    let mut sample = |time, random: &mut SplitMix| {
        let parts: [i64; BOUNDS.len()] =
            std::array::from_fn(|at| random.below([2, 4, 9, 30, 60, 40, 20, 8, 3, 2][at]));
        total += parts[..included].iter().sum::<i64>();
        Sample::new(time, total as f64)
    };
    let times = scrapes(random, samples);
    floats(times.into_iter().map(|time| sample(time, random)).collect())
}

/// A native histogram of latencies.
fn native(random: &mut SplitMix, samples: i64) -> Vec<AggrChunk> {
    let mut histogram = FloatHistogram {
        schema: 3,
        zero_threshold: 1e-128,
        positive_spans: vec![BucketSpan { offset: -30, length: NATIVE_BUCKETS as u32 }],
        positive_buckets: vec![0.0; NATIVE_BUCKETS],
        ..FloatHistogram::default()
    };
    let mut chunks = Vec::new();
    for times in scrapes(random, samples).chunks(HISTOGRAMS) {
        let mut encoder = HistogramEncoder::integer();
        for &time in times {
            for bucket in &mut histogram.positive_buckets {
                let more = random.below(12) as f64;
                *bucket += more;
                histogram.count += more;
                histogram.sum += more * 0.2;
            }
            encoder.append(Timestamp::from_millis(time), &histogram).expect("histograms in order");
        }
        chunks.push(AggrChunk::raw(encoder.finish().expect("a chunk")));
    }
    chunks
}

/// A series that exists for its share of the time and then ends.
fn leader(number: i64, series: i64, samples: i64) -> Vec<AggrChunk> {
    let of = |number: i64| number * samples / series;
    let time = |i: i64| (BEGIN + i * INTERVAL) * 1000;
    let mut list: Vec<Sample> = (of(number)..of(number + 1)).map(|i| Sample::new(time(i), 1.0)).collect();
    list.push(Sample::new(time(of(number + 1)), stale_nan()));
    floats(list)
}

fn floats(samples: Vec<Sample>) -> Vec<AggrChunk> {
    AggrChunk::from_floats(&samples).expect("samples in order")
}
