//! Functions over instant vectors, and functions without vector arguments.

use promql::syntax::ast::{Call, Expr};
use promql::syntax::functions::{FunctionId, ValueType};

use super::window::absent_labels;
use super::{Element, LabelMap, Oracle, SAME_LABELS, date, seconds};
use crate::data::Value;
use crate::histogram::Histogram;

impl Oracle<'_> {
    pub(super) fn call(&self, call: &Call, at: i64) -> Result<Vec<Element>, String> {
        use FunctionId as F;
        let function = call.function.id;
        if call.args.iter().any(|arg| arg.value_type() == ValueType::Matrix) {
            return self.over_window(call, at);
        }
        let vector = |index: usize| self.vector(&call.args[index], at);
        let scalar = |index: usize| self.scalar(&call.args[index], at);
        match function {
            F::Time => Ok(vec![Element::scalar(seconds(at))]),
            F::Pi => Ok(vec![Element::scalar(std::f64::consts::PI)]),
            F::Vector => Ok(vec![Element::scalar(scalar(0)?)]),
            F::Scalar => {
                let floats: Vec<f64> = vector(0)?.iter().filter_map(Element::float).collect();
                Ok(vec![Element::scalar(if let [only] = floats[..] { only } else { f64::NAN })])
            }
            F::Absent => {
                if !vector(0)?.is_empty() {
                    return Ok(Vec::new());
                }
                let labels = absent_labels(&call.args[0]);
                Ok(vec![Element { labels, drop_name: false, value: Value::Float(1.0) }])
            }
            F::Timestamp => {
                let with_times = match call.args[0].without_parens() {
                    Expr::Vector(selector) => self.select(selector, at),
                    _ => vector(0)?.into_iter().map(|element| (element, at)).collect(),
                };
                let stamp = |(element, time): (Element, i64)| Element {
                    drop_name: true,
                    value: Value::Float(seconds(time)),
                    ..element
                };
                Ok(with_times.into_iter().map(stamp).collect())
            }
            F::LabelReplace | F::LabelJoin => relabel(call, vector(0)?),
            F::HistogramQuantile => self.histogram_quantile(scalar(0)?, vector(1)?),
            F::HistogramQuantiles => self.histogram_quantiles(call, at),
            F::SortByLabel | F::SortByLabelDesc => vector(0),
            F::HistogramFraction => self.histogram_fraction(scalar(0)?, scalar(1)?, vector(2)?),
            F::HistogramCount
            | F::HistogramSum
            | F::HistogramAvg
            | F::HistogramStdvar
            | F::HistogramStddev => Ok(each_histogram(vector(0)?, |histogram| match function {
                F::HistogramCount => histogram.count,
                F::HistogramSum => histogram.sum,
                F::HistogramAvg => histogram.sum / histogram.count,
                F::HistogramStdvar => self.rounded(histogram.variance(), histogram.variance()),
                _ => self.rounded(histogram.variance().sqrt(), histogram.variance().sqrt()),
            })),
            F::Sort | F::SortDesc => Ok(sorted(vector(0)?, function == F::Sort)),
            F::Clamp | F::ClampMin | F::ClampMax => {
                let vector = vector(0)?;
                let (low, high) = match function {
                    F::Clamp => (scalar(1)?, scalar(2)?),
                    F::ClampMin => (scalar(1)?, f64::INFINITY),
                    _ => (f64::NEG_INFINITY, scalar(1)?),
                };
                if high < low {
                    return Ok(Vec::new());
                }
                Ok(each_float(vector, |value| greater(low, lesser(high, value))))
            }
            F::Round => {
                let inverse = 1.0 / if call.args.len() > 1 { scalar(1)? } else { 1.0 };
                Ok(each_float(vector(0)?, |value| (value * inverse + 0.5).floor() / inverse))
            }
            _ if date::is_date(function) => {
                let vector =
                    if call.args.is_empty() { vec![Element::scalar((at / 1000) as f64)] } else { vector(0)? };
                Ok(each_float(vector, |value| date::part(function, value)))
            }
            _ => {
                let f = simple(function)
                    .ok_or_else(|| format!("the slow evaluator lacks {}", call.function.name))?;
                // If a function is steep, the rounding of its argument changes the result.
                Ok(each_float(vector(0)?, |value| {
                    self.rounded(f(value), if is_exact(function) { 0.0 } else { f(value) })
                }))
            }
        }
    }

    fn histogram_quantiles(&self, call: &Call, at: i64) -> Result<Vec<Element>, String> {
        let Expr::String(label) = &call.args[1] else { return Err("a label is missing".to_owned()) };
        let mut answer: Vec<Element> = Vec::new();
        for index in 2..call.args.len() {
            let q = self.scalar(&call.args[index], at)?;
            for mut element in self.histogram_quantile(q, self.vector(&call.args[0], at)?)? {
                set_label(&mut element.labels, &label.value, open_metrics(q));
                let looked_for = !self.delayed || self.start != self.end;
                if looked_for && answer.iter().any(|other| other.labels == element.labels) {
                    // With delayed name removal, Prometheus does not check whether the quantiles are
                    // equal at all steps.
                    self.open.set(self.open.get() || self.delayed);
                    return Err(SAME_LABELS.to_owned());
                }
                answer.push(element);
            }
        }
        Ok(answer)
    }
}

/// Floats sorted by value, without histograms.
fn sorted(vector: Vec<Element>, ascending: bool) -> Vec<Element> {
    let mut floats: Vec<Element> = vector.into_iter().filter(|e| e.float().is_some()).collect();
    let key = |element: &Element| element.float().unwrap_or(f64::NAN);
    let sign = if ascending { 1.0 } else { -1.0 };
    // NaN sorts last in both directions.
    floats.sort_by(|a, b| {
        (key(a).is_nan(), sign * key(a))
            .partial_cmp(&(key(b).is_nan(), sign * key(b)))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    floats
}

/// Applies `f` to floats, and drops histograms and the name.
fn each_float(vector: Vec<Element>, f: impl Fn(f64) -> f64) -> Vec<Element> {
    let change = |element: Element| {
        let value = Value::Float(f(element.float()?));
        Some(Element { drop_name: true, value, ..element })
    };
    vector.into_iter().filter_map(change).collect()
}

/// Computes floats from histograms, and drops floats and the name.
pub(super) fn each_histogram(vector: Vec<Element>, f: impl Fn(&Histogram) -> f64) -> Vec<Element> {
    let change = |element: Element| match &element.value {
        Value::Float(_) => None,
        Value::Histogram(histogram) => {
            let value = Value::Float(f(histogram));
            Some(Element { drop_name: true, value, ..element })
        }
    };
    vector.into_iter().filter_map(change).collect()
}

/// Go's `math.Max`: infinity beats NaN, NaN beats the rest, and zero is greater than negative zero.
fn greater(a: f64, b: f64) -> f64 {
    if a == f64::INFINITY || b == f64::INFINITY {
        f64::INFINITY
    } else if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// Go's `math.Min`.
fn lesser(a: f64, b: f64) -> f64 {
    -greater(-a, -b)
}

/// Whether the function is computed without rounding.
fn is_exact(function: FunctionId) -> bool {
    use FunctionId as F;
    matches!(function, F::Abs | F::Ceil | F::Floor | F::Sgn)
}

fn simple(function: FunctionId) -> Option<fn(f64) -> f64> {
    use FunctionId as F;
    Some(match function {
        F::Abs => f64::abs,
        F::Ceil => f64::ceil,
        F::Floor => f64::floor,
        F::Exp => f64::exp,
        F::Sqrt => f64::sqrt,
        F::Ln => f64::ln,
        F::Log2 => f64::log2,
        F::Log10 => f64::log10,
        F::Sin => f64::sin,
        F::Cos => f64::cos,
        F::Tan => f64::tan,
        F::Asin => f64::asin,
        F::Acos => f64::acos,
        F::Atan => f64::atan,
        F::Sinh => |value| (value.exp_m1() - (-value).exp_m1()) / 2.0,
        F::Cosh => |value| (value.exp() + (-value).exp()) / 2.0,
        F::Tanh => f64::tanh,
        F::Asinh => area_sine,
        // With half of the argument, no digits cancel near 1.
        F::Acosh => |value| 2.0 * area_sine(((value - 1.0) / 2.0).sqrt()),
        F::Atanh => |value| (value.ln_1p() - (-value).ln_1p()) / 2.0,
        F::Rad => |value| value * std::f64::consts::PI / 180.0,
        F::Deg => |value| value * 180.0 / std::f64::consts::PI,
        F::Sgn => |value| {
            if value < 0.0 {
                -1.0
            } else if value > 0.0 {
                1.0
            } else {
                value
            }
        },
        _ => return None,
    })
}

/// `asinh`: computed by `atanh` for small numbers, and from half of the number if its double would overflow.
fn area_sine(value: f64) -> f64 {
    let size = value.abs();
    let area = if size < 1.0 {
        let ratio = size / size.hypot(1.0);
        (ratio.ln_1p() - (-ratio).ln_1p()) / 2.0
    } else {
        (size / 2.0 + size.hypot(1.0) / 2.0).ln() + std::f64::consts::LN_2
    };
    area.copysign(value)
}

/// `label_replace` and `label_join`.
fn relabel(call: &Call, vector: Vec<Element>) -> Result<Vec<Element>, String> {
    let text = |index: usize| match &call.args[index] {
        Expr::String(text) => Ok(text.value.as_str()),
        other => Err(format!("{other} is not a string")),
    };
    let target = text(1)?;
    let mut answer: Vec<Element> = Vec::new();
    for mut element in vector {
        let value = |name: &str| element.labels.get(name).cloned().unwrap_or_default();
        let new = if call.function.id == FunctionId::LabelReplace {
            let source = value(text(3)?);
            let regex = model::Regex::new(text(4)?).map_err(|error| error.to_string())?;
            regex.groups(&source).map(|groups| {
                // These tests use at most two groups, each in the form `$n`.
                (0..=2).fold(text(2).unwrap_or_default().to_owned(), |text, group| {
                    text.replace(&format!("${group}"), groups.get(group).unwrap_or_default())
                })
            })
        } else {
            let parts: Result<Vec<String>, String> =
                (3..call.args.len()).map(|at| Ok(value(text(at)?))).collect();
            Some(parts?.join(text(2)?))
        };
        if let Some(new) = new {
            set_label(&mut element.labels, target, new);
            element.drop_name &= target != "__name__";
        }
        if answer.iter().any(|other| other.labels == element.labels) {
            return Err(SAME_LABELS.to_owned());
        }
        answer.push(element);
    }
    Ok(answer)
}

/// A number in OpenMetrics form, for bounds and quantiles: whole numbers have a fraction.
fn open_metrics(value: f64) -> String {
    let text = match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        _ => value.to_string(),
    };
    if value.is_finite() && value.fract() == 0.0 { text + ".0" } else { text }
}

fn set_label(labels: &mut LabelMap, name: &str, value: String) {
    if value.is_empty() {
        labels.remove(name);
    } else {
        labels.insert(name.to_owned(), value);
    }
}
