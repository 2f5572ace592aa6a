//! The data model: time, labels, matchers, samples, histograms.
//!
//! Everything here is a value: no clock, no I/O, no async. The types guarantee the invariants on which the
//! rest of the workspace builds (a label set is sorted and unique; the expression of a matcher is compiled
//! and anchored). No other crate has to check them again.
//!
//! Reading order: `time`, `labels`, `matcher`, `metric`, `re2`, `relabel`, `sample`, `histogram`, `causes`.

mod causes;
mod histogram;
mod labels;
mod matcher;
mod metric;
mod re2;
mod relabel;
mod sample;
mod time;

pub use causes::{causes, root_cause};
pub use histogram::{
    BoundedBucket, BucketSpan, CUSTOM_BUCKETS_SCHEMA, Combined, CounterResetHint, FloatHistogram,
    HistogramError, IncompatibleSchemas, MAX_EXPONENTIAL_SCHEMA, MIN_EXPONENTIAL_SCHEMA, TrimSide,
    numbered_buckets, packed_buckets,
};
pub use labels::{Label, Labels, LabelsBuilder, LabelsError, METRIC_NAME, is_legacy_label_name};
pub use matcher::{ExternalMatch, MatchOp, Matcher, MatcherError};
pub use metric::MetricKind;
pub use re2::{Regex, RegexError, RegexGroups, SearchRegex};
pub use relabel::{RelabelAction, RelabelConfig, RelabelError, Relabeling};
pub use sample::{STALE_NAN_BITS, Sample, is_stale_nan, stale_nan};
pub use time::{TimeRange, Timestamp};
