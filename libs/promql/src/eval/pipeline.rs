//! What a worker does with a batch of series: decode, evaluate the leaf, change each series by itself, and fold it into
//! the aggregation that follows, if one does.

use std::sync::Arc;

use model::{Labels, Sample, Timestamp};
use series::{Samples, SelectedSeries};

use super::aggregate::fold::Folded;
use super::budget::{Budget, Hold};
use super::column::{Column, Row, drop_stale};
use super::distinct::{Seen, Shortcut};
use super::leaf;
use super::map;
use super::meter::Meters;
use super::notes::Notes;
use super::scalar::Scalar;
use super::skip;
use crate::QueryError;
use crate::output::MatrixSeries;
use crate::plan::Plan;
use crate::plan::node::{Aggregation, Distinct, Leaf, LeafKind, Map, NodeId, Op};
use crate::plan::steps::Steps;

/// What is done to each series.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) node: NodeId,
    pub(crate) work: Work,
    /// The steps of its output.
    pub(crate) steps: Steps,
}

/// A change, with its arguments, or a look at the labels.
#[derive(Debug)]
pub(crate) enum Work {
    Map(Map, Vec<Scalar>),
    Distinct(Distinct, Shortcut),
}

/// A leaf and what follows it up to the first operator that looks at several series.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) leaf: NodeId,
    pub(crate) scalars: Vec<Scalar>,
    pub(crate) stages: Vec<Stage>,
    /// The aggregation at its end, which takes what was folded.
    pub(crate) fold: Option<Arc<Aggregation>>,
    /// Where its output goes.
    pub(crate) to: Taker,
}

/// What comes out of a pipeline.
#[derive(Debug)]
pub(crate) enum Product {
    Rows(Vec<Row>),
    Folded(Folded),
    /// Samples themselves.
    Raw(Vec<MatrixSeries>),
}

/// What a worker keeps from one series to the next, so as not to allocate.
#[derive(Debug)]
pub(crate) struct Scratch {
    samples: Samples,
    column: Column,
    hold: Hold,
}

impl Scratch {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Scratch { samples: Samples::default(), column: Column::default(), hold: Hold::new(budget) }
    }
}

/// Which input of which operator takes a product; `None` for the answer.
pub(crate) type Taker = Option<(NodeId, usize)>;

/// What a batch came to: for each pipeline, where its product goes, what it is and what holds its memory.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) products: Vec<(Taker, Product, Hold)>,
    /// What the operators that keep series apart have seen.
    pub(crate) seen: Vec<(NodeId, Seen)>,
    pub(crate) notes: Notes,
}

/// Runs a batch through the pipelines that read its select; `typed` says that series up to its end may have types or
/// units.
pub(crate) fn run(
    plan: &Plan,
    meters: &Meters,
    pipelines: &[Pipeline],
    batch: &[SelectedSeries],
    typed: bool,
    scratch: &mut Scratch,
) -> Result<Outcome, QueryError> {
    let products = Vec::with_capacity(pipelines.len());
    let mut outcome = Outcome { products, seen: Vec::new(), notes: Notes::default() };
    for pipeline in pipelines {
        let (product, hold) = pipeline.run(plan, meters, batch, typed, scratch, &mut outcome)?;
        outcome.products.push((pipeline.to, product, hold));
    }
    Ok(outcome)
}

impl Pipeline {
    fn run(
        &self,
        plan: &Plan,
        meters: &Meters,
        batch: &[SelectedSeries],
        typed: bool,
        scratch: &mut Scratch,
        outcome: &mut Outcome,
    ) -> Result<(Product, Hold), QueryError> {
        let Outcome { notes, seen: all_seen, .. } = outcome;
        let node = &plan.nodes[self.leaf];
        let Op::Leaf(leaf) = &node.op else {
            return Err(QueryError::execution("a pipeline has to begin with a selector"));
        };
        let mut product = match (&leaf.kind, &self.fold) {
            (LeafKind::Raw, _) => Product::Raw(Vec::new()),
            (_, Some(spec)) => {
                let steps = self.stages.last().map_or(node.steps, |stage| stage.steps);
                Product::Folded(Folded::new(spec.clone(), steps.count))
            }
            (_, None) => Product::Rows(Vec::new()),
        };
        // What comes out is held for the operator that takes it, or else for the last that made it.
        let last = self.stages.last().map_or(self.leaf, |stage| stage.node);
        let taker = self.to.filter(|_| self.fold.is_some()).map_or(last, |(node, _)| node);
        let mut hold = Hold::metered(&plan.budget, meters.of(taker));
        let distinct = |stage: &&Stage| matches!(stage.work, Work::Distinct(..));
        let mut seen: Vec<(NodeId, Seen)> =
            self.stages.iter().filter(distinct).map(|stage| (stage.node, Seen::default())).collect();
        let mut lap = meters.lap();
        for series in batch {
            plan.budget.check()?;
            decode(leaf, &node.steps, series, &plan.budget, scratch)?;
            if meters.is_on() {
                meters.of(self.leaf).count(1, samples_in(&scratch.samples));
            }
            if scratch.samples.is_empty() {
                continue;
            }
            if let Product::Raw(list) = &mut product {
                if let Some(series) = raw(leaf, &node.steps, &series.labels, &mut scratch.samples)? {
                    hold.add(scratch.samples.size_bytes() as u64)?;
                    list.push(series);
                }
                lap.book(meters.of(self.leaf));
                continue;
            }
            let mut column = std::mem::take(&mut scratch.column);
            let samples = &mut scratch.samples;
            leaf::evaluate(leaf, &node.steps, &self.scalars, &series.labels, samples, &mut column, notes)?;
            let drop_name = drops_name(&leaf.kind);
            let mut row = Row { labels: series.labels.clone(), drop_name, column };
            let mut left = !row.column.is_empty();
            lap.book(meters.of(self.leaf));
            let mut looks = seen.iter_mut();
            for stage in &self.stages {
                match &stage.work {
                    Work::Map(map, scalars) => {
                        left = left && map::apply(map, &stage.steps, scalars, &mut row, notes)?;
                    }
                    Work::Distinct(rule, shortcut) => {
                        if let Some((_, seen)) = looks.next().filter(|_| left) {
                            let one_name = shortcut.one_name && !typed;
                            rule.apply(&mut row, seen, Shortcut { one_name, ..*shortcut });
                        }
                    }
                }
                lap.book(meters.of(stage.node));
                if left {
                    meters.output(stage.node, std::slice::from_ref(&row));
                }
            }
            match &mut product {
                Product::Folded(folded) => {
                    if left {
                        folded.add(&row, notes);
                    }
                    scratch.column = row.column;
                }
                Product::Rows(rows) if left => {
                    hold.add(row.size_bytes())?;
                    rows.push(row);
                }
                Product::Rows(_) | Product::Raw(_) => scratch.column = row.column,
            }
            lap.book(meters.of(taker));
        }
        all_seen.append(&mut seen);
        if let Product::Folded(folded) = &product {
            hold.add(folded.size_bytes())?;
        }
        Ok((product, hold))
    }
}

/// Whether the result of a leaf is no longer the metric that was selected.
fn drops_name(kind: &LeafKind) -> bool {
    match kind {
        LeafKind::Instant | LeafKind::Raw => false,
        LeafKind::Timestamp | LeafKind::StartTimestamp | LeafKind::InfoTimestamp => true,
        LeafKind::Range(call) => !call.keeps_name(),
    }
}

/// Samples as they are counted: a histogram counts as one for every 16 bytes it takes.
fn samples_in(samples: &Samples) -> u64 {
    let histograms: usize = samples.histograms.iter().map(|(_, h)| h.size_bytes() / 16).sum();
    (samples.timestamps.len() + histograms) as u64
}

fn decode(
    leaf: &Leaf,
    steps: &Steps,
    series: &SelectedSeries,
    budget: &Budget,
    scratch: &mut Scratch,
) -> Result<(), QueryError> {
    let samples = &mut scratch.samples;
    let fewer = if skip::has_gaps(leaf, steps) { skip::touched(series, &leaf.window, steps) } else { None };
    let series = fewer.as_ref().unwrap_or(series);
    series
        .decode(&leaf.decode, samples)
        .map_err(|error| QueryError::execution(format!("decoding {}: {error}", series.labels)))?;
    budget.count_samples(samples_in(samples))?;
    // The lists keep their memory from one series to the next.
    scratch.hold.at_least(samples.size_bytes() as u64)?;
    if leaf.statistics {
        leaf::keep_statistics(samples);
    }
    Ok(())
}

/// The samples of the window of an instant query for a range.
fn raw(
    leaf: &Leaf,
    steps: &Steps,
    labels: &Labels,
    samples: &mut Samples,
) -> Result<Option<MatrixSeries>, QueryError> {
    use crate::syntax::ast::Boundary;
    drop_stale(samples);
    let (start, end) = (leaf.window.start(steps.start), leaf.window.end(steps.start));
    let (before, after) = leaf.window.margins();
    let inside = |time: i64| time > start.saturating_sub(before) && time <= end.saturating_add(after);
    let floats = samples.timestamps.iter().zip(&samples.values).filter(|(t, _)| inside(**t));
    let mut floats: Vec<Sample> = floats.map(|(t, v)| Sample::new(*t, *v)).collect();
    let histograms: Vec<_> = samples
        .histograms
        .iter()
        .filter(|(t, _)| inside(*t))
        .map(|(t, h)| (Timestamp::from_millis(*t), h.clone()))
        .collect();
    let modifier = match leaf.window.boundary {
        Boundary::Plain => None,
        Boundary::Anchored => Some("anchored"),
        Boundary::Smoothed => Some("smoothed"),
    };
    if let Some(modifier) = modifier {
        if !histograms.is_empty() {
            return Err(QueryError::execution(format!(
                "{modifier} modifier is not supported with histograms"
            )));
        }
        floats = crate::functions::range::extend(&floats, start, end, leaf.window.boundary);
    }
    if floats.is_empty() && histograms.is_empty() {
        return Ok(None);
    }
    Ok(Some(MatrixSeries { labels: labels.clone(), floats, histograms }))
}
