//! `deriv`, `predict_linear` and `double_exponential_smoothing`: trends of the floats in a window.
//!
//! Behaviour: `linearRegression` and its callers in Prometheus 3.14's `promql/functions.go`.

use crate::error::QueryError;
use crate::functions::kahan::KahanSum;
use crate::functions::range::window::{Notebook, WindowView};
use crate::text::go_f6;

/// The slope per second of the least-squares line, and its value at `origin`.
fn regression(times: &[i64], values: &[f64], origin: i64) -> (f64, f64) {
    let first = values[0];
    if values[1..].iter().all(|v| *v == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let zero = KahanSum::default;
    let (mut x_sum, mut y_sum, mut xy_sum, mut xx_sum) = (zero(), zero(), zero(), zero());
    for (time, y) in times.iter().zip(values) {
        let x = (time - origin) as f64 / 1000.0;
        x_sum = x_sum.add(x);
        y_sum = y_sum.add(*y);
        xy_sum = xy_sum.add(x * y);
        xx_sum = xx_sum.add(x * x);
    }
    let count = values.len() as f64;
    let (x, y, xy, xx) = (x_sum.value(), y_sum.value(), xy_sum.value(), xx_sum.value());
    let covariance = xy - x * y / count;
    let variance = xx - x * x / count;
    let slope = covariance / variance;
    (slope, y / count - slope * x / count)
}

/// Whether there are at least two floats, which a line needs. Adds a note about ignored histograms.
fn enough(view: &WindowView<'_>, notes: &mut Notebook<'_>) -> bool {
    notes.ignored_histograms(view);
    view.points.values.len() >= 2
}

/// The slope per second.
pub(super) fn deriv(view: &WindowView<'_>, notes: &mut Notebook<'_>) -> Option<f64> {
    let times = view.points.timestamps;
    // An origin near the samples keeps the numbers small, which preserves precision.
    enough(view, notes).then(|| regression(times, view.points.values, times[0]).0)
}

/// The predicted value `seconds` after the step.
pub(super) fn predict(view: &WindowView<'_>, seconds: f64, notes: &mut Notebook<'_>) -> Option<f64> {
    enough(view, notes).then(|| {
        let (slope, intercept) = regression(view.points.timestamps, view.points.values, view.time);
        slope * seconds + intercept
    })
}

/// Double exponential smoothing: the last value of the series, with the factor `smoothing` for the value and
/// `trend` for its trend. Both must be between 0 and 1, exclusive.
pub(super) fn smooth(
    view: &WindowView<'_>,
    smoothing: f64,
    trend: f64,
    notes: &mut Notebook<'_>,
) -> Result<Option<f64>, QueryError> {
    // Written so that NaN is accepted, as in Prometheus.
    if smoothing <= 0.0 || smoothing >= 1.0 {
        let text = format!("invalid smoothing factor. Expected: 0 < sf < 1, got: {}", go_f6(smoothing));
        return Err(QueryError::execution(text));
    }
    if trend <= 0.0 || trend >= 1.0 {
        let text = format!("invalid trend factor. Expected: 0 < tf < 1, got: {}", go_f6(trend));
        return Err(QueryError::execution(text));
    }
    if !enough(view, notes) {
        return Ok(None);
    }
    let values = view.points.values;
    let (mut before, mut smoothed, mut slope) = (0.0, values[0], values[1] - values[0]);
    for (at, value) in values.iter().enumerate().skip(1) {
        if at > 1 {
            slope = trend * (smoothed - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * value + (1.0 - smoothing) * (smoothed + slope);
        (before, smoothed) = (smoothed, next);
    }
    Ok(Some(smoothed))
}
