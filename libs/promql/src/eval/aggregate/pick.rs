//! Aggregations that choose series of each group without changing them: `topk`, `bottomk`, `limitk` and `limit_ratio`.
//!
//! Behaviour: `aggregationK` in Prometheus 3.14's `promql/engine.go`.

use std::cmp::Ordering;
use std::sync::Arc;

use budget::Reservation;
use model::Labels;

use crate::error::QueryError;
use crate::eval::aggregate::ratio::RatioSample;
use crate::eval::operator::{EndedInputs, KeptRows, Operator, OperatorContext};
use crate::eval::sieve::{Sieve, Thresholds};
use crate::functions::quantile::nan_first;
use crate::plan::node::Aggregation;
use crate::syntax::ast::AggregateOp;
use crate::text::go_g;
use crate::value::column::{ABSENT, Cell, Column, Histogram, Row, is_absent};
use crate::value::note::Note;
use crate::value::scalar::{Scalar, Scalars};

/// A value that was chosen.
#[derive(Clone, Debug)]
struct Choice {
    value: f64,
    histogram: Option<Histogram>,
    series: usize,
}

/// `topk`, `bottomk`, `limitk` or `limit_ratio`.
#[derive(Debug)]
pub(crate) struct PickOperator {
    spec: Arc<Aggregation>,
    scalars: Scalars,
    waiting: KeptRows,
    /// The groups, and the threshold that a value must beat at each step.
    sieve: Arc<Sieve>,
    /// For each group, the choices at each step.
    chosen: Vec<Vec<Vec<Choice>>>,
    /// The labels of all series that were chosen at a step at some time, and whether their name is dropped.
    series: Vec<(Labels, bool)>,
    reserved: Reservation,
    /// Whether anything is chosen at any step; `None` until the parameter was checked.
    chooses: Option<bool>,
    ended: EndedInputs,
}

impl PickOperator {
    pub(crate) fn new(spec: Arc<Aggregation>, reserved: Reservation, waiting: Reservation) -> Self {
        Self {
            sieve: Arc::new(Sieve::new(spec.op, &spec.grouping)),
            spec,
            scalars: Scalars::new(1, reserved.new_empty()),
            waiting: KeptRows::new(waiting),
            chosen: Vec::new(),
            series: Vec::new(),
            reserved,
            chooses: None,
            ended: EndedInputs::none_of(2),
        }
    }

    /// Checks the parameter once; `false` if nothing is chosen at any step.
    fn chooses(&mut self, cx: &mut OperatorContext<'_>, param: &Scalar) -> Result<bool, QueryError> {
        if let Some(chooses) = self.chooses {
            return Ok(chooses);
        }
        let (mut max, mut min, mut any_nan) = (f64::NEG_INFINITY, f64::INFINITY, false);
        for value in (0..cx.steps.count).map(|step| param.at(step)) {
            max = max.max(value);
            min = min.min(value);
            any_nan |= value.is_nan();
        }
        let chooses = match self.spec.op {
            AggregateOp::LimitRatio => self.check_ratio(cx, (min, max), any_nan)?,
            _ => check_count((min, max), any_nan)?,
        };
        Ok(*self.chooses.insert(chooses))
    }

    /// Checks the least and the greatest ratio of all steps.
    fn check_ratio(
        &self,
        cx: &mut OperatorContext<'_>,
        (min, max): (f64, f64),
        any_nan: bool,
    ) -> Result<bool, QueryError> {
        if any_nan {
            return Err(QueryError::execution("Ratio value is NaN"));
        }
        if max > 1.0 {
            cx.notes.add(Note::InvalidRatio { ratio: max, capped: 1.0 }, self.spec.param);
        }
        if min < -1.0 {
            cx.notes.add(Note::InvalidRatio { ratio: min, capped: -1.0 }, self.spec.param);
        }
        Ok(max != 0.0 || min != 0.0)
    }

    fn choose(
        &mut self,
        cx: &mut OperatorContext<'_>,
        param: &Scalar,
        rows: Vec<Row>,
    ) -> Result<(), QueryError> {
        if !self.chooses(cx, param)? {
            return Ok(());
        }
        let sieve = self.sieve.clone();
        let mut thresholds = sieve.change();
        let Thresholds { groups, steps: thresholds } = &mut *thresholds;
        for row in rows {
            cx.budget.check()?;
            let group = groups.number(&self.spec.grouping, &row.labels);
            if group == self.chosen.len() {
                self.reserved.add((cx.steps.count * 32 + 2 * row.labels.size_bytes()) as u64)?;
                self.chosen.push(vec![Vec::new(); cx.steps.count]);
                thresholds.push(vec![ABSENT; cx.steps.count]);
            }
            if self.choose_of(cx, param, &row, group, &mut thresholds[group])? {
                self.reserved.add(row.labels.size_bytes() as u64)?;
                self.series.push((row.labels, row.drop_name));
            }
        }
        Ok(())
    }

    /// Chooses values of one series and updates the thresholds of its group; `false` if none was chosen.
    fn choose_of(
        &mut self,
        cx: &mut OperatorContext<'_>,
        param: &Scalar,
        row: &Row,
        group: usize,
        thresholds: &mut [f64],
    ) -> Result<bool, QueryError> {
        let (op, series) = (self.spec.op, self.series.len());
        let top = op == AggregateOp::TopK;
        let ranked = top || op == AggregateOp::BottomK;
        let in_ratio = RatioSample::new(op, &row.labels);
        let mut any = false;
        // The last histogram that was chosen: consecutive steps often share one.
        let mut last_histogram: Option<Histogram> = None;
        for (step, threshold) in thresholds.iter_mut().enumerate() {
            if row.column.histograms.is_empty() {
                // Most values are not better than those chosen so far.
                let value = row.column.floats[step];
                if is_absent(value) || self.sieve.is_beaten(value, *threshold) {
                    continue;
                }
            }
            let candidate = match row.column.get(step) {
                Cell::Absent => continue,
                Cell::Float(value) => Choice { value, histogram: None, series },
                Cell::Histogram(_) if ranked => {
                    cx.notes.add(Note::IgnoredInAggregation(op.as_str()), self.spec.span);
                    continue;
                }
                Cell::Histogram(histogram) => {
                    Choice { value: 0.0, histogram: Some(histogram.clone()), series }
                }
            };
            let chosen = &mut self.chosen[group][step];
            let limit = param.at(step);
            let grows = match op {
                AggregateOp::LimitRatio => in_ratio.is_within(limit),
                _ => (chosen.len() as f64) < limit.trunc(),
            };
            if grows {
                make_room(chosen, &mut self.reserved)?;
            }
            if let Some(histogram) = candidate.histogram.as_ref().filter(|_| grows)
                && last_histogram.as_ref().is_none_or(|last| !Arc::ptr_eq(last, histogram))
            {
                self.reserved.add(histogram.size_bytes() as u64)?;
                last_histogram = Some(histogram.clone());
            }
            any |= if ranked {
                offer(chosen, candidate, limit.trunc(), top)
            } else {
                chosen.extend(grows.then_some(candidate));
                grows
            };
            if chosen.len() as f64 >= limit.trunc() {
                *threshold = match chosen.first() {
                    Some(worst) if op != AggregateOp::LimitK => worst.value,
                    _ => self.sieve.unbeatable(),
                };
            }
        }
        Ok(any)
    }

    fn finish(&mut self, cx: &mut OperatorContext<'_>, out: &mut Vec<Row>) -> Result<(), QueryError> {
        *self.sieve.change() = Thresholds::default();
        let series = std::mem::take(&mut self.series);
        let mut in_progress = self.reserved.new_empty();
        in_progress.add((series.len() * size_of::<Option<usize>>()) as u64)?;
        let mut place: Vec<Option<usize>> = vec![None; series.len()];
        for steps in std::mem::take(&mut self.chosen) {
            for (step, mut chosen) in steps.into_iter().enumerate() {
                cx.budget.check()?;
                match self.spec.op {
                    AggregateOp::TopK => chosen.sort_by(|a, b| worst_first(a, b, true).reverse()),
                    AggregateOp::BottomK => chosen.sort_by(|a, b| worst_first(a, b, false).reverse()),
                    _ => {}
                }
                for choice in chosen {
                    let at = match place[choice.series] {
                        Some(at) => at,
                        None => {
                            let (labels, drop_name) = series[choice.series].clone();
                            let row = Row { labels, drop_name, column: Column::absent(cx.steps.count) };
                            in_progress.add(row.size_bytes())?;
                            out.push(row);
                            *place[choice.series].insert(out.len() - 1)
                        }
                    };
                    let column = &mut out[at].column;
                    match choice.histogram {
                        Some(histogram) => {
                            if column.histograms.is_empty() {
                                in_progress.add((cx.steps.count * size_of::<Option<Histogram>>()) as u64)?;
                            }
                            column.set_histogram(step, histogram);
                        }
                        None => column.floats[step] = choice.value,
                    }
                }
            }
        }
        self.reserved.release(u64::MAX);
        Ok(())
    }
}

/// Checks the least and the greatest number of series to choose; `false` if all are below 1.
fn check_count((min, max): (f64, f64), any_nan: bool) -> Result<bool, QueryError> {
    if max < 1.0 && !any_nan {
        return Ok(false);
    }
    if any_nan {
        return Err(QueryError::execution("Parameter value is NaN"));
    }
    // The bounds are those of a 64-bit integer, rounded to floats.
    if min <= i64::MIN as f64 {
        return Err(QueryError::execution(format!("Scalar value {} underflows int64", go_g(min))));
    }
    if max >= 9_223_372_036_854_774_784.0 {
        return Err(QueryError::execution(format!("Scalar value {} overflows int64", go_g(max))));
    }
    Ok(true)
}

/// Reserves memory for one more choice.
fn make_room(chosen: &mut Vec<Choice>, reserved: &mut Reservation) -> Result<(), QueryError> {
    if chosen.len() == chosen.capacity() {
        // A vector would allocate several entries at first; most groups need one.
        let more = chosen.len().max(1);
        reserved.add((more * size_of::<Choice>()) as u64)?;
        chosen.reserve_exact(more);
    }
    Ok(())
}

/// The order in which choices are dropped: NaN first, then the least (for `topk`) or the greatest.
fn worst_first(a: &Choice, b: &Choice, top: bool) -> Ordering {
    if top || a.value.is_nan() || b.value.is_nan() {
        nan_first(&a.value, &b.value)
    } else {
        nan_first(&b.value, &a.value)
    }
}

/// Adds a candidate to the best `limit` values so far if it is better than one of them; of equal values the first is kept. The
/// choices are a heap with the worst value at the root.
fn offer(chosen: &mut Vec<Choice>, candidate: Choice, limit: f64, top: bool) -> bool {
    if limit < 1.0 {
        return false;
    }
    let worse = |a: &Choice, b: &Choice| worst_first(a, b, top) == Ordering::Less;
    if (chosen.len() as f64) < limit {
        chosen.push(candidate);
        let mut at = chosen.len() - 1;
        while at > 0 && worse(&chosen[at], &chosen[(at - 1) / 2]) {
            chosen.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        return true;
    }
    if !worse(&chosen[0], &candidate) {
        return false;
    }
    chosen[0] = candidate;
    let mut at = 0;
    loop {
        let (left, right) = (2 * at + 1, 2 * at + 2);
        let mut worst = at;
        for child in [left, right] {
            if child < chosen.len() && worse(&chosen[child], &chosen[worst]) {
                worst = child;
            }
        }
        if worst == at {
            return true;
        }
        chosen.swap(at, worst);
        at = worst;
    }
}

impl Operator for PickOperator {
    fn sieve(&self) -> Option<Arc<Sieve>> {
        Some(self.sieve.clone())
    }

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
        match self.scalars.all().and_then(|all| all.into_iter().next()) {
            Some(param) => self.choose(cx, &param, rows),
            None => self.waiting.extend(rows),
        }
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
        let complete = self.ended.note(input);
        let Some(param) = self.scalars.all().and_then(|all| all.into_iter().next()) else { return Ok(()) };
        let (rows, _reserved) = self.waiting.take();
        if cx.steps.count > 0 {
            self.choose(cx, &param, rows)?;
        }
        // There is no output until both inputs have ended.
        if complete { self.finish(cx, out) } else { Ok(()) }
    }

    fn scalars(&mut self) -> Option<&mut Scalars> {
        Some(&mut self.scalars)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_values_are_kept_and_of_equal_ones_the_first() {
        let choose = |top: bool, values: &[f64]| {
            let mut chosen = Vec::new();
            for (series, &value) in values.iter().enumerate() {
                offer(&mut chosen, Choice { value, histogram: None, series }, 2.0, top);
            }
            chosen.sort_by(|a, b| worst_first(a, b, top).reverse());
            chosen.iter().map(|c| c.series).collect::<Vec<_>>()
        };
        assert_eq!(choose(true, &[1.0, 5.0, 3.0, 4.0]), [1, 3]);
        assert_eq!(choose(true, &[5.0, 5.0, 5.0]).len(), 2);
        assert!(!choose(true, &[5.0, 5.0, 5.0]).contains(&2));
        assert_eq!(choose(true, &[f64::NAN, 1.0, f64::NAN, 2.0]), [3, 1]);
        assert!(!choose(false, &[3.0, 1.0, 1.0, 1.0]).contains(&3));
        assert_eq!(choose(false, &[f64::NAN, 7.0]), [1, 0]);
    }
}
