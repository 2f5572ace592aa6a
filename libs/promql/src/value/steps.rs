//! The instants at which an expression is evaluated, and the range of time that each of them reads.

use crate::syntax::ast::Boundary;

/// Evenly spaced instants in milliseconds: `start`, `start + interval`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    /// The first instant.
    pub(crate) start: i64,
    /// Distance between instants; at least 1, also if there is only one.
    pub(crate) interval: i64,
    /// Number of instants; may be 0.
    pub(crate) count: usize,
    /// No instant is after this one. The last instant may be earlier.
    pub(crate) end: i64,
}

impl Steps {
    /// One instant.
    pub(crate) fn single(at: i64) -> Self {
        Self { start: at, interval: 1, count: 1, end: at }
    }

    /// The instants from `start` to `end`, which is included if it is a multiple of the interval away.
    pub(crate) fn new(start: i64, end: i64, interval: i64) -> Self {
        let interval = interval.max(1);
        let span = i128::from(end) - i128::from(start);
        let count =
            if span < 0 { 0 } else { usize::try_from(span / i128::from(interval) + 1).unwrap_or(usize::MAX) };
        Self { start, interval, count, end }
    }

    /// The instant of step `index`.
    pub(crate) fn time(&self, index: usize) -> i64 {
        self.start.saturating_add(self.interval.saturating_mul(index as i64))
    }

    /// All instants in order.
    #[cfg(test)]
    pub(crate) fn times(&self) -> impl Iterator<Item = i64> + '_ {
        (0..self.count).map(|index| self.time(index))
    }

    /// The last instant; `start` if there is none.
    pub(crate) fn last(&self) -> i64 {
        self.time(self.count.saturating_sub(1))
    }

    /// The instants of a subquery with this step whose range ends at instants of `self`.
    ///
    /// They are multiples of the step, so that queries at later times use the same instants.
    pub(crate) fn subquery(&self, window: &Window, interval: i64) -> Self {
        let interval = interval.max(1);
        let first = window.start(self.start);
        let mut start = interval * (first / interval);
        if start <= first {
            start = start.saturating_add(interval);
        }
        Self::new(start, window.end(self.last()), interval)
    }
}

/// Which samples a step sees: those after `end - range` and not after `end`, where `end` is the instant of the step or
/// of `@`, moved into the past by the offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    /// The instant of `@`.
    pub(crate) at: Option<i64>,
    /// Milliseconds into the past; negative for the future.
    pub(crate) offset: i64,
    /// Its length in milliseconds: a range, or the lookback of an instant selector.
    pub(crate) range: i64,
    /// Whether samples around the window matter too.
    pub(crate) boundary: Boundary,
    /// How far from the window samples matter, in milliseconds.
    pub(crate) lookback: i64,
}

impl Window {
    /// The last instant that belongs to the window of step time `time`.
    pub(crate) fn end(&self, time: i64) -> i64 {
        self.at.unwrap_or(time).saturating_sub(self.offset)
    }

    /// The instant before the first that belongs to the window of step time `time`.
    pub(crate) fn start(&self, time: i64) -> i64 {
        self.end(time).saturating_sub(self.range)
    }

    /// The first and last instant at which a sample can matter to any step.
    pub(crate) fn needs(&self, steps: &Steps) -> (i64, i64) {
        let (before, after) = self.margins();
        let first = self.start(steps.start).saturating_sub(before).saturating_add(1);
        (first, self.end(steps.last()).saturating_add(after))
    }

    /// How many milliseconds before the start and after the end of the window samples are read.
    pub(crate) fn margins(&self) -> (i64, i64) {
        match self.boundary {
            Boundary::Plain => (0, 0),
            Boundary::Anchored => (self.lookback, 0),
            Boundary::Smoothed => (self.lookback, self.lookback),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(range: i64, offset: i64, at: Option<i64>) -> Window {
        Window { at, offset, range, boundary: Boundary::Plain, lookback: 300 }
    }

    #[test]
    fn the_last_instant_is_not_after_the_end() {
        assert_eq!(Steps::new(0, 25, 10).times().collect::<Vec<_>>(), [0, 10, 20]);
        assert_eq!(Steps::new(5, 4, 10).count, 0);
        assert_eq!(Steps::new(i64::MIN, i64::MAX, 1).count, usize::MAX);
    }

    #[test]
    fn subquery_steps_are_multiples_of_the_step_inside_the_left_open_range() {
        let outer = Steps::new(100, 130, 30);
        assert_eq!(outer.subquery(&window(50, 0, None), 20), Steps::new(60, 130, 20));
        assert_eq!(outer.subquery(&window(40, 0, None), 20), Steps::new(80, 130, 20));
        assert_eq!(outer.subquery(&window(50, 10, Some(50)), 20), Steps::new(0, 40, 20));
    }

    #[test]
    fn a_window_is_open_on_the_left() {
        assert_eq!(window(50, 10, None).needs(&Steps::new(100, 200, 50)), (41, 190));
    }
}
