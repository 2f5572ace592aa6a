//! PromQL: the language, the plan and the evaluation.
//!
//! No I/O, no clock, no async code: the engine is a machine. A driver offers it series and takes the answer.
//!
//! Reading order, from what callers see downwards: [`Query`], [`Evaluation`] and [`QueryOutput`]; then `plan` and `eval`, which a
//! query connects; then `functions`, `value` and [`syntax`], which know nothing of them. A module imports only those below it.
//! `promqltest` runs test scripts on top of all.

mod calendar;
mod error;
mod eval;
mod explain;
mod functions;
mod needed_labels;
mod options;
mod output;
mod plan;
#[cfg(any(test, feature = "promqltest"))]
pub mod promqltest;
mod query;
mod select;
mod selectors;
mod shared_series;
pub mod syntax;
mod text;
mod value;

pub use calendar::Date;
pub use error::{QUERIES, QueryError};
pub use eval::Evaluation;
pub use eval::meter::Clock;
pub use explain::{OperatorStats, PlanNode};
pub use needed_labels::{NeededLabels, Trimmer};
pub use options::{EngineOptions, QueryParams};
pub use output::{AnswerMemory, MatrixSeries, QueryOutput, QueryValue, SampleValue, Stats, VectorSample};
pub use query::Query;
pub use select::{Select, SelectHints, SelectId};
pub use selectors::{selector_text, selectors};
pub use shared_series::SharedSeries;
pub use syntax::{MAX_REGEX_BYTES, ParseError, ParseOptions, parse, parse_float, parse_selector};
pub use text::{go_g, go_quoted, histogram_text};
pub use value::annotations::Annotations;
