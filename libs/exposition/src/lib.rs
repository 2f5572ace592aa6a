//! What targets expose: metrics in Prometheus' text format, in OpenMetrics and in protobuf.
//!
//! A [`TextParser`] goes through an exposition line by line and allocates nothing: the text of a series is a key for a cache, so
//! that its labels are parsed once ([`series_labels`]) and not in each scrape. What Prometheus accepts is accepted, and what it
//! refuses is refused, with the line.
//!
//! ```
//! use exposition::{Entry, TextFormat, TextParser, series_labels};
//! let text = b"# TYPE up gauge\nup{job=\"api\"} 1\n";
//! let entries: Vec<Entry> = TextParser::new(text, TextFormat::Prometheus).collect::<Result<_, _>>()?;
//! let Entry::Sample(sample) = &entries[1] else { panic!("a sample") };
//! assert_eq!(sample.value, 1.0);
//! assert_eq!(series_labels(sample.series, TextFormat::Prometheus)?.to_string(), r#"up{job="api"}"#);
//! # Ok::<(), exposition::ParseError>(())
//! ```

mod error;
mod format;
mod labels;
mod number;
mod protobuf;
mod text;

pub use error::{ParseError, ParseProblem};
pub use format::TextFormat;
pub use labels::{exemplar_labels, series_labels};
pub use model::MetricKind;
pub use protobuf::{
    ProtobufEntry, ProtobufError, ProtobufExemplar, ProtobufParser, ProtobufSample, ProtobufValue,
};
pub use text::{Entry, ExemplarText, SampleText, TextParser};
