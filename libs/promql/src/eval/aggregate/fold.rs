//! Aggregations that fold each series into a few numbers for each group and step: `sum`, `avg`, `count`, `min`, `max`,
//! `group`, `stddev` and `stdvar`.
//!
//! Workers fold each batch of series into a [`Folded`]. These are merged in the order of the batches, so that the result depends
//! on the data alone and not on the number of workers or their timing.

mod floats;
mod histograms;

use std::sync::Arc;

use budget::Reservation;
use model::{FloatHistogram, Labels};

use crate::error::QueryError;
use crate::eval::aggregate::fold::floats::FloatFolds;
use crate::eval::aggregate::fold::histograms::Histograms;
use crate::eval::grouping::GroupNumbers;
use crate::eval::operator::{Operator, OperatorContext};
use crate::plan::node::Aggregation;
use crate::syntax::ast::AggregateOp;
use crate::value::column::{Column, Row, is_absent};
use crate::value::note::Note;
use crate::value::notes::Notes;

/// Whether this module evaluates an aggregation.
pub(crate) fn folds(op: AggregateOp) -> bool {
    use AggregateOp::{Avg, Count, Group, Max, Min, Stddev, Stdvar, Sum};
    matches!(op, Avg | Count | Group | Max | Min | Stddev | Stdvar | Sum)
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
            let Some(histograms) = self.histograms.get_mut(step).filter(|h| !h.is_empty()) else {
                column.floats[step] = value;
                continue;
            };
            if !is_absent(value) {
                notes.add(Note::MixedFloatsHistogramsAggregation, spec.operand);
            } else if let Some(histogram) = histograms.finish(spec, notes) {
                column.set_histogram(step, Arc::new(histogram));
            }
        }
        column
    }
}

/// Memory of a group in bytes, its numbers not counted: itself, its labels and its key.
fn group_bytes(labels: &Labels) -> u64 {
    (size_of::<FoldGroup>() + 3 * labels.size_bytes() + 64) as u64
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
