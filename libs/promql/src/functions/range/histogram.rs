//! Functions over windows of native histograms.
//!
//! Behaviour: `histogramRate`, `funcSumOverTime` and `funcAvgOverTime` in Prometheus 3.14's `promql/functions.go`.

use std::sync::Arc;

use model::{CounterResetHint, FloatHistogram};

use crate::functions::arithmetic::HistogramMean;
use crate::functions::range::extrapolate::Change;
use crate::functions::range::starts::{self, CounterReading};
use crate::functions::range::window::{Notebook, WindowView};
use crate::value::note::{HistogramOperation, Note};

fn is_gauge(histogram: &FloatHistogram) -> bool {
    histogram.counter_reset_hint == CounterResetHint::Gauge
}

/// `rate`, `increase` and `delta`. `None` if the histograms cannot be combined, or if there are fewer than
/// two and the start timestamp of a single one is not known.
pub(super) fn rate(
    view: &WindowView<'_>,
    counter: bool,
    per_second: bool,
    notes: &mut Notebook<'_>,
) -> Option<FloatHistogram> {
    let points = view.points.histograms;
    let (first, last) = (points.first()?, points.last()?);
    let starts = if counter { view.points.histogram_starts } else { &[] };
    let span = (first.0, last.0);
    let changed = if points.len() < 2 { None } else { Some(change(view, starts, counter, notes)?) };
    let (mut change, mut factor) = match (changed, starts::inside(starts, first.0, view.start)) {
        (None, None) => return None,
        (changed, Some(start)) => {
            let change = match changed {
                None => FloatHistogram::clone(&first.1),
                Some(mut change) => {
                    let combined = change.add(&first.1);
                    reconcile(combined, HistogramOperation::Addition, notes)?;
                    change
                }
            };
            (change, starts::factor(start, span, points.len(), view.end))
        }
        (Some(change), None) => {
            let zero = if counter { Some((first.1.count, change.count)) } else { None };
            let sampled = Change { times: span, samples: points.len(), zero };
            let factor = sampled.factor(view.start, view.end);
            (change, factor)
        }
    };
    if per_second {
        factor /= view.range_seconds();
    }
    change.mul(factor);
    Some(change)
}

/// For each histogram of a series, whether its buckets show a reset since its predecessor. Windows overlap,
/// so this is computed once for the series and not for each window.
pub(super) fn resets(histograms: &[(i64, Arc<FloatHistogram>)]) -> Vec<bool> {
    let mut resets = Vec::with_capacity(histograms.len());
    resets.extend(histograms.first().map(|_| false));
    resets.extend(histograms.windows(2).map(|pair| pair[1].1.detect_reset(&pair[0].1)));
    resets
}

/// The change from the first to the last histogram, plus what a counter lost in resets.
fn change(
    view: &WindowView<'_>,
    starts: &[i64],
    counter: bool,
    notes: &mut Notebook<'_>,
) -> Option<FloatHistogram> {
    let points = view.points.histograms;
    let reading = |at: usize| CounterReading::of(starts, points[at].0, at);
    let (first, second, last) = (&points[0].1, &points[1].1, &points[points.len() - 1].1);
    if counter && (is_gauge(first) || is_gauge(last)) {
        notes.add(Note::NotCounter(notes.metric));
    }
    // If there is a reset directly after the first histogram, the first one does not count, whatever its
    // buckets are.
    let nothing;
    let mut previous: &FloatHistogram = first;
    if counter && (reading(1).is_reset_since(reading(0)) || second.detect_reset(first)) {
        nothing = FloatHistogram {
            schema: second.schema,
            custom_values: second.custom_values.clone(),
            ..FloatHistogram::default()
        };
        previous = &nothing;
    }
    let custom = previous.uses_custom_buckets();
    if last.uses_custom_buckets() != custom {
        notes.add(Note::MixedExponentialCustom(notes.metric));
        return None;
    }
    let mut schema = last.schema.min(previous.schema);
    if counter {
        for (_, histogram) in &points[1..points.len() - 1] {
            if is_gauge(histogram) {
                notes.add(Note::NotCounter(notes.metric));
            }
            schema = schema.min(histogram.schema);
            if histogram.uses_custom_buckets() != custom {
                notes.add(Note::MixedExponentialCustom(notes.metric));
                return None;
            }
        }
    }
    let mut change = last.to_schema(schema);
    let combined = change.sub(previous);
    reconcile(combined, HistogramOperation::Subtraction, notes)?;
    if counter {
        if (1..points.len()).any(|at| reading(at).overlaps(reading(at - 1))) {
            notes.add(Note::StartOverlap(notes.metric));
        }
        for (at, (_, current)) in points.iter().enumerate().skip(1) {
            // Only the first histogram may have been replaced, so that it differs from the predecessor in the
            // series.
            let bucket_reset = if at == 1 { current.detect_reset(previous) } else { view.resets[at] };
            if reading(at).is_reset_since(reading(at - 1)) || bucket_reset {
                let combined = change.add(previous);
                reconcile(combined, HistogramOperation::Addition, notes)?;
            }
            previous = current;
        }
    } else if !is_gauge(first) || !is_gauge(last) {
        notes.add(Note::NotGauge(notes.metric));
    }
    change.counter_reset_hint = CounterResetHint::Gauge;
    change.compact();
    Some(change)
}

/// Adds notes about combining two histograms. `None` if they cannot be combined.
pub(super) fn reconcile(
    combined: Result<model::Combined, model::IncompatibleSchemas>,
    operation: HistogramOperation,
    notes: &mut Notebook<'_>,
) -> Option<()> {
    match combined {
        Ok(combined) => {
            if combined.reconciled {
                notes.add(Note::ReconciledBuckets(operation));
            }
            Some(())
        }
        Err(_) => {
            notes.add(Note::MixedExponentialCustom(notes.metric));
            None
        }
    }
}

fn hints(view: &WindowView<'_>, notes: &mut Notebook<'_>) {
    let has = |hint| view.points.histograms.iter().any(|(_, h)| h.counter_reset_hint == hint);
    if has(CounterResetHint::Reset) && has(CounterResetHint::NotReset) {
        notes.add(Note::CounterResetCollision(HistogramOperation::Aggregation));
    }
}

/// `sum_over_time`.
pub(super) fn sum(view: &WindowView<'_>, notes: &mut Notebook<'_>) -> Option<FloatHistogram> {
    let ((_, first), rest) = view.points.histograms.split_first()?;
    let mut total = (**first).clone();
    let (mut lost, mut reconciled) = (None, false);
    for (_, histogram) in rest {
        match total.kahan_add(histogram, &mut lost) {
            Ok(combined) => reconciled |= combined.reconciled,
            Err(_) => {
                notes.add(Note::MixedExponentialCustom(notes.metric));
                return None;
            }
        }
    }
    if let Some(lost) = lost {
        reconciled |= total.add(&lost).is_ok_and(|combined| combined.reconciled);
    }
    hints(view, notes);
    if reconciled {
        notes.add(Note::ReconciledBuckets(HistogramOperation::Aggregation));
    }
    Some(total)
}

/// `avg_over_time`.
pub(super) fn avg(view: &WindowView<'_>, notes: &mut Notebook<'_>) -> Option<FloatHistogram> {
    let ((_, first), rest) = view.points.histograms.split_first()?;
    let mut mean = HistogramMean::of((**first).clone());
    let mut reconciled = false;
    for (_, histogram) in rest {
        match mean.add(histogram) {
            Ok(combined) => reconciled |= combined.reconciled,
            Err(_) => {
                notes.add(Note::MixedExponentialCustom(notes.metric));
                return None;
            }
        }
    }
    hints(view, notes);
    if reconciled {
        notes.add(Note::ReconciledBuckets(HistogramOperation::Aggregation));
    }
    Some(mean.value())
}
