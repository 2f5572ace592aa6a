//! Scalar arguments of operators and functions.

use std::sync::Arc;

use budget::Reservation;

use crate::error::QueryError;
use crate::value::column::{Column, Row};
use crate::value::steps::Steps;

/// A number for each step.
#[derive(Clone, Debug)]
pub(crate) enum Scalar {
    /// The same at all steps.
    Constant(f64),
    /// The time of each step in seconds.
    Time(Steps),
    /// One for each step.
    Steps(Arc<Vec<f64>>),
}

impl Scalar {
    /// The scalar that was passed on as a series.
    fn of(row: Row) -> Self {
        let floats = row.column.floats;
        match floats.split_first() {
            Some((first, rest)) if rest.iter().all(|v| v.to_bits() == first.to_bits()) => {
                Self::Constant(*first)
            }
            _ => Self::Steps(Arc::new(floats)),
        }
    }

    /// Its value at `step`.
    #[inline(always)]
    pub(crate) fn at(&self, step: usize) -> f64 {
        match self {
            Self::Constant(value) => *value,
            Self::Time(steps) => steps.time(step) as f64 / 1000.0,
            Self::Steps(values) => values.get(step).copied().unwrap_or(f64::NAN),
        }
    }

    /// Its value, if it is the same at all steps.
    pub(crate) fn constant(&self) -> Option<f64> {
        match self {
            Self::Constant(value) => Some(*value),
            Self::Time(_) | Self::Steps(_) => None,
        }
    }

    /// Its values at the first `steps` steps.
    pub(crate) fn column(&self, steps: usize) -> Column {
        match self {
            Self::Constant(value) => Column::constant(*value, steps),
            _ => Column { floats: (0..steps).map(|step| self.at(step)).collect(), histograms: Vec::new() },
        }
    }

    /// Memory on the heap in bytes.
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Constant(_) | Self::Time(_) => 0,
            Self::Steps(values) => (values.len() * 8) as u64,
        }
    }
}

/// The scalar arguments of an operator that have arrived so far, and the memory that they use: inputs `1..` of most operators.
#[derive(Debug)]
pub(crate) struct Scalars {
    known: Vec<Option<Scalar>>,
    reserved: Reservation,
}

impl Scalars {
    pub(crate) fn new(count: usize, reserved: Reservation) -> Self {
        Self { known: vec![None; count], reserved }
    }

    /// Stores scalar number `index`, which comes as a series.
    pub(crate) fn take(&mut self, index: usize, rows: Vec<Row>) -> Result<(), QueryError> {
        match rows.into_iter().next() {
            Some(row) => self.know(index, Scalar::of(row)),
            None => Ok(()),
        }
    }

    /// Stores scalar number `index`.
    pub(crate) fn know(&mut self, index: usize, scalar: Scalar) -> Result<(), QueryError> {
        self.reserved.add(scalar.size_bytes())?;
        if let Some(slot) = self.known.get_mut(index) {
            *slot = Some(scalar);
        }
        Ok(())
    }

    /// Called when the input of scalar `index` has ended. A scalar without steps never arrives, and is NaN then.
    pub(crate) fn end(&mut self, index: usize) {
        if let Some(slot) = self.known.get_mut(index) {
            slot.get_or_insert(Scalar::Constant(f64::NAN));
        }
    }

    /// All of them, if all have arrived.
    pub(crate) fn all(&self) -> Option<Vec<Scalar>> {
        self.known.iter().cloned().collect()
    }
}
