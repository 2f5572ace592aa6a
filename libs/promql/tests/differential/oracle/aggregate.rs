//! Aggregations.

use std::collections::BTreeMap;

use promql::syntax::ast::{AggregateExpr, AggregateOp, Expr};
use promql::syntax::functions::FunctionId;

use super::date::is_date;
use super::{Compensated, Element, LabelMap, Oracle, largest, mean, only, quantile, without};
use crate::data::Value;
use crate::histogram::Histogram;

impl Oracle<'_> {
    pub(super) fn aggregate(&self, aggregate: &AggregateExpr, at: i64) -> Result<Vec<Element>, String> {
        use AggregateOp as Op;
        let mut vector = self.vector(&aggregate.expr, at)?;
        let mut grouping = aggregate.grouping.clone();
        if let (Op::CountValues, Some(Expr::String(label))) = (aggregate.op, &aggregate.param) {
            for element in &mut vector {
                let value =
                    element.float().ok_or("the slow evaluator supports count_values only for floats")?;
                element.labels.insert(label.value.clone(), count_label(value));
            }
            if !aggregate.without {
                grouping.push(label.value.clone());
            }
        }
        let key = |labels: &LabelMap| {
            if aggregate.without {
                without(&without(labels, &grouping), &["__name__"])
            } else {
                only(labels, &grouping)
            }
        };
        let mut groups: BTreeMap<LabelMap, Vec<Element>> = BTreeMap::new();
        for element in vector {
            groups.entry(key(&element.labels)).or_default().push(element);
        }
        let param = match &aggregate.param {
            Some(param) if !matches!(param, Expr::String(_)) => {
                if moves(param) && !moves(&aggregate.expr) {
                    // Prometheus then uses the parameter of the first step for all steps.
                    self.open.set(true);
                }
                self.scalar(param, at)?
            }
            _ => 0.0,
        };
        if aggregate.op == Op::LimitRatio && param.is_nan() {
            return Err("Ratio value is NaN".to_owned());
        }
        let mut answer = Vec::new();
        for (labels, members) in groups {
            if matches!(aggregate.op, Op::TopK | Op::BottomK | Op::LimitK | Op::LimitRatio) {
                answer.extend(self.pick(aggregate, param, members)?);
            } else if let Some(value) = self.fold(aggregate.op, param, &members) {
                let drop_name =
                    members.iter().any(|member| member.drop_name) && aggregate.op != Op::CountValues;
                answer.push(Element { labels, drop_name, value });
            }
        }
        Ok(answer)
    }

    /// Aggregations that reduce a group to one value.
    fn fold(&self, op: AggregateOp, param: f64, members: &[Element]) -> Option<Value> {
        use AggregateOp as Op;
        let values: Vec<f64> = members.iter().filter_map(Element::float).collect();
        let scale = largest(&values);
        if matches!(op, Op::Sum | Op::Avg) && values.len() < members.len() {
            if !values.is_empty() {
                return None;
            }
            let mut total: Option<Histogram> = None;
            for member in members {
                let Value::Histogram(histogram) = &member.value else { return None };
                total = Some(match total {
                    None => histogram.clone(),
                    Some(total) => total.plus(histogram, 1.0)?,
                });
            }
            let total = total?;
            let divisor = if op == Op::Avg { members.len() as f64 } else { 1.0 };
            return Some(Value::Histogram(total.map(|x| self.rounded(x / divisor, x / divisor))));
        }
        if values.is_empty() && !matches!(op, Op::Count | Op::Group) {
            return None;
        }
        Some(Value::Float(match op {
            Op::Count | Op::CountValues => members.len() as f64,
            Op::Group => 1.0,
            Op::Sum => {
                let first = Compensated { sum: values[0], rest: 0.0 };
                let total = values[1..].iter().fold(first, |sum, value| sum.add(*value));
                self.rounded(total.sum + total.rest, scale)
            }
            Op::Avg => self.rounded(mean(&values), scale),
            Op::Min => extreme(&values, |new, old| new < old),
            Op::Max => extreme(&values, |new, old| new > old),
            Op::Quantile => self.rounded(quantile(param, &values), scale),
            Op::Stdvar => self.variance(&values),
            Op::Stddev => self.variance(&values).sqrt(),
            Op::TopK | Op::BottomK | Op::LimitK | Op::LimitRatio => return None,
        }))
    }

    /// Aggregations that select members of a group.
    fn pick(
        &self,
        aggregate: &AggregateExpr,
        param: f64,
        members: Vec<Element>,
    ) -> Result<Vec<Element>, String> {
        if aggregate.op == AggregateOp::LimitRatio {
            let ratio = param.clamp(-1.0, 1.0);
            let within = |member: &Element| {
                let offset = hash(&member.labels) as f64 / u64::MAX as f64;
                if ratio >= 0.0 { offset < ratio } else { offset >= 1.0 + ratio }
            };
            return Ok(members.into_iter().filter(within).collect());
        }
        if param.is_nan() {
            return Err("Parameter value is NaN".to_owned());
        }
        let count = if param < 1.0 { 0 } else { param as usize };
        if aggregate.op == AggregateOp::LimitK {
            if members.len() > count && !is_ordered(&aggregate.expr) {
                self.open.set(true);
            }
            return Ok(members.into_iter().take(count).collect());
        }
        let mut rest: Vec<Element> = members.into_iter().filter(|member| member.float().is_some()).collect();
        let mut best: Vec<Element> = Vec::new();
        let top = aggregate.op == AggregateOp::TopK;
        let order = |element: &Element| {
            let value = element.float().unwrap_or(f64::NAN);
            if top { value } else { -value }
        };
        while best.len() < count && !rest.is_empty() {
            let mut at = 0;
            for candidate in 1..rest.len() {
                let (new, old) = (order(&rest[candidate]), order(&rest[at]));
                if new > old || (old.is_nan() && !new.is_nan()) {
                    at = candidate;
                }
            }
            best.push(rest.remove(at));
        }
        // Which of several equal elements are selected depends on the internal order of a heap.
        let same = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan());
        if let Some(worst) = best.last()
            && rest.iter().any(|left| same(order(left), order(worst)))
        {
            self.open.set(true);
        }
        Ok(best)
    }
}

/// The hash by which `limit_ratio` selects: xxHash64 over names and values in order, each after its length.
fn hash(labels: &LabelMap) -> u64 {
    let texts = labels.iter().flat_map(|(name, value)| [name, value]);
    let bytes: Vec<u8> =
        texts.flat_map(|text| std::iter::once(text.len() as u8).chain(text.bytes())).collect();
    xxhash_rust::xxh64::xxh64(&bytes, 0)
}

/// Whether an expression may have a different value at another instant.
fn moves(expr: &Expr) -> bool {
    let mut below = false;
    expr.for_each_child(|child| below |= moves(child));
    match expr {
        Expr::Vector(selector) => selector.at.is_none(),
        Expr::Matrix(matrix) => matrix.selector.at.is_none(),
        Expr::Subquery(subquery) => subquery.at.is_none(),
        Expr::Call(call) => below || call.function.id == FunctionId::Time || is_date(call.function.id),
        _ => below,
    }
}

/// Whether Prometheus returns the series of this expression in label order.
fn is_ordered(expr: &Expr) -> bool {
    match expr {
        Expr::Vector(_) => true,
        Expr::Paren(paren) => is_ordered(&paren.expr),
        _ => false,
    }
}

/// The value for which `beats` is true against all others. Any number is preferred to NaN.
fn extreme(values: &[f64], beats: impl Fn(f64, f64) -> bool) -> f64 {
    values
        .iter()
        .copied()
        .fold(f64::NAN, |best, value| if best.is_nan() || beats(value, best) { value } else { best })
}

/// A value as a label value of `count_values`.
fn count_label(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}
