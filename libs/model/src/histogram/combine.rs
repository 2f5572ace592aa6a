//! Arithmetic on histograms.
//!
//! Before two exponential histograms are combined, both are converted to the coarser schema and the wider
//! zero bucket. Two histograms with custom buckets are converted to the bounds that both have. Behaviour:
//! `Add`, `Sub`, `KahanAdd`, `Mul`, `Div` and `Compact` in Prometheus 3.14's
//! `model/histogram/float_histogram.go`.

use crate::histogram::buckets::{bound, numbered_buckets, packed_buckets};
use crate::histogram::{CounterResetHint, FloatHistogram};

/// One histogram has custom buckets and the other exponential ones, so they cannot be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("histograms with exponential and custom buckets cannot be combined")]
pub struct IncompatibleSchemas;

/// What was necessary to combine two histograms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// One histogram's hint was "reset" and the other's "no reset".
    pub collision: bool,
    /// Their custom bounds differed, so only the common bounds were kept.
    pub reconciled: bool,
}

/// A numbered bucket, with the part of its count that rounding has lost.
#[derive(Clone, Copy, Debug)]
struct NumberedBucket {
    index: i64,
    count: f64,
    lost: f64,
}

/// Adds `value` to `sum`, and to `lost` what rounding loses: Kahan summation in Neumaier's form.
fn kahan(value: f64, sum: &mut f64, lost: &mut f64) {
    let total = *sum + value;
    let rest = if sum.abs() >= value.abs() { (*sum - total) + value } else { (value - total) + *sum };
    *lost = if total.is_infinite() { 0.0 } else { *lost + rest };
    *sum = total;
}

/// The zero bucket and both sides of a histogram, all in one schema.
struct Sides {
    schema: i32,
    threshold: f64,
    zero: f64,
    zero_lost: f64,
    positive: Vec<NumberedBucket>,
    negative: Vec<NumberedBucket>,
}

impl Sides {
    fn of(histogram: &FloatHistogram, lost: Option<&FloatHistogram>) -> Self {
        let side = |spans, buckets, lost: Option<&[f64]>| {
            let cells = numbered_buckets(spans, buckets).enumerate();
            cells
                .map(|(at, (index, count))| NumberedBucket {
                    index,
                    count,
                    lost: lost.and_then(|l| l.get(at)).copied().unwrap_or(0.0),
                })
                .collect()
        };
        Self {
            schema: histogram.schema,
            threshold: histogram.zero_threshold,
            zero: histogram.zero_count,
            zero_lost: lost.map_or(0.0, |l| l.zero_count),
            positive: side(
                &histogram.positive_spans,
                &histogram.positive_buckets,
                lost.map(|l| l.positive_buckets.as_slice()),
            ),
            negative: side(
                &histogram.negative_spans,
                &histogram.negative_buckets,
                lost.map(|l| l.negative_buckets.as_slice()),
            ),
        }
    }

    /// Widens the zero bucket to `threshold`, or to the outer bound of the populated bucket that `threshold`
    /// would cut.
    fn widen(&mut self, mut threshold: f64) {
        let (mut zero, mut lost);
        'again: loop {
            (zero, lost) = (self.zero, self.zero_lost);
            for (negative, cells) in [(false, &self.positive), (true, &self.negative)] {
                for cell in cells {
                    if bound(cell.index - 1, self.schema, &[]) >= threshold {
                        break;
                    }
                    kahan(cell.count, &mut zero, &mut lost);
                    kahan(cell.lost, &mut zero, &mut lost);
                    let end = bound(cell.index, self.schema, &[]);
                    if end > threshold {
                        if cell.count != 0.0 {
                            threshold = end;
                            if negative {
                                // The positive side was checked with a threshold that was too small.
                                continue 'again;
                            }
                        }
                        break;
                    }
                }
            }
            break;
        }
        (self.zero, self.zero_lost, self.threshold) = (zero, lost, threshold);
        let schema = self.schema;
        let outside = |cell: &NumberedBucket| bound(cell.index - 1, schema, &[]) >= threshold;
        self.positive.retain(outside);
        self.negative.retain(outside);
    }

    /// Merges buckets into those of a coarser schema.
    fn coarsen(&mut self, schema: i32) {
        let shift = self.schema.saturating_sub(schema).clamp(0, 31);
        if shift > 0 {
            for cells in [&mut self.positive, &mut self.negative] {
                for cell in cells.iter_mut() {
                    cell.index = ((cell.index - 1) >> shift) + 1;
                }
                cells.dedup_by(|later, kept| {
                    let same = later.index == kept.index;
                    if same {
                        kahan(later.count, &mut kept.count, &mut kept.lost);
                        kahan(later.lost, &mut kept.count, &mut kept.lost);
                    }
                    same
                });
            }
            self.schema = schema;
        }
    }
}

/// Adds the buckets of `other`, times `sign`, to `cells`. Both are in ascending order.
fn merge(cells: Vec<NumberedBucket>, other: &[NumberedBucket], sign: f64) -> Vec<NumberedBucket> {
    let mut merged = Vec::with_capacity(cells.len() + other.len());
    let mut other = other.iter().peekable();
    for mut cell in cells {
        while let Some(new) = other.next_if(|new| new.index < cell.index) {
            merged.push(NumberedBucket { count: sign * new.count, ..*new });
        }
        if let Some(same) = other.next_if(|same| same.index == cell.index) {
            kahan(sign * same.count, &mut cell.count, &mut cell.lost);
            kahan(sign * same.lost, &mut cell.count, &mut cell.lost);
        }
        merged.push(cell);
    }
    merged.extend(other.map(|new| NumberedBucket { count: sign * new.count, ..*new }));
    merged
}

/// The bounds that both lists have.
fn common_bounds(a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut b = b.iter().peekable();
    let shared = a.iter().filter(|bound| {
        while b.next_if(|other| other < bound).is_some() {}
        b.peek() == Some(bound)
    });
    shared.copied().collect()
}

/// Merges buckets with custom bounds `from` into buckets with bounds `to`, a subset of `from`.
fn rebound(cells: &[NumberedBucket], from: &[f64], to: &[f64]) -> Vec<NumberedBucket> {
    let mut joined: Vec<NumberedBucket> = Vec::with_capacity(to.len() + 1);
    for cell in cells {
        let upper = bound(cell.index, crate::CUSTOM_BUCKETS_SCHEMA, from);
        let index = to.partition_point(|b| *b < upper) as i64;
        match joined.last_mut() {
            Some(last) if last.index == index => {
                kahan(cell.count, &mut last.count, &mut last.lost);
                kahan(cell.lost, &mut last.count, &mut last.lost);
            }
            _ => joined.push(NumberedBucket { index, ..*cell }),
        }
    }
    joined
}

impl FloatHistogram {
    /// Multiplies all counts and the sum. A negative factor turns the histogram into a gauge.
    pub fn mul(&mut self, factor: f64) {
        self.for_each_count(|count| *count *= factor);
        if factor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    /// Divides all counts and the sum. A negative divisor turns the histogram into a gauge; zero removes all
    /// buckets.
    pub fn div(&mut self, divisor: f64) {
        self.for_each_count(|count| *count /= divisor);
        if divisor == 0.0 {
            self.positive_buckets.clear();
            self.negative_buckets.clear();
            self.positive_spans.clear();
            self.negative_spans.clear();
        } else if divisor < 0.0 {
            self.counter_reset_hint = CounterResetHint::Gauge;
        }
    }

    fn for_each_count(&mut self, change: impl Fn(&mut f64)) {
        [&mut self.zero_count, &mut self.count, &mut self.sum].into_iter().for_each(&change);
        self.positive_buckets.iter_mut().for_each(&change);
        self.negative_buckets.iter_mut().for_each(&change);
    }

    /// Adds `other`. The result may have empty buckets; [`compact`](Self::compact) removes them.
    ///
    /// # Errors
    /// If one has custom buckets and the other has not. Then nothing is changed.
    pub fn add(&mut self, other: &Self) -> Result<Combined, IncompatibleSchemas> {
        self.combine(other, 1.0, None)
    }

    /// Subtracts `other`; counts may become negative.
    ///
    /// # Errors
    /// The same as [`add`](Self::add).
    pub fn sub(&mut self, other: &Self) -> Result<Combined, IncompatibleSchemas> {
        self.combine(other, -1.0, None)
    }

    /// Adds `other` and collects in `lost` what rounding loses, in the layout of this histogram. Adding
    /// `lost` at the end of a long sum makes the result more exact.
    ///
    /// # Errors
    /// The same as [`add`](Self::add).
    pub fn kahan_add(
        &mut self,
        other: &Self,
        lost: &mut Option<Self>,
    ) -> Result<Combined, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let lost = lost.get_or_insert_with(|| Self {
            counter_reset_hint: self.counter_reset_hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            custom_values: self.custom_values.clone(),
            ..Self::default()
        });
        self.combine(other, 1.0, Some(lost))
    }

    fn combine(
        &mut self,
        other: &Self,
        sign: f64,
        lost: Option<&mut Self>,
    ) -> Result<Combined, IncompatibleSchemas> {
        if self.uses_custom_buckets() != other.uses_custom_buckets() {
            return Err(IncompatibleSchemas);
        }
        let collision = self.combine_hints(other);
        let mut nothing = Self::default();
        let compensated = lost.is_some();
        let lost = lost.unwrap_or(&mut nothing);
        kahan(sign * other.count, &mut self.count, &mut lost.count);
        kahan(sign * other.sum, &mut self.sum, &mut lost.sum);
        let lost_fits = !compensated || lost.has_no_buckets() || lost.has_layout_of(self);
        let reconciled =
            if lost_fits && self.has_layout_of(other) && self.custom_values == other.custom_values {
                self.combine_alike(other, sign, compensated.then_some(lost));
                false
            } else {
                self.combine_sides(other, sign, compensated, lost)
            };
        Ok(Combined { collision, reconciled })
    }

    /// Combines the buckets of two histograms that have the same buckets, which is the usual case within a
    /// series. The result has the same bits as that of [`combine_sides`](Self::combine_sides).
    fn combine_alike(&mut self, other: &Self, sign: f64, lost: Option<&mut Self>) {
        let combine = |mine: &mut f64, theirs: f64, lost: &mut f64| {
            kahan(sign * theirs, mine, lost);
            // Rounding has lost nothing of the other histogram so far.
            kahan(sign * 0.0, mine, lost);
        };
        let Some(lost) = lost else {
            combine(&mut self.zero_count, other.zero_count, &mut 0.0);
            for (mine, theirs) in [
                (&mut self.positive_buckets, &other.positive_buckets),
                (&mut self.negative_buckets, &other.negative_buckets),
            ] {
                mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| combine(mine, *theirs, &mut 0.0));
            }
            return;
        };
        combine(&mut self.zero_count, other.zero_count, &mut lost.zero_count);
        for (mine, theirs, lost) in [
            (&mut self.positive_buckets, &other.positive_buckets, &mut lost.positive_buckets),
            (&mut self.negative_buckets, &other.negative_buckets, &mut lost.negative_buckets),
        ] {
            lost.resize(mine.len(), 0.0);
            for ((mine, theirs), lost) in mine.iter_mut().zip(theirs).zip(lost) {
                combine(mine, *theirs, lost);
            }
        }
        lost.positive_spans.clone_from(&self.positive_spans);
        lost.negative_spans.clone_from(&self.negative_spans);
    }

    /// Combines the buckets of any two histograms. Returns whether only their common bounds were kept.
    fn combine_sides(&mut self, other: &Self, sign: f64, compensated: bool, lost: &mut Self) -> bool {
        let mut mine = Sides::of(self, compensated.then_some(&*lost));
        let mut theirs = Sides::of(other, None);
        let mut reconciled = false;
        if self.uses_custom_buckets() {
            if self.custom_values != other.custom_values {
                reconciled = true;
                let common = common_bounds(&self.custom_values, &other.custom_values);
                mine.positive = rebound(&mine.positive, &self.custom_values, &common);
                theirs.positive = rebound(&theirs.positive, &other.custom_values, &common);
                self.custom_values.clone_from(&common);
                lost.custom_values = common;
            }
        } else {
            while mine.threshold != theirs.threshold {
                if mine.threshold > theirs.threshold {
                    theirs.widen(mine.threshold);
                } else if theirs.threshold > mine.threshold {
                    mine.widen(theirs.threshold);
                } else {
                    // A NaN threshold does not equal itself; such a histogram is malformed.
                    break;
                }
            }
            kahan(sign * theirs.zero, &mut mine.zero, &mut mine.zero_lost);
            kahan(sign * theirs.zero_lost, &mut mine.zero, &mut mine.zero_lost);
            let schema = mine.schema.min(theirs.schema);
            mine.coarsen(schema);
            theirs.coarsen(schema);
        }
        mine.positive = merge(mine.positive, &theirs.positive, sign);
        mine.negative = merge(mine.negative, &theirs.negative, sign);
        if reconciled {
            mine.positive.retain(|cell| cell.count != 0.0 || cell.lost != 0.0);
        }
        for (target, part) in [(&mut *self, CountPart::Count), (lost, CountPart::Lost)] {
            let pick = |cell: &NumberedBucket| {
                (cell.index, if part == CountPart::Count { cell.count } else { cell.lost })
            };
            target.schema = mine.schema;
            target.zero_threshold = mine.threshold;
            target.zero_count = if part == CountPart::Count { mine.zero } else { mine.zero_lost };
            (target.positive_spans, target.positive_buckets) = packed_buckets(mine.positive.iter().map(pick));
            (target.negative_spans, target.negative_buckets) = packed_buckets(mine.negative.iter().map(pick));
        }
        reconciled
    }

    /// Sets the reset hint of the sum. Returns whether the two hints contradict each other.
    fn combine_hints(&mut self, other: &Self) -> bool {
        use CounterResetHint::{Gauge, Unknown};
        let (mine, theirs) = (self.counter_reset_hint, other.counter_reset_hint);
        if mine == theirs || mine == Gauge {
            return false;
        }
        self.counter_reset_hint = if theirs == Gauge { Gauge } else { Unknown };
        theirs != Gauge && mine != Unknown && theirs != Unknown
    }

    /// Removes empty buckets and joins spans that no gap separates.
    pub fn compact(&mut self) {
        for (spans, buckets) in [
            (&mut self.positive_spans, &mut self.positive_buckets),
            (&mut self.negative_spans, &mut self.negative_buckets),
        ] {
            let tidy = buckets.iter().all(|count| *count != 0.0)
                && spans
                    .iter()
                    .enumerate()
                    .all(|(at, span)| span.length > 0 && (at == 0 || span.offset != 0));
            if !tidy {
                let kept: Vec<_> =
                    numbered_buckets(spans, buckets).filter(|(_, count)| *count != 0.0).collect();
                (*spans, *buckets) = packed_buckets(kept.into_iter());
            }
        }
    }

    /// This histogram in a coarser exponential schema, with an unknown reset hint. Returns an unchanged copy
    /// if it already has the schema, has a coarser one, or has custom buckets.
    pub fn to_schema(&self, schema: i32) -> Self {
        let mut copy = self.clone();
        if schema >= self.schema || self.uses_custom_buckets() {
            return copy;
        }
        let mut sides = Sides::of(self, None);
        sides.coarsen(schema);
        let pick = |cell: &NumberedBucket| (cell.index, cell.count + cell.lost);
        (copy.positive_spans, copy.positive_buckets) = packed_buckets(sides.positive.iter().map(pick));
        (copy.negative_spans, copy.negative_buckets) = packed_buckets(sides.negative.iter().map(pick));
        copy.schema = schema;
        copy.counter_reset_hint = CounterResetHint::Unknown;
        copy
    }

    /// Whether a count, the sum or a bound is infinite.
    pub fn has_overflow(&self) -> bool {
        let lists = [&self.positive_buckets, &self.negative_buckets, &self.custom_values];
        [self.zero_count, self.count, self.sum]
            .iter()
            .chain(lists.into_iter().flatten())
            .any(|v| v.is_infinite())
    }

    /// Whether both have the same buckets with the same counts, bit for bit. The division into spans and the
    /// reset hints may differ.
    pub fn equals(&self, other: &Self) -> bool {
        let same = |a: &[f64], b: &[f64]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let same_side = |spans: [&[crate::BucketSpan]; 2], counts: [&[f64]; 2]| {
            same(counts[0], counts[1])
                && (spans[0] == spans[1]
                    || numbered_buckets(spans[0], counts[0])
                        .map(|(index, _)| index)
                        .eq(numbered_buckets(spans[1], counts[1]).map(|(index, _)| index)))
        };
        self.schema == other.schema
            && self.count.to_bits() == other.count.to_bits()
            && self.sum.to_bits() == other.sum.to_bits()
            && (!self.uses_custom_buckets() || self.custom_values == other.custom_values)
            && self.zero_threshold == other.zero_threshold
            && self.zero_count.to_bits() == other.zero_count.to_bits()
            && same_side(
                [&self.negative_spans, &other.negative_spans],
                [&self.negative_buckets, &other.negative_buckets],
            )
            && same_side(
                [&self.positive_spans, &other.positive_spans],
                [&self.positive_buckets, &other.positive_buckets],
            )
    }

    /// Whether a counter was reset between `previous` and this histogram. It was if a count decreased, or if
    /// something changed that only a reset can change (a finer schema, a narrower zero bucket). A reset hint
    /// is trusted without comparing.
    pub fn detect_reset(&self, previous: &Self) -> bool {
        match self.counter_reset_hint {
            CounterResetHint::Reset => return true,
            CounterResetHint::NotReset => return false,
            CounterResetHint::Unknown | CounterResetHint::Gauge => {}
        }
        if self.count < previous.count {
            return true;
        }
        if self.uses_custom_buckets() {
            if !previous.uses_custom_buckets() {
                return true;
            }
            let (mut mine, mut theirs) = (Sides::of(self, None).positive, Sides::of(previous, None).positive);
            if self.custom_values != previous.custom_values {
                let common = common_bounds(&self.custom_values, &previous.custom_values);
                mine = rebound(&mine, &self.custom_values, &common);
                theirs = rebound(&theirs, &previous.custom_values, &common);
            }
            return went_down(&mine, &theirs);
        }
        if self.schema > previous.schema || self.zero_threshold < previous.zero_threshold {
            return true;
        }
        if self.has_layout_of(previous) {
            // The usual case; it does not allocate.
            let fell = |now: &[f64], before: &[f64]| now.iter().zip(before).any(|(now, before)| now < before);
            return self.zero_count < previous.zero_count
                || fell(&self.positive_buckets, &previous.positive_buckets)
                || fell(&self.negative_buckets, &previous.negative_buckets);
        }
        let mut theirs = Sides::of(previous, None);
        if self.zero_threshold != theirs.threshold {
            theirs.widen(self.zero_threshold);
            // The new threshold cuts a populated bucket.
            if theirs.threshold != self.zero_threshold {
                return true;
            }
        }
        if self.zero_count < theirs.zero {
            return true;
        }
        theirs.coarsen(self.schema);
        let mine = Sides::of(self, None);
        went_down(&mine.positive, &theirs.positive) || went_down(&mine.negative, &theirs.negative)
    }

    fn has_no_buckets(&self) -> bool {
        self.positive_buckets.is_empty() && self.negative_buckets.is_empty()
    }

    /// Whether both have the same buckets, ignoring custom bounds.
    fn has_layout_of(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.zero_threshold == other.zero_threshold
            && self.positive_buckets.len() == other.positive_buckets.len()
            && self.negative_buckets.len() == other.negative_buckets.len()
            && self.positive_spans == other.positive_spans
            && self.negative_spans == other.negative_spans
    }
}

#[derive(Clone, Copy, PartialEq)]
enum CountPart {
    Count,
    Lost,
}

/// Whether a bucket lost observations or a populated bucket disappeared.
fn went_down(now: &[NumberedBucket], before: &[NumberedBucket]) -> bool {
    let mut now = now.iter().peekable();
    before.iter().any(|before| {
        while now.next_if(|cell| cell.index < before.index).is_some() {}
        match now.peek() {
            Some(cell) if cell.index == before.index => cell.count < before.count,
            _ => before.count != 0.0,
        }
    })
}

#[cfg(test)]
mod tests;
