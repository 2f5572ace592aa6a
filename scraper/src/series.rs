//! The series of a target, over its scrapes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use exposition::{
    Entry, ProtobufEntry, ProtobufParser, ProtobufSample, ProtobufValue, SampleText, TextFormat, TextParser,
    series_labels,
};
use head::{AppendRefused, Appender, Head, HeadError, SeriesHandle};
use model::{FloatHistogram, Labels, Timestamp};

use crate::failure::ScrapeFailure;
use crate::limits;
use crate::report::{Reporter, ScrapeReport, ScrapeResult};
use crate::rules::ScrapeRules;
use crate::target_labels::attach;

/// What a target has sent.
#[derive(Clone, Copy, Debug)]
pub struct Exposition<'a> {
    /// The body, decompressed.
    pub body: &'a [u8],
    /// Its format.
    pub format: ExpositionFormat,
}

impl Exposition<'_> {
    /// An answer without anything.
    pub const EMPTY: Self = Self { body: &[], format: ExpositionFormat::Text(TextFormat::Prometheus) };
}

/// The format of an exposition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// One of the text formats.
    Text(TextFormat),
    /// Protobuf.
    Protobuf,
}

/// A sample may be at most so many milliseconds after its scrape: 10 minutes, as in Prometheus.
const MOST_AHEAD: i64 = 600_000;

/// The series of one target.
pub struct TargetSeries {
    /// The labels of the target.
    labels: Labels,
    rules: Arc<ScrapeRules>,
    /// By the text of the series; for protobuf, by its labels as a text.
    known: HashMap<Box<[u8]>, KnownSeries>,
    /// Series of the last scrape that was before other rules. Those that are not in the next one become stale.
    replaced: Vec<KnownSeries>,
    /// The number of the current scrape.
    scrape: u64,
    reporter: Reporter,
}

/// A series that the target has exposed.
struct KnownSeries {
    /// None if relabelling drops it.
    handle: Option<SeriesHandle>,
    kind: SampleKind,
    /// The scrape in which it was there last, and the one in which it had a sample without a timestamp of its own.
    seen: u64,
    sampled: u64,
    /// Whether it becomes stale when it is not in the next scrape.
    is_tracked: bool,
}

/// The kind of the last sample, for the staleness marker.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SampleKind {
    Float,
    Histogram { integer: bool },
}

/// A sample of the target.
struct Exposed<'a> {
    value: ExposedValue<'a>,
    timestamp: Option<i64>,
    start: i64,
}

enum ExposedValue<'a> {
    Float(f64),
    Histogram { integer: bool, histogram: &'a FloatHistogram },
}

impl TargetSeries {
    /// The series of a target with these labels, which has not been scraped yet.
    pub fn new(labels: Labels, rules: Arc<ScrapeRules>) -> Self {
        let reporter = Reporter::new(&labels);
        Self { labels, rules, known: HashMap::new(), replaced: Vec::new(), scrape: 0, reporter }
    }

    /// Takes other rules from the next scrape on. What is known of series is kept if they have `same_series` with these rules.
    pub fn set_rules(&mut self, rules: Arc<ScrapeRules>, same_series: bool) {
        self.rules = rules;
        if !same_series {
            self.replaced.extend(std::mem::take(&mut self.known).into_values());
        }
    }

    /// Appends a scrape at `time`: the samples, staleness markers for what is gone, and the series about the scrape. A scrape that fails
    /// has no samples, and all series become stale. `elapsed` is how long it has taken so far.
    ///
    /// # Errors
    /// When the log of the head cannot be written. Nothing is appended then.
    pub fn append(
        &mut self,
        head: &Head,
        time: Timestamp,
        fetched: Result<Exposition<'_>, ScrapeFailure>,
        elapsed: &dyn Fn() -> Duration,
    ) -> Result<ScrapeReport, HeadError> {
        self.scrape += 1;
        let mut report = ScrapeReport::default();
        let mut appender = head.appender();
        // Prometheus forgets no series after an empty exposition.
        let is_empty = fetched.as_ref().is_ok_and(|exposition| exposition.body.is_empty());
        let read =
            fetched.and_then(|exposition| self.read(head, &mut appender, time, exposition, &mut report));
        let limit = self.rules.sample_limit;
        let is_over = limit > 0 && report.kept > limit;
        let read = read.and(if is_over { Err(ScrapeFailure::SampleLimit(limit)) } else { Ok(()) });
        let failure = match read {
            Ok(()) => None,
            Err(failure) => {
                // No sample of a scrape that fails is kept; what was counted is reported, as by Prometheus.
                appender = head.appender();
                Some(failure)
            }
        };
        self.mark_vanished(&mut appender, time, failure.is_none());
        if failure.is_none() && !is_empty {
            self.forget_vanished();
        }
        self.reporter.append(
            head,
            &mut appender,
            time,
            ScrapeResult { report: &report, failure: &failure, seconds: elapsed().as_secs_f64() },
        );
        appender.commit()?;
        report.failure = failure;
        Ok(report)
    }

    /// Marks all series as stale, because the target is gone.
    ///
    /// # Errors
    /// When the log of the head cannot be written.
    pub fn end(&mut self, head: &Head, time: Timestamp) -> Result<(), HeadError> {
        let mut appender = head.appender();
        self.mark_vanished(&mut appender, time, false);
        self.reporter.end(&mut appender, time);
        appender.commit()?;
        Ok(())
    }

    fn read(
        &mut self,
        head: &Head,
        appender: &mut Appender<'_>,
        time: Timestamp,
        exposition: Exposition<'_>,
        report: &mut ScrapeReport,
    ) -> Result<(), ScrapeFailure> {
        match exposition.format {
            ExpositionFormat::Text(format) => {
                for entry in TextParser::new(exposition.body, format) {
                    let entry = entry.map_err(|error| ScrapeFailure::Parse(error.to_string()))?;
                    if let Entry::Sample(SampleText { series, value, timestamp, .. }) = entry {
                        let labels = || {
                            series_labels(series, format)
                                .map_err(|error| ScrapeFailure::Parse(error.problem.to_string()))
                        };
                        let sample = Exposed { value: ExposedValue::Float(value), timestamp, start: 0 };
                        self.add(head, appender, time, (series, &labels), &sample, report)?;
                    }
                }
            }
            ExpositionFormat::Protobuf => {
                for entry in ProtobufParser::new(exposition.body, self.rules.keep_classic) {
                    let entry = entry.map_err(|error| ScrapeFailure::Parse(error.to_string()))?;
                    let ProtobufEntry::Samples(samples) = entry else { continue };
                    for sample in &samples {
                        self.add_protobuf(head, appender, time, sample, report)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn add_protobuf(
        &mut self,
        head: &Head,
        appender: &mut Appender<'_>,
        time: Timestamp,
        sample: &ProtobufSample,
        report: &mut ScrapeReport,
    ) -> Result<(), ScrapeFailure> {
        let value = match &sample.value {
            ProtobufValue::Float(value) => ExposedValue::Float(*value),
            ProtobufValue::Histogram { integer, histogram } => {
                ExposedValue::Histogram { integer: *integer, histogram }
            }
        };
        let exposed = Exposed { value, timestamp: sample.timestamp, start: sample.start.unwrap_or(0) };
        let key = sample.labels.to_string();
        let labels = || Ok(sample.labels.clone());
        self.add(head, appender, time, (key.as_bytes(), &labels), &exposed, report)
    }

    /// Adds a sample of the series with this key and these labels.
    fn add(
        &mut self,
        head: &Head,
        appender: &mut Appender<'_>,
        time: Timestamp,
        (key, labels): (&[u8], &dyn Fn() -> Result<Labels, ScrapeFailure>),
        sample: &Exposed<'_>,
        report: &mut ScrapeReport,
    ) -> Result<(), ScrapeFailure> {
        report.samples += 1;
        let is_new = !self.known.contains_key(key);
        if is_new {
            let series = self.new_series(head, labels()?)?;
            self.known.insert(key.into(), series);
        }
        let Some(known) = self.known.get_mut(key) else { return Ok(()) };
        known.seen = self.scrape;
        let Some(handle) = &known.handle else { return Ok(()) };
        report.kept += 1;
        if self.rules.sample_limit > 0 && report.kept > self.rules.sample_limit {
            // The rest is counted.
            return Ok(());
        }
        let own_time = sample.timestamp.filter(|_| self.rules.honor_timestamps);
        if own_time.is_some_and(|own| own > time.as_millis().saturating_add(MOST_AHEAD)) {
            report.too_old += 1;
            return Ok(());
        }
        let at = own_time.map_or(time, Timestamp::from_millis);
        let is_tracked = own_time.is_none() || self.rules.track_timestamps_staleness;
        if own_time.is_none() && known.sampled == self.scrape {
            report.duplicates += 1;
            return Ok(());
        }
        let start = Timestamp::from_millis(sample.start);
        let (appended, kind) = match &sample.value {
            ExposedValue::Float(value) => {
                (appender.append_float(handle, at, start, *value), SampleKind::Float)
            }
            ExposedValue::Histogram { integer, histogram } => {
                let histogram = Arc::new((*histogram).clone());
                let appended = appender.append_histogram(handle, at, start, *integer, histogram);
                (appended, SampleKind::Histogram { integer: *integer })
            }
        };
        match appended {
            Ok(()) => report.new_series += usize::from(is_new),
            Err(AppendRefused::OutOfOrder) => report.out_of_order += 1,
            Err(AppendRefused::Duplicate) => report.duplicates += 1,
            Err(AppendRefused::TooOld) => report.too_old += 1,
            Err(error @ AppendRefused::Unencodable) => return Err(ScrapeFailure::Parse(error.to_string())),
        }
        known.kind = kind;
        if is_tracked {
            known.sampled = self.scrape;
        }
        Ok(())
    }

    /// A series that was not there before, with the labels that it is stored with.
    fn new_series(&self, head: &Head, exposed: Labels) -> Result<KnownSeries, ScrapeFailure> {
        let attached = attach(&exposed, &self.labels, self.rules.honor_labels);
        let stored = self.rules.metric_relabeling.apply(&attached).filter(|labels| !labels.is_empty());
        if let Some(labels) = &stored {
            if labels.metric_name().is_empty() {
                return Err(ScrapeFailure::NoName(labels.clone()));
            }
            if let Some(exceeded) = limits::exceeded(labels, &self.rules) {
                return Err(ScrapeFailure::LabelLimit(exceeded));
            }
        }
        let handle = stored.map(|labels| head.series(&labels));
        Ok(KnownSeries { handle, kind: SampleKind::Float, seen: 0, sampled: 0, is_tracked: false })
    }

    /// Adds staleness markers for the series that had samples in the scrape before, and have none in this one; if it did not succeed,
    /// for all of them.
    fn mark_vanished(&mut self, appender: &mut Appender<'_>, time: Timestamp, succeeded: bool) {
        let scrape = self.scrape;
        // Their samples under the new rules are before these in the batch, and win.
        for known in std::mem::take(&mut self.replaced) {
            if known.is_tracked
                && let Some(handle) = &known.handle
            {
                mark_stale(appender, handle, known.kind, time);
            }
        }
        for known in self.known.values_mut() {
            let is_there = succeeded && known.sampled == scrape;
            if known.is_tracked
                && !is_there
                && let Some(handle) = &known.handle
            {
                mark_stale(appender, handle, known.kind, time);
            }
            known.is_tracked = is_there;
        }
    }

    /// Forgets series that were not in this scrape.
    fn forget_vanished(&mut self) {
        let scrape = self.scrape;
        self.known.retain(|_, known| known.seen == scrape);
    }
}

/// Adds a staleness marker. If the series has a sample at that time by another text, it is refused, and the series goes on.
fn mark_stale(appender: &mut Appender<'_>, handle: &SeriesHandle, kind: SampleKind, time: Timestamp) {
    let _ = match kind {
        SampleKind::Float => appender.append_float(handle, time, Timestamp::EPOCH, model::stale_nan()),
        SampleKind::Histogram { integer } => {
            let stale = Arc::new(FloatHistogram::stale());
            appender.append_histogram(handle, time, Timestamp::EPOCH, integer, stale)
        }
    };
}
