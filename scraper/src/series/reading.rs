//! Reads one exposition into a batch of samples.

use std::sync::Arc;

use exposition::{
    Entry, ExemplarText, ProtobufEntry, ProtobufExemplar, ProtobufParser, ProtobufSample, ProtobufValue,
    SampleText, TextFormat, TextParser, exemplar_labels, series_labels,
};
use head::{AppendRefused, Appender, Exemplar, ExemplarRefused, Head, Metadata, SeriesHandle};
use model::{FloatHistogram, Labels, Timestamp};

use crate::exposed::{Exposition, ExpositionFormat};
use crate::failure::ScrapeFailure;
use crate::limits;
use crate::report::ScrapeReport;
use crate::rules::ScrapeRules;
use crate::series::buckets::limited;
use crate::series::families::{CurrentFamily, TargetMetadata};
use crate::series::known::{KnownSeriesTable, SampleKind};
use crate::target_labels::attach;

/// A sample may be at most so many milliseconds after its scrape: 10 minutes, as in Prometheus.
const MOST_AHEAD: i64 = 600_000;

/// A scrape that is being read.
pub(super) struct Reading<'a, 'h> {
    pub(super) head: &'h Head,
    pub(super) appender: &'a mut Appender<'h>,
    pub(super) report: &'a mut ScrapeReport,
    pub(super) known: &'a mut KnownSeriesTable,
    pub(super) metadata: &'a TargetMetadata,
    pub(super) rules: &'a ScrapeRules,
    /// The labels of the target.
    pub(super) labels: &'a Labels,
    /// The number of the scrape, and its time.
    pub(super) scrape: u64,
    pub(super) time: Timestamp,
    pub(super) family: CurrentFamily,
}

/// A sample of the target.
struct Exposed<'a> {
    value: ExposedValue<'a>,
    timestamp: Option<i64>,
    start: Option<i64>,
    exemplars: Exemplars<'a>,
}

#[derive(Clone, Copy)]
enum ExposedValue<'a> {
    Float(f64),
    Histogram { integer: bool, histogram: &'a FloatHistogram },
}

/// The exemplars of a sample.
#[derive(Clone, Copy)]
enum Exemplars<'a> {
    Text(Option<&'a ExemplarText<'a>>, TextFormat),
    Protobuf(&'a [ProtobufExemplar]),
}

impl Reading<'_, '_> {
    pub(super) fn read(&mut self, exposition: Exposition<'_>) -> Result<(), ScrapeFailure> {
        self.known.begin();
        match exposition.format {
            ExpositionFormat::Text(format) => self.read_text(exposition.body, format),
            ExpositionFormat::Protobuf => self.read_protobuf(exposition.body),
        }
    }

    fn read_text(&mut self, body: &[u8], format: TextFormat) -> Result<(), ScrapeFailure> {
        for entry in TextParser::new(body, format) {
            match entry.map_err(|error| ScrapeFailure::Parse(error.to_string()))? {
                Entry::Sample(SampleText { series, value, timestamp, exemplar }) => {
                    let labels = || {
                        series_labels(series, format)
                            .map_err(|error| ScrapeFailure::Parse(error.problem.to_string()))
                    };
                    let sample = Exposed {
                        value: ExposedValue::Float(value),
                        timestamp,
                        start: None,
                        exemplars: Exemplars::Text(exemplar.as_ref(), format),
                    };
                    self.add((series, &labels), &sample)?;
                }
                Entry::Help(name, help) => self.note(&name, |metadata| metadata.help = help.into()),
                Entry::Type(name, kind) => self.note(&name, |metadata| metadata.kind = kind),
                Entry::Unit(name, unit) => self.note(&name, |metadata| metadata.unit = unit.into()),
            }
        }
        Ok(())
    }

    fn read_protobuf(&mut self, body: &[u8]) -> Result<(), ScrapeFailure> {
        let mut parser = ProtobufParser::new(body, self.rules.keep_classic);
        if !self.rules.native_histograms {
            parser = parser.without_native();
        }
        for entry in parser {
            match entry.map_err(|error| ScrapeFailure::Parse(error.to_string()))? {
                ProtobufEntry::Family { name, help, kind, unit } => self.note(&name, |metadata| {
                    *metadata = Metadata { kind, unit: unit.into(), help: help.into() };
                }),
                ProtobufEntry::Samples(samples) => {
                    for sample in &samples {
                        self.add_protobuf(sample)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes what a line says about a metric.
    fn note(&mut self, name: &str, set: impl FnOnce(&mut Metadata)) {
        self.metadata.note(self.scrape, name, &mut self.family, set);
    }

    fn add_protobuf(&mut self, sample: &ProtobufSample) -> Result<(), ScrapeFailure> {
        let value = match &sample.value {
            ProtobufValue::Float(value) => ExposedValue::Float(*value),
            ProtobufValue::Histogram { integer, histogram } => {
                ExposedValue::Histogram { integer: *integer, histogram }
            }
        };
        let exposed = Exposed {
            value,
            timestamp: sample.timestamp,
            start: sample.start,
            exemplars: Exemplars::Protobuf(&sample.exemplars),
        };
        let key = sample.labels.to_string();
        let labels = || Ok(sample.labels.clone());
        self.add((key.as_bytes(), &labels), &exposed)
    }

    /// Adds a sample of the series with this key and these labels.
    fn add(
        &mut self,
        (key, labels): (&[u8], &dyn Fn() -> Result<Labels, ScrapeFailure>),
        sample: &Exposed<'_>,
    ) -> Result<(), ScrapeFailure> {
        self.report.samples += 1;
        let (place, is_new) = match self.known.find(key) {
            Some(place) => (place, false),
            None => {
                let handle = self.new_series(&labels()?)?;
                (self.known.insert(key, handle), true)
            }
        };
        let Some(known) = self.known.get_mut(place) else { return Ok(()) };
        known.seen = self.scrape;
        let Some(handle) = &known.handle else { return Ok(()) };
        self.report.kept += 1;
        if self.rules.sample_limit > 0 && self.report.kept > self.rules.sample_limit {
            // The rest is counted.
            return Ok(());
        }
        let own_time = sample.timestamp.filter(|_| self.rules.honor_timestamps);
        let at = own_time.map_or(self.time, Timestamp::from_millis);
        if at.as_millis() > self.time.as_millis().saturating_add(MOST_AHEAD) {
            self.report.too_old += 1;
            return Ok(());
        }
        if own_time.is_none() && known.sampled == self.scrape {
            self.report.duplicates += 1;
            return Ok(());
        }
        let start = sample.start.filter(|_| self.rules.start_timestamps).unwrap_or(0);
        let appended =
            append(self.appender, handle, (at, Timestamp::from_millis(start)), sample.value, self.rules)?;
        match appended {
            Ok(()) => self.report.new_series += usize::from(is_new),
            Err(AppendRefused::OutOfOrder) => self.report.out_of_order += 1,
            Err(AppendRefused::Duplicate) => self.report.duplicates += 1,
            Err(AppendRefused::TooOld) => self.report.too_old += 1,
            Err(error @ AppendRefused::Unencodable) => return Err(ScrapeFailure::Parse(error.to_string())),
        }
        known.kind = sample.value.kind();
        if own_time.is_none() || self.rules.track_timestamps_staleness {
            known.sampled = self.scrape;
        }
        if (is_new || self.family.is_changed) && self.family.has(handle.labels().metric_name()) {
            self.appender.set_metadata(handle, &self.family.metadata);
        }
        if sample.exemplars.are_there() {
            let is_histogram = matches!(sample.value, ExposedValue::Histogram { .. });
            append_exemplars(self.appender, handle, at, sample.exemplars, is_histogram, self.report)?;
        }
        Ok(())
    }

    /// A series that was not there before; `None` if relabelling drops it.
    fn new_series(&self, exposed: &Labels) -> Result<Option<SeriesHandle>, ScrapeFailure> {
        let attached = attach(exposed, self.labels, self.rules.honor_labels);
        let stored = self.rules.metric_relabeling.apply(&attached).filter(|labels| !labels.is_empty());
        let Some(labels) = stored else { return Ok(None) };
        if labels.metric_name().is_empty() {
            return Err(ScrapeFailure::NoName(labels));
        }
        if self.rules.legacy_names && !has_legacy_names(&labels) {
            return Err(ScrapeFailure::Names(labels));
        }
        if let Some(exceeded) = limits::exceeded(&labels, self.rules) {
            return Err(ScrapeFailure::LabelLimit(exceeded));
        }
        Ok(Some(self.head.series(&labels)))
    }
}

impl ExposedValue<'_> {
    fn kind(self) -> SampleKind {
        match self {
            Self::Float(_) => SampleKind::Float,
            Self::Histogram { integer, .. } => SampleKind::Histogram { integer },
        }
    }
}

/// Appends a value at a time and with a start, within the limits on its buckets.
fn append(
    appender: &mut Appender<'_>,
    handle: &SeriesHandle,
    (at, start): (Timestamp, Timestamp),
    value: ExposedValue<'_>,
    rules: &ScrapeRules,
) -> Result<Result<(), AppendRefused>, ScrapeFailure> {
    match value {
        ExposedValue::Float(value) => Ok(appender.append_float(handle, at, start, value)),
        ExposedValue::Histogram { integer, histogram } => {
            let limited = limited(histogram, rules.bucket_limit, rules.max_schema);
            let limited = limited.ok_or(ScrapeFailure::BucketLimit(rules.bucket_limit))?;
            Ok(appender.append_histogram(handle, at, start, integer, Arc::new(limited.into_owned())))
        }
    }
}

impl Exemplars<'_> {
    fn are_there(self) -> bool {
        match self {
            Self::Text(exemplar, _) => exemplar.is_some(),
            Self::Protobuf(exemplars) => !exemplars.is_empty(),
        }
    }

    /// Labels, values and own times.
    fn list(self) -> Result<Vec<(Labels, f64, Option<i64>)>, ScrapeFailure> {
        match self {
            Self::Text(exemplar, format) => {
                let read = exemplar.map(|exemplar| {
                    let labels = exemplar_labels(exemplar.labels, format);
                    let labels = labels.map_err(|error| ScrapeFailure::Parse(error.problem.to_string()))?;
                    Ok((labels, exemplar.value, exemplar.timestamp))
                });
                read.into_iter().collect()
            }
            Self::Protobuf(exemplars) => {
                let read = exemplars.iter();
                Ok(read
                    .map(|exemplar| (exemplar.labels.clone(), exemplar.value, exemplar.timestamp))
                    .collect())
            }
        }
    }
}

fn append_exemplars(
    appender: &mut Appender<'_>,
    handle: &SeriesHandle,
    at: Timestamp,
    exemplars: Exemplars<'_>,
    is_histogram: bool,
    report: &mut ScrapeReport,
) -> Result<(), ScrapeFailure> {
    let mut sorted: Vec<Exemplar> = exemplars
        .list()?
        .into_iter()
        // Those of native histograms without a time could not be told from those of the scrape before.
        .filter(|(.., own)| own.is_some() || !is_histogram)
        .map(|(labels, value, own)| Exemplar {
            labels,
            value,
            time: own.map_or(at, Timestamp::from_millis),
            has_own_time: own.is_some(),
        })
        .collect();
    sorted.sort_by(|one, two| {
        one.time.cmp(&two.time).then(one.value.total_cmp(&two.value)).then(one.labels.cmp(&two.labels))
    });
    let count = sorted.len();
    let refused = sorted.into_iter().filter_map(|exemplar| appender.append_exemplar(handle, exemplar).err());
    let out_of_order = refused.filter(|refused| *refused == ExemplarRefused::OutOfOrder).count();
    // If only some are, the target has added others since the last scrape.
    if count > 0 && out_of_order == count {
        report.exemplars_out_of_order += count;
    }
    Ok(())
}

/// Whether all names are letters, digits and underscores, and colons in that of the metric.
fn has_legacy_names(labels: &Labels) -> bool {
    model::is_legacy_label_name(&labels.metric_name().replace(':', "_"))
        && labels.iter().all(|label| model::is_legacy_label_name(label.name))
}
