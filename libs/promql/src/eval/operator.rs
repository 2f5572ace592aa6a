//! What all operators have in common: series are pushed into them, and they push series on.

use std::sync::Arc;

use budget::{Budget, Reservation};

use crate::error::QueryError;
use crate::eval::aggregate::sieve::Sieve;
use crate::eval::map;
use crate::plan::node::Map;
use crate::value::column::Row;
use crate::value::notes::Notes;
use crate::value::scalar::{Scalar, Scalars};
use crate::value::steps::Steps;

/// An operator between leaves and the answer. It runs on the driver's thread, one call at a time.
pub(crate) trait Operator: std::fmt::Debug + Send {
    /// Takes series of one input and adds what follows from them to `out`.
    ///
    /// Series of one input arrive in a fixed order; inputs may take turns.
    fn push(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        rows: Vec<Row>,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError>;

    /// Called once an input has had its last series; adds what follows from that to `out`. After all inputs have
    /// ended, so has the output.
    fn end(
        &mut self,
        cx: &mut OperatorContext<'_>,
        input: usize,
        out: &mut Vec<Row>,
    ) -> Result<(), QueryError>;

    /// Where scalars arrive, if its inputs behind the first are such.
    fn scalars(&mut self) -> Option<&mut Scalars> {
        None
    }

    /// What workers may leave out of the series of its first input.
    fn sieve(&self) -> Option<Arc<Sieve>> {
        None
    }
}

/// What an operator works with beside its series.
pub(crate) struct OperatorContext<'a> {
    /// The steps of its output.
    pub(crate) steps: &'a Steps,
    /// Where it leaves notes.
    pub(crate) notes: &'a mut Notes,
    /// Called in loops so that a query can be ended.
    pub(crate) budget: &'a Budget,
    /// What changes of series work with.
    pub(crate) scratch: &'a mut map::MapScratch,
    /// Threads that it may use.
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
    /// None of so many.
    pub(crate) fn none_of(inputs: usize) -> Self {
        Self(vec![false; inputs])
    }

    /// Notes that an input has ended, and tells whether all have.
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

/// Series that have to be kept, and the memory that they take.
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

    /// Hands the series on, and what their memory is held by: it is to be kept as long as they are.
    pub(crate) fn take(&mut self) -> (Vec<Row>, Reservation) {
        let reserved = self.reserved.take();
        (std::mem::take(&mut self.rows), reserved)
    }
}

/// Changes each series by itself; keeps series until its scalar arguments are known.
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

    /// The change and its arguments, if they are all known: it can then be made anywhere.
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
        // What becomes larger than the series it was, whose memory is held by whoever hands it in.
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
