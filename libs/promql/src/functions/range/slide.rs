//! Functions of float series whose result is kept up to date while the window slides.
//!
//! What is subtracted when a sample leaves must be exact, or rounding errors would pile up over the steps. So counts
//! are subtracted, but sums are not: those over long windows, and of many resets of a counter, are put together from
//! partial sums ([`Partial`]); those of few are added up again.

use std::collections::VecDeque;
use std::ops::Range;

use budget::Reservation;

use crate::error::QueryError;
use crate::functions::kahan::KahanSum;
use crate::functions::range::edges::changed;
use crate::functions::range::extrapolate::Change;
use crate::functions::range::starts::{self, Reading};
use crate::functions::range::{Cursor, Notebook, RangeFunction, over_time};
use crate::syntax::ast::Boundary;
use crate::syntax::functions::FunctionId;
use crate::value::column::{Column, Points};
use crate::value::notes::Note;

/// Windows of fewer samples, or resets, than this are cheaper to add up again than to put together.
const LONG_WINDOW: usize = 32;

/// From numbers as large as this, the order of additions may decide whether they overflow.
const HUGE: f64 = f64::MAX / 1e9;

/// Samples that windows may pass over between two looks at the flag that ends the query. Each step counts as one,
/// and with its whole window, though most need not look at all of it: a look costs less than a step.
const SAMPLES_BETWEEN_LOOKS: usize = 1 << 18;

/// From how many samples on the memory of what slides is held. Less of it is a few pages for each worker.
const HELD_FROM: usize = 4096;

/// Holds `bytes_each` for each of so many samples, if they are many.
fn hold(
    function: &RangeFunction<'_>,
    samples: usize,
    bytes_each: usize,
) -> Result<Option<Reservation>, QueryError> {
    if samples < HELD_FROM {
        return Ok(None);
    }
    let mut hold = Reservation::new(&function.call.budget);
    hold.add(samples as u64 * bytes_each as u64)?;
    Ok(Some(hold))
}

/// Evaluates `function` over floats, if it is one of those that slide. `out` has no values yet.
pub(super) fn evaluate(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut Column,
    notes: &mut Notebook<'_>,
) -> Result<bool, QueryError> {
    use FunctionId as F;
    if function.window.boundary != Boundary::Plain {
        return Ok(false);
    }
    let (times, values) = (points.timestamps, points.values);
    let floats = &mut out.floats;
    match function.call.function {
        F::Rate if !points.starts.is_empty() => rate_with_starts(function, points, floats, true, notes),
        F::Increase if !points.starts.is_empty() => rate_with_starts(function, points, floats, false, notes),
        F::Rate => rate(function, points, floats, true, true),
        F::Increase => rate(function, points, floats, true, false),
        F::Delta => rate(function, points, floats, false, false),
        F::CountOverTime => each(function, times, |step, low, high| floats[step] = (high - low) as f64),
        F::PresentOverTime | F::AbsentOverTime => each(function, times, |step, _, _| floats[step] = 1.0),
        F::FirstOverTime => each(function, times, |step, low, _| floats[step] = values[low]),
        F::LastOverTime => each(function, times, |step, _, high| floats[step] = values[high - 1]),
        F::MaxOverTime => extreme(function, points, floats, |new, old| new > old),
        F::MinOverTime => extreme(function, points, floats, |new, old| new < old),
        F::SumOverTime if !partial(function, points, floats, |total, _| total.value())? => {
            each(function, times, |step, low, high| floats[step] = over_time::sum(&values[low..high]))
        }
        F::AvgOverTime
            if !partial(function, points, floats, |total, count| {
                total.sum / count as f64 + total.rest / count as f64
            })? =>
        {
            each(function, times, |step, low, high| floats[step] = over_time::avg(&values[low..high]))
        }
        F::SumOverTime | F::AvgOverTime => Ok(()),
        F::Changes => edges(function, points, floats, |_, previous, current| changed(previous, current)),
        F::Resets if !points.starts.is_empty() => edges(function, points, floats, |at, previous, current| {
            current < previous || reading(points, at).is_reset_since(reading(points, at - 1))
        }),
        F::Resets => edges(function, points, floats, |_, previous, current| current < previous),
        _ => return Ok(false),
    }?;
    Ok(true)
}

/// Calls `f` with the step and the samples `low..high` of each window that is not empty.
#[inline(always)]
fn each(
    function: &RangeFunction<'_>,
    times: &[i64],
    mut f: impl FnMut(usize, usize, usize),
) -> Result<(), QueryError> {
    each_with_end(function, times, |step, _, low, high| f(step, low, high))
}

/// As [`each`], with the last instant of the window.
#[inline(always)]
fn each_with_end(
    function: &RangeFunction<'_>,
    times: &[i64],
    mut f: impl FnMut(usize, i64, usize, usize),
) -> Result<(), QueryError> {
    let (window, steps) = (function.window, function.steps);
    let mut cursor = Cursor::default();
    let advance = if window.at.is_some() { 0 } else { steps.interval };
    let mut end = window.end(steps.start);
    let mut passed = 0;
    for step in 0..steps.count {
        cursor.slide(times.len(), end.saturating_sub(window.range), end, |at| times[at]);
        if !cursor.is_empty() {
            f(step, end, cursor.low, cursor.high);
        }
        passed += 1 + cursor.high - cursor.low;
        if passed > SAMPLES_BETWEEN_LOOKS {
            passed = 0;
            function.call.budget.check()?;
        }
        end = end.saturating_add(advance);
    }
    Ok(())
}

fn rate(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    counter: bool,
    per_second: bool,
) -> Result<(), QueryError> {
    let (times, values) = (points.timestamps, points.values);
    let mut resets = match counter {
        true => Resets::find(function, values, |_, previous, current| current < previous)?,
        false => Resets::default(),
    };
    let window = function.window;
    let divisor = if per_second { window.range as f64 / 1000.0 } else { 1.0 };
    each_with_end(function, times, |step, end, low, high| {
        if high - low < 2 {
            return;
        }
        let change = resets.add_to(values[high - 1] - values[low], low, high);
        let sampled = Change {
            times: (times[low], times[high - 1]),
            samples: high - low,
            zero: if counter { Some((values[low], change)) } else { None },
        };
        let (covered, interval) = sampled.extent(end.saturating_sub(window.range), end);
        out[step] = change * covered / (interval * divisor);
    })
}

/// `rate` and `increase` of a counter whose samples tell when it began.
fn rate_with_starts(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    per_second: bool,
    notes: &mut Notebook<'_>,
) -> Result<(), QueryError> {
    let (times, values, starts) = (points.timestamps, points.values, points.starts);
    let mut resets = Resets::find(function, values, |at, previous, current| {
        current < previous || reading(points, at).is_reset_since(reading(points, at - 1))
    })?;
    let _hold = hold(function, values.len(), size_of::<usize>())?;
    // Samples that count what the one before them had counted already.
    let overlaps: Vec<usize> =
        (1..values.len()).filter(|&at| reading(points, at).overlaps(reading(points, at - 1))).collect();
    let (mut first_overlap, mut overlapped) = (0, 0);
    let window = function.window;
    let divisor = if per_second { window.range as f64 / 1000.0 } else { 1.0 };
    each_with_end(function, times, |step, end, low, high| {
        let window_start = end.saturating_sub(window.range);
        let start = starts::inside(&starts[low..], times[low], window_start);
        if start.is_none() && high - low < 2 {
            return;
        }
        while overlaps.get(first_overlap).is_some_and(|at| *at <= low) {
            first_overlap += 1;
        }
        overlapped += u64::from(overlaps.get(first_overlap).is_some_and(|at| *at < high));
        let (first, span, samples) = (values[low], (times[low], times[high - 1]), high - low);
        let change = resets.add_to(values[high - 1] - first, low, high);
        out[step] = match start {
            Some(start) => (change + first) * starts::factor(start, span, samples, end) / divisor,
            None => {
                let sampled = Change { times: span, samples, zero: Some((first, change)) };
                let (covered, interval) = sampled.extent(window_start, end);
                change * covered / (interval * divisor)
            }
        };
    })?;
    notes.add_times(Note::StartOverlap(notes.metric), overlapped);
    Ok(())
}

/// When a float was read, and when its counter began.
fn reading(points: Points<'_>, at: usize) -> Reading {
    Reading::of(points.starts, points.timestamps[at], at)
}

/// Where a counter was reset, and what it had come to.
///
/// Prometheus adds what was lost in resets one after the other, in order of time. Up to [`LONG_WINDOW`] resets are added
/// that way here too; more of them are put together from partial sums, whose result is at least as exact.
#[derive(Default)]
struct Resets {
    list: Vec<(usize, f64)>,
    /// Those inside the window: from the first on, and before the last.
    inside: Range<usize>,
    /// What the counter had come to at each of the list, added up; not where the order of additions matters.
    lost: Option<Partial>,
    /// The memory of the list and of partial sums.
    _hold: Option<Reservation>,
}

impl Resets {
    /// Finds the samples, told by their place and by the values before and of them, at which a counter `is_reset`.
    #[inline(always)]
    fn find(
        function: &RangeFunction<'_>,
        values: &[f64],
        is_reset: impl Fn(usize, f64, f64) -> bool,
    ) -> Result<Self, QueryError> {
        let mut list = Vec::new();
        let mut held = None;
        if values.len() >= HELD_FROM {
            let pairs = values.windows(2).enumerate();
            let resets = pairs.filter(|(at, pair)| is_reset(at + 1, pair[0], pair[1])).count();
            held = hold(function, resets, size_of::<(usize, f64)>() + size_of::<KahanSum>())?;
            list.reserve_exact(resets);
        }
        for (at, pair) in values.windows(2).enumerate() {
            if is_reset(at + 1, pair[0], pair[1]) {
                list.push((at + 1, pair[0]));
            }
        }
        let summable = list.len() > LONG_WINDOW && list.iter().all(|(_, value)| value.abs() < HUGE);
        Ok(Self { list, inside: 0..0, lost: summable.then(Partial::default), _hold: held })
    }

    /// `change`, and what a window of the samples `low..high` lost in resets. Windows come in order.
    #[inline(always)]
    fn add_to(&mut self, change: f64, low: usize, high: usize) -> f64 {
        if self.list.is_empty() { change } else { self.add_lost(change, low, high) }
    }

    fn add_lost(&mut self, change: f64, low: usize, high: usize) -> f64 {
        let Range { start, end } = &mut self.inside;
        while self.list.get(*end).is_some_and(|(at, _)| *at < high) {
            *end += 1;
        }
        while *start < *end && self.list[*start].0 <= low {
            *start += 1;
        }
        match &mut self.lost {
            Some(lost) if self.inside.len() > LONG_WINDOW => {
                change + lost.sum(self.inside.clone(), |at| self.list[at].1).value()
            }
            _ => self.list[self.inside.clone()].iter().fold(change, |change, (_, value)| change + value),
        }
    }
}

/// Adds up windows that slide over a list from partial sums, without ever subtracting.
///
/// The list is cut at a pivot. To the left of it, `heads[i]` is the sum of the numbers from `i` to the pivot; to the
/// right, `tail` is the sum from the pivot on. A window is the sum of two of these; when its start passes the pivot,
/// the pivot moves to the window's end. Each number is added twice over the whole list.
#[derive(Default)]
pub(super) struct Partial {
    heads: Vec<KahanSum>,
    heads_start: usize,
    pivot: usize,
    tail: KahanSum,
    tail_end: usize,
}

impl Partial {
    /// The sum of the numbers of a window. Windows come in order.
    #[inline(always)]
    pub(super) fn sum(&mut self, window: Range<usize>, number: impl Fn(usize) -> f64) -> KahanSum {
        if window.start >= self.pivot {
            self.heads.clear();
            (self.heads_start, self.pivot, self.tail_end) = (window.start, window.end, window.end);
            self.tail = KahanSum::default();
            let mut total = KahanSum::default();
            self.heads.extend(window.clone().rev().map(|at| {
                total = total.add(number(at));
                total
            }));
            self.heads.reverse();
        }
        while self.tail_end < window.end {
            self.tail = self.tail.add(number(self.tail_end));
            self.tail_end += 1;
        }
        // An empty window has no head.
        let head = self.heads.get(window.start - self.heads_start).copied().unwrap_or_default();
        head.merge(self.tail)
    }
}

/// Keeps the candidates for the extreme: a value leaves when a later one is better or the same. Of zeros with different
/// signs, which are equally good, the first counts.
fn extreme(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    better: impl Fn(f64, f64) -> bool,
) -> Result<(), QueryError> {
    let values = points.values;
    // As many as the samples of a window that rises or falls all along, and they double.
    let _hold = hold(function, values.len(), 2 * size_of::<usize>())?;
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
    })
}

/// Counts the samples in each window that `differ` from the one before: told by their place and by both values.
fn edges(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    differ: impl Fn(usize, f64, f64) -> bool,
) -> Result<(), QueryError> {
    let values = points.values;
    let _hold = hold(function, values.len(), size_of::<u32>())?;
    // `counts[i]`: how many of the pairs that end at or before sample `i` differ.
    let mut counts = Vec::with_capacity(values.len());
    let mut total = 0u32;
    counts.extend(values.first().map(|_| 0));
    for (at, pair) in values.windows(2).enumerate() {
        total += u32::from(differ(at + 1, pair[0], pair[1]));
        counts.push(total);
    }
    each(function, points.timestamps, |step, low, high| {
        out[step] = f64::from(counts[high - 1] - counts[low]);
    })
}

/// Adds up long windows with [`Partial`].
///
/// Returns `false`, having done nothing, where windows are short or where numbers are so large that the order of
/// additions decides whether they overflow.
fn partial(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    finish: impl Fn(KahanSum, usize) -> f64,
) -> Result<bool, QueryError> {
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
        return Ok(false);
    }
    let _hold = hold(function, values.len(), size_of::<KahanSum>())?;
    let mut sums = Partial::default();
    each(function, times, |step, low, high| {
        out[step] = finish(sums.sum(low..high, |at| values[at]), high - low);
    })?;
    Ok(true)
}
