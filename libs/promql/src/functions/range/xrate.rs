//! Thanos' `xrate`, `xincrease` and `xdelta`: the change from the last sample before the window to its last sample.
//!
//! Behaviour: `extendedRate` in `thanos-io/promql-engine`'s `ringbuffer/functions.go`, without extrapolation.

use super::View;
use crate::syntax::functions::FunctionId;

/// The change of the floats of a window that reaches back by the lookback.
pub(super) fn evaluate(id: FunctionId, view: &View<'_>) -> Option<f64> {
    let (times, values) = (view.points.timestamps, view.points.values);
    // The sample before the window is where the change starts from; without it, the first inside.
    let inside = times.partition_point(|t| *t <= view.start);
    if inside == times.len() {
        return None;
    }
    let first = inside.saturating_sub(1);
    let (counter, per_second) = (id != FunctionId::Xdelta, id == FunctionId::Xrate);
    let mut change = values[values.len() - 1] - values[first];
    if counter {
        for pair in values[first..].windows(2) {
            if pair[1] < pair[0] {
                change += pair[0];
            }
        }
        // A counter that appears inside the window started from zero.
        if inside == 0 && first == 0 {
            change += values[0];
        }
    }
    Some(if per_second { change / view.range_seconds() } else { change })
}
