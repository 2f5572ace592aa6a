//! Errors of expositions.

/// An exposition that cannot be read: the line and the problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// The line, counted from 1. The text of a single series has one line.
    pub line: u64,
    /// What is wrong.
    pub problem: ParseProblem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseProblem {
    /// Something else is there than what must follow.
    #[error("expected {expected}, found {found:?}")]
    Unexpected {
        /// What must follow.
        expected: &'static str,
        /// The text there, at most 30 characters.
        found: String,
    },
    /// A number cannot be read.
    #[error("{0:?} is not a number")]
    Number(String),
    /// A timestamp cannot be read, or is not finite.
    #[error("{0:?} is not a timestamp")]
    Timestamp(String),
    /// The type of a metric is not known in this format.
    #[error("{0:?} is not a type of metrics")]
    Type(String),
    /// A unit is not the end of the name of its metric.
    #[error("unit {unit:?} is not a suffix of metric {metric:?}")]
    Unit {
        /// The unit.
        unit: String,
        /// The metric.
        metric: String,
    },
    /// Bytes are not UTF-8.
    #[error("{0} is not valid UTF-8")]
    Utf8(&'static str),
    /// A series has no name.
    #[error("a series has no name")]
    NoName,
    /// A series has two names.
    #[error("a series has two names")]
    TwoNames,
    /// A label occurs twice, or its name is empty.
    #[error("{0}")]
    Labels(String),
    /// An exposition in OpenMetrics does not end with `# EOF`.
    #[error("the exposition does not end with # EOF")]
    NoEnd,
    /// Something follows after `# EOF`.
    #[error("there is more after # EOF")]
    AfterEnd,
}
