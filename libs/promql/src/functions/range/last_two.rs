//! `irate` and `idelta`: the change between the last two samples.
//!
//! Behaviour: `instantValue` in Prometheus 3.14's `promql/functions.go`.

use model::CounterResetHint;

use crate::functions::range::starts::CounterReading;
use crate::functions::range::window::{Notebook, WindowValue, WindowView};
use crate::value::column::Histogram;
use crate::value::note::{HistogramOperation, Note};

enum RecentSample<'a> {
    Float(CounterReading, f64),
    Histogram(CounterReading, &'a Histogram),
}

impl RecentSample<'_> {
    fn time(&self) -> i64 {
        self.reading().time
    }

    fn reading(&self) -> CounterReading {
        match self {
            RecentSample::Float(reading, _) | RecentSample::Histogram(reading, _) => *reading,
        }
    }
}

/// The last two samples of either type, the last one first.
fn last_two<'a>(view: &WindowView<'a>) -> Option<(RecentSample<'a>, RecentSample<'a>)> {
    let points = view.points;
    let floats = points.timestamps.iter().zip(points.values).enumerate().rev();
    let floats =
        floats.map(|(at, (t, v))| RecentSample::Float(CounterReading::of(points.starts, *t, at), *v));
    let histograms = points.histograms.iter().enumerate().rev();
    let histograms = histograms
        .map(|(at, (t, h))| RecentSample::Histogram(CounterReading::of(points.histogram_starts, *t, at), h));
    let mut all: Vec<RecentSample<'a>> = floats.take(2).chain(histograms.take(2)).collect();
    all.sort_by_key(|sample| std::cmp::Reverse(sample.time()));
    let mut all = all.into_iter();
    Some((all.next()?, all.next()?))
}

/// The change between the last two samples; per second for a counter.
pub(super) fn evaluate(view: &WindowView<'_>, counter: bool, notes: &mut Notebook<'_>) -> WindowValue {
    let Some((last, previous)) = last_two(view) else { return WindowValue::None };
    let seconds = (last.time() - previous.time()) as f64 / 1000.0;
    if seconds == 0.0 {
        return WindowValue::None;
    }
    let restarted = last.reading().is_reset_since(previous.reading());
    match (previous, last) {
        (RecentSample::Float(_, previous), RecentSample::Float(_, last)) => {
            // After a reset, the counter counted from zero to its current value.
            let change = if counter && (last < previous || restarted) { last } else { last - previous };
            WindowValue::Float(if counter { change / seconds } else { change })
        }
        (RecentSample::Histogram(_, previous), RecentSample::Histogram(_, last)) => {
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
                        return WindowValue::None;
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
            WindowValue::Histogram(Box::new(change))
        }
        _ => {
            notes.mixed();
            WindowValue::None
        }
    }
}
