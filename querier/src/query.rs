//! Answers questions: waits for a free slot, fetches series, runs the engine, enforces the timeout.
//!
//! The engine has no clock and no I/O. It runs on a blocking thread and takes series from the [`feed`] of
//! each select, which reads the fan-out ahead into a short queue. The caller keeps a guard. On a timeout, or
//! when the caller is dropped, the guard cancels the engine and drops the streams of all stores.

mod active;
mod answer;
mod clock;
mod feed;
mod gate;
mod lookback;
mod planner;
mod question;
mod resolution;
mod shared;

use std::sync::Arc;

use budget::{Budget, Interrupt};
use promql::{EngineOptions, PlanNode, Query, QueryError, Select};
use runtime::CallContext;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::fanout::{Awaited, ProxyStore};
pub(crate) use active::ActiveQueries;
use answer::QueryCost;
pub(crate) use answer::{AskError, QueryAnswer, Timings};
use clock::{Stopwatch, clock};
use feed::Feeds;
pub(crate) use gate::{QueryGate, QueryMetrics};
pub(crate) use lookback::DynamicLookback;
pub(crate) use planner::Planner;
pub(crate) use question::Question;
pub(crate) use shared::SHARED_BYTES;
use shared::SharedSelects;

/// Cancels a query when dropped: its engine and all its feeds.
struct CancelOnDrop {
    interrupt: Interrupt,
    cancel: CancellationToken,
}

impl Drop for CancelOnDrop {
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
    /// Whether matchers are applied across binary operators while the series of all stores have their labels.
    propagate_where_sound: bool,
    gate: QueryGate,
    active: ActiveQueries,
    planner: Planner,
    /// Selects of one query that are read ahead, besides the one that the engine waits for.
    concurrent_selects: usize,
    /// Answers to selects that later queries use again.
    shared: Option<Arc<SharedSelects>>,
    metrics: Arc<QueryMetrics>,
}

impl Driver {
    pub(crate) fn new(
        stores: ProxyStore,
        engine: EngineOptions,
        propagate_where_sound: bool,
        gate: QueryGate,
        concurrent_selects: usize,
        metrics: Arc<QueryMetrics>,
    ) -> Self {
        Self {
            stores,
            engine,
            propagate_where_sound,
            gate,
            active: ActiveQueries::default(),
            planner: Planner::new(),
            concurrent_selects,
            shared: None,
            metrics,
        }
    }

    /// The same driver, which keeps answers of up to `most_bytes` to selects of questions that share them, for a few seconds.
    pub(crate) fn sharing_selects(mut self, most_bytes: u64) -> Self {
        self.shared = Some(Arc::new(SharedSelects::new(self.engine.total.clone(), most_bytes)));
        self
    }

    /// The same driver, which lists its running queries there.
    pub(crate) fn listing(mut self, active: ActiveQueries) -> Self {
        self.active = active;
        self
    }

    /// The settings of the engine.
    pub(crate) fn engine(&self) -> &EngineOptions {
        &self.engine
    }

    /// An information for each replica label of a question that no store has.
    pub(crate) fn odd_replica_labels(&self, question: &Question) -> Vec<String> {
        let odd = self.stores.labels_of_no_store(&question.replica_labels);
        let text = |label: String| {
            format!(
                "replica label {label:?}: no store has it as an external label; check --query.replica-label"
            )
        };
        odd.into_iter().map(text).collect()
    }

    /// Threads for work whose duration depends on the text of a request.
    pub(crate) fn planner(&self) -> &Planner {
        &self.planner
    }

    /// Answers a question. `write` converts the answer on the thread that evaluated it, while the query still
    /// occupies its slot. The text counts towards the budget of the query; `write` must check for
    /// cancellation.
    ///
    /// # Errors
    /// See [`AskError`].
    ///
    /// # Cancel safety
    /// Dropping the future cancels the query and all its requests to stores.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: Question,
        write: impl FnOnce(QueryAnswer, &Budget, Interrupt) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<T, AskError> {
        let kind = if question.step.is_some() { "range" } else { "instant" };
        let began = Instant::now();
        if let Some(shared) = &self.shared {
            shared.forget_old();
        }
        let written = self.ask_until(question, began, write).await;
        self.metrics.observe(kind, began.elapsed(), written.as_ref().ok().map(|(_, cost)| cost));
        written.map(|(written, _)| written)
    }

    /// The plan of a question: its operators, and the selects that they need.
    ///
    /// # Errors
    /// The query cannot be parsed or planned.
    pub(crate) async fn explain(&self, question: &Question) -> Result<(PlanNode, Vec<Select>), AskError> {
        let query = self.plan(question, Interrupt::new()).await?;
        Ok((query.explain(), query.selects().to_vec()))
    }

    async fn plan(&self, question: &Question, interrupt: Interrupt) -> Result<Query, AskError> {
        let (driver, question) = (self.clone(), question.clone());
        let planned = self.planner.run(move || driver.plan_here(&question, interrupt)).await;
        planned.ok_or(AskError::Lost)?
    }

    /// Plans on this thread.
    fn plan_here(&self, question: &Question, interrupt: Interrupt) -> Result<Query, AskError> {
        let mut engine = self.engine.clone();
        engine.propagate_matchers |= self.propagate_where_sound && self.stores.series_carry_labels();
        Ok(Query::plan(&question.text, &question.params(interrupt), &engine)?)
    }

    async fn ask_until<T: Send + 'static>(
        &self,
        question: Question,
        began: Instant,
        write: impl FnOnce(QueryAnswer, &Budget, Interrupt) -> Result<T, QueryError> + Send + 'static,
    ) -> Result<(T, QueryCost), AskError> {
        let deadline = began + question.timeout;
        let end = CancelOnDrop { interrupt: Interrupt::new(), cancel: CancellationToken::new() };
        let mut timings = Timings::default();
        let mut stopwatch = Stopwatch::begin();
        let planned = timeout_at(deadline, self.plan(&question, end.interrupt.clone())).await;
        let query = planned.map_err(|_| AskError::Late { blame: String::new() })??;
        timings.planning = stopwatch.end();
        let turn = timeout_at(deadline, self.gate.enter()).await.map_err(|_| AskError::Queue)?;
        timings.queue = stopwatch.end();
        let active = self.active.enter(&question.text);
        let awaited = Awaited::default();
        let mut attempt = Attempt {
            driver: self.clone(),
            context: CallContext::current().with_deadline(deadline),
            question,
            interrupt: end.interrupt.clone(),
            cancel: end.cancel.clone(),
            awaited: awaited.clone(),
            timings,
        };
        let work = tokio::task::spawn_blocking(move || {
            // The slot is free when the thread is free, even if the caller has stopped waiting.
            let (_turn, _active) = (turn, active);
            let (answer, budget) = attempt.run(query)?;
            let interrupt = attempt.interrupt;
            let cost =
                QueryCost { samples: answer.output.stats.samples, partial: !answer.warnings.is_empty() };
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

/// A question that is being evaluated, on the thread of the engine.
struct Attempt {
    driver: Driver,
    context: CallContext,
    question: Question,
    interrupt: Interrupt,
    cancel: CancellationToken,
    awaited: Awaited,
    timings: Timings,
}

impl Attempt {
    /// Evaluates `query`. If stores sent data that is too coarse for the lookback, it is evaluated again with a longer one.
    fn run(&mut self, query: Query) -> Result<(QueryAnswer, Budget), AskError> {
        let selects = query.selects().to_vec();
        let (answer, budget) = self.evaluate_readable(query)?;
        match resolution::with_longer_lookback(&self.question, &selects, &answer.stores) {
            Some(question) => {
                drop((answer, budget));
                self.question = question;
                self.evaluate_readable(self.driver.plan_here(&self.question, self.interrupt.clone())?)
            }
            None => Ok((answer, budget)),
        }
    }

    /// Evaluates `query`. If it meets a damaged chunk, it is evaluated again without the damaged chunks, which are then
    /// warnings, or an error, that name their store.
    fn evaluate_readable(&self, query: Query) -> Result<(QueryAnswer, Budget), AskError> {
        let budget = query.budget().clone();
        let shared = self.driver.shared.clone().filter(|_| self.question.shares_selects());
        match self.evaluate(query, self.driver.stores.clone(), shared) {
            Err(AskError::Query(QueryError::Decode(_))) => {
                let query = self.driver.plan_here(&self.question, self.interrupt.clone())?;
                let budget = query.budget().clone();
                Ok((self.evaluate(query, self.driver.stores.verifying_chunks(), None)?, budget))
            }
            answer => Ok((answer?, budget)),
        }
    }

    /// Runs the engine until it has all series that it needs.
    fn evaluate(
        &self,
        query: Query,
        stores: ProxyStore,
        shared: Option<Arc<SharedSelects>>,
    ) -> Result<QueryAnswer, AskError> {
        let mut stopwatch = Stopwatch::begin();
        let evaluated: Vec<_> = query.selects().iter().map(|select| select.evaluated).collect();
        let mut feeds = self.feeds(&query, stores).sharing(shared);
        let question = &self.question;
        let mut evaluation =
            if question.analyze { query.measured_evaluation(clock) } else { query.evaluation() };
        while let Some(select) = evaluation.next_select() {
            let batch =
                feeds.next(select.index(), || resolution::request(evaluation.select(select), question));
            // A cancelled feed returns no more series; this check returns the cause.
            self.interrupt.check().map_err(QueryError::from)?;
            match batch? {
                Some(batch) => evaluation.push(select, batch)?,
                None => evaluation.end_select(select)?,
            }
        }
        let mut timings = self.timings;
        timings.evaluation = stopwatch.end();
        let output = evaluation.finish()?;
        timings.assembly = stopwatch.end();
        let (warnings, mut stores) = feeds.finish();
        for (select, report) in &mut stores {
            if let Some(range) = evaluated.get(*select) {
                report.resolutions.cut(*range);
            }
        }
        let max_resolution = question.max_resolution;
        Ok(QueryAnswer { output, warnings, stores, max_resolution, timings })
    }

    fn feeds(&self, query: &Query, stores: ProxyStore) -> Feeds {
        let request = |select: &Select| (!select.late).then(|| resolution::request(select, &self.question));
        let requests = query.selects().iter().map(request).collect();
        Feeds::new(
            self.context.clone(),
            stores,
            (requests, &query.reading_order()),
            self.question.stores.clone(),
            self.driver.concurrent_selects,
            query.budget().clone(),
            self.awaited.clone(),
            self.cancel.clone(),
        )
    }
}
