//! The slow evaluator: it evaluates one instant at a time and reads all samples again for each.
//!
//! It is written according to the behaviour of Prometheus 3.14, walks the syntax tree and shares no code with
//! the engine. If a result depends on an order that Prometheus leaves open, [`Oracle::is_open`] reports it.
//! If a result depends on rounding, [`Oracle::shaken`] computes the results for other roundings.

mod aggregate;
mod binary;
mod buckets;
mod call;
mod date;
mod window;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use model::{Matcher, Timestamp};
use promql::QueryParams;
use promql::syntax::ast::{
    At, BinaryOp, Boundary, DurationArg, DurationExpr, DurationNode, Expr, Span, UnaryOp, VectorSelector,
};
use promql::syntax::functions::ValueType;

use crate::data::{Data, LabelMap, Value};
use crate::random::Random;

/// The error for two series with equal labels that have a value at the same instant.
const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";
/// The default step of subqueries, in milliseconds.
const SUBQUERY_STEP: i64 = 60_000;

/// An element of an instant vector.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub(crate) labels: LabelMap,
    /// Whether the metric name is dropped at the end of the query.
    pub(crate) drop_name: bool,
    pub(crate) value: Value,
}

/// The samples of a series within a window.
#[derive(Clone, Debug)]
struct WindowRow {
    labels: LabelMap,
    drop_name: bool,
    points: Vec<(i64, Value)>,
}

/// A range vector: all series with at least one sample in the window after `start`, up to and including
/// `end`.
///
/// For `anchored`, the samples of the lookback before the start are added; for `smoothed`, also those of a
/// lookback after the end.
struct RangeVector {
    start: i64,
    end: i64,
    boundary: Boundary,
    rows: Vec<WindowRow>,
}

/// A result: the samples of each series by time.
pub(crate) type Answer = BTreeMap<LabelMap, BTreeMap<i64, Value>>;

/// Evaluates expressions over some data.
pub(crate) struct Oracle<'a> {
    data: &'a Data,
    start: i64,
    end: i64,
    step: Option<i64>,
    lookback: i64,
    /// Whether names are dropped at the end of the query instead of at once.
    delayed: bool,
    /// The series to which each range function has given a value, by the function's position and the labels
    /// without name.
    ranges: RefCell<BTreeMap<(Span, LabelMap), LabelMap>>,
    open: Cell<bool>,
    shake: Option<RefCell<Random>>,
}

impl<'a> Oracle<'a> {
    /// Creates an evaluator. If `delayed`, names are dropped at the end of the query.
    pub(crate) fn new(data: &'a Data, params: &QueryParams, delayed: bool) -> Self {
        Oracle {
            data,
            start: params.start.as_millis(),
            end: params.end.as_millis(),
            step: params.step.map(|step| step.as_millis() as i64),
            lookback: params.lookback.as_millis() as i64,
            delayed,
            ranges: RefCell::default(),
            open: Cell::new(false),
            shake: None,
        }
    }

    /// An evaluator that changes every rounded number slightly.
    pub(crate) fn shaken(data: &'a Data, params: &QueryParams, delayed: bool, seed: u64) -> Self {
        Oracle { shake: Some(RefCell::new(Random::new(seed))), ..Self::new(data, params, delayed) }
    }

    /// Whether a result so far depends on an order that Prometheus leaves open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.get()
    }

    /// The result of a query.
    ///
    /// # Errors
    /// Why the query fails.
    pub(crate) fn answer(&self, expr: &Expr) -> Result<Answer, String> {
        let mut answer = Answer::new();
        let mut put = |labels: LabelMap, at: i64, value: Value| match answer
            .entry(labels)
            .or_default()
            .insert(at, value)
        {
            Some(_) => Err(SAME_LABELS.to_owned()),
            None => Ok(()),
        };
        if expr.value_type() == ValueType::Matrix {
            for row in self.window(expr, self.start)?.rows {
                let labels = if row.drop_name { without_name(&row.labels) } else { row.labels };
                for (at, value) in row.points {
                    put(labels.clone(), at, value)?;
                }
            }
            return Ok(answer);
        }
        for element in self.instants().map(|at| self.vector(expr, at).map(|vector| (at, vector))) {
            let (at, vector) = element?;
            for element in vector {
                let labels = if element.drop_name { without_name(&element.labels) } else { element.labels };
                put(labels, at, element.value)?;
            }
        }
        Ok(answer)
    }

    /// The values of a sorted instant vector, in order.
    pub(crate) fn ordered(&self, expr: &Expr) -> Result<Vec<f64>, String> {
        Ok(self.vector(expr, self.start)?.iter().filter_map(Element::float).collect())
    }

    fn instants(&self) -> impl Iterator<Item = i64> {
        let step = self.step.unwrap_or(1) as usize;
        (self.start..=self.end).step_by(step)
    }

    /// The value at an instant. A scalar is a vector with one element without labels.
    fn vector(&self, expr: &Expr, at: i64) -> Result<Vec<Element>, String> {
        let vector = self.named_vector(expr, at)?;
        if self.delayed { Ok(vector) } else { self.unnamed(expr, vector) }
    }

    /// Drops the names that have to be dropped. Fails if two elements become equal.
    fn unnamed(&self, expr: &Expr, vector: Vec<Element>) -> Result<Vec<Element>, String> {
        let mut answer: Vec<Element> = Vec::new();
        for element in vector {
            if !element.drop_name {
                answer.push(element);
                continue;
            }
            let labels = without_name(&element.labels);
            if answer.iter().any(|other| other.labels == labels) {
                return Err(SAME_LABELS.to_owned());
            }
            if let Expr::Call(call) = expr
                && call.function.args.contains(&ValueType::Matrix)
            {
                // Equal labels also fail if the series never have a value at the same time.
                let mut ranges = self.ranges.borrow_mut();
                let first =
                    ranges.entry((call.span, labels.clone())).or_insert_with(|| element.labels.clone());
                if *first != element.labels {
                    return Err(SAME_LABELS.to_owned());
                }
            }
            answer.push(Element { labels, drop_name: false, ..element });
        }
        Ok(answer)
    }

    /// The value at an instant, before names are dropped.
    fn named_vector(&self, expr: &Expr, at: i64) -> Result<Vec<Element>, String> {
        match expr {
            Expr::Number(number) => Ok(vec![Element::scalar(number.value)]),
            Expr::Paren(paren) => self.vector(&paren.expr, at),
            Expr::Vector(selector) => {
                Ok(self.select(selector, at).into_iter().map(|(element, _)| element).collect())
            }
            Expr::Unary(unary) => {
                let mut vector = self.vector(&unary.expr, at)?;
                if unary.op == UnaryOp::Minus {
                    for element in &mut vector {
                        element.drop_name = true;
                        element.value = match &element.value {
                            Value::Float(value) => Value::Float(-value),
                            Value::Histogram(histogram) => Value::Histogram(histogram.map(|x| -x)),
                        };
                    }
                }
                Ok(vector)
            }
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, at),
            Expr::Binary(binary) => self.binary(binary, at),
            Expr::Call(call) => self.call(call, at),
            Expr::String(_) | Expr::Matrix(_) | Expr::Subquery(_) => Err(format!("{expr} is not a vector")),
        }
    }

    /// The value of a scalar expression at an instant.
    fn scalar(&self, expr: &Expr, at: i64) -> Result<f64, String> {
        let vector = self.vector(expr, at)?;
        vector.first().and_then(Element::float).ok_or_else(|| format!("{expr} is not a scalar"))
    }

    /// The instant at which a selector selects when it is evaluated at `at`.
    fn reference(&self, pinned: Option<At>, offset: &DurationArg, at: i64) -> i64 {
        let at = match pinned {
            None => at,
            Some(At::Time(time)) => time.as_millis(),
            Some(At::Start) => self.start,
            Some(At::End) => self.end,
        };
        at - self.millis(offset)
    }

    /// The newest sample of each series within the lookback, and its time.
    fn select(&self, selector: &VectorSelector, at: i64) -> Vec<(Element, i64)> {
        let end = self.reference(selector.at, &selector.offset, at);
        let mut found = Vec::new();
        for (labels, points) in &self.data.series {
            if !matches(&selector.matchers, labels) {
                continue;
            }
            let seen = points.iter().filter(|(time, _)| end - self.lookback < *time && *time <= end);
            if let Some((time, value)) = seen.last().filter(|(_, value)| !value.is_stale()) {
                found.push((
                    Element { labels: labels.clone(), drop_name: false, value: value.clone() },
                    *time,
                ));
            }
        }
        found
    }

    /// The samples of a range vector that is evaluated at `at`.
    fn window(&self, expr: &Expr, at: i64) -> Result<RangeVector, String> {
        match expr {
            Expr::Paren(paren) => self.window(&paren.expr, at),
            Expr::Matrix(matrix) => {
                let end = self.reference(matrix.selector.at, &matrix.selector.offset, at);
                let start = end - self.millis(&matrix.range);
                let boundary = matrix.selector.boundary;
                let before = if boundary == Boundary::Plain { 0 } else { self.lookback };
                let after = if boundary == Boundary::Smoothed { self.lookback } else { 0 };
                let mut rows = Vec::new();
                for (labels, points) in &self.data.series {
                    let inside = |time: i64| start - before < time && time <= end + after;
                    let points: Vec<(i64, Value)> = points
                        .iter()
                        .filter(|(time, value)| inside(*time) && !value.is_stale())
                        .cloned()
                        .collect();
                    if matches(&matrix.selector.matchers, labels) && !points.is_empty() {
                        rows.push(WindowRow { labels: labels.clone(), drop_name: false, points });
                    }
                }
                Ok(RangeVector { start, end, boundary, rows })
            }
            Expr::Subquery(subquery) => {
                let end = self.reference(subquery.at, &subquery.offset, at);
                let start = end - self.millis(&subquery.range);
                let step = subquery.step.as_ref().map_or(SUBQUERY_STEP, |step| self.millis(step));
                let mut rows: BTreeMap<LabelMap, WindowRow> = BTreeMap::new();
                // The multiples of the step in the left-open window.
                let first = (start.div_euclid(step) + 1) * step;
                for time in (first..=end).step_by(step as usize) {
                    for element in self.vector(&subquery.expr, time)? {
                        let Element { labels, drop_name, value } = element;
                        let row = rows.entry(labels.clone()).or_insert(WindowRow {
                            labels,
                            drop_name,
                            points: Vec::new(),
                        });
                        if row.points.last().is_some_and(|(last, _)| *last == time) {
                            return Err(SAME_LABELS.to_owned());
                        }
                        row.points.push((time, value));
                    }
                }
                Ok(RangeVector { start, end, boundary: Boundary::Plain, rows: rows.into_values().collect() })
            }
            _ => Err(format!("{expr} is not a range vector")),
        }
    }

    fn millis(&self, length: &DurationArg) -> i64 {
        match length {
            DurationArg::Millis(millis) => *millis,
            DurationArg::Expr(expr) => {
                let step = self.step.unwrap_or(0) as f64 / 1000.0;
                let range = (self.end - self.start) as f64 / 1000.0;
                // These tests use no durations with fractions of a millisecond.
                (seconds_of(expr, step, range) * 1000.0).round() as i64
            }
        }
    }

    /// A rounded number. The terms from which it was computed are as large as `scale`.
    fn rounded(&self, value: f64, scale: f64) -> f64 {
        match &self.shake {
            Some(random) if value.is_finite() && scale.is_finite() => {
                value + scale * (random.borrow_mut().unit() - 0.5) * 1e-14
            }
            _ => value,
        }
    }
}

impl Element {
    fn scalar(value: f64) -> Self {
        Self { labels: LabelMap::new(), drop_name: false, value: Value::Float(value) }
    }

    fn float(&self) -> Option<f64> {
        match &self.value {
            Value::Float(value) => Some(*value),
            Value::Histogram(_) => None,
        }
    }
}

/// The value of a duration expression in seconds.
fn seconds_of(expr: &DurationExpr, step: f64, range: f64) -> f64 {
    let of = |expr: &DurationExpr| seconds_of(expr, step, range);
    match &expr.node {
        DurationNode::Number { seconds, .. } => *seconds,
        DurationNode::Step => step,
        DurationNode::Range => range,
        DurationNode::Negate(inner) => -of(inner),
        DurationNode::MinOf(a, b) => of(a).min(of(b)),
        DurationNode::MaxOf(a, b) => of(a).max(of(b)),
        DurationNode::Binary(op, a, b) => match op {
            BinaryOp::Add => of(a) + of(b),
            BinaryOp::Sub => of(a) - of(b),
            BinaryOp::Mul => of(a) * of(b),
            BinaryOp::Div => of(a) / of(b),
            BinaryOp::Mod => of(a) % of(b),
            _ => of(a).powf(of(b)),
        },
    }
}

fn matches(matchers: &[Matcher], labels: &LabelMap) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels.get(matcher.name()).map_or("", String::as_str)))
}

fn without_name(labels: &LabelMap) -> LabelMap {
    without(labels, &["__name__"])
}

fn without<S: AsRef<str>>(labels: &LabelMap, names: &[S]) -> LabelMap {
    let keep = |name: &str| names.iter().all(|gone| gone.as_ref() != name);
    labels.iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

fn only<S: AsRef<str>>(labels: &LabelMap, names: &[S]) -> LabelMap {
    let keep = |name: &str| names.iter().any(|kept| kept.as_ref() == name);
    labels.iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// A quantile of floats. NaN sorts first; between two values the result is interpolated.
fn quantile(q: f64, values: &[f64]) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_nan()).collect();
    let mut numbers: Vec<f64> = values.iter().copied().filter(|v| !v.is_nan()).collect();
    numbers.sort_by(|a, b| a.partial_cmp(b).expect("none is NaN"));
    sorted.extend(numbers);
    let rank = q * (sorted.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(sorted.len() - 1);
    let weight = rank - rank.floor();
    sorted[lower] * (1.0 - weight) + sorted[upper] * weight
}

/// The largest absolute value among the finite numbers.
fn largest(values: &[f64]) -> f64 {
    values.iter().map(|v| v.abs()).filter(|v| v.is_finite()).fold(0.0, f64::max)
}

/// A sum with Neumaier's compensation, as in Prometheus. Infinities disable the compensation.
#[derive(Clone, Copy, Debug, Default)]
struct Compensated {
    sum: f64,
    rest: f64,
}

impl Compensated {
    fn add(self, value: f64) -> Self {
        let sum = self.sum + value;
        let rest = if sum.is_infinite() {
            0.0
        } else if self.sum.abs() >= value.abs() {
            self.rest + ((self.sum - sum) + value)
        } else {
            self.rest + ((value - sum) + self.sum)
        };
        Self { sum, rest }
    }
}

/// The mean, as in Prometheus: the sum divided by the count, or a running mean from where the sum becomes
/// infinite.
fn mean(values: &[f64]) -> f64 {
    let mut total = Compensated { sum: values[0], rest: 0.0 };
    let mut running = None;
    for (at, value) in values.iter().enumerate().skip(1) {
        let count = (at + 1) as f64;
        if running.is_none() {
            let next = total.add(*value);
            if !next.sum.is_infinite() {
                total = next;
                continue;
            }
            running = Some(Compensated { sum: total.sum / (count - 1.0), rest: total.rest / (count - 1.0) });
        }
        if let Some(mean) = &mut running {
            let share = (count - 1.0) / count;
            *mean = Compensated { sum: share * mean.sum, rest: share * mean.rest }.add(value / count);
        }
    }
    match running {
        Some(mean) => mean.sum + mean.rest,
        None => total.sum / values.len() as f64 + total.rest / values.len() as f64,
    }
}

/// The timestamp in seconds.
fn seconds(millis: i64) -> f64 {
    Timestamp::from_millis(millis).as_secs_f64()
}
