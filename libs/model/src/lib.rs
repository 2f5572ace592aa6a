//! The data model of the metrics world: time, labels, matchers, samples, histograms.
//!
//! Everything here is a value: no clock, no I/O, no async. The types carry the invariants that the rest of
//! the workspace builds on (a label set is sorted and unique, a matcher's expression is compiled and
//! anchored), so that no other crate has to check them again.
//!
//! Reading order: `time`, `labels`, `matcher`, `relabel`, `sample`, `histogram`, `causes`.

mod causes;
mod histogram;
mod labels;
mod matcher;
mod re2;
mod relabel;
mod sample;
mod time;

pub use causes::{causes, root_cause};
pub use histogram::{
    Bucket, CUSTOM_BUCKETS_SCHEMA, Combined, CounterResetHint, FloatHistogram, HistogramError,
    IncompatibleSchemas, Keep, MAX_EXPONENTIAL_SCHEMA, MIN_EXPONENTIAL_SCHEMA, Span,
};
pub use labels::{Label, Labels, LabelsBuilder, LabelsError, METRIC_NAME};
pub use matcher::{ExternalMatch, MatchOp, Matcher, MatcherError};
pub use re2::{Groups, Regex, RegexError};
pub use relabel::{RelabelAction, RelabelConfig, RelabelError, Relabeling};
pub use sample::{STALE_NAN_BITS, Sample, is_stale_nan, stale_nan};
pub use time::{TimeRange, Timestamp};
