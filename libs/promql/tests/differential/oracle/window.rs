//! Functions over range vectors.

use promql::syntax::ast::{Boundary, Call, Expr};
use promql::syntax::functions::{FunctionId, ValueType};

use super::{
    Compensated, Element, LabelMap, Oracle, RangeVector, WindowRow, largest, mean, quantile, seconds,
};
use crate::data::Value;
use crate::histogram::Histogram;

/// A window of one series, with floats and histograms separated.
struct WindowSamples<'a> {
    row: &'a WindowRow,
    floats: Vec<(i64, f64)>,
    histograms: Vec<(i64, &'a Histogram)>,
    start: i64,
    end: i64,
    boundary: Boundary,
}

impl Oracle<'_> {
    /// A call whose argument is a range vector.
    pub(super) fn over_window(&self, call: &Call, at: i64) -> Result<Vec<Element>, String> {
        let is_matrix = |arg: &&Expr| arg.value_type() == ValueType::Matrix;
        let range = call.args.iter().find(is_matrix).ok_or("a range vector is missing")?;
        let mut scalars = Vec::new();
        for arg in call.args.iter().filter(|arg| !is_matrix(arg)) {
            scalars.push(self.scalar(arg, at)?);
        }
        let RangeVector { start, end, boundary, rows } = self.window(range, at)?;
        if call.function.id == FunctionId::AbsentOverTime {
            let labels = absent_labels(range);
            let value = Value::Float(1.0);
            return Ok(if rows.is_empty() {
                vec![Element { labels, drop_name: true, value }]
            } else {
                Vec::new()
            });
        }
        let keeps_name = matches!(call.function.id, FunctionId::FirstOverTime | FunctionId::LastOverTime);
        let mut vector = Vec::new();
        for row in &rows {
            let mut samples =
                WindowSamples { row, floats: Vec::new(), histograms: Vec::new(), start, end, boundary };
            for (time, value) in &row.points {
                match value {
                    Value::Float(value) => samples.floats.push((*time, *value)),
                    Value::Histogram(histogram) => samples.histograms.push((*time, histogram)),
                }
            }
            if let Some(value) = self.of_series(call.function.id, &samples, &scalars, at)? {
                let drop_name = row.drop_name || !keeps_name;
                vector.push(Element { labels: row.labels.clone(), drop_name, value });
            }
        }
        Ok(vector)
    }

    fn of_series(
        &self,
        function: FunctionId,
        samples: &WindowSamples<'_>,
        scalars: &[f64],
        at: i64,
    ) -> Result<Option<Value>, String> {
        use FunctionId as F;
        let points = &samples.row.points;
        let (floats, histograms) = (&samples.floats, &samples.histograms);
        let values: Vec<f64> = floats.iter().map(|(_, value)| *value).collect();
        let (first, last) = (&points[0], &points[points.len() - 1]);
        let mixed = !floats.is_empty() && !histograms.is_empty();
        // These functions have a result for any window.
        match function {
            F::CountOverTime => return Ok(Some(Value::Float(points.len() as f64))),
            F::PresentOverTime => return Ok(Some(Value::Float(1.0))),
            F::FirstOverTime => return Ok(Some(first.1.clone())),
            F::LastOverTime => return Ok(Some(last.1.clone())),
            F::TsOfFirstOverTime => return Ok(Some(Value::Float(seconds(first.0)))),
            F::TsOfLastOverTime => return Ok(Some(Value::Float(seconds(last.0)))),
            F::Changes => return Ok(Some(Value::Float(count_pairs(points, changed)))),
            F::Resets => return Ok(Some(Value::Float(count_pairs(points, reset)))),
            F::Rate | F::Increase | F::Delta => {
                let counter = function != F::Delta;
                if samples.boundary != Boundary::Plain {
                    if !histograms.is_empty() {
                        return Err("the slow evaluator interpolates between floats only".to_owned());
                    }
                    return Ok(self
                        .between_boundaries(samples, counter, function == F::Rate)
                        .map(Value::Float));
                }
                return Ok(if mixed {
                    None
                } else {
                    self.extrapolated(samples, counter, function == F::Rate)
                });
            }
            F::Irate | F::Idelta => return Ok(self.last_two(points, function == F::Irate)),
            F::SumOverTime | F::AvgOverTime if mixed => return Ok(None),
            F::SumOverTime | F::AvgOverTime if values.is_empty() => {
                let Some(sum) = sum_of_histograms(histograms.iter().map(|(_, h)| *h)) else {
                    return Ok(None);
                };
                let mean = function == F::AvgOverTime;
                return Ok(Some(Value::Histogram(if mean {
                    sum.divided(histograms.len() as f64)
                } else {
                    sum
                })));
            }
            _ => {}
        }
        // The remaining functions use only floats.
        if values.is_empty() {
            return Ok(None);
        }
        let scale = largest(&values);
        let value = match function {
            F::SumOverTime => {
                let total = values.iter().fold(Compensated::default(), |sum, value| sum.add(*value));
                let sum = if total.sum.is_infinite() { total.sum } else { total.sum + total.rest };
                self.rounded(sum, scale)
            }
            F::AvgOverTime => self.rounded(mean(&values), scale),
            F::MinOverTime => best(floats, |new, old| new < old).1,
            F::MaxOverTime => best(floats, |new, old| new > old).1,
            F::TsOfMinOverTime => seconds(best(floats, |new, old| new <= old).0),
            F::TsOfMaxOverTime => seconds(best(floats, |new, old| new >= old).0),
            F::QuantileOverTime => self.rounded(quantile(scalars[0], &values), scale),
            F::MadOverTime => {
                if values.iter().any(|value| value.is_nan()) {
                    f64::NAN
                } else {
                    let median = quantile(0.5, &values);
                    let distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
                    self.rounded(quantile(0.5, &distances), scale)
                }
            }
            F::StdvarOverTime => self.variance(&values),
            F::StddevOverTime => self.variance(&values).sqrt(),
            F::Deriv | F::PredictLinear if values.len() < 2 => return Ok(None),
            F::Deriv => self.regression(floats, floats[0].0).0,
            F::PredictLinear => {
                let (slope, intercept) = self.regression(floats, at);
                slope * scalars[0] + intercept
            }
            F::DoubleExponentialSmoothing if values.len() < 2 => return Ok(None),
            F::DoubleExponentialSmoothing => smoothed(&values, scalars[0], scalars[1]),
            other => return Err(format!("the slow evaluator lacks {other:?}")),
        };
        Ok(Some(Value::Float(value)))
    }

    /// `rate`, `increase` and `delta`.
    fn extrapolated(&self, samples: &WindowSamples<'_>, counter: bool, per_second: bool) -> Option<Value> {
        let points = &samples.row.points;
        if points.len() < 2 {
            return None;
        }
        let range = seconds(samples.end) - seconds(samples.start);
        let (first_at, last_at) = (points[0].0, points[points.len() - 1].0);
        let covered = seconds(last_at) - seconds(first_at);
        let between = covered / (points.len() - 1) as f64;
        // The factor of the extrapolation beyond the first and last sample. `zero` is the part of the change
        // after which a counter reaches zero.
        let factor = |zero: Option<f64>| {
            let threshold = between * 1.1;
            let mut to_start = seconds(first_at) - seconds(samples.start);
            let mut to_end = seconds(samples.end) - seconds(last_at);
            if to_start >= threshold {
                to_start = between / 2.0;
            }
            if to_end >= threshold {
                to_end = between / 2.0;
            }
            if let Some(zero) = zero
                && covered * zero < to_start
            {
                to_start = covered * zero;
            }
            let factor = (covered + to_start + to_end) / covered;
            if per_second { factor / range } else { factor }
        };
        if samples.histograms.is_empty() {
            let values: Vec<f64> = samples.floats.iter().map(|(_, value)| *value).collect();
            let mut grown = values[values.len() - 1] - values[0];
            if counter {
                for pair in values.windows(2).filter(|pair| pair[1] < pair[0]) {
                    grown += pair[0];
                }
            }
            let zero = (counter && grown > 0.0 && values[0] >= 0.0).then(|| values[0] / grown);
            let factor = factor(zero);
            return Some(Value::Float(self.rounded(grown * factor, largest(&values) * factor)));
        }
        let mut histograms: Vec<Histogram> = samples.histograms.iter().map(|(_, h)| (*h).clone()).collect();
        let first_count = histograms[0].count;
        if counter && histograms[1].is_reset_from(&histograms[0]) {
            // The histogram before the reset does not matter, including its layout.
            let (schema, bounds) = (histograms[1].schema, histograms[1].bounds.clone());
            histograms[0] = Histogram { schema, bounds, ..histograms[0].map(|_| 0.0) };
            histograms[0].positive.clear();
            histograms[0].negative.clear();
        }
        let last = &histograms[histograms.len() - 1];
        let checked: Vec<&Histogram> =
            if counter { histograms.iter().collect() } else { vec![&histograms[0], last] };
        if checked.iter().any(|h| h.is_custom() != last.is_custom()) {
            return None;
        }
        let schema = checked.iter().map(|h| h.schema).min()?;
        let mut grown = last.at_schema(schema).plus(&histograms[0], -1.0)?;
        if counter {
            for pair in histograms.windows(2).filter(|pair| pair[1].is_reset_from(&pair[0])) {
                grown = grown.plus(&pair[0], 1.0)?;
            }
        }
        // A histogram that was set to zero still has its count for the extrapolation.
        let zero = (counter && grown.count > 0.0 && first_count >= 0.0).then(|| first_count / grown.count);
        let factor = factor(zero);
        Some(Value::Histogram(grown.map(|x| self.rounded(x * factor, x.abs() * factor))))
    }

    /// `rate`, `increase` and `delta` between the boundaries of the window, whose values are looked up or
    /// interpolated.
    fn between_boundaries(
        &self,
        samples: &WindowSamples<'_>,
        counter: bool,
        per_second: bool,
    ) -> Option<f64> {
        let (floats, start, end) = (&samples.floats, samples.start, samples.end);
        let smoothed = samples.boundary == Boundary::Smoothed;
        let before = floats.iter().rposition(|(time, _)| *time <= start);
        let first = before.unwrap_or(0);
        let newest = floats.len() - 1;
        let last = if smoothed {
            floats.iter().position(|(time, _)| *time >= end).unwrap_or(newest)
        } else {
            newest
        };
        if floats[last].0 <= start || (smoothed && floats[first].0 > end) {
            return None;
        }
        let line = |from: usize, at: i64| {
            let ((x1, y1), (x2, y2)) = (floats[from], floats[from + 1]);
            // A counter that was reset in between started at zero.
            let y1 = if counter && y2 < y1 { 0.0 } else { y1 };
            y1 + (y2 - y1) * (at - x1) as f64 / (x2 - x1) as f64
        };
        let left = if smoothed && floats[first].0 < start { line(first, start) } else { floats[first].1 };
        let right =
            if smoothed && floats[last].0 > end && last > 0 { line(last - 1, end) } else { floats[last].1 };
        let mut grown = right - left;
        let mut scale = left.abs().max(right.abs());
        if counter {
            let inside = floats[..=last].iter().filter(|(time, _)| start < *time && *time < end);
            let mut previous = left;
            for value in inside.map(|(_, value)| *value).chain([right]) {
                if value < previous {
                    grown += previous;
                }
                previous = value;
                scale = scale.max(value.abs());
            }
        }
        let seconds = if per_second { seconds(end) - seconds(start) } else { 1.0 };
        Some(self.rounded(grown / seconds, scale / seconds))
    }

    /// `irate` and `idelta`.
    fn last_two(&self, points: &[(i64, Value)], counter: bool) -> Option<Value> {
        let [.., (before_at, before), (last_at, last)] = points else { return None };
        let seconds = (last_at - before_at) as f64 / 1000.0;
        match (before, last) {
            (Value::Float(before), Value::Float(last)) => {
                let grown = if counter && last < before { *last } else { last - before };
                Some(Value::Float(if counter {
                    self.rounded(grown / seconds, grown / seconds)
                } else {
                    grown
                }))
            }
            (Value::Histogram(before), Value::Histogram(last)) => {
                let reset = counter && last.is_reset_from(before);
                let grown = if reset { last.clone() } else { last.plus(before, -1.0)? };
                Some(Value::Histogram(if counter { grown.divided(seconds) } else { grown }))
            }
            _ => None,
        }
    }

    /// The mean squared distance from the mean.
    pub(super) fn variance(&self, values: &[f64]) -> f64 {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let scale = largest(values);
        let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
        // It is never negative.
        self.rounded(variance, scale * scale).max(0.0) + if variance.is_nan() { f64::NAN } else { 0.0 }
    }

    /// The slope per second of the least-squares line, and its value at `origin`.
    fn regression(&self, floats: &[(i64, f64)], origin: i64) -> (f64, f64) {
        let first = floats[0].1;
        if floats.iter().all(|(_, value)| *value == first) {
            return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
        }
        let n = floats.len() as f64;
        let [mut x, mut y, mut xy, mut xx] = [Compensated::default(); 4];
        for (time, value) in floats {
            let at = (time - origin) as f64 / 1000.0;
            x = x.add(at);
            y = y.add(*value);
            xy = xy.add(at * value);
            xx = xx.add(at * at);
        }
        let [x, y, xy, xx] = [x, y, xy, xx].map(|total| total.sum + total.rest);
        let covariance = self.rounded(xy - x * y / n, xy.abs() + (x * y / n).abs());
        let variance = self.rounded(xx - x * x / n, xx);
        let slope = covariance / variance;
        (slope, self.rounded(y / n - slope * x / n, (y / n).abs() + (slope * x / n).abs()))
    }
}

/// The labels that `absent` derives from a selector: those with a single equality matcher.
pub(super) fn absent_labels(expr: &Expr) -> LabelMap {
    let matchers = match expr.without_parens() {
        Expr::Vector(selector) => &selector.matchers,
        Expr::Matrix(matrix) => &matrix.selector.matchers,
        _ => return LabelMap::new(),
    };
    let mut labels = LabelMap::new();
    for matcher in matchers.iter().filter(|matcher| matcher.name() != "__name__") {
        let same_name = matchers.iter().filter(|other| other.name() == matcher.name()).count();
        if matcher.op() == model::MatchOp::Equal && same_name == 1 && !matcher.value().is_empty() {
            labels.insert(matcher.name().to_owned(), matcher.value().to_owned());
        }
    }
    labels
}

fn sum_of_histograms<'a>(mut histograms: impl Iterator<Item = &'a Histogram>) -> Option<Histogram> {
    let first = histograms.next()?.clone();
    histograms.try_fold(first, |sum, next| sum.plus(next, 1.0))
}

fn count_pairs(points: &[(i64, Value)], counts: impl Fn(&Value, &Value) -> bool) -> f64 {
    points.windows(2).filter(|pair| counts(&pair[0].1, &pair[1].1)).count() as f64
}

fn changed(before: &Value, now: &Value) -> bool {
    match (before, now) {
        (Value::Float(before), Value::Float(now)) => before != now && !(before.is_nan() && now.is_nan()),
        (Value::Histogram(before), Value::Histogram(now)) => !now.is_like(before, |a, b| a == b),
        _ => true,
    }
}

fn reset(before: &Value, now: &Value) -> bool {
    match (before, now) {
        (Value::Float(before), Value::Float(now)) => now < before,
        (Value::Histogram(before), Value::Histogram(now)) => now.is_reset_from(before),
        _ => true,
    }
}

/// The sample for which `better` is true against all others. Any number is preferred to NaN.
fn best(floats: &[(i64, f64)], better: impl Fn(f64, f64) -> bool) -> (i64, f64) {
    let mut best = floats[0];
    for (time, value) in floats {
        if better(*value, best.1) || best.1.is_nan() {
            best = (*time, *value);
        }
    }
    best
}

/// Double exponential smoothing.
fn smoothed(values: &[f64], smoothing: f64, trending: f64) -> f64 {
    let mut level = values[0];
    let mut before = 0.0;
    let mut trend = values[1] - values[0];
    for (at, value) in values.iter().enumerate().skip(1) {
        if at > 1 {
            trend = trending * (level - before) + (1.0 - trending) * trend;
        }
        let next = smoothing * value + (1.0 - smoothing) * (level + trend);
        (before, level) = (level, next);
    }
    level
}
