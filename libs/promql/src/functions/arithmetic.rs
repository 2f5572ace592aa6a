//! Binary operators on single values, and means of histograms.
//!
//! Behaviour: `vectorElemBinop` in Prometheus 3.14's `promql/engine.go`.

use std::sync::Arc;

use model::{Combined, CounterResetHint, FloatHistogram, IncompatibleSchemas, TrimSide};

use crate::syntax::ast::{BinaryOp, Span};
use crate::value::column::{Cell, Histogram};
use crate::value::note::{HistogramOperation, Note};
use crate::value::notes::Notes;

/// The result of an operator on two floats: the value, and whether a comparison keeps it.
#[inline(always)]
pub(crate) fn floats(op: BinaryOp, left: f64, right: f64) -> (f64, bool) {
    match op {
        BinaryOp::Add => (left + right, true),
        BinaryOp::Sub => (left - right, true),
        BinaryOp::Mul => (left * right, true),
        BinaryOp::Div => (left / right, true),
        BinaryOp::Mod => (left % right, true),
        BinaryOp::Pow => (left.powf(right), true),
        BinaryOp::Atan2 => (left.atan2(right), true),
        BinaryOp::Eq => (left, left == right),
        BinaryOp::Ne => (left, left != right),
        BinaryOp::Lt => (left, left < right),
        BinaryOp::Le => (left, left <= right),
        BinaryOp::Gt => (left, left > right),
        BinaryOp::Ge => (left, left >= right),
        // These operators are for histograms or for sets and are handled elsewhere.
        BinaryOp::TrimUpper | BinaryOp::TrimLower | BinaryOp::And | BinaryOp::Or | BinaryOp::Unless => {
            (0.0, false)
        }
    }
}

/// Whether the result of an operator is a different metric, so that the metric name is dropped.
pub(crate) fn changes_metric(op: BinaryOp) -> bool {
    matches!(
        op,
        BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::Div
            | BinaryOp::Mod
            | BinaryOp::Pow
            | BinaryOp::Atan2
    )
}

/// The result of an operator on two values.
#[derive(Debug)]
pub(crate) enum OperatorResult {
    /// The operator does not support values of these types.
    Unsupported,
    /// A float, and whether a comparison keeps it.
    Float(f64, bool),
    /// A histogram, and whether a comparison keeps it.
    Histogram(Histogram, bool),
}

/// Applies an operator to two values: two floats, or at least one histogram.
pub(crate) fn apply(
    op: BinaryOp,
    left: Cell<'_>,
    right: Cell<'_>,
    notes: &mut Notes,
    span: Span,
) -> OperatorResult {
    let unsupported = |notes: &mut Notes, left: &str, right: &str| {
        notes.add(Note::IncompatibleTypes { left, op: op.as_str(), right }, span);
        OperatorResult::Unsupported
    };
    let changed = |histogram: &Histogram, change: &dyn Fn(&mut FloatHistogram)| {
        let mut copy = (**histogram).clone();
        change(&mut copy);
        OperatorResult::Histogram(Arc::new(copy), true)
    };
    match (left, right) {
        (Cell::Float(_), Cell::Float(_)) if matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper) => {
            unsupported(notes, "float", "float")
        }
        (Cell::Float(left), Cell::Float(right)) => {
            let (value, keep) = floats(op, left, right);
            OperatorResult::Float(value, keep)
        }
        (Cell::Float(factor), Cell::Histogram(histogram)) if op == BinaryOp::Mul => {
            changed(histogram, &|h| {
                h.mul(factor);
                h.compact();
            })
        }
        (Cell::Float(_), Cell::Histogram(_)) => unsupported(notes, "float", "histogram"),
        (Cell::Histogram(histogram), Cell::Float(value)) => match op {
            BinaryOp::Mul => changed(histogram, &|h| {
                h.mul(value);
                h.compact();
            }),
            BinaryOp::Div => changed(histogram, &|h| {
                h.div(value);
                h.compact();
            }),
            BinaryOp::TrimUpper => changed(histogram, &|h| h.trim(value, TrimSide::Below)),
            BinaryOp::TrimLower => changed(histogram, &|h| h.trim(value, TrimSide::Above)),
            _ => unsupported(notes, "histogram", "float"),
        },
        (Cell::Histogram(left), Cell::Histogram(right)) => match op {
            BinaryOp::Add | BinaryOp::Sub => sum(op, left, right, notes, span),
            BinaryOp::Eq => OperatorResult::Histogram(left.clone(), left.equals(right)),
            BinaryOp::Ne => OperatorResult::Histogram(left.clone(), !left.equals(right)),
            _ => unsupported(notes, "histogram", "histogram"),
        },
        (Cell::Absent, _) | (_, Cell::Absent) => OperatorResult::Unsupported,
    }
}

fn sum(op: BinaryOp, left: &Histogram, right: &Histogram, notes: &mut Notes, span: Span) -> OperatorResult {
    let mut result = (**left).clone();
    let (combined, operation) = if op == BinaryOp::Add {
        (result.add(right), HistogramOperation::Addition)
    } else {
        (result.sub(right), HistogramOperation::Subtraction)
    };
    match combined {
        Err(_) => {
            notes.add(Note::IncompatibleBuckets(op.as_str()), span);
            return OperatorResult::Unsupported;
        }
        Ok(combined) => {
            if combined.reconciled {
                notes.add(Note::ReconciledBuckets(operation), span);
            }
            if combined.collision {
                notes.add(Note::CounterResetCollision(operation), span);
            }
        }
    }
    if op == BinaryOp::Sub {
        result.counter_reset_hint = CounterResetHint::Gauge;
    }
    result.compact();
    OperatorResult::Histogram(Arc::new(result), true)
}

/// A mean of histograms. It is a compensated sum until that would overflow; then it becomes an incremental
/// mean.
#[derive(Clone, Debug)]
pub(crate) struct HistogramMean {
    total: FloatHistogram,
    lost: Option<FloatHistogram>,
    /// Whether `total` is the mean instead of the sum.
    incremental: bool,
    /// Number of histograms.
    pub(crate) count: f64,
}

impl HistogramMean {
    /// The mean of a single histogram.
    pub(crate) fn of(histogram: FloatHistogram) -> Self {
        Self { total: histogram, lost: None, incremental: false, count: 1.0 }
    }

    /// Memory in bytes.
    pub(crate) fn size_bytes(&self) -> usize {
        self.total.size_bytes() + self.lost.as_ref().map_or(0, FloatHistogram::size_bytes)
    }

    /// Adds a histogram to the mean.
    pub(crate) fn add(&mut self, histogram: &FloatHistogram) -> Result<Combined, IncompatibleSchemas> {
        if !self.incremental {
            let (mut total, mut lost) = (self.total.clone(), self.lost.clone());
            let combined = total.kahan_add(histogram, &mut lost)?;
            if !total.has_overflow() {
                (self.total, self.lost) = (total, lost);
                self.count += 1.0;
                return Ok(combined);
            }
            self.make_incremental();
        }
        self.count += 1.0;
        let share = (self.count - 1.0) / self.count;
        self.total.mul(share);
        if let Some(lost) = &mut self.lost {
            lost.mul(share);
        }
        let mut part = histogram.clone();
        part.div(self.count);
        self.total.kahan_add(&part, &mut self.lost)
    }

    fn make_incremental(&mut self) {
        if !self.incremental {
            self.incremental = true;
            self.total.div(self.count);
            if let Some(lost) = &mut self.lost {
                lost.div(self.count);
            }
        }
    }

    /// Combines two means.
    pub(crate) fn merge(&mut self, mut other: Self) -> Result<Combined, IncompatibleSchemas> {
        let count = self.count + other.count;
        if !self.incremental && !other.incremental {
            let (mut total, mut lost) = (self.total.clone(), self.lost.clone());
            let combined = total.kahan_add(&other.total, &mut lost)?;
            if !total.has_overflow() {
                if let Some(more) = &other.lost {
                    total.kahan_add(more, &mut lost)?;
                }
                (self.total, self.lost, self.count) = (total, lost, count);
                return Ok(combined);
            }
        }
        self.make_incremental();
        other.make_incremental();
        let (mine, theirs) = (self.count / count, other.count / count);
        self.total.mul(mine);
        other.total.mul(theirs);
        if let Some(lost) = &mut self.lost {
            lost.mul(mine);
        }
        let combined = self.total.kahan_add(&other.total, &mut self.lost)?;
        if let Some(mut more) = other.lost {
            more.mul(theirs);
            self.total.kahan_add(&more, &mut self.lost)?;
        }
        self.count = count;
        Ok(combined)
    }

    /// The mean.
    pub(crate) fn value(mut self) -> FloatHistogram {
        if !self.incremental {
            self.total.div(self.count);
            if let Some(lost) = &mut self.lost {
                lost.div(self.count);
            }
        }
        if let Some(lost) = &self.lost {
            // `lost` has the layout of the total, so adding them cannot fail.
            let _ = self.total.add(lost);
        }
        self.total
    }
}
