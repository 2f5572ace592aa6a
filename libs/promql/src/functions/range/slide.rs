//! Functions of float series whose result is kept up to date while the window slides.
//!
//! What is subtracted when a sample leaves must be exact, or rounding errors would pile up over the steps. So counts
//! are subtracted, but sums are not: a counter's resets are added up again from a list of the (few) resets, and sums
//! over long windows are put together from partial sums ([`partial`]).

use std::collections::VecDeque;

use super::edges::changed;
use super::extrapolate::Change;
use super::{Cursor, RangeFunction, over_time};
use crate::eval::column::{Column, Points};
use crate::functions::kahan::KahanSum;
use crate::syntax::ast::Boundary;
use crate::syntax::functions::FunctionId;

/// Windows of fewer samples than this are cheaper to add up again than to put together.
const LONG_WINDOW: usize = 32;

/// Evaluates `function` over floats, if it is one of those that slide. `out` has no values yet.
pub(super) fn evaluate(function: &RangeFunction<'_>, points: Points<'_>, out: &mut Column) -> bool {
    use FunctionId as F;
    if function.window.boundary != Boundary::Plain {
        return false;
    }
    let (times, values) = (points.timestamps, points.values);
    let floats = &mut out.floats;
    match function.call.function {
        // With start timestamps, each window is looked at by itself.
        F::Rate | F::Increase | F::Resets if !points.starts.is_empty() => return false,
        F::Rate => rate(function, points, floats, true, true),
        F::Increase => rate(function, points, floats, true, false),
        F::Delta => rate(function, points, floats, false, false),
        F::CountOverTime => each(function, times, |step, low, high| floats[step] = (high - low) as f64),
        F::PresentOverTime | F::AbsentOverTime => each(function, times, |step, _, _| floats[step] = 1.0),
        F::FirstOverTime => each(function, times, |step, low, _| floats[step] = values[low]),
        F::LastOverTime => each(function, times, |step, _, high| floats[step] = values[high - 1]),
        F::MaxOverTime => extreme(function, points, floats, |new, old| new > old),
        F::MinOverTime => extreme(function, points, floats, |new, old| new < old),
        F::SumOverTime if !partial(function, points, floats, |total, _| total.value()) => {
            each(function, times, |step, low, high| floats[step] = over_time::sum(&values[low..high]));
        }
        F::AvgOverTime
            if !partial(function, points, floats, |total, count| {
                total.sum / count as f64 + total.rest / count as f64
            }) =>
        {
            each(function, times, |step, low, high| floats[step] = over_time::avg(&values[low..high]));
        }
        F::SumOverTime | F::AvgOverTime => {}
        F::Changes => edges(function, points, floats, changed),
        F::Resets => edges(function, points, floats, |previous, current| current < previous),
        _ => return false,
    }
    true
}

/// Calls `f` with the step and the samples `low..high` of each window that is not empty.
#[inline(always)]
fn each(function: &RangeFunction<'_>, times: &[i64], mut f: impl FnMut(usize, usize, usize)) {
    each_with_end(function, times, |step, _, low, high| f(step, low, high));
}

/// As [`each`], with the last instant of the window.
#[inline(always)]
fn each_with_end(function: &RangeFunction<'_>, times: &[i64], mut f: impl FnMut(usize, i64, usize, usize)) {
    let (window, steps) = (function.window, function.steps);
    let mut cursor = Cursor::default();
    let advance = if window.at.is_some() { 0 } else { steps.interval };
    let mut end = window.end(steps.start);
    for step in 0..steps.count {
        cursor.slide(times.len(), end.saturating_sub(window.range), end, |at| times[at]);
        if !cursor.is_empty() {
            f(step, end, cursor.low, cursor.high);
        }
        end = end.saturating_add(advance);
    }
}

fn rate(function: &RangeFunction<'_>, points: Points<'_>, out: &mut [f64], counter: bool, per_second: bool) {
    let (times, values) = (points.timestamps, points.values);
    // Where a counter was reset, and what it had come to.
    let mut resets: Vec<(usize, f64)> = Vec::new();
    if counter {
        for (at, pair) in values.windows(2).enumerate() {
            if pair[1] < pair[0] {
                resets.push((at + 1, pair[0]));
            }
        }
    }
    let mut first_reset = 0;
    let window = function.window;
    let divisor = if per_second { window.range as f64 / 1000.0 } else { 1.0 };
    each_with_end(function, times, |step, end, low, high| {
        if high - low < 2 {
            return;
        }
        let mut change = values[high - 1] - values[low];
        if !resets.is_empty() {
            while resets.get(first_reset).is_some_and(|(at, _)| *at <= low) {
                first_reset += 1;
            }
            for (_, value) in resets[first_reset..].iter().take_while(|(at, _)| *at < high) {
                change += value;
            }
        }
        let sampled = Change {
            times: (times[low], times[high - 1]),
            samples: high - low,
            zero: if counter { Some((values[low], change)) } else { None },
        };
        let (covered, interval) = sampled.extent(end.saturating_sub(window.range), end);
        out[step] = change * covered / (interval * divisor);
    });
}

/// Keeps the candidates for the extreme: a value leaves when a later one is better or the same. Of zeros with different
/// signs, which are equally good, the first counts.
fn extreme(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    better: impl Fn(f64, f64) -> bool,
) {
    let values = points.values;
    let mut candidates: VecDeque<usize> = VecDeque::new();
    let mut seen = 0;
    each(function, points.timestamps, |step, low, high| {
        seen = seen.max(low);
        while seen < high {
            let value = values[seen];
            if !value.is_nan() {
                let beaten = |old: f64| better(value, old) || value.to_bits() == old.to_bits();
                while candidates.back().is_some_and(|at| beaten(values[*at])) {
                    candidates.pop_back();
                }
                candidates.push_back(seen);
            }
            seen += 1;
        }
        while candidates.front().is_some_and(|at| *at < low) {
            candidates.pop_front();
        }
        out[step] = candidates.front().map_or(f64::NAN, |at| values[*at]);
    });
}

/// Counts the pairs of neighbours in each window that `differ`.
fn edges(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    differ: impl Fn(f64, f64) -> bool,
) {
    let values = points.values;
    // `counts[i]`: how many of the pairs that end at or before sample `i` differ.
    let mut counts = Vec::with_capacity(values.len());
    let mut total = 0u32;
    counts.extend(values.first().map(|_| 0));
    for pair in values.windows(2) {
        total += u32::from(differ(pair[0], pair[1]));
        counts.push(total);
    }
    each(function, points.timestamps, |step, low, high| {
        out[step] = f64::from(counts[high - 1] - counts[low]);
    });
}

/// Adds up long windows from partial sums, without ever subtracting.
///
/// The samples are cut at a pivot. To the left of it, `heads[i]` is the sum of the samples from `i` to the pivot; to the
/// right, `tail` is the sum from the pivot on. A window is the sum of two of these; when its start passes the pivot,
/// the pivot moves to the window's end. Each sample is added twice over the whole series.
///
/// Returns `false`, having done nothing, where windows are short or where numbers are so large that the order of
/// additions decides whether they overflow.
fn partial(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    finish: impl Fn(KahanSum, usize) -> f64,
) -> bool {
    const HUGE: f64 = f64::MAX / 1e9;
    let (times, values) = (points.timestamps, points.values);
    let overlap = function.window.range / function.steps.interval.max(1);
    let dense = match (times.first(), times.last()) {
        (Some(first), Some(last)) if last > first => {
            let spacing = (last - first) / (times.len() as i64 - 1).max(1);
            function.window.range / spacing.max(1) >= LONG_WINDOW as i64
        }
        _ => false,
    };
    if overlap < 4 || !dense || function.window.at.is_some() || !values.iter().all(|v| v.abs() < HUGE) {
        return false;
    }
    let mut heads: Vec<KahanSum> = Vec::new();
    let (mut heads_start, mut pivot, mut tail_end) = (0, 0, 0);
    let mut tail = KahanSum::default();
    each(function, times, |step, low, high| {
        if low >= pivot {
            heads.clear();
            (heads_start, pivot, tail_end) = (low, high, high);
            tail = KahanSum::default();
            let mut total = KahanSum::default();
            heads.extend(values[low..high].iter().rev().map(|value| {
                total = total.add(*value);
                total
            }));
            heads.reverse();
        }
        while tail_end < high {
            tail = tail.add(values[tail_end]);
            tail_end += 1;
        }
        let head = heads.get(low - heads_start).copied().unwrap_or_default();
        out[step] = finish(head.merge(tail), high - low);
    });
    true
}
