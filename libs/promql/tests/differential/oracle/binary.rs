//! Binary operators.

use std::collections::{BTreeMap, BTreeSet};

use promql::syntax::ast::{BinaryExpr, BinaryOp, Cardinality, VectorMatching};
use promql::syntax::functions::ValueType;

use super::{Element, LabelMap, Oracle, only, without, without_name};
use crate::compare::same_number;
use crate::data::Value;

impl Oracle<'_> {
    pub(super) fn binary(&self, binary: &BinaryExpr, at: i64) -> Result<Vec<Element>, String> {
        let (lhs, rhs) = (self.vector(&binary.lhs, at)?, self.vector(&binary.rhs, at)?);
        let scalar = |expr: &promql::syntax::ast::Expr| expr.value_type() == ValueType::Scalar;
        match (scalar(&binary.lhs), scalar(&binary.rhs)) {
            (true, true) => {
                let (lhs, rhs) = (self.scalar(&binary.lhs, at)?, self.scalar(&binary.rhs, at)?);
                let value = match self.compare(binary.op, lhs, rhs) {
                    Some(holds) => f64::from(holds),
                    None => arithmetic(binary.op, lhs, rhs),
                };
                Ok(vec![Element::scalar(value)])
            }
            (false, true) => {
                Ok(rhs.iter().flat_map(|scalar| self.with_scalar(binary, &lhs, scalar, false)).collect())
            }
            (true, false) => {
                Ok(lhs.iter().flat_map(|scalar| self.with_scalar(binary, &rhs, scalar, true)).collect())
            }
            (false, false) => {
                let matching = binary.matching.as_ref().ok_or("two vectors without a matching")?;
                if binary.op.is_set() {
                    Ok(set(binary.op, matching, lhs, rhs))
                } else {
                    self.join(binary, matching, lhs, rhs)
                }
            }
        }
    }

    fn join(
        &self,
        binary: &BinaryExpr,
        matching: &VectorMatching,
        lhs: Vec<Element>,
        rhs: Vec<Element>,
    ) -> Result<Vec<Element>, String> {
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if (lhs.is_empty() && rhs.is_empty()) || ((lhs.is_empty() || rhs.is_empty()) && !fills) {
            return Ok(Vec::new());
        }
        let swapped = matching.cardinality == Cardinality::OneToMany;
        let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
        let mut partners: BTreeMap<LabelMap, Element> = BTreeMap::new();
        for element in one {
            if partners.insert(signature(matching, &element.labels), element).is_some() {
                return Err("found duplicate series for the match group".to_owned());
            }
        }
        let mut results: BTreeSet<(LabelMap, LabelMap)> = BTreeSet::new();
        let mut answer = Vec::new();
        // The fill values of missing series. `fill_right` applies to the "one" side, whichever side that is.
        let stand_in = |fill: Option<f64>, key: &LabelMap| {
            fill.map(|fill| Element { labels: key.clone(), drop_name: false, value: Value::Float(fill) })
        };
        let mut pairs = Vec::new();
        for element in many {
            let key = signature(matching, &element.labels);
            let partner = partners.get(&key).cloned().or_else(|| stand_in(matching.fill_right, &key));
            pairs.extend(partner.map(|partner| (key, element, partner)));
        }
        // A series counts as matched if it has a result, even one that a comparison drops.
        let matched: BTreeSet<LabelMap> = pairs
            .iter()
            .filter(|(_, element, partner)| {
                let (left, right) = if swapped { (partner, element) } else { (element, partner) };
                self.operate(binary.op, &left.value, &right.value).is_some()
            })
            .map(|(key, ..)| key.clone())
            .collect();
        for (key, partner) in partners {
            if !matched.contains(&key) {
                pairs.extend(stand_in(matching.fill_left, &key).map(|element| (key, element, partner)));
            }
        }
        for (key, element, partner) in pairs {
            let (left, right) = if swapped { (&partner, &element) } else { (&element, &partner) };
            let Some((value, holds)) = self.operate(binary.op, &left.value, &right.value) else { continue };
            let mut labels = element.labels.clone();
            if !binary.op.is_comparison() || (binary.return_bool && !self.delayed) {
                labels = without_name(&labels);
            }
            if matching.cardinality == Cardinality::OneToOne {
                labels = if matching.on {
                    only(&labels, &matching.labels)
                } else {
                    without(&labels, &matching.labels)
                };
            }
            for name in &matching.include {
                match partner.labels.get(name) {
                    Some(value) => labels.insert(name.clone(), value.clone()),
                    None => labels.remove(name),
                };
            }
            // In one-to-one matching, each match may occur once; otherwise each result may.
            let result =
                if matching.cardinality == Cardinality::OneToOne { LabelMap::new() } else { labels.clone() };
            if !results.insert((key, result)) {
                return Err("multiple matches for labels".to_owned());
            }
            if binary.return_bool {
                answer.push(Element { labels, drop_name: true, value: Value::Float(f64::from(holds)) });
            } else if holds {
                // With delayed name removal, Prometheus loses the information that a name has to be dropped. Without
                // it, which is the default, there is no name.
                answer.push(Element { labels, drop_name: element.drop_name, value });
            }
        }
        Ok(answer)
    }

    fn with_scalar(
        &self,
        binary: &BinaryExpr,
        vector: &[Element],
        scalar: &Element,
        scalar_first: bool,
    ) -> Vec<Element> {
        let mut answer = Vec::new();
        for element in vector {
            let (left, right) =
                if scalar_first { (&scalar.value, &element.value) } else { (&element.value, &scalar.value) };
            let Some((mut value, holds)) = self.operate(binary.op, left, right) else { continue };
            if binary.op.is_comparison() {
                value = element.value.clone();
            }
            if binary.return_bool {
                value = Value::Float(f64::from(holds));
            } else if !holds {
                continue;
            }
            let drop_name = element.drop_name || binary.return_bool || !binary.op.is_comparison();
            answer.push(Element { labels: element.labels.clone(), drop_name, value });
        }
        answer
    }

    /// The result of an operator on two values, and whether a comparison holds. `None` if it does not support
    /// these types.
    fn operate(&self, op: BinaryOp, left: &Value, right: &Value) -> Option<(Value, bool)> {
        use BinaryOp as Op;
        let histogram = match (left, right) {
            (Value::Float(left), Value::Float(right)) => {
                return match self.compare(op, *left, *right) {
                    Some(holds) => Some((Value::Float(*left), holds)),
                    None => Some((Value::Float(arithmetic(op, *left, *right)), true)),
                };
            }
            (Value::Histogram(left), Value::Histogram(right)) => match op {
                Op::Add => left.plus(right, 1.0)?,
                Op::Sub => left.plus(right, -1.0)?,
                Op::Eq | Op::Ne => {
                    let equal = left.is_like(right, |a, b| a == b);
                    if !equal && left.is_like(right, same_number) {
                        // With different rounding, they may be equal.
                        self.open.set(true);
                    }
                    return Some((Value::Histogram(left.clone()), equal == (op == Op::Eq)));
                }
                _ => return None,
            },
            (Value::Histogram(histogram), Value::Float(factor)) => match op {
                Op::Mul => histogram.map(|x| x * factor),
                Op::Div => histogram.divided(*factor),
                _ => return None,
            },
            (Value::Float(factor), Value::Histogram(histogram)) => match op {
                Op::Mul => histogram.map(|x| x * factor),
                _ => return None,
            },
        };
        Some((Value::Histogram(histogram), true))
    }

    fn compare(&self, op: BinaryOp, left: f64, right: f64) -> Option<bool> {
        if op.is_comparison() && left != right && same_number(left, right) {
            // With different rounding, they may be equal.
            self.open.set(true);
        }
        match op {
            BinaryOp::Eq => Some(left == right),
            BinaryOp::Ne => Some(left != right),
            BinaryOp::Lt => Some(left < right),
            BinaryOp::Le => Some(left <= right),
            BinaryOp::Gt => Some(left > right),
            BinaryOp::Ge => Some(left >= right),
            _ => None,
        }
    }
}

/// The labels that must be equal for two series to match.
fn signature(matching: &VectorMatching, labels: &LabelMap) -> LabelMap {
    if matching.on {
        only(labels, &matching.labels)
    } else {
        without_name(&without(labels, &matching.labels))
    }
}

fn set(op: BinaryOp, matching: &VectorMatching, lhs: Vec<Element>, rhs: Vec<Element>) -> Vec<Element> {
    let signatures = |side: &[Element]| -> BTreeSet<LabelMap> {
        side.iter().map(|element| signature(matching, &element.labels)).collect()
    };
    let (left, right) = (signatures(&lhs), signatures(&rhs));
    let within =
        |element: &Element, side: &BTreeSet<LabelMap>| side.contains(&signature(matching, &element.labels));
    match op {
        BinaryOp::And => lhs.into_iter().filter(|element| within(element, &right)).collect(),
        BinaryOp::Unless => lhs.into_iter().filter(|element| !within(element, &right)).collect(),
        _ => lhs.into_iter().chain(rhs.into_iter().filter(|element| !within(element, &left))).collect(),
    }
}

fn arithmetic(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Atan2 => left.atan2(right),
        _ => f64::NAN,
    }
}
