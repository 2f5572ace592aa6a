//! Rejects series with equal labels after an operator that changed labels.
//!
//! Behaviour: where labels change, Prometheus 3.14 fails if series become equal: `label_replace`, `label_join` and the sign
//! in `mergeSeriesWithSameLabelset`, other operators in `rangeEval`, functions over ranges in `eval`.

use budget::Reservation;
use model::{Label, Labels};
use xxhash_rust::xxh64::xxh64;

use crate::error::QueryError;
use crate::eval::merge::SAME_LABELS;
use crate::eval::operator::{Operator, OperatorContext};
use crate::functions::label::is_reserved;
use crate::plan::node::{Distinct, Names};
use crate::value::column::{Column, Row};

/// A summary of the series so far: a hash of the labels and the steps that have a value. It is small, so that an aggregation
/// above still needs little memory.
#[derive(Debug, Default)]
pub(crate) struct SeenLabels {
    /// Hashes whose last bit is set if the series had a type or unit.
    hashes: Vec<u64>,
    /// For each series the ranges of steps that have a value; empty if the steps do not matter.
    steps: Vec<Box<[Stretch]>>,
    /// A hash of the labels that were dropped from the first series, and whether it differs for another one.
    dropped: Option<u64>,
    differs: bool,
    text: Vec<u8>,
}

/// A range of steps: from the first number to before the second.
type Stretch = (u32, u32);

/// What can be skipped for a series that comes from a selector.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shortcut {
    /// All series are of one metric, and so far none has a type or unit.
    pub(crate) untyped: bool,
    /// The next operator does not depend on the labels that would be dropped.
    pub(crate) names_may_stay: bool,
}

impl Distinct {
    /// Drops names from the labels of a series and adds the series to the summary.
    pub(crate) fn apply(&self, row: &mut Row, seen: &mut SeenLabels, shortcut: Shortcut) {
        if shortcut.untyped && self.names.is_some() && comes_after_typed(&row.labels) {
            // Only the name is dropped, which all series have. A series from which more is dropped comes before the series
            // that are equal to it otherwise, and there was none.
            if !shortcut.names_may_stay || !row.column.histograms.is_empty() {
                row.labels = row.labels.without(is_reserved);
            }
            return;
        }
        let dropped = |name: &str| match self.names {
            None => false,
            Some(Names::Metric) => name == model::METRIC_NAME,
            Some(Names::Reserved) => is_reserved(name),
        };
        let typed = is_typed(&row.labels);
        if self.names.is_some() {
            let hash = seen.hash(&row.labels, dropped);
            seen.differs |= *seen.dropped.get_or_insert(hash) != hash;
            if row.labels.iter().any(|label| dropped(label.name)) {
                row.labels = row.labels.without(dropped);
            }
        }
        let hash = seen.hash(&row.labels, |_| true);
        seen.hashes.push(hash & !1 | u64::from(typed));
        if !self.any_step {
            seen.steps.push(stretches(&row.column));
        }
    }
}

/// Whether a series comes after those that have a type or unit and are equal to it otherwise: it does if a label sorts after
/// `__unit__`, as most do.
fn comes_after_typed(labels: &Labels) -> bool {
    labels.iter().last().is_some_and(|label| label.name > "__unit__")
}

/// Whether labels have a type or a unit.
pub(crate) fn is_typed(labels: &Labels) -> bool {
    // Labels are in the order of their names.
    let up_to_unit = |label: &Label<'_>| label.name <= "__unit__";
    labels.iter().take_while(up_to_unit).any(|label| matches!(label.name, "__type__" | "__unit__"))
}

impl SeenLabels {
    /// A hash of the labels for which `counts` is true.
    fn hash(&mut self, labels: &Labels, counts: impl Fn(&str) -> bool) -> u64 {
        self.text.clear();
        for label in labels.iter().filter(|label| counts(label.name)) {
            // This byte does not occur in UTF-8, and so not in a label.
            for part in [label.name, label.value] {
                self.text.extend_from_slice(part.as_bytes());
                self.text.push(0xff);
            }
        }
        xxh64(&self.text, 0)
    }

    /// Memory in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        let steps: usize = self.steps.iter().map(|steps| size_of_val::<[Stretch]>(steps)).sum();
        (self.hashes.len() * 8 + self.steps.len() * size_of::<Box<[Stretch]>>() + steps) as u64
    }

    fn extend(&mut self, other: Self) {
        self.hashes.extend(other.hashes);
        self.steps.extend(other.steps);
        if let Some(dropped) = other.dropped {
            self.differs |= other.differs || *self.dropped.get_or_insert(dropped) != dropped;
        }
    }

    /// Whether two series have equal labels and, if steps matter, a value at the same step.
    ///
    /// Series of one metric remain different without the name, unless a type or unit is dropped from one of them too. They may
    /// lack labels that are not needed ([`NeededLabels`](crate::NeededLabels)), so series without type and unit are not
    /// compared with each other.
    fn has_equal(&self, one_metric: bool) -> bool {
        let mut order: Vec<usize> = (0..self.hashes.len()).collect();
        order.sort_unstable_by_key(|&at| self.hashes[at]);
        let may_be_equal = |series: &&[usize]| {
            series.len() > 1 && (!one_metric || series.iter().any(|&at| self.hashes[at] & 1 == 1))
        };
        order.chunk_by(|a, b| self.hashes[*a] >> 1 == self.hashes[*b] >> 1).filter(may_be_equal).any(
            |equal| {
                let mut stretches: Vec<Stretch> = equal
                    .iter()
                    .filter_map(|&at| self.steps.get(at))
                    .flat_map(|steps| steps.iter().copied())
                    .collect();
                stretches.sort_unstable();
                self.steps.is_empty() || stretches.windows(2).any(|pair| pair[1].0 < pair[0].1)
            },
        )
    }
}

/// The ranges of steps at which a column has a value.
fn stretches(column: &Column) -> Box<[Stretch]> {
    let mut list: Vec<Stretch> = Vec::new();
    for step in (0..column.len()).filter(|step| column.has(*step)) {
        // The limit of samples bounds the number of steps far below that.
        let step = u32::try_from(step).unwrap_or(u32::MAX);
        match list.last_mut() {
            Some((_, end)) if *end == step => *end += 1,
            _ => list.push((step, step.saturating_add(1))),
        }
    }
    list.into_boxed_slice()
}

/// Passes series on, without their names if the rule says so, and fails at the end if two of them became equal.
///
/// If series come directly from a selector, workers do this for each series, and the operator merges their summaries.
#[derive(Debug)]
pub(crate) struct DistinctOperator {
    rule: Distinct,
    /// Whether its series are those of one metric, with unchanged labels.
    one_metric: bool,
    seen: SeenLabels,
    reserved: Reservation,
}

impl DistinctOperator {
    pub(crate) fn new(rule: Distinct, one_metric: bool, reserved: Reservation) -> Self {
        Self { rule, one_metric, seen: SeenLabels::default(), reserved }
    }

    /// What it does with each series, for workers.
    pub(crate) fn rule(&self) -> Distinct {
        self.rule
    }

    /// Whether its series are those of one metric, with unchanged labels.
    pub(crate) fn has_one_metric(&self) -> bool {
        self.one_metric
    }

    /// Merges the summary of a worker.
    pub(crate) fn absorb(&mut self, seen: SeenLabels) -> Result<(), QueryError> {
        self.reserved.add(seen.size_bytes())?;
        self.seen.extend(seen);
        Ok(())
    }
}

impl Operator for DistinctOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        let mut seen = SeenLabels::default();
        for mut row in rows {
            cx.budget.check()?;
            self.rule.apply(&mut row, &mut seen, Shortcut::default());
            out.push(row);
        }
        self.absorb(seen)
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        cx.budget.check()?;
        let seen = std::mem::take(&mut self.seen);
        // Series that were distinct remain so if the same labels were dropped from all of them.
        let surely_distinct = self.rule.names.is_some() && !seen.differs;
        let equal = !surely_distinct && seen.has_equal(self.one_metric && self.rule.names.is_some());
        self.reserved.release(u64::MAX);
        if equal { Err(QueryError::execution(SAME_LABELS)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::column::ABSENT;

    fn equal(rule: Distinct, rows: &[(&str, &[f64])]) -> bool {
        let mut seen = SeenLabels::default();
        for (name, floats) in rows {
            let labels = Labels::from_pairs([("__name__", *name), ("job", "a")]).unwrap();
            let mut row = Row::new(labels, Column { floats: floats.to_vec(), histograms: Vec::new() });
            rule.apply(&mut row, &mut seen, Shortcut::default());
        }
        (rule.names.is_none() || seen.differs) && seen.has_equal(false)
    }

    #[test]
    fn series_are_equal_only_if_they_have_a_value_at_the_same_step() {
        let rule = Distinct { names: Some(Names::Reserved), any_step: false };
        let [both, first, second] = [[1.0, 2.0, 3.0], [1.0, ABSENT, 3.0], [ABSENT, 2.0, ABSENT]];
        assert!(equal(rule, &[("x", &both), ("y", &first)]));
        assert!(!equal(rule, &[("x", &first), ("y", &second)]));
        assert!(equal(rule, &[("x", &first), ("y", &second), ("z", &first)]));
        assert!(equal(Distinct { any_step: true, ..rule }, &[("x", &first), ("y", &second)]));
        assert!(!equal(Distinct { names: None, any_step: false }, &[("x", &both), ("y", &both)]));
    }

    #[test]
    fn series_of_one_metric_become_equal_only_if_a_type_is_dropped() {
        let rule = Distinct { names: Some(Names::Reserved), any_step: false };
        let equal = |sets: &[&[(&str, &str)]]| {
            let mut seen = SeenLabels::default();
            for pairs in sets {
                let labels = Labels::from_pairs(pairs.iter().copied()).unwrap();
                let column = Column { floats: vec![1.0], histograms: Vec::new() };
                rule.apply(&mut Row::new(labels, column), &mut seen, Shortcut::default());
            }
            seen.has_equal(true)
        };
        let (plain, typed) =
            ([("__name__", "m"), ("job", "a")], [("__name__", "m"), ("__type__", "t"), ("job", "a")]);
        assert!(!equal(&[&plain, &plain]), "the series may differ in labels that are not needed");
        assert!(equal(&[&typed, &plain]) && equal(&[&plain, &typed]));
        assert!(!equal(&[&typed, &plain[..1]]));
    }
}
