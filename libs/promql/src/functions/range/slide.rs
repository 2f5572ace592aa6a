//! Functions of float series that update their result while the window slides.
//!
//! Subtracting a sample that leaves the window must be exact, or rounding errors would accumulate over the
//! steps. Counts are exact, so they are subtracted. Sums are not: over long windows, and over many resets of
//! a counter, they are composed of partial sums ([`Partial`]); over short windows and few resets they are
//! computed again for each step.

use std::collections::VecDeque;
use std::ops::Range;

use budget::Reservation;

use crate::error::QueryError;
use crate::functions::kahan::KahanSum;
use crate::functions::range::edges::changed;
use crate::functions::range::extrapolate::Change;
use crate::functions::range::over_time;
use crate::functions::range::starts::{self, CounterReading};
use crate::functions::range::window::{Notebook, RangeFunction, SampleCursor};
use crate::syntax::ast::Boundary;
use crate::syntax::functions::FunctionId;
use crate::value::column::{Column, Points};
use crate::value::note::Note;

/// Windows with fewer samples, or fewer resets, than this are cheaper to add up again than to compose of
/// partial sums.
const LONG_WINDOW: usize = 32;

/// With numbers of this size or larger, the order of additions may decide whether they overflow.
const HUGE: f64 = f64::MAX / 1e9;

/// Number of samples in the windows between two checks for cancellation. Each step counts as one plus the
/// length of its window, although most steps do not read the whole window: a check costs less than a step.
const SAMPLES_BETWEEN_CHECKS: usize = 1 << 18;

/// From this number of samples on, the memory for sliding is reserved in the budget. For fewer samples it is
/// a few pages per worker.
const RESERVE_FROM: usize = 4096;

/// Reserves `bytes_each` for each of `samples`, if there are at least [`RESERVE_FROM`].
fn reserve(
    function: &RangeFunction<'_>,
    samples: usize,
    bytes_each: usize,
) -> Result<Option<Reservation>, QueryError> {
    if samples < RESERVE_FROM {
        return Ok(None);
    }
    let mut hold = Reservation::new(&function.call.budget);
    hold.add(samples as u64 * bytes_each as u64)?;
    Ok(Some(hold))
}

/// Evaluates `function` over floats. Returns `false` if it is not a sliding function. `out` has no values
/// yet.
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

/// Like [`each`], and also passes the end of the window.
#[inline(always)]
fn each_with_end(
    function: &RangeFunction<'_>,
    times: &[i64],
    mut f: impl FnMut(usize, i64, usize, usize),
) -> Result<(), QueryError> {
    let (window, steps) = (function.window, function.steps);
    let mut cursor = SampleCursor::default();
    let advance = if window.at.is_some() { 0 } else { steps.interval };
    let mut end = window.end(steps.start);
    let mut passed = 0;
    for step in 0..steps.count {
        cursor.slide(times.len(), end.saturating_sub(window.range), end, |at| times[at]);
        if !cursor.is_empty() {
            f(step, end, cursor.low, cursor.high);
        }
        passed += 1 + cursor.high - cursor.low;
        if passed > SAMPLES_BETWEEN_CHECKS {
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

/// `rate` and `increase` of a counter whose samples have start timestamps.
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
    let _hold = reserve(function, values.len(), size_of::<usize>())?;
    // Samples that include increases which the sample before them already included.
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

/// The time of a float and the start of its counter.
fn reading(points: Points<'_>, at: usize) -> CounterReading {
    CounterReading::of(points.starts, points.timestamps[at], at)
}

/// Where a counter was reset, and its values before the resets.
///
/// Prometheus adds what was lost in resets one after the other, in order of time. Up to [`LONG_WINDOW`]
/// resets are added in this way here, too. More resets are composed of partial sums, whose result is at least
/// as exact.
#[derive(Default)]
struct Resets {
    list: Vec<(usize, f64)>,
    /// The resets inside the window, as indexes into `list`.
    inside: Range<usize>,
    /// Partial sums of the lost values. `None` if the order of additions matters.
    lost: Option<Partial>,
    /// The reservation for the memory of the list and of the partial sums.
    _hold: Option<Reservation>,
}

impl Resets {
    /// Finds the samples for which `is_reset` returns true. It is called with the index of a sample, the
    /// value before it and its value.
    #[inline(always)]
    fn find(
        function: &RangeFunction<'_>,
        values: &[f64],
        is_reset: impl Fn(usize, f64, f64) -> bool,
    ) -> Result<Self, QueryError> {
        let mut list = Vec::new();
        let mut held = None;
        if values.len() >= RESERVE_FROM {
            let pairs = values.windows(2).enumerate();
            let resets = pairs.filter(|(at, pair)| is_reset(at + 1, pair[0], pair[1])).count();
            held = reserve(function, resets, size_of::<(usize, f64)>() + size_of::<KahanSum>())?;
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

    /// Adds to `change` what a window of the samples `low..high` lost in resets. Windows must be visited in
    /// order.
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

/// Sums of windows that slide over a list, composed of partial sums without any subtraction.
///
/// The list is divided at a pivot. Left of it, `heads[i]` is the sum of the numbers from `i` up to the pivot.
/// Right of it, `tail` is the sum from the pivot on. The sum of a window is the sum of one head and the tail.
/// When the start of the window passes the pivot, the pivot moves to the end of the window. Each number is
/// added twice in total.
#[derive(Default)]
pub(super) struct Partial {
    heads: Vec<KahanSum>,
    heads_start: usize,
    pivot: usize,
    tail: KahanSum,
    tail_end: usize,
}

impl Partial {
    /// The sum of the numbers of a window. Windows must be visited in order.
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

/// Keeps a list of candidates for the extreme value. A candidate is removed when a later value is better or
/// equal. Of zeros with different signs, which are equal, the first one counts.
fn extreme(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    better: impl Fn(f64, f64) -> bool,
) -> Result<(), QueryError> {
    let values = points.values;
    // In a window whose values only rise or only fall, every sample is a candidate, and the queue doubles
    // when it grows.
    let _hold = reserve(function, values.len(), 2 * size_of::<usize>())?;
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

/// Counts the samples of each window for which `differ` returns true. It is called with the index of a
/// sample, the value before it and its value.
fn edges(
    function: &RangeFunction<'_>,
    points: Points<'_>,
    out: &mut [f64],
    differ: impl Fn(usize, f64, f64) -> bool,
) -> Result<(), QueryError> {
    let values = points.values;
    let _hold = reserve(function, values.len(), size_of::<u32>())?;
    // `counts[i]` is the number of differing pairs that end at or before sample `i`.
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
/// Returns `false` and does nothing if windows are short, or if numbers are so large that the order of
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
    let _hold = reserve(function, values.len(), size_of::<KahanSum>())?;
    let mut sums = Partial::default();
    each(function, times, |step, low, high| {
        out[step] = finish(sums.sum(low..high, |at| values[at]), high - low);
    })?;
    Ok(true)
}
