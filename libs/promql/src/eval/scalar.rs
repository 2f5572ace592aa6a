//! Scalar arguments.

use std::sync::Arc;

use super::column::Row;

/// A number for each step.
#[derive(Clone, Debug)]
pub(crate) enum Scalar {
    /// The same at all steps.
    Constant(f64),
    /// One for each step.
    Steps(Arc<[f64]>),
}

impl Scalar {
    /// The scalar that travelled as `row`.
    pub(crate) fn of(row: Row) -> Self {
        let floats = row.column.floats;
        match floats.split_first() {
            Some((first, rest)) if rest.iter().all(|v| v.to_bits() == first.to_bits()) => {
                Scalar::Constant(*first)
            }
            _ => Scalar::Steps(floats.into()),
        }
    }

    /// Its value at `step`.
    #[inline(always)]
    pub(crate) fn at(&self, step: usize) -> f64 {
        match self {
            Scalar::Constant(value) => *value,
            Scalar::Steps(values) => values.get(step).copied().unwrap_or(f64::NAN),
        }
    }

    /// Its value at all steps, if that is the same.
    pub(crate) fn constant(&self) -> Option<f64> {
        match self {
            Scalar::Constant(value) => Some(*value),
            Scalar::Steps(_) => None,
        }
    }
}
