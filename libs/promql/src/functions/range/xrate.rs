//! Thanos' `xrate`, `xincrease` and `xdelta`: the change since the last sample before the window, without
//! extrapolation.
//!
//! Behaviour: `extendedRate` in `thanos-io/promql-engine`'s `ringbuffer/functions.go`, for floats.

use crate::functions::range::window::WindowView;
use crate::syntax::functions::FunctionId;

/// The change of the floats in a window. `None` if there are none in the window and none before it within the
/// lookback.
pub(super) fn evaluate(id: FunctionId, view: &WindowView<'_>) -> Option<f64> {
    // The window and the last sample before it.
    let before = view.points.timestamps.partition_point(|t| *t <= view.start).saturating_sub(1);
    let (times, values) = (&view.points.timestamps[before..], &view.points.values[before..]);
    let last = values.len().checked_sub(1)?;
    let (counter, per_second) = (id != FunctionId::Xdelta, id == FunctionId::Xrate);
    let increase = counter && !per_second;
    // A counter that has just appeared started from zero, even if its value has not changed since.
    let appeared = view.appeared.saturating_add(view.range);
    if increase && view.end <= appeared && values.windows(2).all(|pair| pair[0] == pair[1]) {
        return Some(values[0]);
    }
    let mut first = 0;
    let mut sampled = (times[last] - times[0]) as f64;
    let mut distance = sampled / last as f64;
    // A sample too far before the window is ignored.
    if !increase && (view.start - times[0]) as f64 > distance {
        if last < 2 {
            return Some(0.0);
        }
        first = 1;
        sampled = (times[last] - times[1]) as f64;
        distance = sampled / (last - 1) as f64;
    }
    let mut change = values[last] - values[first];
    if counter {
        change +=
            values[first..].windows(2).filter(|pair| pair[1] < pair[0]).map(|pair| pair[0]).sum::<f64>();
    }
    // Samples that cover the whole window are scaled from their own length to the window's.
    if !increase && times[first] <= view.start && ((view.end - times[last]) as f64) < distance {
        change *= view.range as f64 / sampled;
    }
    Some(if per_second { change / view.range_seconds() } else { change })
}
