//! Skips chunks that no step reads.
//!
//! If steps are further apart than their windows are long, there are gaps between the windows: a month of data at a step of
//! three hours with a lookback of five minutes needs one chunk in six.

use series::{AggrChunk, SelectedSeries};

use crate::plan::node::{Leaf, LeafKind};
use crate::syntax::ast::Boundary;
use crate::value::steps::{Steps, Window};

/// Whether the windows of a leaf may have gaps between them in which samples do not matter.
pub(crate) fn has_gaps(leaf: &Leaf, steps: &Steps) -> bool {
    let window = &leaf.window;
    steps.count > 1
        && steps.interval > window.range
        && window.at.is_none()
        // Other boundaries read samples outside the window too.
        && window.boundary == Boundary::Plain
        // Resets are detected from one histogram to the next.
        && !leaf.statistics
        && !matches!(leaf.kind, LeafKind::Raw)
}

/// The series with only the chunks that overlap a window. `None` if all of them do, or if skipping chunks could change how the
/// remaining ones are read: several replicas, overlapping chunks, downsampled counters, histograms.
pub(crate) fn touched(series: &SelectedSeries, window: &Window, steps: &Steps) -> Option<SelectedSeries> {
    let [lane] = series.replicas.as_slice() else { return None };
    let plain = |chunk: &AggrChunk| chunk.raw.as_ref().is_some_and(|raw| raw.encoding.holds_floats());
    let apart = lane.windows(2).all(|pair| pair[0].range().max < pair[1].range().min);
    if !apart || !lane.iter().all(plain) {
        return None;
    }
    let touches = |chunk: &AggrChunk| {
        let range = chunk.range();
        is_touched(range.min.as_millis(), range.max.as_millis(), window, steps)
    };
    if lane.iter().all(touches) {
        return None;
    }
    let kept = lane.iter().filter(|chunk| touches(chunk)).cloned().collect();
    Some(SelectedSeries { labels: series.labels.clone(), replicas: vec![kept] })
}

/// Whether a window overlaps the range from `min` to `max`, both included.
fn is_touched(min: i64, max: i64, window: &Window, steps: &Steps) -> bool {
    let first_end = i128::from(window.end(steps.start));
    let interval = i128::from(steps.interval);
    // The first window that does not end before the range begins.
    let behind = (i128::from(min) - first_end).max(0);
    let step = (behind + interval - 1) / interval;
    let end = first_end + step * interval;
    step < steps.count as i128 && end - i128::from(window.range) < i128::from(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_overlaps_a_window_if_a_step_could_see_a_sample_in_it() {
        let window = Window { at: None, offset: 7, range: 10, boundary: Boundary::Plain, lookback: 10 };
        let steps = Steps::new(100, 190, 30);
        let seen = |time: i64| steps.times().any(|s| time > window.start(s) && time <= window.end(s));
        for min in 50..230 {
            for max in min..230 {
                assert_eq!(is_touched(min, max, &window, &steps), (min..=max).any(seen), "{min} to {max}");
            }
        }
    }
}
