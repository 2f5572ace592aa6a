//! Arithmetic and comparing operators between vectors.
//!
//! The series of the "one" side are kept; those of the "many" side (the left, unless `group_right`) stream past them.
//! Rules that hold for each step, such as that a series has one partner at most, are checked with one bit a step.
//!
//! Behaviour: `VectorBinop` in Prometheus 3.14's `promql/engine.go`.

use std::collections::{BTreeMap, HashMap};

use model::Labels;

use super::{Bits, signature};
use crate::QueryError;
use crate::eval::aggregate::grouping::Groups;
use crate::eval::budget::Hold;
use crate::eval::column::{Cell, Column, Row, is_absent};
use crate::eval::notes::Notes;
use crate::eval::operator::{Context, Kept, Operator};
use crate::functions::arithmetic::{self, Outcome};
use crate::functions::label::{include, without_reserved};
use crate::plan::node::{Grouping, Join};
use crate::syntax::ast::{BinaryOp, Cardinality, Span};

/// What is known about the series of one signature.
#[derive(Debug, Default)]
struct Group {
    /// Series of the "one" side.
    ones: Vec<Row>,
    /// Steps at which one of these has a value; kept once there are several.
    present: Bits,
    /// Steps at which a series of the "many" side found a partner.
    matched: Bits,
    /// For each result series, the steps at which it has been made.
    made: HashMap<Labels, Bits>,
}

/// Two series of the "one" side in one group that have a value at the same step.
#[derive(Clone, Copy, Debug)]
struct Duplicate {
    group: usize,
    /// Their places in the group.
    earlier: usize,
    later: usize,
}

/// What an operator needs to know about itself to combine two values.
#[derive(Clone, Copy, Debug)]
struct Rule {
    op: BinaryOp,
    return_bool: bool,
    drop_names: bool,
    /// Whether the "one" side is the left operand.
    one_is_left: bool,
    span: Span,
}

/// A join.
#[derive(Debug)]
pub(crate) struct JoinOperator {
    rule: Rule,
    cardinality: Cardinality,
    on: bool,
    labels: Vec<String>,
    include: Vec<String>,
    /// What stands in for a missing partner on the "one" and on the "many" side.
    fill_one: Option<f64>,
    fill_many: Option<f64>,
    signature: Grouping,
    numbers: Groups,
    groups: Vec<Group>,
    /// Steps at which two series of one group of the "one" side have a value, and the first two that do. That is an error
    /// where the "many" side has any value.
    duplicates: BTreeMap<usize, Duplicate>,
    waiting: Kept,
    hold: Hold,
    ended: u8,
}

impl JoinOperator {
    pub(crate) fn new(join: &Join, waiting: Hold, hold: Hold) -> Self {
        let matching = &join.matching;
        let one_is_left = matching.cardinality == Cardinality::OneToMany;
        // As in Prometheus, `fill_right` stands in on the "one" side, also where that is the left one.
        let (fill_one, fill_many) = (matching.fill_right, matching.fill_left);
        JoinOperator {
            rule: Rule {
                op: join.op,
                return_bool: join.return_bool,
                drop_names: join.drop_names,
                one_is_left,
                span: join.span,
            },
            cardinality: matching.cardinality,
            on: matching.on,
            labels: matching.labels.clone(),
            include: matching.include.clone(),
            fill_one,
            fill_many,
            signature: signature(matching),
            numbers: Groups::default(),
            groups: Vec::new(),
            duplicates: BTreeMap::new(),
            waiting: Kept::new(waiting),
            hold,
            ended: 0,
        }
    }

    /// The input that is kept.
    fn one_side(&self) -> usize {
        usize::from(!self.rule.one_is_left)
    }

    fn group(&mut self, cx: &Context<'_>, labels: &Labels) -> Result<usize, QueryError> {
        let number = self.numbers.number(&self.signature, labels);
        if number == self.groups.len() {
            // Its labels and key, and two bits for each step.
            self.hold.add((size_of::<Group>() + 2 * labels.size_bytes() + 2 * bit_bytes(cx)) as u64)?;
            self.groups.push(Group::default());
        }
        Ok(number)
    }

    /// Takes a series of the "one" side.
    fn keep(&mut self, cx: &Context<'_>, row: Row) -> Result<(), QueryError> {
        self.hold.add(row.size_bytes())?;
        let number = self.group(cx, &row.labels)?;
        let Group { ones, present, .. } = &mut self.groups[number];
        if let [first] = ones.as_slice() {
            for step in (0..cx.steps.count).filter(|step| first.column.has(*step)) {
                present.set(step);
            }
        }
        let later = ones.len();
        if later > 0 {
            for step in (0..cx.steps.count).filter(|step| row.column.has(*step)) {
                if !present.set(step) || self.duplicates.contains_key(&step) {
                    continue;
                }
                let Some(earlier) = ones.iter().position(|other| other.column.has(step)) else { continue };
                self.hold.add(2 * size_of::<(usize, Duplicate)>() as u64)?;
                self.duplicates.insert(step, Duplicate { group: number, earlier, later });
            }
        }
        ones.push(row);
        Ok(())
    }

    fn tell(&self, duplicate: &Duplicate) -> String {
        let ones = &self.groups[duplicate.group].ones;
        let (a, b) = (&ones[duplicate.later], &ones[duplicate.earlier]);
        let side = if self.rule.one_is_left { "left" } else { "right" };
        let (mut first, mut second) = (go_labels(&a.labels), go_labels(&b.labels));
        if first > second {
            std::mem::swap(&mut first, &mut second);
        }
        format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: \
             [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side",
            go_labels(&self.signature.labels_of(&a.labels))
        )
    }

    /// The labels of the result of two series.
    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let base = if self.rule.drop_names { without_reserved(many) } else { many.clone() };
        let base = match (self.cardinality, self.on) {
            (Cardinality::OneToOne, true) => base.only(|name| self.labels.iter().any(|l| l == name)),
            (Cardinality::OneToOne, false) => base.without(|name| self.labels.iter().any(|l| l == name)),
            _ => base,
        };
        if self.include.is_empty() {
            return base;
        }
        let mut builder = base.to_builder();
        include(&mut builder, one, &self.include);
        builder.build()
    }

    /// Joins a series of the "many" side with its partners.
    fn join(
        &mut self,
        cx: &mut Context<'_>,
        row: Row,
        making: &mut Hold,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        self.refuse_duplicates(|step| row.column.has(step))?;
        let number = self.group(cx, &row.labels)?;
        let ones = std::mem::take(&mut self.groups[number].ones);
        let first = out.len();
        for one in &ones {
            cx.budget.check()?;
            let labels = self.result_labels(&row.labels, &one.labels);
            let mut column = Column::absent(cx.steps.count);
            self.combine(number, &labels, &row.column, &one.column, &mut column, cx)?;
            self.emit(labels, row.drop_name, column, first, making, out)?;
        }
        if let Some(fill) = self.fill_one {
            // Where no partner has a value.
            let mut lonely = row.column.clone();
            for one in &ones {
                for step in (0..cx.steps.count).filter(|step| one.column.has(*step)) {
                    lonely.clear(step);
                }
            }
            if !lonely.is_empty() {
                let labels = self.result_labels(&row.labels, &self.signature.labels_of(&row.labels));
                let filled = Column::constant(fill, cx.steps.count);
                let mut column = Column::absent(cx.steps.count);
                self.combine(number, &labels, &lonely, &filled, &mut column, cx)?;
                self.emit(labels, row.drop_name, column, first, making, out)?;
            }
        }
        self.groups[number].ones = ones;
        Ok(())
    }

    /// Hands a result on; results of one series with equal labels, which are at different steps, become one.
    fn emit(
        &self,
        labels: Labels,
        drop_name: bool,
        column: Column,
        first: usize,
        making: &mut Hold,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if column.is_empty() {
            return Ok(());
        }
        if let Some(same) = out[first..].iter_mut().find(|row| row.labels == labels) {
            for step in (0..column.len()).filter(|step| column.has(*step)) {
                same.column.set(step, column.get(step));
            }
            return Ok(());
        }
        let row = Row { labels, drop_name: drop_name || self.rule.return_bool, column };
        making.add(row.size_bytes())?;
        out.push(row);
        Ok(())
    }

    /// Combines two columns where both have a value, and checks that no result is made twice at a step.
    fn combine(
        &mut self,
        number: usize,
        labels: &Labels,
        many: &Column,
        one: &Column,
        result: &mut Column,
        cx: &mut Context<'_>,
    ) -> Result<(), QueryError> {
        let rule = self.rule;
        let group = &mut self.groups[number];
        let known = group.made.len();
        let mut made = match self.cardinality {
            Cardinality::OneToOne => None,
            _ => Some(group.made.remove(labels).unwrap_or_default()),
        };
        let plain = many.histograms.is_empty() && one.histograms.is_empty();
        for step in 0..many.len() {
            let matched = if plain {
                let (m, o) = (many.floats[step], one.floats[step]);
                if is_absent(m) || is_absent(o) {
                    continue;
                }
                rule.floats(m, o, &mut result.floats[step], cx.notes)
            } else {
                rule.cells(many.get(step), one.get(step), step, result, cx.notes)
            };
            if !matched {
                continue;
            }
            let again = group.matched.set(step);
            let made_again = made.as_mut().is_some_and(|made| made.set(step));
            let problem = if made_again {
                "multiple matches for labels: grouping labels must ensure unique matches"
            } else if again && made.is_none() {
                "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
            } else {
                continue;
            };
            return Err(QueryError::execution(problem));
        }
        if let Some(made) = made {
            group.made.insert(labels.clone(), made);
            if group.made.len() > known {
                // A bit for each step of each result, kept to the end: a second result might come at any time.
                self.hold.add((size_of::<(Labels, Bits)>() + labels.size_bytes() + bit_bytes(cx)) as u64)?;
            }
        }
        Ok(())
    }

    /// Joins what the "one" side has without a partner with the value that stands in for it.
    fn fill(
        &mut self,
        cx: &mut Context<'_>,
        fill: f64,
        making: &mut Hold,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        for number in 0..self.groups.len() {
            cx.budget.check()?;
            let ones = std::mem::take(&mut self.groups[number].ones);
            let matched = self.groups[number].matched.clone();
            for one in &ones {
                cx.budget.check()?;
                let mut lonely = one.column.clone();
                for step in (0..cx.steps.count).filter(|step| matched.get(*step)) {
                    lonely.clear(step);
                }
                if lonely.is_empty() {
                    continue;
                }
                let labels = self.result_labels(&self.signature.labels_of(&one.labels), &one.labels);
                let filled = Column::constant(fill, cx.steps.count);
                let mut column = Column::absent(cx.steps.count);
                self.combine(number, &labels, &filled, &lonely, &mut column, cx)?;
                let first = out.len();
                self.emit(labels, false, column, first, making, out)?;
            }
        }
        Ok(())
    }

    /// Reports several series of the "one" side at one of the steps at which something is matched: where the "many" side
    /// has nothing, nothing is.
    fn refuse_duplicates(&self, is_matched: impl Fn(usize) -> bool) -> Result<(), QueryError> {
        match self.duplicates.iter().find(|(step, _)| is_matched(**step)) {
            Some((_, duplicate)) => Err(QueryError::execution(self.tell(duplicate))),
            None => Ok(()),
        }
    }
}

impl Rule {
    /// Combines two floats; `false` where the operator does not take them.
    #[inline(always)]
    fn floats(&self, many: f64, one: f64, result: &mut f64, notes: &mut Notes) -> bool {
        if matches!(self.op, BinaryOp::TrimLower | BinaryOp::TrimUpper) {
            arithmetic::apply(self.op, Cell::Float(many), Cell::Float(one), notes, self.span);
            return false;
        }
        let (left, right) = if self.one_is_left { (one, many) } else { (many, one) };
        let (value, keep) = arithmetic::floats(self.op, left, right);
        if self.return_bool {
            *result = f64::from(u8::from(keep));
        } else if keep {
            *result = value;
        }
        true
    }

    /// Combines two values; `false` where the operator does not take them.
    fn cells(
        &self,
        many: Cell<'_>,
        one: Cell<'_>,
        step: usize,
        result: &mut Column,
        notes: &mut Notes,
    ) -> bool {
        if matches!(many, Cell::Absent) || matches!(one, Cell::Absent) {
            return false;
        }
        let (left, right) = if self.one_is_left { (one, many) } else { (many, one) };
        match arithmetic::apply(self.op, left, right, notes, self.span) {
            Outcome::Refused => return false,
            Outcome::Float(_, keep) | Outcome::Histogram(_, keep) if self.return_bool => {
                result.floats[step] = f64::from(u8::from(keep));
            }
            Outcome::Float(value, true) => result.floats[step] = value,
            Outcome::Histogram(histogram, true) => result.set_histogram(step, histogram),
            Outcome::Float(_, false) | Outcome::Histogram(_, false) => {}
        }
        true
    }
}

/// Bytes of a bit for each step.
fn bit_bytes(cx: &Context<'_>) -> usize {
    cx.steps.count / 8 + 8
}

/// A label set as Prometheus prints it: the name is a label like any other.
fn go_labels(labels: &Labels) -> String {
    let pairs: Vec<String> = labels
        .iter()
        .map(|l| format!("{}={}", go_label_name(l.name), crate::text::go_quoted(l.value)))
        .collect();
    format!("{{{}}}", pairs.join(", "))
}

/// A label name, quoted where it is no identifier.
fn go_label_name(name: &str) -> String {
    let legacy = |(at, byte): (usize, u8)| {
        byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit())
    };
    if name.bytes().enumerate().all(legacy) { name.to_owned() } else { crate::text::go_quoted(name) }
}

impl Operator for JoinOperator {
    fn push(
        &mut self,
        cx: &mut Context<'_>,
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
        if self.ended & 1 << self.one_side() == 0 {
            return self.waiting.extend(rows);
        }
        let mut making = self.hold.another();
        for row in rows {
            cx.budget.check()?;
            self.join(cx, row, &mut making, out)?;
        }
        Ok(())
    }

    fn end(&mut self, cx: &mut Context<'_>, input: usize, out: &mut Vec<Row>) -> Result<(), QueryError> {
        self.ended |= 1 << input;
        let mut making = self.hold.another();
        if input == self.one_side() {
            if self.fill_one.is_some() || self.fill_many.is_some() {
                // Whatever is missing on the "many" side is filled in.
                self.refuse_duplicates(|_| true)?;
            }
            let (rows, mut waiting) = self.waiting.take();
            for row in rows {
                cx.budget.check()?;
                let bytes = row.size_bytes();
                self.join(cx, row, &mut making, out)?;
                waiting.give_back(bytes);
            }
        }
        if self.ended == 0b11 {
            if let Some(fill) = self.fill_many {
                self.fill(cx, fill, &mut making, out)?;
            }
            self.duplicates = BTreeMap::new();
            self.groups = Vec::new();
            self.numbers = Groups::default();
            self.hold.give_back(u64::MAX);
        }
        Ok(())
    }
}
