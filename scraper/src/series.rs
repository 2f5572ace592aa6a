//! The series of a target, over its scrapes.

mod buckets;
mod families;
mod known;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use head::{Appender, Head, HeadError, SeriesHandle};
use model::{FloatHistogram, Labels, Timestamp};

use crate::exposed::Exposition;
use crate::failure::ScrapeFailure;
use crate::report::{Reporter, ScrapeReport, ScrapeResult};
use crate::rules::ScrapeRules;

pub(crate) use buckets::max_schema;
use families::CurrentFamily;
pub use families::TargetMetadata;
use known::{KnownSeries, KnownSeriesTable, SampleKind};
use reading::Reading;

/// The series of one target.
pub struct TargetSeries {
    /// The labels of the target.
    labels: Labels,
    rules: Arc<ScrapeRules>,
    known: KnownSeriesTable,
    /// Series of the last scrape that was before other rules. Those that are not in the next one become stale.
    replaced: Vec<KnownSeries>,
    metadata: TargetMetadata,
    /// The number of the current scrape.
    scrape: u64,
    reporter: Reporter,
}

impl TargetSeries {
    /// The series of a target with these labels, which has not been scraped yet.
    pub fn new(labels: Labels, rules: Arc<ScrapeRules>) -> Self {
        let reporter = Reporter::new(&labels);
        Self {
            labels,
            rules,
            known: KnownSeriesTable::default(),
            replaced: Vec::new(),
            metadata: TargetMetadata::default(),
            scrape: 0,
            reporter,
        }
    }

    /// The same, which notes what the target says about its metrics in `metadata`.
    #[must_use]
    pub fn with_metadata(self, metadata: TargetMetadata) -> Self {
        Self { metadata, ..self }
    }

    /// Takes other rules from the next scrape on. What is known of series is kept if they have `same_series` with these rules.
    pub fn set_rules(&mut self, rules: Arc<ScrapeRules>, same_series: bool) {
        self.rules = rules;
        if !same_series {
            self.replaced.extend(self.known.take_all());
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
        let read = fetched.and_then(|exposition| {
            let mut reading = Reading {
                head,
                appender: &mut appender,
                report: &mut report,
                known: &mut self.known,
                metadata: &self.metadata,
                rules: &self.rules,
                labels: &self.labels,
                scrape: self.scrape,
                time,
                family: CurrentFamily::default(),
            };
            reading.read(exposition)
        });
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
            self.known.forget_unseen(self.scrape);
            self.metadata.forget_old(self.scrape);
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

    /// Adds staleness markers for the series that had samples in the scrape before, and have none in this one; if it did not succeed,
    /// for all of them.
    fn mark_vanished(&mut self, appender: &mut Appender<'_>, time: Timestamp, succeeded: bool) {
        let scrape = self.scrape;
        // A marker between samples that are there already would be wrong.
        appender.set_discards_late(true);
        // Their samples under the new rules are before these in the batch, and win.
        for known in std::mem::take(&mut self.replaced) {
            if known.is_tracked
                && let Some(handle) = &known.handle
            {
                mark_stale(appender, handle, known.kind, time);
            }
        }
        for known in self.known.iter_mut() {
            let is_there = succeeded && known.sampled == scrape;
            if known.is_tracked
                && !is_there
                && let Some(handle) = &known.handle
            {
                mark_stale(appender, handle, known.kind, time);
            }
            known.is_tracked = is_there;
        }
        appender.set_discards_late(false);
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
