//! The series that a query needs.

use std::time::Duration;

use model::{Matcher, TimeRange};
use series::Aggregate;

use crate::needed_labels::NeededLabels;

/// Identifies one select of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SelectId(pub(crate) usize);

impl SelectId {
    /// The select's place in [`Query::selects`](crate::Query::selects).
    pub fn index(self) -> usize {
        self.0
    }
}

/// Series that a query needs. Expressions that need the same series share a select.
#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    /// A series has to match all of them.
    pub matchers: Vec<Matcher>,
    /// The samples that matter, with lookback, offsets and `@` taken into account. Samples outside it are ignored. With replica
    /// labels it begins earlier, because the choice of a replica depends on samples before those that are evaluated.
    pub range: TimeRange,
    /// The range of the samples that are evaluated.
    pub evaluated: TimeRange,
    /// What the samples are for.
    pub hints: SelectHints,
    /// Whether matchers are still missing, because they follow from the series of other selects: `info()` reads the info
    /// series of the instances and jobs in its first argument. Read such a select after
    /// [`Evaluation::next_select`](crate::Evaluation::next_select) has returned it, with the matchers of
    /// [`Evaluation::select`](crate::Evaluation::select). It is never returned if no series turn out to be needed.
    pub late: bool,
}

/// What the samples of a select are for. A driver may ignore hints; for raw data the answer is the same. If selectors share
/// a select, `func` and `range` are those of the first selector, and all other hints are valid for all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectHints {
    /// The function or aggregation directly around the selector; empty if there is none.
    pub func: String,
    /// The length of a range selector; zero for an instant selector.
    pub range: Duration,
    /// Distance between evaluations; zero for an instant query.
    pub step: Duration,
    /// The grouping labels of an aggregation directly around the selector.
    pub grouping: Vec<String>,
    /// Whether `grouping` is `by`; otherwise it is `without`.
    pub by: bool,
    /// The labels that matter to the answer.
    pub labels: NeededLabels,
    /// The coarsest resolution that data may have; `Some` if the function around a selector needs several samples of its range.
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
