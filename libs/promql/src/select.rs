//! The series that a query needs.

use std::time::Duration;

use model::{Matcher, TimeRange};
use series::Aggregate;

use crate::needed_labels::NeededLabels;

/// Names one select of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SelectId(pub(crate) usize);

impl SelectId {
    /// The select's place in [`Query::selects`](crate::Query::selects).
    pub fn index(self) -> usize {
        self.0
    }
}

/// Series that a query needs. Expressions that need the same ones share a select.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// All of them have to hold.
    pub matchers: Vec<Matcher>,
    /// The samples that matter; lookback, offsets and `@` are worked in. Samples outside do no harm.
    pub range: TimeRange,
    /// What the samples are for.
    pub hints: SelectHints,
    /// Whether more matchers are to come, which follow from the series of other selects: the info series of `info()` are
    /// those of the instances and jobs of its first argument. Such a select is to be asked for as [`Evaluation::select`](crate::Evaluation::select)
    /// has it, once [`Evaluation::next_select`](crate::Evaluation::next_select) names it; it never does where no series are needed after all.
    pub late: bool,
}

/// What the samples of a select are for. Hints may be ignored; the answer to raw data is the same. Where selectors share
/// a select, `func` and `range` are those of the first, and the others hold for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectHints {
    /// The function or aggregation directly around the selector; empty where there is none.
    pub func: String,
    /// The length of a range selector; zero for an instant selector.
    pub range: Duration,
    /// Distance of the evaluations; zero for an instant query.
    pub step: Duration,
    /// The grouping labels of an aggregation directly around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` is `by` (or else `without`).
    pub by: bool,
    /// The labels that matter to the answer, whatever stands around the selector.
    pub labels: NeededLabels,
    /// How coarse data may be, where the function around a selector needs several samples of its range.
    pub resolution: Option<Duration>,
}

impl SelectHints {
    /// Which aggregate of downsampled data to read, as Thanos chooses it. [`Aggregate::Raw`] reads the mean of each window.
    pub fn aggregate(&self) -> Aggregate {
        match self.func.as_str() {
            "increase" | "rate" | "irate" | "resets" | "xincrease" | "xrate" => Aggregate::Counter,
            "min" => Aggregate::Min,
            "max" => Aggregate::Max,
            "count" => Aggregate::Count,
            other if other.starts_with("min_") => Aggregate::Min,
            other if other.starts_with("max_") => Aggregate::Max,
            other if other.starts_with("count_") => Aggregate::Count,
            other if other.starts_with("sum_") => Aggregate::Sum,
            _ => Aggregate::Raw,
        }
    }
}
