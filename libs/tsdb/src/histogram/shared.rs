//! Decides whether a histogram continues the chunk of the one before it, and finds the buckets that all histograms share.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, Timestamp, numbered_buckets,
    packed_buckets,
};

use crate::Chunk;
use crate::error::AppendError;
use crate::histogram::encode::HistogramEncoder;

/// How a histogram follows another one of the same series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Continuation {
    /// Both may be in one chunk.
    SameChunk,
    /// They may not: schema, zero threshold, custom bounds or kind differ, the hint announces a reset, or a staleness marker
    /// ends the chunk.
    NewChunk,
    /// They may not, because a count is lower than before: the counter was reset.
    CountsFell,
}

impl Continuation {
    /// How `next` follows `before`.
    pub(crate) fn between(before: &FloatHistogram, next: &FloatHistogram) -> Self {
        if next.is_stale() {
            return Self::SameChunk;
        }
        let is_gauge = |h: &FloatHistogram| h.counter_reset_hint == CounterResetHint::Gauge;
        let same_bounds = next.schema != CUSTOM_BUCKETS_SCHEMA || before.custom_values == next.custom_values;
        if before.is_stale()
            || is_gauge(before) != is_gauge(next)
            || next.counter_reset_hint == CounterResetHint::Reset
            || before.schema != next.schema
            || before.zero_threshold != next.zero_threshold
            || !same_bounds
        {
            return Self::NewChunk;
        }
        let fell = next.count < before.count
            || next.zero_count < before.zero_count
            || fell(
                [&before.positive_spans, &next.positive_spans],
                [&before.positive_buckets, &next.positive_buckets],
            )
            || fell(
                [&before.negative_spans, &next.negative_spans],
                [&before.negative_buckets, &next.negative_buckets],
            );
        if fell && !is_gauge(next) { Self::CountsFell } else { Self::SameChunk }
    }
}

/// Whether a bucket of the first has a lower count in the second, where an absent bucket counts nothing.
fn fell([before_spans, next_spans]: [&[BucketSpan]; 2], [before, next]: [&[f64]; 2]) -> bool {
    if before_spans == next_spans {
        return before.iter().zip(next).any(|(before, next)| next < before);
    }
    let mut next = numbered_buckets(next_spans, next).peekable();
    numbered_buckets(before_spans, before).any(|(number, before)| {
        while next.next_if(|(other, _)| *other < number).is_some() {}
        let now = next.peek().filter(|(other, _)| *other == number).map_or(0.0, |(_, count)| *count);
        now < before
    })
}

/// The buckets of several histograms together, for each side: their numbers in ascending order, and as spans.
pub(crate) struct SharedBuckets {
    positive: (Vec<i64>, Vec<BucketSpan>),
    negative: (Vec<i64>, Vec<BucketSpan>),
}

impl SharedBuckets {
    /// The buckets of `histograms` without staleness markers; none where all have the same.
    pub(crate) fn of<'a>(histograms: impl Iterator<Item = &'a FloatHistogram> + Clone) -> Option<Self> {
        let mut present = histograms.filter(|histogram| !histogram.is_stale());
        let first = present.clone().next()?;
        let same = |other: &FloatHistogram| {
            (&first.positive_spans, &first.negative_spans) == (&other.positive_spans, &other.negative_spans)
        };
        if present.clone().all(same) {
            return None;
        }
        let (mut positive, mut negative) = (BTreeSet::new(), BTreeSet::new());
        present.by_ref().for_each(|h| {
            positive
                .extend(numbered_buckets(&h.positive_spans, &h.positive_buckets).map(|(number, _)| number));
            negative
                .extend(numbered_buckets(&h.negative_spans, &h.negative_buckets).map(|(number, _)| number));
        });
        let side = |numbers: BTreeSet<i64>| {
            let numbers: Vec<i64> = numbers.into_iter().collect();
            let (spans, _) = packed_buckets(numbers.iter().map(|&number| (number, 0.0)));
            (numbers, spans)
        };
        Some(Self { positive: side(positive), negative: side(negative) })
    }

    /// Gives `histogram` these buckets; those that it did not have count nothing.
    ///
    /// # Errors
    /// When its spans do not fit its buckets.
    pub(crate) fn apply(&self, histogram: &mut FloatHistogram) -> Result<(), AppendError> {
        let sides = [
            (&self.positive, &mut histogram.positive_spans, &mut histogram.positive_buckets),
            (&self.negative, &mut histogram.negative_spans, &mut histogram.negative_buckets),
        ];
        for ((numbers, shared), spans, buckets) in sides {
            let described: usize = spans.iter().map(|span| span.length as usize).sum();
            if described != buckets.len() {
                return Err(AppendError::Layout("its spans do not describe as many buckets as it has"));
            }
            if spans != shared {
                *buckets = widened(numbers, spans, buckets);
                spans.clone_from(shared);
            }
        }
        Ok(())
    }
}

/// The counts of the buckets with these numbers, which are all that spans describe and more.
fn widened(numbers: &[i64], spans: &[BucketSpan], buckets: &[f64]) -> Vec<f64> {
    let mut own = numbered_buckets(spans, buckets).peekable();
    let count = |number: &i64| own.next_if(|(other, _)| other == number).map_or(0.0, |(_, count)| count);
    numbers.iter().map(count).collect()
}

impl HistogramEncoder {
    /// One chunk of all `samples`, encoded with float counts; none without samples. Each histogram gets the buckets of all; those
    /// that it did not have count nothing.
    ///
    /// # Errors
    /// When the samples do not ascend, are more than a chunk can count, or differ in schema, zero threshold, custom bounds or
    /// kind (gauge or counter); when a histogram other than the first announces a reset, or its spans do not fit its buckets.
    pub fn encode_all(samples: Vec<(Timestamp, Arc<FloatHistogram>)>) -> Result<Option<Chunk>, AppendError> {
        let shared = SharedBuckets::of(samples.iter().map(|(_, histogram)| &**histogram));
        let mut encoder = Self::float();
        for (at, mut histogram) in samples {
            if let Some(shared) = shared.as_ref().filter(|_| !histogram.is_stale()) {
                shared.apply(Arc::make_mut(&mut histogram))?;
            }
            encoder.append(at, &histogram)?;
        }
        Ok(encoder.finish())
    }
}
