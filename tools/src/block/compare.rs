//! What differs between two streams of series in the order of their labels.

use std::cmp::Ordering;

use model::Labels;
use series::ChunkSample;

use crate::error::Result;

/// A difference, in the order in which it is found.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Difference {
    /// A series that only one side has.
    Series { labels: Labels, side: DiffSide, samples: u64 },
    /// A sample that only one side has.
    Sample { labels: Labels, side: DiffSide, sample: ChunkSample },
    /// A sample that both sides have at one time, with different values.
    Value { labels: Labels, left: ChunkSample, right: ChunkSample },
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiffSide {
    Left,
    Right,
}

/// Counts of equal and different series and samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Totals {
    /// Series that both sides have, with equal samples.
    pub(super) equal_series: u64,
    /// Series that both sides have, with samples that differ.
    pub(super) different_series: u64,
    pub(super) left_only_series: u64,
    pub(super) right_only_series: u64,
    /// Samples that both sides have, with equal values.
    pub(super) equal_samples: u64,
    /// Samples that both sides have at one time, with different values.
    pub(super) different_samples: u64,
    /// Samples that only one side has, those of its own series included.
    pub(super) left_only_samples: u64,
    pub(super) right_only_samples: u64,
}

impl Totals {
    pub(super) fn is_equal(&self) -> bool {
        let (left, right) = (self.left_only_series + self.left_only_samples, self.right_only_series);
        left + right + self.right_only_samples + self.different_samples == 0
    }

    fn only(&mut self, side: DiffSide, series: u64, samples: u64) {
        let (all_series, all_samples) = match side {
            DiffSide::Left => (&mut self.left_only_series, &mut self.left_only_samples),
            DiffSide::Right => (&mut self.right_only_series, &mut self.right_only_samples),
        };
        *all_series += series;
        *all_samples += samples;
    }
}

/// A series with all of its samples, which ascend in time.
pub(super) type DecodedSeries = (Labels, Vec<ChunkSample>);

/// Walks both streams in parallel and calls `found` for each difference.
///
/// # Errors
/// An error of a stream. The streams must check that their series ascend.
pub(super) fn compare(
    left: impl Iterator<Item = Result<DecodedSeries>>,
    right: impl Iterator<Item = Result<DecodedSeries>>,
    mut found: impl FnMut(Difference) -> Result<()>,
) -> Result<Totals> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    let mut totals = Totals::default();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return Ok(totals),
            (Some(Ok(a)), Some(Ok(b))) => a.0.cmp(&b.0),
            // An error is taken from its stream below.
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(Err(_))) | (None, Some(_)) => Ordering::Greater,
        };
        let mut alone = |side: DiffSide, series: Option<Result<DecodedSeries>>| {
            let Some((labels, samples)) = series.transpose()? else { return Ok(()) };
            totals.only(side, 1, samples.len() as u64);
            found(Difference::Series { labels, side, samples: samples.len() as u64 })
        };
        match order {
            Ordering::Less => alone(DiffSide::Left, left.next())?,
            Ordering::Greater => alone(DiffSide::Right, right.next())?,
            Ordering::Equal => {
                if let (Some(a), Some(b)) = (left.next().transpose()?, right.next().transpose()?) {
                    compare_samples(&a.0, a.1, b.1, &mut totals, &mut found)?;
                }
            }
        }
    }
}

fn compare_samples(
    labels: &Labels,
    left: Vec<ChunkSample>,
    right: Vec<ChunkSample>,
    totals: &mut Totals,
    found: &mut impl FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    let mut differs = false;
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(a), Some(b)) => a.at.cmp(&b.at),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        let (side, sample) = match order {
            Ordering::Less => (DiffSide::Left, left.next()),
            Ordering::Greater => (DiffSide::Right, right.next()),
            Ordering::Equal => {
                if let (Some(a), Some(b)) = (left.next(), right.next()) {
                    if a.value == b.value {
                        totals.equal_samples += 1;
                    } else {
                        differs = true;
                        totals.different_samples += 1;
                        found(Difference::Value { labels: labels.clone(), left: a, right: b })?;
                    }
                }
                continue;
            }
        };
        if let Some(sample) = sample {
            differs = true;
            totals.only(side, 0, 1);
            found(Difference::Sample { labels: labels.clone(), side, sample })?;
        }
    }
    match differs {
        true => totals.different_series += 1,
        false => totals.equal_series += 1,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use series::ChunkSampleValue;
    use tsdb::Encoding;

    use super::*;

    fn series(name: &str, samples: &[(i64, f64)]) -> Result<DecodedSeries> {
        let labels = Labels::from_pairs([("__name__", name)]).unwrap();
        let stored = |(millis, value): &(i64, f64)| ChunkSample {
            at: Timestamp::from_millis(*millis),
            start: Timestamp::EPOCH,
            value: ChunkSampleValue::Float(*value),
            encoding: Encoding::Xor,
        };
        Ok((labels, samples.iter().map(stored).collect()))
    }

    #[test]
    fn differences_are_found_in_order_and_counted() {
        let left = [
            series("a", &[(1, 1.0)]),
            series("b", &[(1, 1.0), (2, 2.0), (4, f64::NAN)]),
            series("d", &[(1, 1.0)]),
        ];
        let right =
            [series("b", &[(1, 1.5), (3, 3.0), (4, f64::NAN)]), series("c", &[]), series("d", &[(1, 1.0)])];
        let mut seen = Vec::new();
        let totals = compare(left.into_iter(), right.into_iter(), |difference| {
            seen.push(match difference {
                Difference::Series { labels, side, .. } => format!("{labels} {side:?}"),
                Difference::Sample { labels, side, sample } => format!("{labels} {side:?} {}", sample.at),
                Difference::Value { labels, left, .. } => format!("{labels} value {}", left.at),
            });
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["a Left", "b value 1", "b Left 2", "b Right 3", "c Right"]);
        let expected = Totals {
            equal_series: 1,
            different_series: 1,
            left_only_series: 1,
            right_only_series: 1,
            equal_samples: 2,
            different_samples: 1,
            left_only_samples: 2,
            right_only_samples: 1,
        };
        assert_eq!(totals, expected);
        assert!(!totals.is_equal());
        assert!(Totals { equal_samples: 5, ..Totals::default() }.is_equal());
    }
}
