//! `irate` and `idelta`: what happened between the last two samples.
//!
//! Behaviour: `instantValue` in Prometheus 3.14's `promql/functions.go`.

use model::CounterResetHint;

use crate::functions::range::starts::Reading;
use crate::functions::range::{Notebook, Value, View};
use crate::value::column::Histogram;
use crate::value::notes::{HistogramOperation, Note};

enum Last<'a> {
    Float(Reading, f64),
    Histogram(Reading, &'a Histogram),
}

impl Last<'_> {
    fn time(&self) -> i64 {
        self.reading().time
    }

    fn reading(&self) -> Reading {
        match self {
            Last::Float(reading, _) | Last::Histogram(reading, _) => *reading,
        }
    }
}

/// The last two samples of either kind, the last one first.
fn last_two<'a>(view: &View<'a>) -> Option<(Last<'a>, Last<'a>)> {
    let points = view.points;
    let floats = points.timestamps.iter().zip(points.values).enumerate().rev();
    let floats = floats.map(|(at, (t, v))| Last::Float(Reading::of(points.starts, *t, at), *v));
    let histograms = points.histograms.iter().enumerate().rev();
    let histograms =
        histograms.map(|(at, (t, h))| Last::Histogram(Reading::of(points.histogram_starts, *t, at), h));
    let mut all: Vec<Last<'a>> = floats.take(2).chain(histograms.take(2)).collect();
    all.sort_by_key(|sample| std::cmp::Reverse(sample.time()));
    let mut all = all.into_iter();
    Some((all.next()?, all.next()?))
}

/// The change between the last two samples, per second for a counter.
pub(super) fn evaluate(view: &View<'_>, counter: bool, notes: &mut Notebook<'_>) -> Value {
    let Some((last, previous)) = last_two(view) else { return Value::None };
    let seconds = (last.time() - previous.time()) as f64 / 1000.0;
    if seconds == 0.0 {
        return Value::None;
    }
    let restarted = last.reading().is_reset_since(previous.reading());
    match (previous, last) {
        (Last::Float(_, previous), Last::Float(_, last)) => {
            // After a reset, the counter counted from zero to its value.
            let change = if counter && (last < previous || restarted) { last } else { last - previous };
            Value::Float(if counter { change / seconds } else { change })
        }
        (Last::Histogram(_, previous), Last::Histogram(_, last)) => {
            let gauge = |h: &Histogram| h.counter_reset_hint == CounterResetHint::Gauge;
            if counter && (gauge(last) || gauge(previous)) {
                notes.add(Note::NotCounter(notes.metric));
            }
            let gauges = gauge(last) && gauge(previous);
            if !counter && !gauges {
                notes.add(Note::NotGauge(notes.metric));
            }
            let mut change = (**last).clone();
            if !counter || !(restarted || last.detect_reset(previous)) {
                match change.sub(previous) {
                    Err(_) => {
                        notes.add(Note::MixedExponentialCustom(notes.metric));
                        return Value::None;
                    }
                    Ok(combined) if combined.reconciled => {
                        notes.add(Note::ReconciledBuckets(HistogramOperation::Subtraction));
                    }
                    Ok(_) => {}
                }
            }
            change.counter_reset_hint = CounterResetHint::Gauge;
            change.compact();
            if counter {
                change.div(seconds);
            }
            Value::Histogram(Box::new(change))
        }
        _ => {
            notes.mixed();
            Value::None
        }
    }
}
