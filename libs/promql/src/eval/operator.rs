//! The interface of operators: series are pushed into them, and they push series on.

use std::sync::Arc;

use budget::{Budget, Reservation};

use crate::error::QueryError;
use crate::eval::map;
use crate::eval::sieve::Sieve;
use crate::plan::node::Map;
use crate::value::column::Row;
use crate::value::notes::Notes;
use crate::value::scalar::{Scalar, Scalars};
use crate::value::steps::Steps;

/// An operator between leaves and the answer. It runs on the driver's thread, one call at a time.
pub(crate) trait Operator: std::fmt::Debug + Send {
    /// Takes series of one input and adds the output that follows from them to `out`.
    ///
    /// The series of one input arrive in a fixed order. Calls for different inputs may alternate.
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError>;

    /// Called when an input has ended; adds the output that follows from that to `out`. The output ends when all inputs have
    /// ended.
    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError>;

    /// Where scalars arrive, if its inputs after the first one are scalars.
    fn scalars(&mut self) -> Option<&mut Scalars> {
        None
    }

    /// Which values workers may drop from the series of its first input.
    fn sieve(&self) -> Option<Arc<Sieve>> {
        None
    }
}

/// What an operator needs in addition to its series.
pub(crate) struct OperatorContext<'a> {
    /// The steps of its output.
    pub(crate) steps: &'a Steps,
    /// Where it adds annotations.
    pub(crate) notes: &'a mut Notes,
    /// Checked in loops so that the query can be interrupted.
    pub(crate) budget: &'a Budget,
    /// Buffers for transformations of series.
    pub(crate) scratch: &'a mut map::MapScratch,
    /// Number of threads that it may use.
    pub(crate) workers: usize,
}

impl OperatorContext<'_> {
    /// Whether the query is evaluated at one instant, where the order of series is part of the answer.
    pub(crate) fn is_instant(&self) -> bool {
        self.steps.count == 1
    }
}

/// Which inputs of an operator have ended.
#[derive(Debug)]
pub(crate) struct EndedInputs(Vec<bool>);

impl EndedInputs {
    /// None of `inputs` has ended.
    pub(crate) fn none_of(inputs: usize) -> Self {
        Self(vec![false; inputs])
    }

    /// Marks an input as ended; returns whether all have ended.
    pub(crate) fn note(&mut self, input: usize) -> bool {
        if let Some(ended) = self.0.get_mut(input) {
            *ended = true;
        }
        self.0.iter().all(|ended| *ended)
    }

    /// Whether an input has ended.
    pub(crate) fn has(&self, input: usize) -> bool {
        self.0.get(input).is_some_and(|ended| *ended)
    }
}

/// Series that an operator has to keep, and their memory.
#[derive(Debug)]
pub(crate) struct KeptRows {
    pub(crate) rows: Vec<Row>,
    reserved: Reservation,
}

impl KeptRows {
    pub(crate) fn new(reserved: Reservation) -> Self {
        Self { rows: Vec::new(), reserved }
    }

    pub(crate) fn extend(&mut self, rows: Vec<Row>) -> Result<(), QueryError> {
        self.reserved.add(rows.iter().map(Row::size_bytes).sum())?;
        self.rows.extend(rows);
        Ok(())
    }

    /// Moves out the series and the reservation of their memory, which must be kept as long as they are.
    pub(crate) fn take(&mut self) -> (Vec<Row>, Reservation) {
        let reserved = self.reserved.take();
        (std::mem::take(&mut self.rows), reserved)
    }
}

/// Transforms each series by itself; keeps series until its scalar arguments are known.
#[derive(Debug)]
pub(crate) struct MapOperator {
    map: Map,
    scalars: Scalars,
    waiting: KeptRows,
}

impl MapOperator {
    pub(crate) fn new(map: Map, scalars: usize, reserved: Reservation) -> Self {
        Self { map, scalars: Scalars::new(scalars, reserved.new_empty()), waiting: KeptRows::new(reserved) }
    }

    /// The transformation and its arguments, if they are all known: workers can apply it then.
    pub(crate) fn ready(&self) -> Option<(Map, Vec<Scalar>)> {
        Some((self.map.clone(), self.scalars.all()?))
    }

    fn apply(
        &self,
        cx: &mut OperatorContext<'_>,
        scalars: &[Scalar],
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        // Results that are larger than their series. The memory of the series is reserved by the caller.
        let (mut grown, mut in_progress) = (0, self.waiting.reserved.new_empty());
        for mut row in rows {
            cx.budget.check()?;
            let more = map::needs(&self.map, cx.steps, &row);
            in_progress.add(more)?;
            if map::apply(&self.map, cx.steps, scalars, &mut row, cx.budget, cx.scratch, cx.notes)? {
                grown += if more > 0 { row.size_bytes() } else { 0 };
                out.push(row);
            }
            in_progress.resize(grown)?;
        }
        Ok(())
    }
}

impl Operator for MapOperator {
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input > 0 {
            return self.scalars.take(input - 1, rows);
        }
        match self.scalars.all() {
            Some(scalars) => self.apply(cx, &scalars, rows, out),
            None => self.waiting.extend(rows),
        }
    }

    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError> {
        if input > 0 {
            self.scalars.end(input - 1);
        }
        match self.scalars.all() {
            Some(scalars) => {
                let (rows, _reserved) = self.waiting.take();
                self.apply(cx, &scalars, rows, out)
            }
            None => Ok(()),
        }
    }

    fn scalars(&mut self) -> Option<&mut Scalars> {
        Some(&mut self.scalars)
    }
}
