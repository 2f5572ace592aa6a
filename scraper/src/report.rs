//! The series about scrapes: `up`, and how many samples there were.

use head::{Appender, Head, SeriesHandle};
use model::{Labels, METRIC_NAME, Timestamp};

use crate::failure::ScrapeFailure;

/// What became of a scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrapeReport {
    /// Samples that the target exposed.
    pub samples: usize,
    /// Those that relabelling has kept.
    pub kept: usize,
    /// Series that were not in the scrape before.
    pub new_series: usize,
    /// Samples that are earlier than the last one of their series.
    pub out_of_order: usize,
    /// Samples of series that have another one at the same time.
    pub duplicates: usize,
    /// Samples in the time of a block, or more than ten minutes after the scrape.
    pub too_old: usize,
    /// Exemplars that are earlier than the last one of their series.
    pub exemplars_out_of_order: usize,
    /// Why the scrape failed, if it did.
    pub failure: Option<ScrapeFailure>,
}

/// A scrape, as it is reported.
pub(crate) struct ScrapeResult<'a> {
    /// What became of it.
    pub(crate) report: &'a ScrapeReport,
    /// Why it failed, if it did.
    pub(crate) failure: &'a Option<ScrapeFailure>,
    /// How long it took.
    pub(crate) seconds: f64,
}

const NAMES: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
];

/// Writes the series about the scrapes of a target. They have its labels, without relabelling.
pub(crate) struct Reporter {
    labels: [Labels; 5],
    /// None before the first scrape.
    handles: Option<[SeriesHandle; 5]>,
}

impl Reporter {
    pub(crate) fn new(target: &Labels) -> Self {
        let of = |name: &str| {
            let mut builder = target.to_builder();
            builder.set(METRIC_NAME, name);
            builder.build()
        };
        Self { labels: NAMES.map(of), handles: None }
    }

    pub(crate) fn append(
        &mut self,
        head: &Head,
        appender: &mut Appender<'_>,
        time: Timestamp,
        result: ScrapeResult<'_>,
    ) {
        let ScrapeResult { report, failure, seconds } = result;
        let up = if failure.is_none() { 1.0 } else { 0.0 };
        let values = [up, seconds, report.samples as f64, report.kept as f64, report.new_series as f64];
        let handles =
            self.handles.get_or_insert_with(|| self.labels.each_ref().map(|labels| head.series(labels)));
        for (handle, value) in handles.iter().zip(values) {
            // A clock that went back is refused, as for all samples.
            let _ = appender.append_float(handle, time, Timestamp::EPOCH, value);
        }
    }

    /// Marks the series as stale.
    pub(crate) fn end(&self, appender: &mut Appender<'_>, time: Timestamp) {
        appender.set_discards_late(true);
        for handle in self.handles.iter().flatten() {
            let _ = appender.append_float(handle, time, Timestamp::EPOCH, model::stale_nan());
        }
    }
}
