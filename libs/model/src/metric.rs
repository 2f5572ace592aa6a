//! What a metric is.

/// The type of a metric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MetricKind {
    /// Not known: `untyped` in the text format.
    #[default]
    Unknown,
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A histogram.
    Histogram,
    /// A histogram whose counts can fall.
    GaugeHistogram,
    /// Quantiles.
    Summary,
    /// Labels that describe a thing.
    Info,
    /// A set of states.
    StateSet,
}

impl MetricKind {
    /// Its name in the API of Prometheus and in OpenMetrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::GaugeHistogram => "gaugehistogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }
}
