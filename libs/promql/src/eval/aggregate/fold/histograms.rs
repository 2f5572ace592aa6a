//! The histograms of a group while series are folded.

use model::{CounterResetHint, FloatHistogram};

use crate::functions::arithmetic::HistogramMean;
use crate::plan::node::Aggregation;
use crate::syntax::ast::AggregateOp;
use crate::value::note::{HistogramOperation, Note};
use crate::value::notes::Notes;

/// The histograms of one group at one step.
#[derive(Clone, Debug, Default)]
pub(super) struct Histograms {
    total: Option<HistogramTotal>,
    /// Their schemas are incompatible, so there is no result.
    incompatible: bool,
    reset: bool,
    not_reset: bool,
}

#[derive(Clone, Debug)]
enum HistogramTotal {
    Sum(Box<FloatHistogram>, Option<Box<FloatHistogram>>),
    Mean(Box<HistogramMean>),
}

impl Histograms {
    /// Memory on the heap in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        let size = match &self.total {
            None => 0,
            Some(HistogramTotal::Sum(total, lost)) => {
                total.size_bytes() + lost.as_ref().map_or(0, |l| l.size_bytes())
            }
            Some(HistogramTotal::Mean(mean)) => mean.size_bytes(),
        };
        size as u64
    }

    pub(super) fn add(
        &mut self,
        spec: &Aggregation,
        histogram: &FloatHistogram,
        metric: &str,
        notes: &mut Notes,
    ) {
        self.reset |= histogram.counter_reset_hint == CounterResetHint::Reset;
        self.not_reset |= histogram.counter_reset_hint == CounterResetHint::NotReset;
        if self.incompatible {
            return;
        }
        let combined = match &mut self.total {
            None => {
                let copy = histogram.clone();
                self.total = Some(match spec.op {
                    AggregateOp::Avg => HistogramTotal::Mean(Box::new(HistogramMean::of(copy))),
                    _ => HistogramTotal::Sum(Box::new(copy), None),
                });
                return;
            }
            Some(HistogramTotal::Sum(total, lost)) => {
                let mut inner = lost.take().map(|lost| *lost);
                let combined = total.kahan_add(histogram, &mut inner);
                *lost = inner.map(Box::new);
                combined
            }
            Some(HistogramTotal::Mean(mean)) => mean.add(histogram),
        };
        self.annotate(combined, spec, metric, notes);
    }

    fn annotate(
        &mut self,
        combined: Result<model::Combined, model::IncompatibleSchemas>,
        spec: &Aggregation,
        metric: &str,
        notes: &mut Notes,
    ) {
        match combined {
            Err(_) => {
                self.incompatible = true;
                notes.add(Note::MixedExponentialCustom(metric), spec.operand);
            }
            Ok(combined) if combined.reconciled => {
                notes.add(Note::ReconciledBuckets(HistogramOperation::Aggregation), spec.operand);
            }
            Ok(_) => {}
        }
    }

    /// Adds the histograms of another worker; `metric` is that of its first series with histograms.
    pub(super) fn merge(&mut self, other: Self, metric: &str, spec: &Aggregation, notes: &mut Notes) {
        self.reset |= other.reset;
        self.not_reset |= other.not_reset;
        self.incompatible |= other.incompatible;
        let combined = match (&mut self.total, other.total) {
            (_, None) => return,
            (mine @ None, theirs) => {
                *mine = theirs;
                return;
            }
            (Some(_), Some(_)) if self.incompatible => return,
            (Some(HistogramTotal::Sum(total, lost)), Some(HistogramTotal::Sum(theirs, more))) => {
                let mut inner = lost.take().map(|lost| *lost);
                let combined = total.kahan_add(&theirs, &mut inner).and_then(|combined| {
                    if let Some(more) = more {
                        total.kahan_add(&more, &mut inner)?;
                    }
                    Ok(combined)
                });
                *lost = inner.map(Box::new);
                combined
            }
            (Some(HistogramTotal::Mean(mean)), Some(HistogramTotal::Mean(theirs))) => mean.merge(*theirs),
            // Both come from the same aggregation, so they have the same variant.
            (Some(_), Some(_)) => return,
        };
        self.annotate(combined, spec, metric, notes);
    }

    /// Whether there was no histogram.
    pub(super) fn is_empty(&self) -> bool {
        self.total.is_none()
    }

    /// Moves out the result; `None` if there is none.
    pub(super) fn finish(&mut self, spec: &Aggregation, notes: &mut Notes) -> Option<FloatHistogram> {
        if self.incompatible {
            return None;
        }
        if self.reset && self.not_reset {
            notes.add(Note::CounterResetCollision(HistogramOperation::Aggregation), spec.operand);
        }
        let mut result = match self.total.take()? {
            HistogramTotal::Sum(mut total, lost) => {
                if let Some(lost) = lost {
                    // The compensation has the layout of the total, so the two can be added.
                    let _ = total.add(&lost);
                }
                *total
            }
            HistogramTotal::Mean(mean) => mean.value(),
        };
        result.compact();
        Some(result)
    }
}
