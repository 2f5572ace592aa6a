//! PromQL: the language, the plan and the evaluation.
//!
//! No I/O, no clock, no async: the engine is a machine that is offered series and gives answers.

mod error;
mod eval;
mod functions;
mod needed;
mod output;
mod plan;
pub mod promqltest;
mod query;
pub mod syntax;
mod text;

pub use error::{QUERIES, QueryError};
pub use eval::Evaluation;
pub use eval::meter::Clock;
pub use needed::{NeededLabels, Trimmer};
pub use output::{
    Annotations, Held, MatrixSeries, QueryOutput, QueryValue, SampleValue, Stats, VectorSample,
};
pub use plan::explain::{Measured, PlanNode};
pub use query::{EngineOptions, Query, QueryParams, Select, SelectHints, SelectId};
pub use syntax::{MAX_REGEX_BYTES, ParseError, ParseOptions, parse, parse_selector};
pub use text::{go_g, go_quoted};
