//! The `*_over_time` functions, window by window.
//!
//! Behaviour: the functions of that name in Prometheus 3.14's `promql/functions.go`.

use crate::functions::kahan::{KahanSum, Mean};
use crate::functions::quantile::quantile as quantile_of;
use crate::functions::range::window::{Notebook, WindowValue, WindowView};
use crate::syntax::functions::FunctionId;
use crate::value::note::Note;

/// The value of the function `id` for a window.
pub(super) fn evaluate(id: FunctionId, view: &WindowView<'_>, notes: &mut Notebook<'_>) -> WindowValue {
    use FunctionId as F;
    let (times, values) = (view.points.timestamps, view.points.values);
    let histograms = view.points.histograms;
    match id {
        F::CountOverTime => WindowValue::Float((values.len() + histograms.len()) as f64),
        F::PresentOverTime | F::AbsentOverTime => WindowValue::Float(1.0),
        F::FirstOverTime => match (times.first(), histograms.first()) {
            (Some(float), Some((at, _))) if float < at => WindowValue::Float(values[0]),
            (_, Some((_, histogram))) => WindowValue::Histogram(Box::new((**histogram).clone())),
            (float, None) => float.map(|_| values[0]).into(),
        },
        F::LastOverTime => match (times.last(), histograms.last()) {
            (Some(float), Some((at, _))) if at < float => WindowValue::Float(values[values.len() - 1]),
            (_, Some((_, histogram))) => WindowValue::Histogram(Box::new((**histogram).clone())),
            (float, None) => float.map(|_| values[values.len() - 1]).into(),
        },
        F::TsOfFirstOverTime => {
            times.first().into_iter().chain(histograms.first().map(|(t, _)| t)).min().map(seconds).into()
        }
        F::TsOfLastOverTime => {
            times.last().into_iter().chain(histograms.last().map(|(t, _)| t)).max().map(seconds).into()
        }
        F::SumOverTime => WindowValue::Float(sum(values)),
        F::AvgOverTime => WindowValue::Float(avg(values)),
        _ if values.is_empty() => WindowValue::None,
        _ => {
            notes.ignored_histograms(view);
            WindowValue::Float(floats(id, times, values))
        }
    }
}

fn seconds(millis: &i64) -> f64 {
    *millis as f64 / 1000.0
}

/// The functions that ignore histograms. There is at least one float.
fn floats(id: FunctionId, times: &[i64], values: &[f64]) -> f64 {
    use FunctionId as F;
    match id {
        F::MaxOverTime => extreme(values, |value, best| value > best),
        F::MinOverTime => extreme(values, |value, best| value < best),
        F::TsOfMaxOverTime => time_of_extreme(times, values, |value, best| value >= best),
        F::TsOfMinOverTime => time_of_extreme(times, values, |value, best| value <= best),
        F::StdvarOverTime => variance(values),
        F::StddevOverTime => variance(values).sqrt(),
        F::MadOverTime => deviation(values),
        // All other functions were dispatched before.
        _ => f64::NAN,
    }
}

/// The value that is `better` than all others. NaN only if there is no other value.
fn extreme(values: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
    values.iter().copied().fold(
        values[0],
        |best, value| {
            if better(value, best) || best.is_nan() { value } else { best }
        },
    )
}

fn time_of_extreme(times: &[i64], values: &[f64], better: impl Fn(f64, f64) -> bool) -> f64 {
    let mut best = (times[0], values[0]);
    for (&time, &value) in times.iter().zip(values) {
        if better(value, best.1) || best.1.is_nan() {
            best = (time, value);
        }
    }
    seconds(&best.0)
}

/// The sum, compensated for rounding.
pub(super) fn sum(values: &[f64]) -> f64 {
    let total = values.iter().copied().fold(KahanSum::default(), KahanSum::add);
    if total.sum.is_infinite() { total.sum } else { total.value() }
}

/// The mean. There is at least one value.
pub(super) fn avg(values: &[f64]) -> f64 {
    let mut mean = Mean::of(values[0]);
    values[1..].iter().for_each(|value| mean.add(*value));
    mean.value()
}

fn variance(values: &[f64]) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, KahanSum::default(), KahanSum::default());
    for value in values {
        count += 1.0;
        let delta = value - mean.value();
        mean = mean.add(delta / count);
        squares = squares.add(delta * (value - mean.value()));
    }
    squares.value() / count
}

/// The median of the distances from the median.
fn deviation(values: &[f64]) -> f64 {
    if values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut values = values.to_vec();
    let median = quantile_of(0.5, &mut values);
    values.iter_mut().for_each(|v| *v = (*v - median).abs());
    quantile_of(0.5, &mut values)
}

/// The `q`-quantile of the floats.
pub(super) fn quantile(view: &WindowView<'_>, q: f64, notes: &mut Notebook<'_>) -> Option<f64> {
    if view.points.values.is_empty() {
        return None;
    }
    if !(0.0..=1.0).contains(&q) {
        notes.add(Note::InvalidQuantile(q));
    }
    notes.ignored_histograms(view);
    Some(quantile_of(q, &mut view.points.values.to_vec()))
}
