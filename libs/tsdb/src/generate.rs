//! Generates blocks of any size for tests: the same block for the same options, on every machine.
//!
//! The content looks like the metrics of services in a cluster. Every target (a pod) exposes the same metrics. The series of a
//! target share its labels and the times of its scrapes. Counters grow by whole numbers and are reset sometimes, gauges change
//! in coarse steps or stay constant, native histograms grow.

mod values;

use std::path::Path;
use std::time::Duration;

use model::{Labels, METRIC_NAME, Timestamp};

use crate::mix::MixedNumbers;
use crate::{BlockMeta, BlockOptions, BlockWriter, Chunk, WriteError};
use values::{MetricKind, Scrapes};

/// Targets that share a node, on average.
const TARGETS_PER_NODE: u64 = 30;
/// The services. Each is a job.
const JOBS: [&str; 24] = [
    "api",
    "auth",
    "billing",
    "cart",
    "catalog",
    "checkout",
    "email",
    "frontend",
    "gateway",
    "inventory",
    "kafka",
    "ledger",
    "media",
    "notifications",
    "orders",
    "payments",
    "queue",
    "recommendations",
    "search",
    "sessions",
    "shipping",
    "users",
    "web",
    "worker",
];
/// The labels of a target, in the order in which they are added.
const TARGET_LABELS: [&str; 8] =
    ["job", "instance", "pod", "namespace", "container", "node", "service", "zone"];

/// The content of a generated block.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Another seed gives other labels and values.
    pub seed: u64,
    /// Number of series, exactly.
    pub series: u64,
    /// Series of one target, at least 1. A small number makes many label values, a large one long postings lists. Each job has a
    /// target if there are enough series.
    pub series_per_target: u64,
    /// Labels of each series, with its name: 2 to 64. With fewer than 4, there is no `pod` label.
    pub labels: usize,
    /// Share of targets, 0 to 1, that exist for a part of the time only: half of them end, and the other half begin then.
    pub churn: f64,
    /// Start of the block.
    pub start: Timestamp,
    /// Length of the block.
    pub duration: Duration,
    /// Time between two samples of a series.
    pub interval: Duration,
    /// How much earlier or later than planned a scrape may be; less than half of the interval. 0 gives the smallest chunks.
    pub jitter: Duration,
    /// Share of metrics that are gauges, 0 to 1.
    pub gauges: f64,
    /// Share of metrics that are native histograms, 0 to 1. Metrics that are neither are counters.
    pub histograms: f64,
}

impl Default for Workload {
    /// 10,000 series of 8 labels over two hours at 30 s: seven counters to three gauges, without churn or jitter.
    fn default() -> Self {
        Self {
            seed: 1,
            series: 10_000,
            series_per_target: 100,
            labels: 8,
            churn: 0.0,
            start: Timestamp::from_millis(1_735_689_600_000),
            duration: Duration::from_secs(7200),
            interval: Duration::from_secs(30),
            jitter: Duration::ZERO,
            gauges: 0.3,
            histograms: 0.0,
        }
    }
}

/// A block that cannot be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// An option is out of bounds.
    #[error("{0}")]
    Option(String),
    /// The block cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Workload {
    /// Writes a block with this content into directory `parent`. Its times are those of the workload, unless `options` has
    /// times. `progress` is called after each series with the number of series so far.
    ///
    /// Memory: that of [`BlockWriter`], and a few hundred bytes for each target.
    ///
    /// # Errors
    /// When an option is out of bounds, or the block cannot be written.
    pub fn write(
        &self,
        parent: &Path,
        mut options: BlockOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<BlockMeta, GenerateError> {
        let series = self.generate()?;
        let end = self.start + self.duration;
        options.times.get_or_insert((self.start, end));
        let mut writer = BlockWriter::create(parent, options)?;
        for (labels, chunks) in series {
            writer.add_series(&labels, chunks)?;
            progress(writer.series());
        }
        Ok(writer.finish()?)
    }

    /// The series in the order of their labels, with their chunks.
    ///
    /// # Errors
    /// When an option is out of bounds.
    pub fn generate(&self) -> Result<impl Iterator<Item = (Labels, Vec<Chunk>)> + '_, GenerateError> {
        self.check().map_err(GenerateError::Option)?;
        let targets = self.targets();
        let metrics = self.metrics(self.series.div_ceil(targets.len() as u64));
        Ok((0..self.series).map(move |number| {
            let target = &targets[(number % targets.len() as u64) as usize];
            let (name, kind) = &metrics[(number / targets.len() as u64) as usize];
            let labels = target.labels.extended(name);
            let mut numbers = MixedNumbers::of(&[self.seed, number, 1]);
            (labels, kind.chunks(&target.scrapes, &mut numbers))
        }))
    }

    fn check(&self) -> Result<(), String> {
        let share = |name: &str, share: f64| {
            if (0.0..=1.0).contains(&share) {
                return Ok(());
            }
            Err(format!("the share of {name} is {share}; it must be between 0 and 1"))
        };
        share("churn", self.churn)?;
        share("gauges", self.gauges)?;
        share("histograms", self.histograms)?;
        share("gauges and histograms together", self.gauges + self.histograms)?;
        if self.series == 0 || self.series > 1 << 31 {
            return Err(format!(
                "the number of series is {}; it must be between 1 and 2147483648",
                self.series
            ));
        }
        if self.series_per_target == 0 {
            return Err("the number of series of a target is 0; it must be at least 1".to_owned());
        }
        if !(2..=64).contains(&self.labels) {
            return Err(format!("the number of labels is {}; it must be between 2 and 64", self.labels));
        }
        if self.interval < Duration::from_millis(1) || self.interval > self.duration {
            let (interval, duration) = (self.interval, self.duration);
            return Err(format!(
                "the interval is {interval:?}; it must be between 1 ms and the duration of {duration:?}"
            ));
        }
        // Twice the interval: with one sample, a target cannot end and another one begin.
        if self.churn > 0.0 && self.interval * 2 > self.duration {
            return Err("churn needs a duration of at least two intervals".to_owned());
        }
        if self.jitter * 2 >= self.interval && !self.jitter.is_zero() {
            return Err(format!(
                "the jitter is {:?}; it must be less than half of the interval of {:?}",
                self.jitter, self.interval
            ));
        }
        if self.duration > Duration::from_secs(100 * 366 * 86_400) {
            return Err(format!("the duration is {:?}; it must be at most a hundred years", self.duration));
        }
        Ok(())
    }

    /// All targets, sorted by their labels.
    fn targets(&self) -> Vec<ScrapeTarget> {
        let count = self.series.div_ceil(self.series_per_target).max(self.series.min(JOBS.len() as u64));
        let mut targets: Vec<ScrapeTarget> = (0..count).map(|number| self.target(number)).collect();
        targets.sort_by(|a, b| a.labels.cmp(&b.labels));
        targets
    }

    fn target(&self, number: u64) -> ScrapeTarget {
        let mut numbers = MixedNumbers::of(&[self.seed, number, 2]);
        let job = JOBS[(number % JOBS.len() as u64) as usize];
        let pod = format!("{job}-{:08x}-{number:05}", numbers.next() >> 32);
        let address = 0x0a00_0000 + number;
        let bytes = address.to_be_bytes();
        let mut pairs = Vec::with_capacity(self.labels);
        for place in 0..self.labels - 1 {
            let Some(&name) = TARGET_LABELS.get(place) else {
                let value = format!("value-{}", numbers.below(10));
                pairs.push((format!("label_{place:02}"), value));
                continue;
            };
            let value = match name {
                "job" => job.to_owned(),
                "instance" => format!("{}.{}.{}.{}:8080", bytes[4], bytes[5], bytes[6], bytes[7]),
                "pod" => pod.clone(),
                "namespace" => format!("team-{}", (number % JOBS.len() as u64) / 4),
                "container" => format!("{job}-server"),
                "node" => format!(
                    "node-{:04}",
                    numbers.below(self.series.div_ceil(self.series_per_target * TARGETS_PER_NODE))
                ),
                "service" => format!("{job}-{}", ["blue", "green"][numbers.below(2) as usize]),
                _ => format!("zone-{}", ["a", "b", "c"][numbers.below(3) as usize]),
            };
            pairs.push((name.to_owned(), value));
        }
        // With few labels, each target needs another job.
        if self.labels == 2 {
            pairs = vec![("job".to_owned(), pod)];
        }
        let labels = Labels::from_pairs(pairs).unwrap_or_default();
        ScrapeTarget { labels, scrapes: self.scrapes(number) }
    }

    /// When a target is scraped: at its own offset within the interval, and with churn for a part of the time only. Of two
    /// neighbours by number, one ends when the other one begins.
    fn scrapes(&self, number: u64) -> Scrapes {
        let interval = millis(self.interval);
        let mut numbers = MixedNumbers::of(&[self.seed, number, 3]);
        let count = millis(self.duration) / interval;
        let jitter = millis(self.jitter);
        // Scrapes with jitter must be within the block.
        let offset = jitter + numbers.below((interval - 2 * jitter).max(1) as u64) as i64;
        let mut pair = MixedNumbers::of(&[self.seed, number / 2, 4]);
        let (mut first, mut end) = (0, count);
        if pair.happens(self.churn) && count >= 2 {
            let change = 1 + pair.below(count as u64 - 1) as i64;
            if number.is_multiple_of(2) { end = change } else { first = change }
        }
        Scrapes {
            start: self.start.as_millis() + offset + first * interval,
            interval,
            count: (end - first) as u64,
            jitter,
            seed: numbers.next(),
        }
    }

    /// Names and kinds of metrics, sorted by name.
    fn metrics(&self, count: u64) -> Vec<(Labels, MetricKind)> {
        let gauges = (count as f64 * self.gauges).round() as u64;
        let histograms = (count as f64 * self.histograms).round() as u64;
        let mut metrics: Vec<(Labels, MetricKind)> = (0..count)
            .map(|number| {
                let (kind, name) = if number < histograms {
                    (MetricKind::Histogram, format!("app_request_{number:03}_duration_seconds"))
                } else if number < histograms + gauges {
                    (MetricKind::Gauge, format!("app_pool_{number:03}_in_use"))
                } else {
                    (MetricKind::Counter, format!("app_events_{number:03}_total"))
                };
                (Labels::from_pairs([(METRIC_NAME, name)]).unwrap_or_default(), kind)
            })
            .collect();
        metrics.sort_by(|a, b| a.0.cmp(&b.0));
        metrics
    }
}

/// What is scraped.
struct ScrapeTarget {
    labels: Labels,
    scrapes: Scrapes,
}

fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
