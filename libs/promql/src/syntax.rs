//! The language: parses text into a syntax tree, checks it and prints it.
//!
//! Reading order: [`ast`], `chain`, [`functions`], `token`, `lexer`, `parser`, `check`, `printer`, `pretty`,
//! `duration`.

pub mod ast;
mod chain;
mod check;
mod duration;
mod error;
pub mod functions;
mod lexer;
mod number;
mod parser;
mod pretty;
mod printer;
mod quote;
mod token;

pub use duration::{DurationContext, DurationExprError};
pub use error::ParseError;
pub use number::parse_float;
pub(crate) use parser::too_large_regexes;
pub use parser::{MAX_LENGTH_BYTES, MAX_REGEX_BYTES, parse, parse_selector};

/// Parts of the parser that test scripts use on their own.
#[cfg(any(test, feature = "promqltest"))]
pub(crate) use {
    number::{parse_duration, parse_number},
    parser::parse_labels_prefix,
    quote::unquote,
};

/// Which optional parts of the language are enabled. The default is that of Prometheus without feature flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseOptions {
    /// Experimental functions and aggregations, such as `info`, `limitk`, `sort_by_label` and `start()`.
    pub experimental_functions: bool,
    /// Arithmetic in ranges and offsets: `[step() * 2]`. Stable since Prometheus 3.14, so enabled by default.
    pub duration_expressions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left` and `fill_right`.
    pub fill_modifiers: bool,
    /// Thanos' `xrate`, `xincrease` and `xdelta`.
    pub extended_functions: bool,
}

impl Default for ParseOptions {
    fn default() -> Self {
        Self {
            experimental_functions: false,
            duration_expressions: true,
            extended_range_selectors: false,
            fill_modifiers: false,
            extended_functions: false,
        }
    }
}

impl ParseOptions {
    /// Enables everything.
    pub const ALL: Self = Self {
        experimental_functions: true,
        duration_expressions: true,
        extended_range_selectors: true,
        fill_modifiers: true,
        extended_functions: true,
    };
}

#[cfg(test)]
mod tests;
