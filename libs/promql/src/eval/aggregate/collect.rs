//! Aggregations that need all values of a group at once, or a group for each value: `quantile` and `count_values`.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use budget::Reservation;
use model::Labels;

use crate::error::QueryError;
use crate::eval::grouping::GroupNumbers;
use crate::eval::operator::{EndedInputs, Operator, OperatorContext};
use crate::eval::share::share;
use crate::functions::quantile::quantile;
use crate::plan::node::{Aggregation, Grouping};
use crate::text::{go_f, histogram_text};
use crate::value::column::{ABSENT, Cell, Column, Row, is_absent};
use crate::value::note::Note;
use crate::value::scalar::{Scalar, Scalars};

/// `quantile`.
#[derive(Debug)]
pub(crate) struct QuantileOperator {
    spec: Arc<Aggregation>,
    scalars: Scalars,
    groups: GroupNumbers,
    /// The columns of each group.
    columns: Vec<Vec<Vec<f64>>>,
    drop_names: Vec<bool>,
    reserved: Reservation,
    ended: EndedInputs,
}

impl QuantileOperator {
    pub(crate) fn new(spec: Arc<Aggregation>, reserved: Reservation) -> Self {
        Self {
            spec,
            scalars: Scalars::new(1, reserved.new_empty()),
            groups: GroupNumbers::default(),
            columns: Vec::new(),
            drop_names: Vec::new(),
            reserved,
            ended: EndedInputs::none_of(2),
        }
    }

    fn finish(&mut self, cx: &mut OperatorContext<'_>, out: &mut Vec<Row>) -> Result<(), QueryError> {
        let Some(param) = self.scalars.all().and_then(|all| all.into_iter().next()) else { return Ok(()) };
        let values = (0..cx.steps.count).map(|step| param.at(step));
        let (mut nan, mut least, mut most) = (false, 0.0f64, 1.0f64);
        for q in values {
            nan |= q.is_nan();
            least = least.min(q);
            most = most.max(q);
        }
        let odd = [(nan, f64::NAN), (most > 1.0, most), (least < 0.0, least)];
        for (_, q) in odd.into_iter().filter(|(is_odd, _)| *is_odd) {
            cx.notes.add(Note::InvalidQuantile(q), self.spec.param);
        }
        let columns = std::mem::take(&mut self.columns);
        let (budget, count) = (cx.budget, cx.steps.count);
        let mut in_progress = self.reserved.new_empty();
        let part_bytes = size_of::<(usize, usize)>() + size_of::<(usize, Vec<f64>)>() + STRIPE.min(count) * 8;
        in_progress.add((columns.len() * count.div_ceil(STRIPE) * part_bytes) as u64)?;
        let parts: Vec<(usize, usize)> = (0..columns.len())
            .flat_map(|group| (0..count).step_by(STRIPE).map(move |first| (group, first)))
            .collect();
        let values = columns.iter().map(Vec::len).sum::<usize>() * count;
        let stripe = |(group, first): (usize, usize)| {
            budget.check()?;
            let (columns, steps) = (&columns[group], first..count.min(first + STRIPE));
            let mut gathering = in_progress.new_empty();
            gathering.add((columns.len() * steps.len() * 8) as u64)?;
            Ok(quantiles(columns, &param, steps))
        };
        let mut stripes = share(cx, values, parts, stripe)?.into_iter();
        for (labels, drop_name) in self.groups.labels.drain(..).zip(&self.drop_names) {
            let stripes = stripes.by_ref().take(count.div_ceil(STRIPE));
            let column = Column { floats: stripes.flatten().collect(), histograms: Vec::new() };
            if !column.is_empty() {
                out.push(Row { labels, drop_name: *drop_name, column });
            }
        }
        self.reserved.release(u64::MAX);
        Ok(())
    }
}

impl Operator for QuantileOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        rows: Vec<Row>,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input > 0 {
            return self.scalars.take(input - 1, rows);
        }
        for row in rows {
            cx.budget.check()?;
            let group = self.groups.number(&self.spec.grouping, &row.labels);
            if group == self.columns.len() {
                self.reserved.add(4 * row.labels.size_bytes() as u64)?;
                self.columns.push(Vec::new());
                self.drop_names.push(false);
            }
            self.drop_names[group] |= row.drop_name;
            if row.column.has_histograms() {
                cx.notes.add(Note::IgnoredInAggregation("quantile"), self.spec.operand);
            }
            self.reserved.add((row.column.floats.len() * 8 + size_of::<Vec<f64>>()) as u64)?;
            self.columns[group].push(row.column.floats);
        }
        Ok(())
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input > 0 {
            self.scalars.end(input - 1);
        }
        if self.ended.note(input) { self.finish(cx, out) } else { Ok(()) }
    }

    fn scalars(&mut self) -> Option<&mut Scalars> {
        Some(&mut self.scalars)
    }
}

/// Number of steps whose values are collected at one time: two cache lines of a column.
const STRIPE: usize = 16;

/// The quantile of several columns at each of these steps, at most a stripe.
fn quantiles(columns: &[Vec<f64>], param: &Scalar, steps: Range<usize>) -> Vec<f64> {
    let mut stripe: Vec<Vec<f64>> = steps.clone().map(|_| Vec::with_capacity(columns.len())).collect();
    for column in columns {
        for (values, &value) in stripe.iter_mut().zip(&column[steps.clone()]) {
            if !is_absent(value) {
                values.push(value);
            }
        }
    }
    let quantile = |(step, values): (usize, &mut Vec<f64>)| {
        if values.is_empty() { ABSENT } else { quantile(param.at(step), values) }
    };
    steps.zip(&mut stripe).map(quantile).collect()
}

/// `count_values`.
#[derive(Debug)]
pub(crate) struct CountValuesOperator {
    grouping: Arc<Grouping>,
    label: String,
    /// The counts of each group and value at each step.
    places: HashMap<Labels, usize>,
    counts: Vec<(Labels, Vec<f64>)>,
    reserved: Reservation,
}

impl CountValuesOperator {
    pub(crate) fn new(grouping: Arc<Grouping>, label: String, reserved: Reservation) -> Self {
        Self { grouping, label, places: HashMap::new(), counts: Vec::new(), reserved }
    }
}

impl Operator for CountValuesOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        _input: usize,
        rows: Vec<Row>,
        _out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        for row in rows {
            cx.budget.check()?;
            let mut builder = row.labels.to_builder();
            // Consecutive steps often have the same value, whose group is known then.
            let mut last: Option<(u64, usize)> = None;
            for step in 0..row.column.len() {
                let cell = row.column.get(step);
                let bits = match cell {
                    Cell::Absent => continue,
                    Cell::Float(value) => Some(value.to_bits()),
                    Cell::Histogram(_) => None,
                };
                let known = last.filter(|(seen, _)| Some(*seen) == bits).map(|(_, place)| place);
                let place = match known {
                    Some(place) => place,
                    None => {
                        let text = match cell {
                            Cell::Histogram(histogram) => histogram_text(histogram),
                            _ => go_f(row.column.floats[step]),
                        };
                        let labels = self.grouping.labels_of(&builder.set(&self.label, &text).build());
                        match self.places.get(&labels) {
                            Some(place) => *place,
                            None => {
                                self.reserved
                                    .add((cx.steps.count * 8 + 2 * labels.size_bytes() + 96) as u64)?;
                                self.places.insert(labels.clone(), self.counts.len());
                                self.counts.push((labels, vec![ABSENT; cx.steps.count]));
                                self.counts.len() - 1
                            }
                        }
                    }
                };
                last = bits.map(|bits| (bits, place));
                let count = &mut self.counts[place].1[step];
                *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        _cx: &mut OperatorContext<'_>,
        _input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        out.extend(
            self.counts
                .drain(..)
                .map(|(labels, floats)| Row::new(labels, Column { floats, histograms: Vec::new() })),
        );
        Ok(())
    }
}
