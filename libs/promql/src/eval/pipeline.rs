//! What a worker does with a batch of series: decode, evaluate the leaf, transform each series by itself, and fold it into
//! the aggregation that follows, if there is one.

use std::sync::Arc;

use budget::{Budget, LimitError, Reservation};
use series::{Samples, SelectedSeries};

use crate::error::QueryError;
use crate::eval::aggregate::fold::Folded;
use crate::eval::distinct::{SeenLabels, Shortcut};
use crate::eval::leaf;
use crate::eval::map;
use crate::eval::meter::{Meters, OperatorTimer};
use crate::eval::sieve::Sieve;
use crate::eval::skip;
use crate::output::MatrixSeries;
use crate::plan::Plan;
use crate::plan::node::{Aggregation, Distinct, Leaf, LeafKind, Map, NodeId, Op};
use crate::shared_series::SharedSeries;
use crate::syntax::ast::Boundary;
use crate::value::column::{Column, Row};
use crate::value::notes::Notes;
use crate::value::scalar::Scalar;
use crate::value::steps::Steps;

/// One operator of a pipeline.
#[derive(Debug)]
pub(crate) struct PipelineStage {
    pub(crate) node: NodeId,
    pub(crate) work: StageWork,
    /// The steps of its output.
    pub(crate) steps: Steps,
}

/// A transformation with its arguments, or the check for equal labels.
#[derive(Debug)]
pub(crate) enum StageWork {
    Map(Map, Vec<Scalar>),
    Distinct(Distinct, Shortcut),
}

/// A leaf and the operators after it, up to the first one that looks at several series.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) leaf: NodeId,
    pub(crate) scalars: Vec<Scalar>,
    pub(crate) stages: Vec<PipelineStage>,
    /// The aggregation at its end, if workers fold series for it.
    pub(crate) fold: Option<Arc<Aggregation>>,
    /// Which values the aggregation at its end will not choose.
    pub(crate) sieve: Option<Arc<Sieve>>,
    /// The receiver of its output.
    pub(crate) to: OutputTarget,
}

/// The output of a pipeline.
#[derive(Debug)]
pub(crate) enum PipelineProduct {
    Rows(Vec<Row>),
    Folded(Folded),
    /// Samples themselves.
    Raw(Vec<MatrixSeries>),
}

/// Buffers that a worker reuses from one series to the next.
#[derive(Debug)]
pub(crate) struct BatchScratch {
    samples: Samples,
    column: Column,
    /// For `samples`.
    reserved: Reservation,
    /// For the series that passes through the stages.
    passing: Reservation,
    maps: map::MapScratch,
    /// The key of the group of a series.
    key: Vec<u8>,
}

impl BatchScratch {
    pub(crate) fn new(budget: &Budget) -> Self {
        let (samples, column) = (Samples::default(), Column::default());
        let (reserved, passing, maps) =
            (Reservation::new(budget), Reservation::new(budget), map::MapScratch::new(budget));
        Self { samples, column, reserved, passing, maps, key: Vec::new() }
    }

    /// Reserves memory for the series that passes through. With `one_size`, all columns of floats have the same size, so that
    /// the reservation for one is enough for the next.
    fn reserve_passing(&mut self, row: &Row, one_size: bool) -> Result<(), LimitError> {
        let bytes = row.size_bytes();
        if one_size && row.column.histograms.is_empty() {
            self.passing.grow_to(bytes)
        } else {
            self.passing.resize(bytes)
        }
    }
}

/// The operator that receives a product, and which of its inputs; `None` for the answer.
pub(crate) type OutputTarget = Option<(NodeId, usize)>;

/// The results of a batch: for each pipeline, the receiver of its product, the product, and its memory.
#[derive(Debug)]
pub(crate) struct BatchOutcome {
    pub(crate) products: Vec<(OutputTarget, PipelineProduct, Reservation)>,
    /// What the checks for equal labels have seen.
    pub(crate) seen: Vec<(NodeId, SeenLabels)>,
    pub(crate) notes: Notes,
}

/// Runs a batch through the pipelines that read its select. `typed` means that series up to the end of the batch may have types
/// or units.
pub(crate) fn run(
    plan: &Plan,
    meters: &Meters,
    pipelines: &[Pipeline],
    batch: &[SharedSeries],
    typed: bool,
    scratch: &mut BatchScratch,
) -> Result<BatchOutcome, QueryError> {
    let mut running = Vec::with_capacity(pipelines.len());
    for pipeline in pipelines {
        running.push(RunningPipeline::new(pipeline, plan, meters, typed)?);
    }
    // Leaves that read the same samples use them one after the other; leaves that change the samples come last.
    let mut turns: Vec<usize> = (0..running.len()).collect();
    turns.sort_by_key(|&at| running[at].leaf.changes_samples());
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for turn in turns {
        let known = groups.iter_mut().find(|group| running[group[0]].reads_like(&running[turn]));
        match known {
            Some(group) => group.push(turn),
            None => groups.push(vec![turn]),
        }
    }
    let mut notes = Notes::default();
    for series in batch {
        for group in &groups {
            plan.budget.check()?;
            let mut timer = meters.timer();
            let first = &running[group[0]];
            decode(first.leaf, &first.steps, series, &plan.budget, scratch)?;
            for &at in group {
                running[at].take(series, scratch, &mut timer, &mut notes)?;
            }
        }
    }
    let mut outcome = BatchOutcome { products: Vec::with_capacity(running.len()), seen: Vec::new(), notes };
    for running in running {
        running.finish(&mut outcome)?;
    }
    Ok(outcome)
}

/// A pipeline that runs on a batch.
struct RunningPipeline<'p> {
    pipeline: &'p Pipeline,
    leaf: &'p Leaf,
    /// The steps of the leaf.
    steps: Steps,
    meters: &'p Meters,
    budget: &'p Budget,
    typed: bool,
    product: PipelineProduct,
    seen: Vec<(NodeId, SeenLabels)>,
    /// The operator whose meter counts the memory of the output: the aggregation that receives it, or else the last stage.
    owner: NodeId,
    reserved: Reservation,
}

impl<'p> RunningPipeline<'p> {
    fn new(
        pipeline: &'p Pipeline,
        plan: &'p Plan,
        meters: &'p Meters,
        typed: bool,
    ) -> Result<Self, QueryError> {
        let node = &plan.nodes[pipeline.leaf];
        let Op::Leaf(leaf) = &node.op else {
            return Err(QueryError::execution("internal error: a pipeline does not begin with a selector"));
        };
        let product = match (&leaf.kind, &pipeline.fold) {
            (LeafKind::Raw, _) => PipelineProduct::Raw(Vec::new()),
            (_, Some(spec)) => {
                let steps = pipeline.stages.last().map_or(node.steps, |stage| stage.steps);
                PipelineProduct::Folded(Folded::new(spec.clone(), steps.count))
            }
            (_, None) => PipelineProduct::Rows(Vec::new()),
        };
        let last = pipeline.stages.last().map_or(pipeline.leaf, |stage| stage.node);
        let owner = pipeline.to.filter(|_| pipeline.fold.is_some()).map_or(last, |(node, _)| node);
        let distinct = |stage: &&PipelineStage| matches!(stage.work, StageWork::Distinct(..));
        let seen = pipeline
            .stages
            .iter()
            .filter(distinct)
            .map(|stage| (stage.node, SeenLabels::default()))
            .collect();
        let reserved = Reservation::metered(&plan.budget, meters.of(owner).memory());
        let (steps, budget) = (node.steps, &plan.budget);
        Ok(RunningPipeline { pipeline, leaf, steps, meters, budget, typed, product, seen, owner, reserved })
    }

    /// Whether another pipeline reads the same samples, decoded in the same way.
    fn reads_like(&self, other: &Self) -> bool {
        let whole = |running: &Self| !skip::has_gaps(running.leaf, &running.steps);
        self.leaf.decode == other.leaf.decode
            && !self.leaf.statistics
            && !other.leaf.statistics
            && whole(self)
            && whole(other)
    }

    /// Evaluates the samples of a series, which are in `scratch`.
    fn take(
        &mut self,
        series: &SelectedSeries,
        scratch: &mut BatchScratch,
        timer: &mut OperatorTimer,
        notes: &mut Notes,
    ) -> Result<(), QueryError> {
        let leaf_meter = self.meters.of(self.pipeline.leaf);
        if self.meters.is_on() {
            leaf_meter.count(1, samples_in(&scratch.samples));
        }
        if scratch.samples.is_empty() {
            return Ok(());
        }
        if let PipelineProduct::Raw(list) = &mut self.product {
            let bytes = scratch.samples.size_bytes() as u64;
            self.reserved.add(bytes)?;
            match leaf::raw(self.leaf, &self.steps, &series.labels, &mut scratch.samples)? {
                Some(series) => list.push(series),
                None => self.reserved.release(bytes),
            }
            timer.record(leaf_meter);
            return Ok(());
        }
        let mut row = self.evaluate(series, scratch, notes)?;
        timer.record(leaf_meter);
        let left = !row.column.is_empty();
        let left = self.pass(&mut row, left, scratch, timer, notes)?;
        self.add(row, left, scratch, notes)?;
        timer.record(self.meters.of(self.owner));
        Ok(())
    }

    /// The leaf's column of a series.
    fn evaluate(
        &self,
        series: &SelectedSeries,
        scratch: &mut BatchScratch,
        notes: &mut Notes,
    ) -> Result<Row, QueryError> {
        let mut column = std::mem::take(&mut scratch.column);
        scratch.passing.grow_to((self.steps.count * 8) as u64)?;
        if self.leaf.window.boundary == Boundary::Smoothed {
            // Each step has a histogram of its own then.
            let sizes = scratch.samples.histograms.iter().map(|(_, histogram)| histogram.size_bytes());
            scratch.passing.grow_to((sizes.max().unwrap_or(0) * self.steps.count) as u64)?;
        }
        let (samples, scalars) = (&mut scratch.samples, &self.pipeline.scalars);
        leaf::evaluate(self.leaf, &self.steps, scalars, &series.labels, samples, &mut column, notes)?;
        let drop_name = drops_name(&self.leaf.kind);
        let row = Row { labels: series.labels.clone(), drop_name, column };
        scratch.reserve_passing(&row, true)?;
        Ok(row)
    }

    /// Passes a series through the stages. `left` tells whether the series has any value; returns whether it has any value after
    /// them.
    fn pass(
        &mut self,
        row: &mut Row,
        mut left: bool,
        scratch: &mut BatchScratch,
        timer: &mut OperatorTimer,
        notes: &mut Notes,
    ) -> Result<bool, QueryError> {
        let mut looks = self.seen.iter_mut();
        for stage in &self.pipeline.stages {
            self.budget.check()?;
            match &stage.work {
                StageWork::Map(map, scalars) if left => {
                    let more = map::needs(map, &stage.steps, row);
                    scratch.passing.add(more)?;
                    let (steps, maps) = (&stage.steps, &mut scratch.maps);
                    left = map::apply(map, steps, scalars, row, self.budget, maps, notes)?;
                    scratch.reserve_passing(row, more == 0)?;
                }
                StageWork::Map(..) => {}
                StageWork::Distinct(rule, shortcut) => {
                    if let Some((_, seen)) = looks.next().filter(|_| left) {
                        let untyped = shortcut.untyped && !self.typed;
                        rule.apply(row, seen, Shortcut { untyped, ..*shortcut });
                    }
                }
            }
            timer.record(self.meters.of(stage.node));
            if left {
                self.meters.output(stage.node, std::slice::from_ref(row));
            }
        }
        if let Some(sieve) = &self.pipeline.sieve {
            left = left && sieve.apply(row, &mut scratch.key);
        }
        Ok(left)
    }

    /// Adds a series to the product, if it has any value (`left`).
    fn add(
        &mut self,
        row: Row,
        left: bool,
        scratch: &mut BatchScratch,
        notes: &mut Notes,
    ) -> Result<(), QueryError> {
        match &mut self.product {
            PipelineProduct::Folded(folded) => {
                if left {
                    scratch.passing.add(row.column.unshared_bytes())?;
                    folded.add(&row, &mut self.reserved, notes)?;
                }
                scratch.column = row.column;
            }
            PipelineProduct::Rows(rows) if left => {
                if !row.column.histograms.is_empty() {
                    scratch.passing.resize(0)?;
                }
                self.reserved.add(row.size_bytes())?;
                rows.push(row);
            }
            PipelineProduct::Rows(_) | PipelineProduct::Raw(_) => scratch.column = row.column,
        }
        Ok(())
    }

    /// Adds its results to those of the batch.
    fn finish(mut self, outcome: &mut BatchOutcome) -> Result<(), QueryError> {
        outcome.seen.append(&mut self.seen);
        outcome.products.push((self.pipeline.to, self.product, self.reserved));
        Ok(())
    }
}

/// Whether the values of a leaf are no longer those of the selected metric.
fn drops_name(kind: &LeafKind) -> bool {
    match kind {
        LeafKind::Instant | LeafKind::Raw => false,
        LeafKind::Timestamp | LeafKind::StartTimestamp | LeafKind::InfoTimestamp => true,
        LeafKind::Range(call) => !call.keeps_name(),
    }
}

/// The number of samples for limits and statistics: a histogram counts as one for every 16 bytes that it takes.
fn samples_in(samples: &Samples) -> u64 {
    let histograms: usize = samples.histograms.iter().map(|(_, h)| h.size_bytes() / 16).sum();
    (samples.timestamps.len() + histograms) as u64
}

impl Leaf {
    /// Whether evaluating it removes staleness markers from the samples.
    fn changes_samples(&self) -> bool {
        match self.kind {
            LeafKind::Range(_) | LeafKind::Raw => true,
            LeafKind::Instant => self.window.boundary != Boundary::Plain,
            LeafKind::Timestamp | LeafKind::StartTimestamp | LeafKind::InfoTimestamp => false,
        }
    }
}

fn decode(
    leaf: &Leaf,
    steps: &Steps,
    series: &SharedSeries,
    budget: &Budget,
    scratch: &mut BatchScratch,
) -> Result<(), QueryError> {
    let samples = &mut scratch.samples;
    let fewer = if skip::has_gaps(leaf, steps) { skip::touched(series, &leaf.window, steps) } else { None };
    // The buffers keep their memory from one series to the next.
    scratch.reserved.grow_to(fewer.as_ref().unwrap_or(series).decoded_bytes(&leaf.decode) as u64)?;
    match fewer {
        Some(fewer) => fewer.decode(&leaf.decode, samples)?,
        None => series.decode(&leaf.decode, samples)?,
    }
    budget.count_samples(samples_in(samples))?;
    scratch.reserved.grow_to(samples.size_bytes() as u64)?;
    if leaf.statistics {
        leaf::keep_statistics(samples);
    }
    Ok(())
}
