//! The machine that evaluates a plan. A driver offers it the series of each select and takes the answer.
//!
//! It evaluates one series after the other, each at all steps at once: it decodes the samples, computes a
//! [`Column`](crate::value::column::Column) of step values, transforms the column, folds it into an aggregation and drops it.
//! Only data that an operator needs across series stays in memory.
//!
//! Reading order: [`operator`], [`leaf`], [`map`], [`aggregate`], [`binary`], the smaller operators, [`pipeline`] and
//! [`pool`] (what workers do), and this file, which connects them.

pub(crate) mod aggregate;
pub(crate) mod answer;
mod assemble;
pub(crate) mod binary;
pub(crate) mod buckets;
pub(crate) mod distinct;
pub(crate) mod grouping;
pub(crate) mod identity;
pub(crate) mod info;
pub(crate) mod leaf;
pub(crate) mod map;
pub(crate) mod merge;
pub(crate) mod meter;
pub(crate) mod operator;
pub(crate) mod order;
pub(crate) mod parts;
pub(crate) mod pipeline;
pub(crate) mod pool;
mod share;
mod sieve;
pub(crate) mod single;
pub(crate) mod skip;
pub(crate) mod slot;
pub(crate) mod sort;

use std::sync::Arc;

use budget::Reservation;
use model::Labels;

use crate::error::QueryError;
use crate::eval::distinct::is_typed;
use crate::eval::identity::Identities;
use crate::eval::meter::{Clock, Meters};
use crate::eval::operator::OperatorContext;
use crate::eval::pipeline::{BatchOutcome, OutputTarget, Pipeline, PipelineProduct};
use crate::eval::pool::{BATCH, Job, Pool};
use crate::eval::slot::OperatorSlot;
use crate::explain::PlanNode;
use crate::output::{AnswerMemory, MatrixSeries, QueryOutput, Stats};
use crate::plan::Plan;
use crate::plan::node::{NodeId, Op};
use crate::select::{Select, SelectId};
use crate::shared_series::SharedSeries;
use crate::value::column::Row;
use crate::value::notes::Notes;
use crate::value::scalar::Scalar;

/// Most bytes of series that are passed on at one time. While they are passed on, the operator that sends them and the one
/// that receives them both have reserved their memory.
const DELIVERY_BYTES: u64 = 1 << 20;

/// A unit of work between operators.
#[derive(Debug)]
enum EvaluationTask {
    /// Passes series on, a batch at a time, so that the receiver does not have to reserve memory for series that are still
    /// in transit.
    Deliver { to: OutputTarget, rows: std::vec::IntoIter<Row>, in_transit: Reservation },
    /// An operator has sent all of its output: tells the operator that it feeds.
    End(NodeId),
    /// The output that followed from the end of an input has been passed on.
    Close(NodeId),
}

/// A series that waits for its batch, and its memory.
#[derive(Debug)]
struct QueuedSeries {
    series: SharedSeries,
    bytes: usize,
}

/// A select that is being read.
#[derive(Debug)]
struct SelectReading {
    /// The select, with all matchers that are known so far.
    select: Select,
    /// For a select of info series: which of them are needed. Stores may send more.
    identities: Option<Identities>,
    /// How its series are evaluated; built with the first batch, when all scalar arguments should be known.
    pipelines: Option<Arc<Vec<Pipeline>>>,
    /// Series that do not fill a batch yet.
    queue: Vec<QueuedSeries>,
    reserved: Reservation,
    /// Whether a series so far had a type or unit.
    typed: bool,
    ended: bool,
}

/// Evaluates a query. The driver offers the series of each select, in label order and in batches of any size, ends each
/// select, and takes the answer after the last one.
///
/// Calls decode and compute, or wait for workers that do. Run it on a thread that may block.
#[derive(Debug)]
pub struct Evaluation {
    plan: Arc<Plan>,
    meters: Arc<Meters>,
    slots: Vec<OperatorSlot>,
    /// For each operator, the number of its inputs that have not ended.
    open: Vec<usize>,
    readings: Vec<SelectReading>,
    /// All selects, in the best order to read them.
    order: Vec<SelectId>,
    pool: Pool,
    scratch: map::MapScratch,
    rows: Vec<Row>,
    answer_memory: Reservation,
    raw: Vec<MatrixSeries>,
    notes: Notes,
    series: u64,
    failure: Option<QueryError>,
}

impl Evaluation {
    pub(crate) fn new(plan: Arc<Plan>, clock: Option<Clock>) -> Self {
        let meters = Arc::new(Meters::new(plan.nodes.len(), clock));
        let slots: Vec<OperatorSlot> =
            (0..plan.nodes.len()).map(|id| OperatorSlot::of(&plan, &meters, id)).collect();
        let open = plan.nodes.iter().map(|node| node.inputs.len()).collect();
        let readings = plan
            .selects()
            .iter()
            .map(|select| SelectReading {
                select: select.clone(),
                identities: None,
                pipelines: None,
                queue: Vec::new(),
                reserved: Reservation::new(&plan.budget),
                typed: false,
                ended: false,
            })
            .collect();
        let mut evaluation = Self {
            pool: Pool::new(plan.clone(), meters.clone()),
            scratch: map::MapScratch::new(&plan.budget),
            answer_memory: Reservation::new(&plan.budget),
            order: order::reading_order(&plan),
            plan,
            meters,
            slots,
            open,
            readings,
            rows: Vec::new(),
            raw: Vec::new(),
            notes: Notes::default(),
            series: 0,
            failure: None,
        };
        evaluation.failure = evaluation.start().err();
        evaluation
    }

    /// The next select to be read, in the order of [`Query::reading_order`](crate::Query::reading_order).
    pub fn next_select(&self) -> Option<SelectId> {
        self.order.iter().copied().find(|select| !self.readings[select.0].ended)
    }

    /// A select with all matchers that are known so far. It is final if it is not [late](Select::late) any more.
    pub fn select(&self, id: SelectId) -> &Select {
        &self.readings[id.0].select
    }

    /// Offers series of a select, which other queries may share. The series of one select must come in ascending order of labels.
    ///
    /// # Errors
    /// If the query has no answer. Every later call fails with the same error.
    pub fn push<S: Into<SharedSeries>>(
        &mut self,
        select: SelectId,
        series: Vec<S>,
    ) -> Result<(), QueryError> {
        self.check()?;
        let result = self.offer(select, series.into_iter().map(S::into).collect());
        self.remember(result)
    }

    /// Ends a select: it has no more series.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn end_select(&mut self, select: SelectId) -> Result<(), QueryError> {
        self.check()?;
        let result = self.end(select);
        self.remember(result)
    }

    /// The answer, once all selects have ended.
    ///
    /// # Errors
    /// If the query has no answer, or if a select has not ended.
    pub fn finish(mut self) -> Result<QueryOutput, QueryError> {
        self.check()?;
        if let Some(open) = self.next_select() {
            return Err(QueryError::execution(format!(
                "internal error: finish() called, but select {} was not read to its end",
                open.0
            )));
        }
        let (rows, raw) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.raw));
        let value = answer::value(&self.plan, rows, raw, &mut self.answer_memory)?;
        let stats = Stats {
            series: self.series,
            samples: self.plan.budget.samples(),
            peak_bytes: self.plan.budget.peak_bytes(),
        };
        let annotations = std::mem::take(&mut self.notes).finish(&self.plan.text);
        let analysis = self.meters.is_on().then(|| PlanNode::of(&self.plan, Some(&self.meters.measured())));
        Ok(QueryOutput { value, annotations, stats, analysis, memory: AnswerMemory::new(self.answer_memory) })
    }

    /// Fails if an earlier call has failed, or if the query is interrupted.
    fn check(&self) -> Result<(), QueryError> {
        match &self.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(self.plan.budget.check()?),
        }
    }

    fn remember(&mut self, result: Result<(), QueryError>) -> Result<(), QueryError> {
        if let Err(failure) = &result {
            self.failure = Some(failure.clone());
        }
        result
    }

    /// Passes on the output of all operators that do not need series.
    fn start(&mut self) -> Result<(), QueryError> {
        for id in 0..self.plan.nodes.len() {
            let (steps, parent) = (self.plan.nodes[id].steps, self.plan.nodes[id].parent);
            let scalar = match &self.plan.nodes[id].op {
                Op::Number(value) => Scalar::Constant(*value),
                Op::Time => Scalar::Time(steps),
                _ => continue,
            };
            self.plan.budget.check()?;
            let known = match parent {
                Some((parent, input)) => self.slots[parent].know(input, &scalar)?,
                None => false,
            };
            if known {
                self.meters.of(id).count(1, steps.count as u64);
            } else {
                let mut reserved = Reservation::metered(&self.plan.budget, self.meters.of(id).memory());
                reserved.add((steps.count * 8 + size_of::<Row>()) as u64)?;
                let row = Row::new(Labels::empty(), scalar.column(steps.count));
                let out = self.deliver_reserved(id, vec![row], reserved)?;
                self.work(out)?;
            }
            self.work(Some(EvaluationTask::End(id)))?;
        }
        Ok(())
    }

    fn offer(&mut self, select: SelectId, mut series: Vec<SharedSeries>) -> Result<(), QueryError> {
        let open = |reading: &&mut SelectReading| !reading.ended && !reading.select.late;
        let Some(reading) = self.readings.get_mut(select.0).filter(open) else {
            return Err(QueryError::execution(format!(
                "internal error: push({}) called for a select that is not open",
                select.0
            )));
        };
        self.series += series.len() as u64;
        if let Some(identities) = &reading.identities {
            series.retain(|series| identities.fits(&series.labels));
        }
        let mut bytes = 0;
        reading.queue.extend(series.into_iter().map(|series| {
            let queued = QueuedSeries { bytes: series.size_bytes(), series };
            bytes += queued.bytes as u64;
            queued
        }));
        reading.reserved.add(bytes)?;
        if reading.queue.len() >= BATCH && self.build_pipelines(select) {
            self.submit(select, false)?;
        }
        Ok(())
    }

    fn end(&mut self, select: SelectId) -> Result<(), QueryError> {
        let closed = |reading: &SelectReading| reading.ended || reading.select.late;
        if self.readings.get(select.0).is_none_or(closed) {
            return Err(QueryError::execution(format!(
                "internal error: end_select({}) called for a select that is not open",
                select.0
            )));
        }
        let reading = &mut self.readings[select.0];
        reading.ended = true;
        reading.identities = None;
        if self.build_pipelines(select) {
            self.drain(select)?;
        }
        Ok(())
    }

    /// Evaluates the remaining series of a select that has ended, and ends its leaves.
    fn drain(&mut self, select: SelectId) -> Result<(), QueryError> {
        self.submit(select, true)?;
        while let Some(outcome) = self.pool.next(true) {
            self.take(outcome?)?;
        }
        for leaf in self.plan.leaves[select.0].clone() {
            // The operators of a pipeline end together with the leaf.
            self.work(Some(EvaluationTask::End(leaf)))?;
        }
        Ok(())
    }

    /// Cuts batches from the queue and passes them to workers. With `all`, the last one may be short.
    fn submit(&mut self, select: SelectId, all: bool) -> Result<(), QueryError> {
        let reading = &mut self.readings[select.0];
        let Some(pipelines) = reading.pipelines.clone() else { return Ok(()) };
        let queue = std::mem::take(&mut reading.queue);
        let mut left = queue.into_iter();
        loop {
            let ready = left.len() >= BATCH || (all && left.len() > 0);
            if !ready {
                break;
            }
            let (batch, bytes): (Vec<_>, Vec<_>) =
                left.by_ref().take(BATCH).map(|queued| (queued.series, queued.bytes)).unzip();
            let bytes: usize = bytes.into_iter().sum();
            let leaf = self.plan.leaves[select.0].first().map(|leaf| self.meters.of(*leaf).memory());
            let reading = &mut self.readings[select.0];
            let mut reserved = reading.reserved.split_off(bytes as u64);
            if let Some(meter) = leaf {
                reserved.move_to(meter);
            }
            reading.typed = reading.typed || batch.iter().any(|series| is_typed(&series.labels));
            let typed = reading.typed;
            self.pool.submit(Job { pipelines: pipelines.clone(), batch, typed, reserved });
            while let Some(outcome) = self.pool.next(false) {
                self.take(outcome?)?;
            }
        }
        self.readings[select.0].queue = left.collect();
        Ok(())
    }

    /// Passes the result of a batch on to the operators that follow.
    fn take(&mut self, outcome: BatchOutcome) -> Result<(), QueryError> {
        self.notes.merge(outcome.notes);
        for (id, seen) in outcome.seen {
            if let OperatorSlot::Distinct(operator) = &mut self.slots[id] {
                operator.absorb(seen)?;
            }
        }
        // The memory of a product stays reserved until it has been passed on.
        for (to, product, _reserved) in outcome.products {
            match (to, product) {
                (Some((id, input)), PipelineProduct::Rows(rows)) => {
                    let out = self.push_to(id, input, rows)?;
                    self.work(out)?;
                }
                (None, PipelineProduct::Rows(rows)) => self.answer(rows)?,
                (Some((id, _)), PipelineProduct::Folded(folded)) => {
                    let mut timer = self.meters.timer();
                    if let OperatorSlot::Fold(operator) = &mut self.slots[id] {
                        operator.absorb(folded, &mut self.notes)?;
                    }
                    timer.record(self.meters.of(id));
                }
                (_, PipelineProduct::Raw(series)) => {
                    self.answer_memory.add(series.iter().map(MatrixSeries::size_bytes).sum())?;
                    self.raw.extend(series);
                }
                (None, PipelineProduct::Folded(_)) => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self, rows: Vec<Row>) -> Result<(), QueryError> {
        self.answer_memory.add(rows.iter().map(Row::size_bytes).sum())?;
        self.rows.extend(rows);
        Ok(())
    }

    /// Does `first` and all work that follows from it. A loop and not recursion, because chains of operators are as long as those
    /// of the query.
    fn work(&mut self, first: Option<EvaluationTask>) -> Result<(), QueryError> {
        let mut tasks: Vec<EvaluationTask> = first.into_iter().collect();
        while let Some(task) = tasks.pop() {
            self.plan.budget.check()?;
            match task {
                EvaluationTask::Deliver { to, mut rows, mut in_transit } => {
                    // The result of a series may be larger than the series.
                    let steps = to.map_or(0, |(id, _)| self.plan.nodes[id].steps.count);
                    let (mut batch, mut bytes, mut weight) = (Vec::new(), 0, 0);
                    while batch.len() < BATCH
                        && weight < DELIVERY_BYTES
                        && let Some(row) = rows.next()
                    {
                        let size = row.size_bytes();
                        bytes += size;
                        weight += size.max(steps as u64 * 8);
                        batch.push(row);
                    }
                    // Reserved until the batch has been processed.
                    let _passing = in_transit.split_off(bytes);
                    if rows.len() > 0 {
                        tasks.push(EvaluationTask::Deliver { to, rows, in_transit });
                    }
                    match to {
                        Some((id, input)) => tasks.extend(self.push_to(id, input, batch)?),
                        None => self.answer(batch)?,
                    }
                }
                EvaluationTask::End(id) => {
                    let Some((parent, input)) = self.plan.nodes[id].parent else { continue };
                    let out = self.end_input(parent, input)?;
                    tasks.push(EvaluationTask::Close(parent));
                    tasks.extend(out);
                    tasks.extend(self.settle(parent, input)?);
                }
                EvaluationTask::Close(id) => {
                    self.open[id] -= 1;
                    if self.open[id] > 0 {
                        continue;
                    }
                    match &self.plan.nodes[id].op {
                        // If the series of a select came before its arguments, they are evaluated now.
                        Op::Leaf(leaf) => {
                            let select = leaf.select;
                            if self.readings[select.0].ended && self.build_pipelines(select) {
                                self.drain(select)?;
                            }
                        }
                        _ => tasks.push(EvaluationTask::End(id)),
                    }
                }
            }
        }
        Ok(())
    }

    /// Passes the output of `id` on to the operator that it feeds.
    fn deliver(&self, id: NodeId, rows: Vec<Row>) -> Result<Option<EvaluationTask>, QueryError> {
        self.deliver_reserved(id, rows, Reservation::metered(&self.plan.budget, self.meters.of(id).memory()))
    }

    /// As [`deliver`](Self::deliver), if part of the memory may be reserved already.
    fn deliver_reserved(
        &self,
        id: NodeId,
        rows: Vec<Row>,
        mut in_transit: Reservation,
    ) -> Result<Option<EvaluationTask>, QueryError> {
        if rows.is_empty() {
            return Ok(None);
        }
        self.meters.output(id, &rows);
        in_transit.resize(rows.iter().map(Row::size_bytes).sum())?;
        Ok(Some(EvaluationTask::Deliver {
            to: self.plan.nodes[id].parent,
            rows: rows.into_iter(),
            in_transit,
        }))
    }

    fn push_to(
        &mut self,
        id: NodeId,
        input: usize,
        rows: Vec<Row>,
    ) -> Result<Option<EvaluationTask>, QueryError> {
        let mut out = Vec::new();
        let plan = self.plan.clone();
        let mut timer = self.meters.timer();
        let (steps, notes, scratch) = (&plan.nodes[id].steps, &mut self.notes, &mut self.scratch);
        let mut cx = OperatorContext { steps, notes, budget: &plan.budget, scratch, workers: plan.workers };
        self.slots[id].push(&mut cx, input, rows, &mut out)?;
        timer.record(self.meters.of(id));
        self.deliver(id, out)
    }

    /// Ends one of the inputs of an operator.
    fn end_input(&mut self, id: NodeId, input: usize) -> Result<Option<EvaluationTask>, QueryError> {
        let mut out = Vec::new();
        let plan = self.plan.clone();
        let mut timer = self.meters.timer();
        let (steps, notes, scratch) = (&plan.nodes[id].steps, &mut self.notes, &mut self.scratch);
        let mut cx = OperatorContext { steps, notes, budget: &plan.budget, scratch, workers: plan.workers };
        self.slots[id].end(&mut cx, input, &mut out)?;
        timer.record(self.meters.of(id));
        self.deliver(id, out)
    }

    /// Decides which info series an operator needs, once the series are known to which it adds labels. If it needs none, their
    /// select has ended.
    fn settle(&mut self, id: NodeId, input: usize) -> Result<Option<EvaluationTask>, QueryError> {
        let OperatorSlot::Info(operator) = &mut self.slots[id] else { return Ok(None) };
        let &[_, infos] = self.plan.nodes[id].inputs.as_slice() else { return Ok(None) };
        let Op::Leaf(leaf) = &self.plan.nodes[infos].op else { return Ok(None) };
        if input != 0 {
            return Ok(None);
        }
        let identities = operator.identities(&self.plan.budget)?;
        let reading = &mut self.readings[leaf.select.0];
        if identities.is_empty() {
            reading.ended = true;
            return Ok(Some(EvaluationTask::End(infos)));
        }
        reading.select.matchers.extend(identities.matchers());
        reading.select.late = false;
        reading.identities = Some(identities);
        Ok(None)
    }

    /// Builds the pipelines of a select, if the arguments of all its leaves are known.
    fn build_pipelines(&mut self, select: SelectId) -> bool {
        if self.readings[select.0].pipelines.is_some() {
            return true;
        }
        let pipelines: Option<Vec<Pipeline>> = self.plan.leaves[select.0]
            .iter()
            .map(|leaf| assemble::pipeline(&self.plan, &self.slots, *leaf))
            .collect();
        self.readings[select.0].pipelines = pipelines.map(Arc::new);
        self.readings[select.0].pipelines.is_some()
    }
}

#[cfg(test)]
mod promptness;
#[cfg(test)]
mod tests;
