//! Aggregations that fold each series into a few numbers for each group and step: `sum`, `avg`, `count`, `min`, `max`,
//! `group`, `stddev` and `stdvar`.
//!
//! Workers fold each batch of series into a [`Folded`]. These are merged in the order of the batches, so that the result depends
//! on the data alone and not on the number of workers or their timing.

use std::sync::Arc;

use budget::Reservation;
use model::{CounterResetHint, FloatHistogram, Labels};

use crate::error::QueryError;
use crate::eval::aggregate::grouping::GroupNumbers;
use crate::eval::operator::{Operator, OperatorContext};
use crate::functions::arithmetic::HistogramMean;
use crate::functions::kahan::{KahanSum, Mean, Spread};
use crate::plan::node::Aggregation;
use crate::syntax::ast::AggregateOp;
use crate::value::column::{ABSENT, Column, Row, is_absent};
use crate::value::note::{HistogramOperation, Note};
use crate::value::notes::Notes;

/// Whether this module evaluates an aggregation.
pub(crate) fn folds(op: AggregateOp) -> bool {
    use AggregateOp::{Avg, Count, Group, Max, Min, Stddev, Stdvar, Sum};
    matches!(op, Avg | Count | Group | Max | Min | Stddev | Stdvar | Sum)
}

/// The floats of one group, folded at each step.
#[derive(Clone, Debug)]
enum FloatFolds {
    /// Minimum, maximum or `group`: [`ABSENT`] if there was no value.
    Plain(Vec<f64>),
    /// Number of values, floats and histograms.
    Count(Vec<f64>),
    /// Sums; `sums` is [`ABSENT`] if there was no value.
    Sum {
        sums: Vec<f64>,
        rests: Vec<f64>,
    },
    Mean(Vec<Option<Mean>>),
    Spread(Vec<Option<Spread>>),
}

/// The histograms of one group at one step.
#[derive(Clone, Debug, Default)]
struct Histograms {
    total: Option<HistogramTotal>,
    /// Their schemas are incompatible, so there is no result.
    incompatible: bool,
    reset: bool,
    not_reset: bool,
}

#[derive(Clone, Debug)]
enum HistogramTotal {
    Sum(Box<FloatHistogram>, Option<Box<FloatHistogram>>),
    Mean(Box<HistogramMean>),
}

/// One group.
#[derive(Clone, Debug)]
struct FoldGroup {
    floats: FloatFolds,
    /// One entry for each step; empty while there was no histogram.
    histograms: Vec<Histograms>,
    /// The metric of the first series with histograms, for annotations about incompatible ones.
    metric: String,
    drop_name: bool,
}

/// Series folded into groups.
#[derive(Debug)]
pub(crate) struct Folded {
    spec: Arc<Aggregation>,
    steps: usize,
    names: GroupNumbers,
    groups: Vec<FoldGroup>,
    /// Memory in bytes.
    bytes: u64,
}

impl FloatFolds {
    fn new(op: AggregateOp, steps: usize) -> Self {
        match op {
            AggregateOp::Sum => Self::Sum { sums: vec![ABSENT; steps], rests: vec![0.0; steps] },
            AggregateOp::Avg => Self::Mean(vec![None; steps]),
            AggregateOp::Stddev | AggregateOp::Stdvar => Self::Spread(vec![None; steps]),
            AggregateOp::Count => Self::Count(vec![0.0; steps]),
            _ => Self::Plain(vec![ABSENT; steps]),
        }
    }

    /// Memory in bytes after [`new`](Self::new).
    fn size_bytes(op: AggregateOp, steps: usize) -> u64 {
        let size = match op {
            AggregateOp::Sum => 16,
            AggregateOp::Avg => size_of::<Option<Mean>>(),
            AggregateOp::Stddev | AggregateOp::Stdvar => size_of::<Option<Spread>>(),
            _ => 8,
        };
        (steps * size) as u64
    }

    fn add(&mut self, op: AggregateOp, values: &[f64]) {
        match self {
            Self::Sum { sums, rests } => {
                for ((sum, rest), &value) in sums.iter_mut().zip(rests).zip(values) {
                    if is_absent(value) {
                        continue;
                    }
                    if is_absent(*sum) {
                        *sum = value;
                    } else {
                        let total = KahanSum { sum: *sum, rest: *rest }.add(value);
                        (*sum, *rest) = (total.sum, total.rest);
                    }
                }
            }
            Self::Count(counts) => {
                for (count, &value) in counts.iter_mut().zip(values) {
                    *count += f64::from(u8::from(!is_absent(value)));
                }
            }
            Self::Plain(best) => {
                for (best, &value) in best.iter_mut().zip(values) {
                    if !is_absent(value) {
                        *best = better(op, *best, value);
                    }
                }
            }
            Self::Mean(means) => {
                for (mean, &value) in means.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
                    match mean {
                        None => *mean = Some(Mean::of(value)),
                        Some(mean) => mean.add(value),
                    }
                }
            }
            Self::Spread(spreads) => {
                for (spread, &value) in spreads.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
                    match spread {
                        None => *spread = Some(Spread::of(value)),
                        Some(spread) => spread.add(value),
                    }
                }
            }
        }
    }

    fn merge(&mut self, op: AggregateOp, other: Self) {
        match (self, other) {
            (Self::Sum { sums, rests }, Self::Sum { sums: more, rests: more_rests }) => {
                let theirs = more.into_iter().zip(more_rests);
                for ((sum, rest), (more, more_rest)) in sums.iter_mut().zip(rests).zip(theirs) {
                    if is_absent(more) {
                        continue;
                    }
                    if is_absent(*sum) {
                        (*sum, *rest) = (more, more_rest);
                    } else {
                        let theirs = KahanSum { sum: more, rest: more_rest };
                        let total = KahanSum { sum: *sum, rest: *rest }.merge(theirs);
                        (*sum, *rest) = (total.sum, total.rest);
                    }
                }
            }
            (Self::Count(counts), Self::Count(more)) => {
                counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            }
            (mine @ Self::Plain(_), Self::Plain(more)) => mine.add(op, &more),
            (Self::Mean(means), Self::Mean(more)) => {
                for (mean, more) in means.iter_mut().zip(more) {
                    match (mean.as_mut(), more) {
                        (Some(mean), Some(more)) => mean.merge(more),
                        (None, more) => *mean = more,
                        (Some(_), None) => {}
                    }
                }
            }
            (Self::Spread(spreads), Self::Spread(more)) => {
                for (spread, more) in spreads.iter_mut().zip(more) {
                    match (spread.as_mut(), more) {
                        (Some(spread), Some(more)) => spread.merge(more),
                        (None, more) => *spread = more,
                        (Some(_), None) => {}
                    }
                }
            }
            // Both come from the same aggregation, so they have the same variant.
            _ => {}
        }
    }

    /// The result at a step; [`ABSENT`] where nothing was seen.
    fn value(&self, op: AggregateOp, step: usize) -> f64 {
        match self {
            Self::Plain(values) => values[step],
            Self::Count(counts) if counts[step] == 0.0 => ABSENT,
            Self::Count(counts) => counts[step],
            Self::Sum { sums, .. } if is_absent(sums[step]) => ABSENT,
            Self::Sum { sums, rests } => sums[step] + rests[step],
            Self::Mean(means) => means[step].map_or(ABSENT, |mean| mean.value()),
            Self::Spread(spreads) => spreads[step].map_or(ABSENT, |spread| {
                if op == AggregateOp::Stddev { spread.variance().sqrt() } else { spread.variance() }
            }),
        }
    }
}

/// Which of two values a minimum or maximum keeps: NaN only where there is nothing else.
#[inline(always)]
fn better(op: AggregateOp, best: f64, value: f64) -> f64 {
    let take = match op {
        // Absent is NaN too, so the first value is always taken.
        AggregateOp::Min => best > value || best.is_nan(),
        AggregateOp::Max => best < value || best.is_nan(),
        _ => return 1.0,
    };
    if take { value } else { best }
}

/// Memory of a group in bytes, its numbers not counted: itself, its labels and its key.
fn group_bytes(labels: &Labels) -> u64 {
    (size_of::<FoldGroup>() + 3 * labels.size_bytes() + 64) as u64
}

impl Folded {
    pub(crate) fn new(spec: Arc<Aggregation>, steps: usize) -> Self {
        Self { spec, steps, names: GroupNumbers::default(), groups: Vec::new(), bytes: 0 }
    }

    /// Memory in bytes.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.bytes
    }

    /// The group with this number. It is created if there is none; its memory is reserved before.
    fn group(&mut self, number: usize, reserved: &mut Reservation) -> Result<&mut FoldGroup, QueryError> {
        if number == self.groups.len() {
            let labels = &self.names.labels[number];
            self.bytes += FloatFolds::size_bytes(self.spec.op, self.steps) + group_bytes(labels);
            reserved.grow_to(self.bytes)?;
            let floats = FloatFolds::new(self.spec.op, self.steps);
            self.groups.push(FoldGroup {
                floats,
                histograms: Vec::new(),
                metric: String::new(),
                drop_name: false,
            });
        }
        Ok(&mut self.groups[number])
    }

    /// Folds one series; `reserved` covers all groups so far.
    pub(crate) fn add(
        &mut self,
        row: &Row,
        reserved: &mut Reservation,
        notes: &mut Notes,
    ) -> Result<(), QueryError> {
        let number = self.names.number(&self.spec.grouping, &row.labels);
        let spec = self.spec.clone();
        let group = self.group(number, reserved)?;
        group.drop_name |= row.drop_name;
        group.floats.add(spec.op, &row.column.floats);
        let mut bytes = 0;
        for (step, histogram) in row.column.histograms.iter().enumerate() {
            if let Some(histogram) = histogram {
                bytes += group.add_histogram(&spec, (step, row.column.len()), histogram, &row.labels, notes);
            }
        }
        self.bytes += bytes;
        Ok(reserved.grow_to(self.bytes)?)
    }

    /// Merges the groups of another worker.
    pub(crate) fn merge(&mut self, other: Self, notes: &mut Notes) {
        let spec = self.spec.clone();
        // Groups that both have were counted twice until here.
        let mut shared = 0;
        for (labels, theirs) in other.names.labels.iter().zip(other.groups) {
            let number = self.names.number(&spec.grouping, labels);
            if number == self.groups.len() {
                self.groups.push(theirs);
                continue;
            }
            let mine = &mut self.groups[number];
            shared += FloatFolds::size_bytes(spec.op, self.steps) + group_bytes(labels);
            mine.drop_name |= theirs.drop_name;
            mine.floats.merge(spec.op, theirs.floats);
            if mine.histograms.is_empty() {
                (mine.histograms, mine.metric) = (theirs.histograms, theirs.metric);
            } else {
                shared += theirs.metric.len() as u64;
                for (mine, other) in mine.histograms.iter_mut().zip(theirs.histograms) {
                    shared += mine.size_bytes().min(other.size_bytes());
                    mine.merge(other, &theirs.metric, &spec, notes);
                }
            }
        }
        self.bytes += other.bytes.saturating_sub(shared);
    }

    /// The result: one series for each group that has one. `reserved` covers the groups, and one more column: the series of a
    /// group is not larger than the group, which is dropped then.
    fn finish(
        self,
        cx: &mut OperatorContext<'_>,
        reserved: &mut Reservation,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        let slots = if self.groups.iter().all(|group| group.histograms.is_empty()) { 8 } else { 16 };
        reserved.add((self.steps * slots) as u64)?;
        for (labels, group) in self.names.labels.into_iter().zip(self.groups) {
            cx.budget.check()?;
            let drop_name = group.drop_name;
            let column = group.finish(&self.spec, self.steps, cx.notes);
            if !column.is_empty() {
                out.push(Row { labels, drop_name, column });
            }
        }
        Ok(())
    }
}

impl FoldGroup {
    /// Folds a histogram; returns how many more bytes that takes.
    fn add_histogram(
        &mut self,
        spec: &Aggregation,
        (step, steps): (usize, usize),
        histogram: &FloatHistogram,
        labels: &Labels,
        notes: &mut Notes,
    ) -> u64 {
        let mut bytes = 0;
        match (&mut self.floats, spec.op) {
            (FloatFolds::Count(counts), _) => counts[step] += 1.0,
            (FloatFolds::Plain(values), AggregateOp::Group) => values[step] = 1.0,
            (_, AggregateOp::Sum | AggregateOp::Avg) => {
                if self.histograms.is_empty() {
                    self.histograms.resize(steps, Histograms::default());
                    labels.metric_name().clone_into(&mut self.metric);
                    bytes += (steps * size_of::<Histograms>() + self.metric.len()) as u64;
                }
                let histograms = &mut self.histograms[step];
                let before = histograms.size_bytes();
                histograms.add(spec, histogram, labels.metric_name(), notes);
                bytes += histograms.size_bytes().saturating_sub(before);
            }
            (_, op) => notes.add(Note::IgnoredInAggregation(op.as_str()), spec.operand),
        }
        bytes
    }

    fn finish(mut self, spec: &Aggregation, steps: usize, notes: &mut Notes) -> Column {
        let mut column = Column::absent(steps);
        for step in 0..steps {
            let value = self.floats.value(spec.op, step);
            let Some(histograms) = self.histograms.get_mut(step).filter(|h| h.total.is_some()) else {
                column.floats[step] = value;
                continue;
            };
            if !is_absent(value) {
                notes.add(Note::MixedFloatsHistogramsAggregation, spec.operand);
                continue;
            }
            if histograms.incompatible {
                continue;
            }
            if histograms.reset && histograms.not_reset {
                notes.add(Note::CounterResetCollision(HistogramOperation::Aggregation), spec.operand);
            }
            let total = match histograms.total.take() {
                Some(HistogramTotal::Sum(mut total, lost)) => {
                    if let Some(lost) = lost {
                        // The compensation has the layout of the total, so the two can be added.
                        let _ = total.add(&lost);
                    }
                    Some(*total)
                }
                Some(HistogramTotal::Mean(mean)) => Some(mean.value()),
                None => None,
            };
            if let Some(mut total) = total {
                total.compact();
                column.set_histogram(step, Arc::new(total));
            }
        }
        column
    }
}

impl Histograms {
    /// Memory on the heap in bytes.
    fn size_bytes(&self) -> u64 {
        let size = match &self.total {
            None => 0,
            Some(HistogramTotal::Sum(total, lost)) => {
                total.size_bytes() + lost.as_ref().map_or(0, |l| l.size_bytes())
            }
            Some(HistogramTotal::Mean(mean)) => mean.size_bytes(),
        };
        size as u64
    }

    fn add(&mut self, spec: &Aggregation, histogram: &FloatHistogram, metric: &str, notes: &mut Notes) {
        self.reset |= histogram.counter_reset_hint == CounterResetHint::Reset;
        self.not_reset |= histogram.counter_reset_hint == CounterResetHint::NotReset;
        if self.incompatible {
            return;
        }
        let combined = match &mut self.total {
            None => {
                let copy = histogram.clone();
                self.total = Some(match spec.op {
                    AggregateOp::Avg => HistogramTotal::Mean(Box::new(HistogramMean::of(copy))),
                    _ => HistogramTotal::Sum(Box::new(copy), None),
                });
                return;
            }
            Some(HistogramTotal::Sum(total, lost)) => {
                let mut inner = lost.take().map(|lost| *lost);
                let combined = total.kahan_add(histogram, &mut inner);
                *lost = inner.map(Box::new);
                combined
            }
            Some(HistogramTotal::Mean(mean)) => mean.add(histogram),
        };
        self.annotate(combined, spec, metric, notes);
    }

    fn annotate(
        &mut self,
        combined: Result<model::Combined, model::IncompatibleSchemas>,
        spec: &Aggregation,
        metric: &str,
        notes: &mut Notes,
    ) {
        match combined {
            Err(_) => {
                self.incompatible = true;
                notes.add(Note::MixedExponentialCustom(metric), spec.operand);
            }
            Ok(combined) if combined.reconciled => {
                notes.add(Note::ReconciledBuckets(HistogramOperation::Aggregation), spec.operand);
            }
            Ok(_) => {}
        }
    }

    /// Adds the histograms of another worker; `metric` is that of its first series with histograms.
    fn merge(&mut self, other: Self, metric: &str, spec: &Aggregation, notes: &mut Notes) {
        self.reset |= other.reset;
        self.not_reset |= other.not_reset;
        self.incompatible |= other.incompatible;
        let combined = match (&mut self.total, other.total) {
            (_, None) => return,
            (mine @ None, theirs) => {
                *mine = theirs;
                return;
            }
            (Some(_), Some(_)) if self.incompatible => return,
            (Some(HistogramTotal::Sum(total, lost)), Some(HistogramTotal::Sum(theirs, more))) => {
                let mut inner = lost.take().map(|lost| *lost);
                let combined = total.kahan_add(&theirs, &mut inner).and_then(|combined| {
                    if let Some(more) = more {
                        total.kahan_add(&more, &mut inner)?;
                    }
                    Ok(combined)
                });
                *lost = inner.map(Box::new);
                combined
            }
            (Some(HistogramTotal::Mean(mean)), Some(HistogramTotal::Mean(theirs))) => mean.merge(*theirs),
            // Both come from the same aggregation, so they have the same variant.
            (Some(_), Some(_)) => return,
        };
        self.annotate(combined, spec, metric, notes);
    }
}

/// The operator that merges what workers have folded, or folds series itself if they come from another operator.
#[derive(Debug)]
pub(crate) struct FoldOperator {
    folded: Option<Folded>,
    reserved: Reservation,
}

impl FoldOperator {
    pub(crate) fn new(spec: Arc<Aggregation>, steps: usize, reserved: Reservation) -> Self {
        Self { folded: Some(Folded::new(spec, steps)), reserved }
    }

    /// The aggregation, for workers to fold with.
    pub(crate) fn spec(&self) -> Option<Arc<Aggregation>> {
        self.folded.as_ref().map(|folded| folded.spec.clone())
    }

    /// Merges what a worker has folded.
    pub(crate) fn absorb(&mut self, part: Folded, notes: &mut Notes) -> Result<(), QueryError> {
        if let Some(folded) = &mut self.folded {
            folded.merge(part, notes);
        }
        self.reserve()
    }

    fn reserve(&mut self) -> Result<(), QueryError> {
        Ok(self.reserved.grow_to(self.folded.as_ref().map_or(0, Folded::size_bytes))?)
    }
}

impl Operator for FoldOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        rows: Vec<Row>,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if let (0, Some(folded)) = (input, &mut self.folded) {
            for row in &rows {
                cx.budget.check()?;
                folded.add(row, &mut self.reserved, cx.notes)?;
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if let (0, Some(folded)) = (input, self.folded.take()) {
            folded.finish(cx, &mut self.reserved, out)?;
            // The groups were dropped; the delivery of the result reserves its memory.
            self.reserved.release(u64::MAX);
        }
        Ok(())
    }
}
