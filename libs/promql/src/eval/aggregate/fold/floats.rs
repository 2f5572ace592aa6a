//! The floats of a group while series are folded.

use crate::functions::kahan::{KahanSum, Mean, Spread};
use crate::syntax::ast::AggregateOp;
use crate::value::column::{ABSENT, is_absent};

/// The floats of one group, folded at each step.
#[derive(Clone, Debug)]
pub(super) enum FloatFolds {
    /// Minimum, maximum or `group`: [`ABSENT`] if there was no value.
    Plain(Vec<f64>),
    /// Number of values, floats and histograms.
    Count(Vec<f64>),
    /// Sums; `sums` is [`ABSENT`] if there was no value.
    Sum {
        sums: Vec<f64>,
        rests: Vec<f64>,
    },
    Mean(Vec<Option<Mean>>),
    Spread(Vec<Option<Spread>>),
}

impl FloatFolds {
    pub(super) fn new(op: AggregateOp, steps: usize) -> Self {
        match op {
            AggregateOp::Sum => Self::Sum { sums: vec![ABSENT; steps], rests: vec![0.0; steps] },
            AggregateOp::Avg => Self::Mean(vec![None; steps]),
            AggregateOp::Stddev | AggregateOp::Stdvar => Self::Spread(vec![None; steps]),
            AggregateOp::Count => Self::Count(vec![0.0; steps]),
            _ => Self::Plain(vec![ABSENT; steps]),
        }
    }

    /// Memory in bytes after [`new`](Self::new).
    pub(super) fn size_bytes(op: AggregateOp, steps: usize) -> u64 {
        let size = match op {
            AggregateOp::Sum => 16,
            AggregateOp::Avg => size_of::<Option<Mean>>(),
            AggregateOp::Stddev | AggregateOp::Stdvar => size_of::<Option<Spread>>(),
            _ => 8,
        };
        (steps * size) as u64
    }

    pub(super) fn add(&mut self, op: AggregateOp, values: &[f64]) {
        match self {
            Self::Sum { sums, rests } => {
                for ((sum, rest), &value) in sums.iter_mut().zip(rests).zip(values) {
                    if is_absent(value) {
                        continue;
                    }
                    if is_absent(*sum) {
                        *sum = value;
                    } else {
                        let total = KahanSum { sum: *sum, rest: *rest }.add(value);
                        (*sum, *rest) = (total.sum, total.rest);
                    }
                }
            }
            Self::Count(counts) => {
                for (count, &value) in counts.iter_mut().zip(values) {
                    *count += f64::from(u8::from(!is_absent(value)));
                }
            }
            Self::Plain(best) => {
                for (best, &value) in best.iter_mut().zip(values) {
                    if !is_absent(value) {
                        *best = better(op, *best, value);
                    }
                }
            }
            Self::Mean(means) => {
                for (mean, &value) in means.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
                    match mean {
                        None => *mean = Some(Mean::of(value)),
                        Some(mean) => mean.add(value),
                    }
                }
            }
            Self::Spread(spreads) => {
                for (spread, &value) in spreads.iter_mut().zip(values).filter(|(_, v)| !is_absent(**v)) {
                    match spread {
                        None => *spread = Some(Spread::of(value)),
                        Some(spread) => spread.add(value),
                    }
                }
            }
        }
    }

    pub(super) fn merge(&mut self, op: AggregateOp, other: Self) {
        match (self, other) {
            (Self::Sum { sums, rests }, Self::Sum { sums: more, rests: more_rests }) => {
                let theirs = more.into_iter().zip(more_rests);
                for ((sum, rest), (more, more_rest)) in sums.iter_mut().zip(rests).zip(theirs) {
                    if is_absent(more) {
                        continue;
                    }
                    if is_absent(*sum) {
                        (*sum, *rest) = (more, more_rest);
                    } else {
                        let theirs = KahanSum { sum: more, rest: more_rest };
                        let total = KahanSum { sum: *sum, rest: *rest }.merge(theirs);
                        (*sum, *rest) = (total.sum, total.rest);
                    }
                }
            }
            (Self::Count(counts), Self::Count(more)) => {
                counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            }
            (mine @ Self::Plain(_), Self::Plain(more)) => mine.add(op, &more),
            (Self::Mean(means), Self::Mean(more)) => {
                for (mean, more) in means.iter_mut().zip(more) {
                    match (mean.as_mut(), more) {
                        (Some(mean), Some(more)) => mean.merge(more),
                        (None, more) => *mean = more,
                        (Some(_), None) => {}
                    }
                }
            }
            (Self::Spread(spreads), Self::Spread(more)) => {
                for (spread, more) in spreads.iter_mut().zip(more) {
                    match (spread.as_mut(), more) {
                        (Some(spread), Some(more)) => spread.merge(more),
                        (None, more) => *spread = more,
                        (Some(_), None) => {}
                    }
                }
            }
            // Both come from the same aggregation, so they have the same variant.
            _ => {}
        }
    }

    /// The result at a step; [`ABSENT`] where nothing was seen.
    pub(super) fn value(&self, op: AggregateOp, step: usize) -> f64 {
        match self {
            Self::Plain(values) => values[step],
            Self::Count(counts) if counts[step] == 0.0 => ABSENT,
            Self::Count(counts) => counts[step],
            Self::Sum { sums, .. } if is_absent(sums[step]) => ABSENT,
            Self::Sum { sums, rests } => sums[step] + rests[step],
            Self::Mean(means) => means[step].map_or(ABSENT, |mean| mean.value()),
            Self::Spread(spreads) => spreads[step].map_or(ABSENT, |spread| {
                if op == AggregateOp::Stddev { spread.variance().sqrt() } else { spread.variance() }
            }),
        }
    }
}

/// Which of two values a minimum or maximum keeps: NaN only where there is nothing else.
#[inline(always)]
fn better(op: AggregateOp, best: f64, value: f64) -> f64 {
    let take = match op {
        // Absent is NaN too, so the first value is always taken.
        AggregateOp::Min => best > value || best.is_nan(),
        AggregateOp::Max => best < value || best.is_nan(),
        _ => return 1.0,
    };
    if take { value } else { best }
}
