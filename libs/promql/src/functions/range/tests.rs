//! Compares the sliding functions with the window-by-window ones on random series.

use super::*;
use crate::QUERIES;
use crate::value::column::is_absent;
use budget::{Budget, BudgetLimits, Interrupt, TotalBudget};

fn unlimited() -> Budget {
    Budget::new(&TotalBudget::unlimited(&QUERIES), BudgetLimits::UNLIMITED, Interrupt::new())
}

/// A small random number generator. A failure can be repeated from its seed.
struct SeededRandom(u64);

impl SeededRandom {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A series with gaps, resets, repeated values, NaN and infinity.
fn series(random: &mut SeededRandom) -> (Vec<i64>, Vec<f64>) {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    let odd = random.below(3) == 0;
    // A gauge. Read as a counter, it would be reset at every second sample.
    let gauge = random.below(4) == 0;
    let (mut time, mut value) = (random.below(100_000) as i64, 0.0);
    for _ in 0..random.below(400) {
        time += 1 + match random.below(20) {
            0 => random.below(600_000),
            _ => 14_000 + random.below(2000),
        } as i64;
        value = match random.below(30) {
            0 => 0.0,
            1 | 2 => value,
            3 if odd => f64::NAN,
            4 if odd => f64::INFINITY,
            5 | 6 if odd => -0.0,
            7 | 8 if odd => 0.0,
            _ if gauge => random.below(1000) as f64 / 7.0 - 20.0,
            _ => value + random.below(1000) as f64 / 8.0,
        };
        times.push(time);
        values.push(value);
    }
    (times, values)
}

fn close(a: f64, b: f64) -> bool {
    is_absent(a) == is_absent(b)
        && ((a == b && (a != 0.0 || a.is_sign_negative() == b.is_sign_negative()))
            || (a.is_nan() && b.is_nan())
            || (a != b && (a - b).abs() <= 1e-13 * a.abs().max(b.abs())))
}

/// Start timestamps: none at all, or a mix of unknown ones, those of the series, those at a reset, those of
/// deltas and invalid ones.
fn random_starts(random: &mut SeededRandom, times: &[i64]) -> Vec<i64> {
    let mut start = times.first().map_or(0, |first| first - 10_000);
    let mut before = start;
    let start_of = |time: &i64| {
        match random.below(12) {
            0 => start = 0,
            1 => start = before + 1 + random.below(5_000) as i64,
            2 => start = before,
            3 => start = *time - random.below(200_000) as i64,
            4 => start = *time + random.below(2) as i64,
            _ => {}
        }
        before = *time;
        start
    };
    if times.len().is_multiple_of(2) { times.iter().map(start_of).collect() } else { Vec::new() }
}

#[test]
fn sliding_and_window_by_window_results_agree() {
    use FunctionId as F;
    let functions = [
        F::Rate,
        F::Increase,
        F::Delta,
        F::CountOverTime,
        F::PresentOverTime,
        F::FirstOverTime,
        F::LastOverTime,
        F::MaxOverTime,
        F::MinOverTime,
        F::SumOverTime,
        F::AvgOverTime,
        F::Changes,
        F::Resets,
    ];
    for seed in 0..300 {
        let mut random = SeededRandom(seed);
        let (times, values) = series(&mut random);
        let starts = random_starts(&mut random, &times);
        let points = Points { timestamps: &times, values: &values, starts: &starts, ..Points::default() };
        let interval = 1000 + random.below(60_000) as i64;
        let start = random.below(400_000) as i64;
        let steps = Steps::new(start, start + interval * (random.below(300) as i64 - 1), interval);
        let window = Window {
            at: (random.below(10) == 0).then(|| random.below(2_000_000) as i64),
            offset: random.below(60_000) as i64 - 30_000,
            range: 1 + random.below(1_800_000) as i64,
            boundary: Boundary::Plain,
            lookback: 300_000,
        };
        for id in functions {
            let call = RangeCall { function: id, span: Span::default(), budget: unlimited() };
            let function = RangeFunction { call: &call, window: &window, steps: &steps, scalars: &[] };
            let mut fast = Column::absent(steps.count);
            let mut fast_notes = Notes::default();
            let mut notebook = Notebook { notes: &mut fast_notes, metric: "", span: Span::default() };
            let slides = slide::evaluate(&function, points, &mut fast, &mut notebook).unwrap();
            assert!(slides, "{id:?} does not slide");
            let mut slow = Column::absent(steps.count);
            let mut notes = Notes::default();
            let mut notebook = Notebook { notes: &mut notes, metric: "", span: Span::default() };
            evaluate_windows(&function, points, &mut slow, &mut notebook).unwrap();
            assert_eq!(fast_notes.finish(""), notes.finish(""), "seed {seed}, {id:?}");
            for step in 0..steps.count {
                let (fast, slow) = (fast.floats[step], slow.floats[step]);
                assert!(close(fast, slow), "seed {seed}, {id:?}, step {step}: got {fast}, expected {slow}");
            }
        }
    }
}

#[test]
fn resets_of_a_gauge_take_a_few_additions_per_window() {
    for (count, length) in [(1000, 100), (1000, 999), (1000, 1), (5, 1000)] {
        let additions = std::cell::Cell::new(0);
        let number = |at: usize| {
            additions.set(additions.get() + 1);
            at as f64
        };
        let mut sums = slide::Partial::default();
        for end in 1..=count {
            let start = usize::saturating_sub(end, length);
            let sum = sums.sum(start..end, number).value();
            assert_eq!(sum, (start..end).sum::<usize>() as f64, "{start}..{end}");
        }
        assert!(additions.get() <= 2 * count, "{length}: {}", additions.get());
    }
}

#[test]
fn sliding_over_many_samples_reserves_memory() {
    use FunctionId as F;
    let times: Vec<i64> = (0..100_000).map(|at| at * 1000).collect();
    let values: Vec<f64> = times.iter().map(|at| (at / 1000 % 2) as f64).collect();
    let points = Points { timestamps: &times, values: &values, ..Points::default() };
    let window =
        Window { at: None, offset: 0, range: 3_600_000, boundary: Boundary::Plain, lookback: 300_000 };
    let steps = Steps::new(0, 60_000_000, 60_000);
    for (id, bytes) in [
        (F::Rate, 49_999 * 32),
        (F::Resets, 400_000),
        (F::Changes, 400_000),
        (F::MaxOverTime, 1_600_000),
        (F::SumOverTime, 1_600_000),
        (F::Delta, 0),
        (F::CountOverTime, 0),
    ] {
        let evaluate = |limit| {
            let budget =
                Budget::new(&TotalBudget::unlimited(&QUERIES), BudgetLimits::bytes(limit), Interrupt::new());
            let call = RangeCall { function: id, span: Span::default(), budget: budget.clone() };
            let function = RangeFunction { call: &call, window: &window, steps: &steps, scalars: &[] };
            let (mut out, mut notes) = (Column::absent(steps.count), Notes::default());
            let mut notebook = Notebook { notes: &mut notes, metric: "", span: Span::default() };
            slide::evaluate(&function, points, &mut out, &mut notebook).map(|_| budget.peak_bytes())
        };
        assert_eq!(evaluate(u64::MAX).unwrap(), bytes, "{id:?}");
        assert_eq!(evaluate(300_000).is_err(), bytes > 300_000, "{id:?}");
    }
}

fn evaluate_at(
    id: FunctionId,
    boundary: Boundary,
    samples: &[(i64, f64)],
    end: i64,
    range: i64,
) -> Option<f64> {
    let (times, values): (Vec<i64>, Vec<f64>) = samples.iter().copied().unzip();
    let window = Window { at: None, offset: 0, range, boundary, lookback: 300_000 };
    let steps = Steps::single(end);
    let call = RangeCall { function: id, span: Span::default(), budget: unlimited() };
    let function = RangeFunction { call: &call, window: &window, steps: &steps, scalars: &[] };
    let points = Points { timestamps: &times, values: &values, ..Points::default() };
    let mut out = Column::default();
    evaluate(&function, &Labels::empty(), points, &mut out, &mut Notes::default()).unwrap();
    Some(out.floats[0]).filter(|value| !is_absent(*value))
}

#[test]
fn extended_functions_start_at_the_last_sample_before_the_range() {
    let at = |id, samples: &[(i64, f64)]| evaluate_at(id, Boundary::Anchored, samples, 120_000, 60_000);
    let steady = [(60_000, 10.0), (90_000, 20.0), (120_000, 30.0)];
    assert_eq!(at(FunctionId::Xincrease, &steady), Some(20.0));
    assert_eq!(at(FunctionId::Xrate, &steady), Some(20.0 / 60.0));
    let reset = [(60_000, 10.0), (90_000, 4.0), (120_000, 6.0)];
    assert_eq!(at(FunctionId::Xincrease, &reset), Some(6.0));
    assert_eq!(at(FunctionId::Xdelta, &reset), Some(-4.0));
    assert_eq!(at(FunctionId::Xincrease, &[(90_000, 7.0)]), Some(7.0), "the series has just appeared");
    assert_eq!(at(FunctionId::Xrate, &[]), None);
}

#[test]
fn a_window_excludes_its_start_and_includes_its_end() {
    let count = |samples| evaluate_at(FunctionId::CountOverTime, Boundary::Plain, samples, 120_000, 60_000);
    assert_eq!(count(&[(60_000, 1.0), (60_001, 1.0), (120_000, 1.0), (120_001, 1.0)]), Some(2.0));
}
