//! Arithmetic and comparison operators between vectors.
//!
//! The series of the "one" side are kept in memory; those of the "many" side (the left one, unless `group_right`) are streamed.
//! No two series of one group of the "one" side may have a value at the same step. So a group keeps one column, and for each
//! step the series that the value belongs to: a join takes time and memory for its input and its output, however many series
//! take turns in a group.
//!
//! Rules that apply to each step, such as that a series has at most one partner, are checked with one bit per step. Prometheus
//! evaluates step by step, so the query fails with the error of the first step that has one.
//!
//! Behaviour: `VectorBinop` in Prometheus 3.14's `promql/engine.go`.

use std::collections::BTreeMap;

use budget::Reservation;
use model::Labels;

use crate::error::QueryError;
use crate::eval::binary::naming::Naming;
use crate::eval::binary::results::{JoinProblem, JoinResults, JoinedSeries, Partners};
use crate::eval::binary::rule::OperatorRule;
use crate::eval::binary::{Bits, bit_bytes};
use crate::eval::grouping::GroupNumbers;
use crate::eval::operator::{EndedInputs, KeptRows, Operator, OperatorContext};
use crate::plan::node::Join;
use crate::syntax::ast::Cardinality;
use crate::value::column::{Column, Row};

/// The series of one signature.
#[derive(Debug, Default)]
struct JoinGroup {
    partners: Partners,
    /// Steps at which a series of the "many" side found a partner.
    matched: Bits,
}

/// Two series of the "one" side in one group that have a value at the same step, by their indexes in the group.
#[derive(Clone, Copy, Debug)]
struct Duplicate {
    group: usize,
    earlier: u32,
    later: u32,
}

/// A join.
#[derive(Debug)]
pub(crate) struct JoinOperator {
    rule: OperatorRule,
    naming: Naming,
    /// The values that replace a missing partner on the "one" and on the "many" side.
    fill_one: Option<f64>,
    fill_many: Option<f64>,
    /// The partners of series whose group has none, if a value replaces them.
    missing: Option<Partners>,
    numbers: GroupNumbers,
    groups: Vec<JoinGroup>,
    /// Steps at which two series of one group of the "one" side have a value, and the first two such series. That is an error
    /// at steps where the "many" side has any value.
    duplicates: BTreeMap<usize, Duplicate>,
    made: JoinedSeries,
    /// The error at the earliest step, of those found so far.
    problem: Option<JoinProblem>,
    waiting: KeptRows,
    reserved: Reservation,
    ended: EndedInputs,
}

impl JoinOperator {
    pub(crate) fn new(join: &Join, waiting: Reservation, reserved: Reservation) -> Self {
        let matching = &join.matching;
        Self {
            rule: OperatorRule {
                op: join.op,
                return_bool: join.return_bool,
                one_is_left: matching.cardinality == Cardinality::OneToMany,
                span: join.span,
            },
            naming: Naming::new(join),
            // As in Prometheus, `fill_right` is for the "one" side, also if that is the left one.
            fill_one: matching.fill_right,
            fill_many: matching.fill_left,
            missing: None,
            numbers: GroupNumbers::default(),
            groups: Vec::new(),
            duplicates: BTreeMap::new(),
            made: JoinedSeries::new(reserved.new_empty()),
            problem: None,
            waiting: KeptRows::new(waiting),
            reserved,
            ended: EndedInputs::none_of(2),
        }
    }

    /// The input that is kept.
    fn one_side(&self) -> usize {
        usize::from(!self.rule.one_is_left)
    }

    fn group(&mut self, cx: &OperatorContext<'_>, labels: &Labels) -> Result<usize, QueryError> {
        let number = self.numbers.number(&self.naming.signature, labels);
        if number == self.groups.len() {
            // Its labels and key, and a bit for each step.
            let bits = bit_bytes(cx.steps.count);
            self.reserved.add((size_of::<JoinGroup>() + 2 * labels.size_bytes() + bits) as u64)?;
            self.groups.push(JoinGroup::default());
        }
        Ok(number)
    }

    /// Stores a series of the "one" side.
    fn keep(&mut self, cx: &OperatorContext<'_>, row: Row) -> Result<(), QueryError> {
        let number = self.group(cx, &row.labels)?;
        let Partners { ones, column, owners } = &mut self.groups[number].partners;
        if ones.is_empty() {
            self.reserved.add(row.size_bytes())?;
            ones.push(row.labels);
            *column = row.column;
            return Ok(());
        }
        // Its labels and its histograms; its floats are merged into the existing column.
        let mut bytes = row.size_bytes().saturating_sub(8 * cx.steps.count as u64);
        if owners.is_empty() {
            bytes += 4 * cx.steps.count as u64;
        }
        self.reserved.add(bytes)?;
        owners.resize(cx.steps.count, 0);
        let later = u32::try_from(ones.len()).unwrap_or(u32::MAX);
        for step in (0..cx.steps.count).filter(|step| row.column.has(*step)) {
            if !column.has(step) {
                column.set(step, row.column.get(step));
                owners[step] = later;
            } else if !self.duplicates.contains_key(&step) {
                self.reserved.add(2 * size_of::<(usize, Duplicate)>() as u64)?;
                self.duplicates.insert(step, Duplicate { group: number, earlier: owners[step], later });
            }
        }
        ones.push(row.labels);
        Ok(())
    }

    /// The step of the known error: only an error at an earlier step matters.
    fn undecided(&self, cx: &OperatorContext<'_>) -> usize {
        self.problem.as_ref().map_or(cx.steps.count, |(step, _)| *step)
    }

    /// Stores an error, which is at an earlier step than the known one.
    fn blame(&mut self, problem: Option<JoinProblem>) -> Result<(), QueryError> {
        match problem {
            // No error can be at an earlier step.
            Some((0, problem)) => Err(QueryError::execution(problem)),
            Some(problem) => {
                self.problem = Some(problem);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Finds the first step with duplicate series of the "one" side at which anything is matched: nothing is matched at steps
    /// where the "many" side has no value.
    fn blame_duplicates(
        &mut self,
        cx: &OperatorContext<'_>,
        is_matched: impl Fn(usize) -> bool,
    ) -> Result<(), QueryError> {
        let mut undecided = self.duplicates.range(..self.undecided(cx));
        let problem = undecided.find(|(step, _)| is_matched(**step)).map(|(step, duplicate)| {
            let ones = &self.groups[duplicate.group].partners.ones;
            let [a, b] = [duplicate.earlier, duplicate.later].map(|place| &ones[place as usize]);
            (*step, self.naming.duplicates(a, b))
        });
        self.blame(problem)
    }

    /// Joins a series of the "many" side with its partners.
    fn join(
        &mut self,
        cx: &mut OperatorContext<'_>,
        row: &Row,
        in_progress: &mut Reservation,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        self.blame_duplicates(cx, |step| row.column.has(step))?;
        let number = self.group(cx, &row.labels)?;
        let end = self.undecided(cx);
        let JoinGroup { partners, matched } = &mut self.groups[number];
        let partners = self.missing.as_ref().filter(|_| partners.ones.is_empty()).unwrap_or(partners);
        let mut results = JoinResults::new(&self.naming, &mut self.made, in_progress, (number, &row.labels));
        let problem = results.combine(self.rule, &row.column, partners, end, matched, cx.notes)?;
        // After an error, there are no results.
        let is_right = problem.is_none() && self.problem.is_none();
        results.finish(row.drop_name || self.rule.return_bool, is_right.then_some(out))?;
        self.blame(problem)
    }

    /// Sets the value that replaces a missing partner where the "one" side, which is complete, has none.
    fn fill_partners(&mut self, cx: &OperatorContext<'_>, fill: f64) -> Result<(), QueryError> {
        for group in &mut self.groups {
            cx.budget.check()?;
            group.partners.fill(fill, &mut self.reserved)?;
        }
        self.reserved.add(8 * cx.steps.count as u64)?;
        self.missing = Some(Partners::missing(fill, cx.steps.count));
        Ok(())
    }

    /// Joins values of the "one" side without a partner with the value that replaces the partner.
    fn fill(
        &mut self,
        cx: &mut OperatorContext<'_>,
        fill: f64,
        in_progress: &mut Reservation,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        let filled = Column::constant(fill, cx.steps.count);
        for number in 0..self.groups.len() {
            cx.budget.check()?;
            let end = self.undecided(cx);
            let JoinGroup { mut partners, mut matched } = std::mem::take(&mut self.groups[number]);
            let Some(one) = partners.ones.first() else { continue };
            let signature = self.naming.signature.labels_of(one);
            partners.keep_unmatched(&matched);
            let mut results =
                JoinResults::new(&self.naming, &mut self.made, in_progress, (number, &signature));
            let problem = results.combine(self.rule, &filled, &partners, end, &mut matched, cx.notes)?;
            let is_right = problem.is_none() && self.problem.is_none();
            results.finish(self.rule.return_bool, is_right.then_some(&mut *out))?;
            self.blame(problem)?;
        }
        Ok(())
    }
}

impl Operator for JoinOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input == self.one_side() {
            for row in rows {
                cx.budget.check()?;
                self.keep(cx, row)?;
            }
            return Ok(());
        }
        if !self.ended.has(self.one_side()) {
            return self.waiting.extend(rows);
        }
        let mut in_progress = self.reserved.new_empty();
        for row in rows {
            cx.budget.check()?;
            self.join(cx, &row, &mut in_progress, out)?;
        }
        Ok(())
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        let complete = self.ended.note(input);
        let mut in_progress = self.reserved.new_empty();
        if input == self.one_side() {
            if self.fill_one.is_some() || self.fill_many.is_some() {
                // All that is missing on the "many" side is filled in, so that all steps are matched.
                self.blame_duplicates(cx, |_| true)?;
            }
            if let Some(fill) = self.fill_one {
                self.fill_partners(cx, fill)?;
            }
            let (rows, mut waiting) = self.waiting.take();
            for row in rows {
                cx.budget.check()?;
                self.join(cx, &row, &mut in_progress, out)?;
                waiting.release(row.size_bytes());
            }
        }
        if complete {
            if let Some(fill) = self.fill_many {
                self.fill(cx, fill, &mut in_progress, out)?;
            }
            self.duplicates = BTreeMap::new();
            self.groups = Vec::new();
            self.missing = None;
            self.numbers = GroupNumbers::default();
            self.made = JoinedSeries::new(self.reserved.new_empty());
            self.reserved.release(u64::MAX);
            if let Some((_, problem)) = self.problem.take() {
                return Err(QueryError::execution(problem));
            }
        }
        Ok(())
    }
}
