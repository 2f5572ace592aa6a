//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction` over native and classic histograms.
//!
//! Behaviour: `resetHistograms` and the functions of those names in Prometheus 3.14's `promql`.

use std::collections::HashMap;

use budget::{Budget, Reservation};
use model::Labels;

use crate::error::QueryError;
use crate::eval::operator::{EndedInputs, Operator, OperatorContext};
use crate::eval::share::share;
use crate::functions::buckets::{
    ClassicBucket, Oddity, classic_fraction, classic_quantile, native_fraction, native_quantile,
};
use crate::syntax::ast::Span;
use crate::syntax::functions::FunctionId;
use crate::syntax::parse_float;
use crate::text::open_metrics_float;
use crate::value::column::{Cell, Column, Row, is_absent};
use crate::value::note::{ForcedMonotonicity, Note};
use crate::value::notes::Notes;
use crate::value::scalar::{Scalar, Scalars};
use crate::value::steps::Steps;

/// Number of histograms that one thread evaluates at a time.
const TOGETHER: usize = 32;

/// The label of the upper bound of classic buckets.
const BOUND: &str = "le";

/// A classic histogram: the upper bound of each bucket and its counts at each step.
#[derive(Debug)]
struct ClassicBuckets {
    labels: Labels,
    buckets: Vec<(f64, Vec<f64>)>,
}

/// A function over buckets.
#[derive(Debug)]
pub(crate) struct BucketOperator {
    function: FunctionId,
    operand: Span,
    params: Vec<Span>,
    label: String,
    named: bool,
    scalars: Scalars,
    native: Vec<Row>,
    classic: Vec<ClassicBuckets>,
    places: HashMap<Labels, usize>,
    reserved: Reservation,
    ended: EndedInputs,
}

impl BucketOperator {
    pub(crate) fn new(call: &crate::plan::node::BucketCall, reserved: Reservation) -> Self {
        Self {
            function: call.function,
            operand: call.operand,
            params: call.params.clone(),
            label: call.label.clone(),
            named: call.named,
            scalars: Scalars::new(call.params.len(), reserved.new_empty()),
            native: Vec::new(),
            classic: Vec::new(),
            places: HashMap::new(),
            reserved,
            ended: EndedInputs::none_of(call.params.len() + 1),
        }
    }

    /// The name of a metric in annotations.
    fn name<'a>(&self, labels: &'a Labels) -> &'a str {
        if self.named { labels.metric_name() } else { "" }
    }

    fn take(&mut self, cx: &mut OperatorContext<'_>, mut row: Row) -> Result<(), QueryError> {
        self.reserved.add(row.size_bytes())?;
        if row.column.has_floats() {
            let bound = row.labels.value(BOUND);
            match parse_float(bound) {
                None => {
                    let note = Note::BadBucketLabel { name: self.name(&row.labels), label: bound };
                    cx.notes.add(note, self.operand);
                }
                Some(upper) => {
                    let labels = row.labels.without(|name| name == BOUND);
                    let place = *self.places.entry(labels).or_insert_with_key(|labels| {
                        self.classic.push(ClassicBuckets { labels: labels.clone(), buckets: Vec::new() });
                        self.classic.len() - 1
                    });
                    let floats = std::mem::take(&mut row.column.floats);
                    self.classic[place].buckets.push((upper, floats));
                }
            }
        }
        if row.column.has_histograms() {
            row.column.floats.clear();
            row.column.floats.resize(cx.steps.count, crate::value::column::ABSENT);
            self.native.push(row);
        }
        Ok(())
    }

    fn finish(&mut self, cx: &mut OperatorContext<'_>, out: &mut Vec<Row>) -> Result<(), QueryError> {
        let Some(scalars) = self.scalars.all() else { return Ok(()) };
        self.drop_conflicts(cx);
        let mut results = Vec::new();
        match self.function {
            FunctionId::HistogramFraction => results.extend(self.evaluate(cx, &scalars, None)?),
            FunctionId::HistogramQuantile => {
                self.warn_of_quantiles(cx, &scalars);
                results.extend(self.evaluate(cx, &scalars, None)?);
            }
            _ => {
                self.warn_of_quantiles(cx, &scalars);
                for (index, scalar) in scalars.iter().enumerate() {
                    let label = QuantileLabel { quantile: scalar, earlier: &scalars[..index] };
                    results.extend(self.evaluate(cx, std::slice::from_ref(scalar), Some(label))?);
                }
            }
        }
        out.extend(results.iter_mut().flat_map(|results| results.rows.drain(..)));
        self.native = Vec::new();
        self.classic = Vec::new();
        self.places = HashMap::new();
        self.reserved.release(u64::MAX);
        Ok(())
    }

    fn warn_of_quantiles(&self, cx: &mut OperatorContext<'_>, scalars: &[Scalar]) {
        for (scalar, span) in scalars.iter().zip(&self.params) {
            for q in (0..cx.steps.count).map(|step| scalar.at(step)).filter(|q| !(0.0..=1.0).contains(q)) {
                cx.notes.add(Note::InvalidQuantile(q), *span);
            }
        }
    }

    /// Drops values at steps where a native and a classic histogram with equal labels both exist.
    fn drop_conflicts(&mut self, cx: &mut OperatorContext<'_>) {
        for row in &mut self.native {
            let Some(&place) = self.places.get(&row.labels) else { continue };
            for step in 0..cx.steps.count {
                let buckets = &mut self.classic[place].buckets;
                if row.column.has(step) && buckets.iter().any(|(_, counts)| !is_absent(counts[step])) {
                    let name = if self.named { row.labels.metric_name() } else { "" };
                    cx.notes.add(Note::MixedClassicNative(name), self.operand);
                    row.column.clear(step);
                    buckets.iter_mut().for_each(|(_, counts)| counts[step] = crate::value::column::ABSENT);
                }
            }
        }
    }

    /// Evaluates the function with `params`. With `label`, the quantile is a label of the result.
    fn evaluate(
        &self,
        cx: &mut OperatorContext<'_>,
        params: &[Scalar],
        label: Option<QuantileLabel<'_>>,
    ) -> Result<Vec<BucketResults>, QueryError> {
        let native = self.native.chunks(TOGETHER).map(BucketPart::Native);
        let parts = native.chain(self.classic.chunks(TOGETHER).map(BucketPart::Classic)).collect();
        let buckets: usize = self.classic.iter().map(|classic| classic.buckets.len()).sum();
        let (steps, budget) = (cx.steps, cx.budget);
        let done = share(cx, (self.native.len() + buckets) * steps.count, parts, |part| {
            let mut notes = Notes::default();
            let mut results = BucketResults { rows: Vec::new(), reserved: self.reserved.new_empty() };
            match part {
                BucketPart::Native(list) => {
                    for row in list {
                        budget.check()?;
                        let column = self.evaluate_native(steps, row, params, &mut notes);
                        self.emit(budget, &row.labels, column, label, &mut results)?;
                    }
                }
                BucketPart::Classic(list) => {
                    for classic in list {
                        budget.check()?;
                        let column = self.evaluate_classic(steps, classic, params, label, &mut notes);
                        self.emit(budget, &classic.labels, column, label, &mut results)?;
                    }
                }
            }
            Ok((results, notes))
        })?;
        let results = done.into_iter().map(|(results, notes)| {
            cx.notes.merge(notes);
            results
        });
        Ok(results.collect())
    }

    fn evaluate_native(&self, steps: &Steps, row: &Row, params: &[Scalar], notes: &mut Notes) -> Column {
        let param = |index: usize, step: usize| params.get(index).map_or(f64::NAN, |p| p.at(step));
        let name = self.name(&row.labels);
        let mut column = Column::absent(steps.count);
        for step in 0..steps.count {
            let Cell::Histogram(histogram) = row.column.get(step) else { continue };
            let fraction = self.function == FunctionId::HistogramFraction;
            let (value, oddity) = if fraction {
                native_fraction(param(0, step), param(1, step), histogram)
            } else {
                native_quantile(param(0, step), histogram)
            };
            match oddity {
                Oddity::None => {}
                Oddity::NanResult => notes.add(Note::QuantileNanResult(name), self.operand),
                Oddity::Nans if fraction => notes.add(Note::FractionNans(name), self.operand),
                Oddity::Nans => notes.add(Note::QuantileNanSkew(name), self.operand),
            }
            column.floats[step] = value;
        }
        column
    }

    fn evaluate_classic(
        &self,
        steps: &Steps,
        classic: &ClassicBuckets,
        params: &[Scalar],
        label: Option<QuantileLabel<'_>>,
        notes: &mut Notes,
    ) -> Column {
        let param = |index: usize, step: usize| params.get(index).map_or(f64::NAN, |p| p.at(step));
        let name = self.name(&classic.labels);
        let mut buckets: Vec<ClassicBucket> = Vec::with_capacity(classic.buckets.len());
        let mut column = Column::absent(steps.count);
        for step in 0..steps.count {
            buckets.clear();
            let present = classic.buckets.iter().filter(|(_, counts)| !is_absent(counts[step]));
            buckets
                .extend(present.map(|(upper, counts)| ClassicBucket { upper: *upper, count: counts[step] }));
            if buckets.is_empty() {
                continue;
            }
            column.floats[step] = if self.function == FunctionId::HistogramFraction {
                classic_fraction(param(0, step), param(1, step), &mut buckets)
            } else {
                let (value, corrected) = classic_quantile(param(0, step), &mut buckets);
                let reported = label.is_some_and(|label| label.has_corrected(step));
                if let Some((low, high, max_diff)) = corrected.filter(|_| !reported) {
                    let time = steps.time(step);
                    let details =
                        ForcedMonotonicity { times: (time, time), buckets: (low, high), max_diff, count: 1 };
                    notes.forced_monotonicity(name, self.operand, details);
                }
                value
            };
        }
        column
    }

    fn emit(
        &self,
        budget: &Budget,
        labels: &Labels,
        column: Column,
        label: Option<QuantileLabel<'_>>,
        out: &mut BucketResults,
    ) -> Result<(), QueryError> {
        let Some(QuantileLabel { quantile, .. }) = label else {
            if !column.is_empty() {
                out.push(labels.clone(), column)?;
            }
            return Ok(());
        };
        // A quantile that changes from step to step yields a series for each value.
        let mut places: HashMap<u64, usize> = HashMap::new();
        for step in (0..column.len()).filter(|step| column.has(*step)) {
            let value = quantile.at(step);
            // All NaN have one label.
            let key = if value.is_nan() { f64::NAN } else { value }.to_bits();
            let place = match places.get(&key) {
                Some(place) => *place,
                None => {
                    budget.check()?;
                    let labels = labels.to_builder().set(&self.label, &open_metrics_float(value)).build();
                    out.push(labels, Column::absent(column.len()))?;
                    places.insert(key, out.rows.len() - 1);
                    out.rows.len() - 1
                }
            };
            out.rows[place].column.floats[step] = column.floats[step];
        }
        Ok(())
    }
}

/// Histograms that one thread evaluates at a time.
enum BucketPart<'a> {
    Native(&'a [Row]),
    Classic(&'a [ClassicBuckets]),
}

/// The results of a part, and their memory until they are passed on.
struct BucketResults {
    rows: Vec<Row>,
    reserved: Reservation,
}

impl BucketResults {
    fn push(&mut self, labels: Labels, column: Column) -> Result<(), QueryError> {
        let row = Row { labels, drop_name: true, column };
        self.reserved.add(row.size_bytes())?;
        self.rows.push(row);
        Ok(())
    }
}

/// One of several quantiles, whose value is a label of the result.
#[derive(Clone, Copy)]
struct QuantileLabel<'a> {
    quantile: &'a Scalar,
    /// The quantiles before it.
    earlier: &'a [Scalar],
}

impl QuantileLabel<'_> {
    /// Whether an earlier quantile has already reported the correction of the buckets at a step.
    fn has_corrected(&self, step: usize) -> bool {
        self.earlier.iter().any(|quantile| (0.0..=1.0).contains(&quantile.at(step)))
    }
}

impl Operator for BucketOperator {
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
            self.take(cx, row)?;
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
