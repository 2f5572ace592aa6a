//! The protobuf format: messages `io.prometheus.client.MetricFamily`, each after its length. Only it has native histograms.
//!
//! A metric is decoded at a time, so that memory follows the largest metric and not the exposition. Classic histograms and
//! summaries become the series that the text format has. Specified by `model/textparse/protobufparse.go` of Prometheus.

mod message;
mod native;

use std::vec::IntoIter;

use model::{FloatHistogram, Labels, METRIC_NAME, MetricKind};
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::number::open_metrics_float;
use crate::protobuf::message::{Exemplar, Histogram, Metric, Summary, Timestamp};

/// Most bytes of one metric. A histogram of a thousand buckets has about 30 kB.
const MOST_METRIC_BYTES: usize = 1 << 20;

/// What an exposition says.
#[derive(Clone, Debug, PartialEq)]
pub enum ProtobufEntry {
    /// A metric begins.
    Family {
        /// Its name.
        name: String,
        /// Its help text.
        help: String,
        /// Its type.
        kind: MetricKind,
        /// Its unit, often empty.
        unit: String,
    },
    /// The samples of one metric of the family: several for classic histograms and summaries.
    Samples(Vec<ProtobufSample>),
}

/// A sample.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtobufSample {
    /// The labels, with the name.
    pub labels: Labels,
    /// The value.
    pub value: ProtobufValue,
    /// When it was observed, in milliseconds since the epoch, if the target says so.
    pub timestamp: Option<i64>,
    /// When its counter began, in milliseconds since the epoch, if the target says so.
    pub start: Option<i64>,
    /// Its exemplars.
    pub exemplars: Vec<ProtobufExemplar>,
}

/// A value of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum ProtobufValue {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram {
        /// Whether its counts are integers.
        integer: bool,
        /// The histogram.
        histogram: FloatHistogram,
    },
}

/// An exemplar.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtobufExemplar {
    /// Its labels.
    pub labels: Labels,
    /// Its value.
    pub value: f64,
    /// When it was observed, in milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

/// An exposition that cannot be read: the metric and the problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metric family {number}{}: {problem}", if name.is_empty() { String::new() } else { format!(" ({name})") })]
pub struct ProtobufError {
    /// The family, counted from 1.
    pub number: u64,
    /// Its name, if it is known.
    pub name: String,
    /// What is wrong.
    pub problem: String,
}

/// The entries of an exposition. After an error, there are no more.
pub struct ProtobufParser<'a> {
    rest: &'a [u8],
    /// Whether classic histograms are read, too, where there are native ones.
    keep_classic: bool,
    /// Whether native histograms are read as classic ones.
    ignore_native: bool,
    number: u64,
    family: Option<Family<'a>>,
    is_done: bool,
}

/// A family and its metrics that are still to be read.
struct Family<'a> {
    name: String,
    kind: MetricKind,
    metrics: IntoIter<&'a [u8]>,
}

impl<'a> ProtobufParser<'a> {
    /// A parser of a whole exposition. With `keep_classic`, a metric that has a native and a classic histogram gives both.
    pub fn new(exposition: &'a [u8], keep_classic: bool) -> Self {
        Self { rest: exposition, keep_classic, ignore_native: false, number: 0, family: None, is_done: false }
    }

    /// The same, which reads native histograms as classic ones, also where they have no classic buckets.
    #[must_use]
    pub fn without_native(self) -> Self {
        Self { ignore_native: true, ..self }
    }

    fn next_entry(&mut self) -> Result<Option<ProtobufEntry>, String> {
        if let Some(family) = &mut self.family
            && let Some(bytes) = family.metrics.next()
        {
            return family
                .samples(bytes, self.keep_classic, self.ignore_native)
                .map(ProtobufEntry::Samples)
                .map(Some);
        }
        self.family = None;
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            self.number += 1;
            let message = take_message(&mut self.rest)?;
            let (family, entry) = Family::parse(message)?;
            // Prometheus skips a family without metrics.
            if family.metrics.len() > 0 {
                self.family = Some(family);
                return Ok(Some(entry));
            }
        }
    }
}

impl Iterator for ProtobufParser<'_> {
    type Item = Result<ProtobufEntry, ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let entry = self.next_entry();
        self.is_done = !matches!(entry, Ok(Some(_)));
        let name = self.family.as_ref().map(|family| family.name.clone()).unwrap_or_default();
        entry.map_err(|problem| ProtobufError { number: self.number, name, problem }).transpose()
    }
}

/// Takes a message and its length off the front.
fn take_message<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let length = decode_varint(rest).map_err(|error| error.to_string())?;
    let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
    let Some(length) = length else { return Err("the exposition ends within a message".to_owned()) };
    let (message, after) = rest.split_at(length);
    *rest = after;
    Ok(message)
}

impl<'a> Family<'a> {
    /// Reads the fields of a family, but for its metrics.
    fn parse(mut message: &'a [u8]) -> Result<(Self, ProtobufEntry), String> {
        let (mut name, mut help, mut unit, mut kind) = (String::new(), String::new(), String::new(), 0);
        let mut metrics = Vec::new();
        while !message.is_empty() {
            let (tag, wire) = decode_key(&mut message).map_err(|error| error.to_string())?;
            match (tag, wire) {
                (1, WireType::LengthDelimited) => name = text(&mut message, "a name")?,
                (2, WireType::LengthDelimited) => help = text(&mut message, "a help text")?,
                (5, WireType::LengthDelimited) => unit = text(&mut message, "a unit")?,
                (3, WireType::Varint) => {
                    kind = decode_varint(&mut message).map_err(|error| error.to_string())?
                }
                (4, WireType::LengthDelimited) => metrics.push(take_message(&mut message)?),
                _ => skip_field(wire, tag, &mut message, DecodeContext::default())
                    .map_err(|error| error.to_string())?,
            }
        }
        if name.is_empty() {
            return Err("it has no name".to_owned());
        }
        let kind = match kind {
            0 => MetricKind::Counter,
            1 => MetricKind::Gauge,
            2 => MetricKind::Summary,
            3 => MetricKind::Unknown,
            4 => MetricKind::Histogram,
            5 => MetricKind::GaugeHistogram,
            other => return Err(format!("metric {name} has the unknown type {other}")),
        };
        let entry = ProtobufEntry::Family { name: name.clone(), help, kind, unit };
        Ok((Self { name, kind, metrics: metrics.into_iter() }, entry))
    }

    /// The samples of a metric.
    fn samples(
        &self,
        bytes: &[u8],
        keep_classic: bool,
        ignore_native: bool,
    ) -> Result<Vec<ProtobufSample>, String> {
        if bytes.len() > MOST_METRIC_BYTES {
            return Err(format!("a metric has {} bytes, more than {MOST_METRIC_BYTES}", bytes.len()));
        }
        let metric = Metric::decode(bytes).map_err(|error| error.to_string())?;
        let mut out = SampleList { family: self, metric: &metric, samples: Vec::new() };
        match self.kind {
            MetricKind::Counter => {
                let counter = metric.counter.clone().unwrap_or_default();
                out.add("", None, counter.value, counter.created, counter.exemplar.iter())?;
            }
            MetricKind::Gauge => {
                out.add("", None, metric.gauge.unwrap_or_default().value, None, [].iter())?
            }
            MetricKind::Summary => out.add_summary(&metric.summary.clone().unwrap_or_default())?,
            MetricKind::Histogram | MetricKind::GaugeHistogram => {
                let histogram = metric.histogram.clone().unwrap_or_default();
                let is_native = !ignore_native && native::is_native(&histogram);
                if is_native {
                    out.add_native(&histogram)?;
                }
                if !is_native || keep_classic && !histogram.bucket.is_empty() {
                    out.add_classic(&histogram)?;
                }
            }
            _ => out.add("", None, metric.untyped.unwrap_or_default().value, None, [].iter())?,
        }
        Ok(out.samples)
    }
}

fn text(message: &mut &[u8], what: &str) -> Result<String, String> {
    let bytes = take_message(message)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| format!("{what} is not valid UTF-8"))
}

/// The samples of one metric.
struct SampleList<'a> {
    family: &'a Family<'a>,
    metric: &'a Metric,
    samples: Vec<ProtobufSample>,
}

impl SampleList<'_> {
    /// Adds a float of the series with this end of its name and another label.
    fn add<'e>(
        &mut self,
        suffix: &str,
        label: Option<(&str, String)>,
        value: f64,
        created: Option<Timestamp>,
        exemplars: impl Iterator<Item = &'e Exemplar>,
    ) -> Result<(), String> {
        let value = if value.is_nan() { crate::number::NORMAL_NAN } else { value };
        self.add_value(suffix, label, ProtobufValue::Float(value), created, exemplars)
    }

    fn add_value<'e>(
        &mut self,
        suffix: &str,
        label: Option<(&str, String)>,
        value: ProtobufValue,
        created: Option<Timestamp>,
        exemplars: impl Iterator<Item = &'e Exemplar>,
    ) -> Result<(), String> {
        let name = format!("{}{suffix}", self.family.name);
        let own = self.metric.label.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
        let more = label.iter().map(|(name, value)| (*name, value.as_str()));
        let pairs = [(METRIC_NAME, name.as_str())].into_iter().chain(own).chain(more);
        let labels = Labels::from_pairs(pairs).map_err(|error| error.to_string())?;
        // Zero cannot be told from a time that is absent.
        let timestamp = Some(self.metric.timestamp_ms).filter(|time| *time != 0);
        let exemplars = exemplars.map(exemplar).collect::<Result<_, _>>()?;
        let start = created.map(Timestamp::millis);
        self.samples.push(ProtobufSample { labels, value, timestamp, start, exemplars });
        Ok(())
    }

    fn add_summary(&mut self, summary: &Summary) -> Result<(), String> {
        self.add("_count", None, summary.sample_count as f64, summary.created, [].iter())?;
        self.add("_sum", None, summary.sample_sum, summary.created, [].iter())?;
        for quantile in &summary.quantile {
            let label = ("quantile", open_metrics_float(quantile.quantile));
            self.add("", Some(label), quantile.value, summary.created, [].iter())?;
        }
        Ok(())
    }

    /// Adds the series of a classic histogram. A bucket up to infinity is added if it is missing.
    fn add_classic(&mut self, histogram: &Histogram) -> Result<(), String> {
        let float_or = |float: f64, integer: u64| if float == 0.0 { integer as f64 } else { float };
        let created = histogram.created;
        let count = float_or(histogram.sample_count_float, histogram.sample_count);
        self.add("_count", None, count, created, [].iter())?;
        self.add("_sum", None, histogram.sample_sum, created, [].iter())?;
        let mut has_infinity = false;
        for bucket in &histogram.bucket {
            let value = float_or(bucket.cumulative_count_float, bucket.cumulative_count);
            let label = ("le", open_metrics_float(bucket.upper_bound));
            self.add("_bucket", Some(label), value, created, bucket.exemplar.iter())?;
            has_infinity |= bucket.upper_bound == f64::INFINITY;
            if has_infinity {
                break;
            }
        }
        if !has_infinity {
            self.add("_bucket", Some(("le", "+Inf".to_owned())), count, created, [].iter())?;
        }
        Ok(())
    }

    fn add_native(&mut self, histogram: &Histogram) -> Result<(), String> {
        let (integer, native) = native::convert(histogram, self.family.kind == MetricKind::GaugeHistogram)?;
        let value = ProtobufValue::Histogram { integer, histogram: native };
        let of_buckets = histogram.bucket.iter().filter_map(|bucket| bucket.exemplar.as_ref());
        // Old clients have the exemplars of native histograms in the classic buckets.
        let exemplars: Vec<&Exemplar> = match histogram.exemplars.is_empty() {
            true => of_buckets.collect(),
            false => histogram.exemplars.iter().collect(),
        };
        self.add_value("", None, value, histogram.created, exemplars.into_iter())
    }
}

fn exemplar(exemplar: &Exemplar) -> Result<ProtobufExemplar, String> {
    let pairs = exemplar.label.iter().map(|pair| (pair.name.as_str(), pair.value.as_str()));
    Ok(ProtobufExemplar {
        labels: Labels::from_pairs(pairs).map_err(|error| error.to_string())?,
        value: exemplar.value,
        timestamp: exemplar.timestamp.map(Timestamp::millis),
    })
}

#[cfg(test)]
mod tests;
