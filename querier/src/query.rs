//! From a question to an answer: waits for its turn, fetches series, drives the engine, ends in time.
//!
//! The engine is a machine without clock or I/O. It runs on a blocking thread and takes series from the [`feed`] of
//! each select, which reads the fan-out ahead of it into a short queue. Whoever waits for the answer holds a guard: when
//! the time is over, or the caller goes away, the guard raises the engine's flag and drops every store's stream.

mod feed;
mod gate;
mod planner;
mod resolution;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use budget::{Budget, Interrupt};
use model::Timestamp;
use promql::{EngineOptions, PlanNode, Query, QueryError, QueryOutput, QueryParams, Select};
use series::Dedup;
use storeapi::{PartialResponse, StoreError};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::fanout::{Awaited, ProxyStore, StoreFilter, StoreReport};
use feed::Feeds;
pub(crate) use gate::{Gate, QueryMetrics};
pub(crate) use planner::Planner;
pub(crate) use resolution::dynamic_lookback;

/// A question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) text: String,
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
    /// `None` for one instant.
    pub(crate) step: Option<Duration>,
    pub(crate) lookback: Duration,
    /// How replicas become one; `Off` where `replica_labels` is empty.
    pub(crate) dedup: Dedup,
    /// Labels that tell replicas apart; empty when they are to be kept apart.
    pub(crate) replica_labels: Vec<String>,
    pub(crate) partial_response: PartialResponse,
    pub(crate) stores: StoreFilter,
    /// Coarsest downsampling that will do.
    pub(crate) max_resolution: Duration,
    pub(crate) timeout: Duration,
    /// Whether to measure what each operator does.
    pub(crate) analyze: bool,
}

impl Question {
    fn params(&self, interrupt: Interrupt) -> QueryParams {
        QueryParams {
            start: self.start,
            end: self.end,
            step: self.step,
            lookback: self.lookback,
            dedup: self.dedup,
            replica_labels: self.replica_labels.clone(),
            interrupt,
        }
    }
}

/// An answer, and where it came from.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) output: QueryOutput,
    /// What is missing, and why.
    pub(crate) warnings: Vec<String>,
    /// What became of each store, each with the select that it was asked for.
    pub(crate) stores: Vec<(usize, StoreReport)>,
    pub(crate) timings: Timings,
}

/// How long the parts of a query took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timings {
    /// Until the text was a plan.
    pub(crate) planning: Duration,
    /// Until its turn came.
    pub(crate) queue: Duration,
    /// Until all series were read and evaluated; this includes waits for stores.
    pub(crate) evaluation: Duration,
    /// Until the answer was put together and in order.
    pub(crate) assembly: Duration,
}

/// What an answer cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Samples that were decoded.
    samples: u64,
    /// Whether it lacks a store.
    partial: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The engine has none.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Stores have none, and a partial one was not wanted.
    #[error(transparent)]
    Stores(#[from] StoreError),
    /// The time was over; and what it was waiting for then.
    #[error("{}{}", QueryError::Timeout, blame)]
    Late {
        /// The end of the sentence, empty where no store was to blame.
        blame: String,
    },
    /// Its turn did not come in time.
    #[error("query timed out in query queue")]
    Queue,
    /// The thread that evaluated it is gone.
    #[error("query evaluation ended unexpectedly; the log has the cause")]
    Lost,
}

/// Ends a query when dropped: its engine and all that feeds it.
struct EndOnDrop {
    interrupt: Interrupt,
    cancel: CancellationToken,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.interrupt.cancel();
        self.cancel.cancel();
    }
}

/// Answers questions over all stores. Clones share the gate.
#[derive(Clone)]
pub(crate) struct Driver {
    stores: ProxyStore,
    engine: EngineOptions,
    /// Carries matchers over binary operators as long as all stores' series carry their labels.
    propagate_where_sound: bool,
    gate: Gate,
    planner: Planner,
    /// Selects of one query that are read at the same time, beyond the one that the engine waits for.
    concurrent_selects: usize,
    metrics: Arc<QueryMetrics>,
}

impl Driver {
    pub(crate) fn new(
        stores: ProxyStore,
        engine: EngineOptions,
        propagate_where_sound: bool,
        gate: Gate,
        concurrent_selects: usize,
        metrics: QueryMetrics,
    ) -> Self {
        Self {
            stores,
            engine,
            propagate_where_sound,
            gate,
            planner: Planner::new(),
            concurrent_selects,
            metrics: Arc::new(metrics),
        }
    }

    /// The engine's settings.
    pub(crate) fn engine(&self) -> &EngineOptions {
        &self.engine
    }

    /// Where what a text makes long is done.
    pub(crate) fn planner(&self) -> &Planner {
        &self.planner
    }

    /// Answers a question with what `write` makes of the answer while it is the query's turn, on the thread that
    /// evaluated it. What it makes counts towards the query's budget, and it has to look at the flag.
    ///
    /// # Errors
    /// See [`AskError`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the query and every request to a store behind it.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: Question,
        write: impl FnOnce(Answer, &Budget, Interrupt) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, AskError> {
        let kind = if question.step.is_some() { "range" } else { "instant" };
        let began = Instant::now();
        let written = self.ask_until(question, began, write).await;
        self.metrics.observe(kind, began.elapsed(), written.as_ref().ok().map(|(_, cost)| cost));
        written.map(|(written, _)| written)
    }

    /// How a question would be answered: the operators, and the series that they need.
    ///
    /// # Errors
    /// When the query is none.
    pub(crate) async fn explain(&self, question: &Question) -> Result<(PlanNode, Vec<Select>), AskError> {
        let query = self.plan(question, Interrupt::new()).await?;
        Ok((query.explain(), query.selects().to_vec()))
    }

    async fn plan(&self, question: &Question, interrupt: Interrupt) -> Result<Query, AskError> {
        let mut engine = self.engine.clone();
        engine.propagate_matchers |= self.propagate_where_sound && self.stores.series_carry_labels();
        let (text, params) = (question.text.clone(), question.params(interrupt));
        let planned = self.planner.run(move || Query::plan(&text, &params, &engine)).await;
        Ok(planned.ok_or(AskError::Lost)??)
    }

    async fn ask_until<T: Send + 'static>(
        &self,
        question: Question,
        began: Instant,
        write: impl FnOnce(Answer, &Budget, Interrupt) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<(T, Cost), AskError> {
        let deadline = began + question.timeout;
        let end = EndOnDrop { interrupt: Interrupt::new(), cancel: CancellationToken::new() };
        let mut timings = Timings::default();
        let mut lap = Lap::begin();
        let planned = timeout_at(deadline, self.plan(&question, end.interrupt.clone())).await;
        let query = planned.map_err(|_| AskError::Late { blame: String::new() })??;
        timings.planning = lap.end();
        let turn = timeout_at(deadline, self.gate.enter()).await.map_err(|_| AskError::Queue)?;
        timings.queue = lap.end();
        let request = |select: &Select| (!select.late).then(|| resolution::request(select, &question));
        let requests = query.selects().iter().map(request).collect();
        let awaited = Awaited::default();
        let feeds = Feeds::new(
            self.stores.clone(),
            (requests, &query.reading_order()),
            question.stores.clone(),
            self.concurrent_selects,
            query.budget().clone(),
            awaited.clone(),
            end.cancel.clone(),
        );
        let interrupt = end.interrupt.clone();
        let work = tokio::task::spawn_blocking(move || {
            // The turn is over when the thread is free, even if nobody waits any more.
            let _turn = turn;
            let budget = query.budget().clone();
            let answer = evaluate(query, feeds, &interrupt, &question, timings)?;
            let cost = Cost { samples: answer.output.stats.samples, partial: !answer.warnings.is_empty() };
            Ok((write(answer, &budget, interrupt)?, cost))
        });
        match timeout_at(deadline, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(AskError::Lost),
            Err(_) => {
                end.interrupt.time_out();
                Err(AskError::Late { blame: awaited.blame() })
            }
        }
    }
}

/// Takes the time of one thing after the other.
struct Lap(Duration);

impl Lap {
    fn begin() -> Self {
        Self(clock())
    }

    /// The time since it began, or ended last.
    fn end(&mut self) -> Duration {
        let now = clock();
        now - std::mem::replace(&mut self.0, now)
    }
}

/// The time since it was first asked.
fn clock() -> Duration {
    static BEGAN: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);
    BEGAN.elapsed()
}

/// Turns the engine's crank until it has what it wants.
fn evaluate(
    query: Query,
    mut feeds: Feeds,
    interrupt: &Interrupt,
    question: &Question,
    mut timings: Timings,
) -> Result<Answer, AskError> {
    let mut lap = Lap::begin();
    let mut evaluation = if question.analyze { query.measured_evaluation(clock) } else { query.evaluation() };
    while let Some(select) = evaluation.next_select() {
        let batch = feeds.next(select.index(), || resolution::request(evaluation.select(select), question));
        // A feed that was cut off has no more to say; the flag says why.
        interrupt.check().map_err(QueryError::from)?;
        match batch? {
            Some(batch) => evaluation.push(select, batch)?,
            None => evaluation.end_select(select)?,
        }
    }
    timings.evaluation = lap.end();
    let output = evaluation.finish()?;
    timings.assembly = lap.end();
    let (warnings, stores) = feeds.finish();
    Ok(Answer { output, warnings, stores, timings })
}
