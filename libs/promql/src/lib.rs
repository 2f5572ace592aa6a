//! PromQL: the language, the plan and the evaluation.
//!
//! No I/O, no clock, no async: the engine is a machine that is offered series and gives answers.

pub mod promqltest;
pub mod syntax;

pub use syntax::{ParseError, ParseOptions, parse, parse_selector};
