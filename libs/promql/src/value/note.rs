//! The texts of warnings and infos.

use std::fmt;

use crate::text::{go_g, go_quoted};

/// Which computation on histograms a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HistogramOperation {
    Addition,
    Subtraction,
    Aggregation,
}

impl fmt::Display for HistogramOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Addition => "addition",
            Self::Subtraction => "subtraction",
            Self::Aggregation => "aggregation",
        })
    }
}

/// A warning or an info. The words are those of Prometheus' `util/annotations`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note<'a> {
    InvalidQuantile(f64),
    InvalidRatio { ratio: f64, capped: f64 },
    BadBucketLabel { name: &'a str, label: &'a str },
    MixedFloatsHistograms(&'a str),
    MixedFloatsHistogramsAggregation,
    MixedClassicNative(&'a str),
    NotCounter(&'a str),
    NotGauge(&'a str),
    MixedExponentialCustom(&'a str),
    PossibleNonCounter(&'a str),
    IncompatibleTypes { left: &'a str, op: &'a str, right: &'a str },
    IgnoredInAggregation(&'a str),
    IgnoredInMixedRange(&'a str),
    IncompatibleBuckets(&'a str),
    SortInRangeQuery,
    QuantileNanResult(&'a str),
    QuantileNanSkew(&'a str),
    FractionNans(&'a str),
    CounterResetCollision(HistogramOperation),
    ReconciledBuckets(HistogramOperation),
    StartOverlap(&'a str),
}

impl Note<'_> {
    /// Whether it is a warning; otherwise it is an info.
    pub(super) fn is_warning(&self) -> bool {
        !matches!(
            self,
            Note::PossibleNonCounter(_)
                | Note::IncompatibleTypes { .. }
                | Note::IgnoredInAggregation(_)
                | Note::IgnoredInMixedRange(_)
                | Note::QuantileNanResult(_)
                | Note::QuantileNanSkew(_)
                | Note::FractionNans(_)
                | Note::ReconciledBuckets(_)
        )
    }
}

/// ` for metric name "x"`, or nothing if the name is not known.
pub(super) struct ForMetric<'a>(pub(super) &'a str);

impl fmt::Display for ForMetric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " for metric name {}", go_quoted(self.0)) }
    }
}

impl fmt::Display for Note<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_warning() { "PromQL warning: " } else { "PromQL info: " })?;
        match *self {
            Note::InvalidQuantile(q) => {
                write!(f, "quantile value should be between 0 and 1, got {}", go_g(q))
            }
            Note::InvalidRatio { ratio, capped } => write!(
                f,
                "ratio value should be between -1 and 1, got {}, capping to {}",
                go_g(ratio),
                go_g(capped)
            ),
            Note::BadBucketLabel { name, label } => write!(
                f,
                "bucket label \"le\" is missing or has a malformed value of {}{}",
                go_quoted(label),
                ForMetric(name)
            ),
            Note::MixedFloatsHistograms(name) => {
                write!(f, "encountered a mix of histograms and floats for metric name {}", go_quoted(name))
            }
            Note::MixedFloatsHistogramsAggregation => {
                f.write_str("encountered a mix of histograms and floats for aggregation")
            }
            Note::MixedClassicNative(name) => {
                write!(f, "vector contains a mix of classic and native histograms{}", ForMetric(name))
            }
            Note::NotCounter(name) => {
                write!(f, "this native histogram metric is not a counter: {}", go_quoted(name))
            }
            Note::NotGauge(name) => {
                write!(f, "this native histogram metric is not a gauge: {}", go_quoted(name))
            }
            Note::MixedExponentialCustom(name) => write!(
                f,
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                go_quoted(name)
            ),
            Note::PossibleNonCounter(name) => write!(
                f,
                "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
                go_quoted(name)
            ),
            Note::IncompatibleTypes { left, op, right } => write!(
                f,
                "incompatible sample types encountered for binary operator {}: {left} {op} {right}",
                go_quoted(op)
            ),
            Note::IgnoredInAggregation(aggregation) => {
                write!(f, "ignored histogram in {aggregation} aggregation")
            }
            Note::IgnoredInMixedRange(name) => write!(
                f,
                "ignored histograms in a range containing both floats and histograms for metric name {}",
                go_quoted(name)
            ),
            Note::IncompatibleBuckets(op) => {
                write!(f, "incompatible bucket layout encountered for binary operator {op}")
            }
            Note::SortInRangeQuery => f.write_str(
                "sort is ineffective for range queries since results are always ordered by labels",
            ),
            Note::QuantileNanResult(name) => write!(
                f,
                "input to histogram_quantile has NaN observations, result is NaN{}",
                ForMetric(name)
            ),
            Note::QuantileNanSkew(name) => write!(
                f,
                "input to histogram_quantile has NaN observations, result is skewed higher{}",
                ForMetric(name)
            ),
            Note::FractionNans(name) => write!(
                f,
                "input to histogram_fraction has NaN observations, which are excluded from all fractions{}",
                ForMetric(name)
            ),
            Note::CounterResetCollision(operation) => {
                write!(f, "conflicting counter resets during histogram {operation}")
            }
            Note::ReconciledBuckets(operation) => {
                write!(f, "mismatched custom buckets were reconciled during {operation}")
            }
            Note::StartOverlap(name) => write!(
                f,
                "sample has start time that overlaps with previous sample timestamp for metric {}",
                go_quoted(name)
            ),
        }
    }
}

/// The corrections that the buckets of classic histograms needed, summed up over all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ForcedMonotonicity {
    /// First and last instant, in milliseconds.
    pub(crate) times: (i64, i64),
    /// Least and greatest upper bound of a corrected bucket.
    pub(crate) buckets: (f64, f64),
    /// Greatest correction.
    pub(crate) max_diff: f64,
    /// How many histograms were corrected.
    pub(crate) count: u64,
}

impl ForcedMonotonicity {
    pub(super) fn merge(&mut self, other: &Self) {
        self.times = (self.times.0.min(other.times.0), self.times.1.max(other.times.1));
        self.buckets = (self.buckets.0.min(other.buckets.0), self.buckets.1.max(other.buckets.1));
        self.max_diff = self.max_diff.max(other.max_diff);
        self.count += other.count;
    }
}
