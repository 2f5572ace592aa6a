//! What templates compute with.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use model::{FloatHistogram, Labels};
use promql::{SampleValue, VectorSample};

use crate::template::time::{GoDuration, GoTime};

/// A value of a template. The variants are the types of Go that the functions of Prometheus use.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// No value: a field that does not exist, or a missing key of `args`.
    Nil,
    Bool(bool),
    Int(i64),
    /// A byte of a string.
    Byte(u8),
    Float(f64),
    Text(Rc<str>),
    /// Text that is safe in HTML. Alerts are not HTML, so it is text that is not a `string`.
    Html(Rc<str>),
    /// A map of text, such as `$labels`.
    Labels(Labels),
    /// What `args` returns.
    Args(Rc<BTreeMap<String, Self>>),
    Sample(Rc<TemplateSample>),
    /// What `query` returns.
    Samples(Rc<Vec<Rc<TemplateSample>>>),
    Histogram(Arc<FloatHistogram>),
    Time(GoTime),
    Duration(GoDuration),
    /// A month or a day of the week: a number with a name.
    Named(i64, &'static str),
    Alert(Rc<AlertData>),
}

/// A sample of `query`.
#[derive(Debug)]
pub(super) struct TemplateSample {
    pub(super) labels: Labels,
    pub(super) value: Value,
}

/// The dot of a template: what it knows of the alert.
#[derive(Debug)]
pub(super) struct AlertData {
    pub(super) labels: Labels,
    pub(super) external_labels: Labels,
    pub(super) external_url: Rc<str>,
    pub(super) value: Value,
}

impl From<&SampleValue> for Value {
    fn from(value: &SampleValue) -> Self {
        match value {
            SampleValue::Float(float) => Self::Float(*float),
            SampleValue::Histogram(histogram) => Self::Histogram(Arc::clone(histogram)),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl Value {
    /// The result of a query.
    pub(super) fn samples(vector: &[VectorSample]) -> Self {
        let sample = |sample: &VectorSample| {
            Rc::new(TemplateSample { labels: sample.labels.clone(), value: (&sample.value).into() })
        };
        Self::Samples(Rc::new(vector.iter().map(sample).collect()))
    }

    /// The name of its type in Go.
    pub(super) const fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Byte(_) => "uint8",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::Html(_) => "template.HTML",
            Self::Labels(_) => "map[string]string",
            Self::Args(_) => "map[string]interface {}",
            Self::Sample(_) => "*template.sample",
            Self::Samples(_) => "template.queryResult",
            Self::Histogram(_) => "*histogram.FloatHistogram",
            Self::Time(_) => "*time.Time",
            Self::Duration(_) => "*time.Duration",
            Self::Named(..) => "time.Month",
            Self::Alert(_) => {
                "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }"
            }
        }
    }

    /// Whether `if` takes the first branch.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) | Self::Named(value, _) => *value != 0,
            Self::Byte(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) | Self::Html(text) => !text.is_empty(),
            Self::Labels(labels) => !labels.is_empty(),
            Self::Args(args) => !args.is_empty(),
            Self::Samples(samples) => !samples.is_empty(),
            Self::Sample(_) | Self::Histogram(_) | Self::Time(_) | Self::Duration(_) | Self::Alert(_) => true,
        }
    }

    /// Bytes of text that the value keeps in memory, roughly.
    pub(super) fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Html(text) => text.len(),
            _ => 0,
        }
    }
}
