//! One evaluation of a group: its rules are asked, and what they produce is stored and sent.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use head::Database;
use localstore::LocalStore;
use model::{Labels, Timestamp};
use promql::VectorSample;
use rules::{Group, RuleGroup, TemplateContext};
use runtime::Shutdown;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::alert_sender::AlertSender;
use crate::iteration::Iteration;
use crate::metrics::GroupMetrics;
use crate::problems::{Problems, RuleOutcome};
use crate::source::{QuerySource, RuleQuery};
use crate::storage;

/// Why a rule was left out.
const LEFT_OUT: &str = "not evaluated: an earlier query of the group did not end in time";

/// What all groups need to be evaluated.
pub(crate) struct Evaluator {
    pub(crate) source: QuerySource,
    pub(crate) database: Arc<Database>,
    /// The data folder, without external labels.
    pub(crate) local: LocalStore,
    pub(crate) external: Labels,
    pub(crate) external_url: String,
    /// Longest time of a query.
    pub(crate) query_limit: Duration,
    /// Rules that are evaluated beside others of their group.
    pub(crate) beside: Arc<Semaphore>,
    /// `None` if no Alertmanager is configured.
    pub(crate) sender: Option<AlertSender>,
    /// Labels that stored states have and alerts do not.
    pub(crate) ignored_labels: Vec<String>,
}

/// A group that is evaluated again and again.
pub(crate) struct RunningGroup {
    pub(crate) group: Mutex<Group>,
    pub(crate) metrics: GroupMetrics,
    pub(crate) problems: Mutex<Problems>,
}

impl RunningGroup {
    pub(crate) fn new(group: Group, metrics: GroupMetrics) -> Self {
        let problems = Mutex::new(Problems::new(&group.file, group.name()));
        Self { group: Mutex::new(group), metrics, problems }
    }

    pub(crate) fn group(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn problems(&self) -> MutexGuard<'_, Problems> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A rule of a group, in one evaluation.
#[derive(Clone)]
struct RuleTask {
    evaluator: Arc<Evaluator>,
    running: Arc<RunningGroup>,
    definition: Arc<RuleGroup>,
    index: usize,
    at: Timestamp,
    iteration: Arc<Iteration>,
    stop: Shutdown,
}

impl Evaluator {
    /// Evaluates a group at `at`. The next evaluation is due after `left`. Ends early, without an error, when `stop` is triggered: rules
    /// that were not answered yet keep their state.
    pub(crate) async fn evaluate(
        self: &Arc<Self>,
        running: &Arc<RunningGroup>,
        at: Timestamp,
        left: Duration,
        stop: &Shutdown,
    ) {
        let began = Instant::now();
        let (definition, batches, interval) = {
            let group = running.group();
            (group.definition(), group.batches().to_vec(), group.interval())
        };
        let iteration = Arc::new(Iteration::new(left, interval, self.query_limit));
        let task = |index| RuleTask {
            evaluator: Arc::clone(self),
            running: Arc::clone(running),
            definition: Arc::clone(&definition),
            index,
            at,
            iteration: Arc::clone(&iteration),
            stop: stop.clone(),
        };
        let mut outcomes = Vec::with_capacity(definition.rules.len());
        for batch in batches {
            let mut beside = JoinSet::new();
            for index in batch {
                match Arc::clone(&self.beside).try_acquire_owned() {
                    Ok(permit) => {
                        let task = task(index);
                        beside.spawn(async move {
                            let _permit = permit;
                            task.run().await
                        });
                    }
                    Err(_) => outcomes.extend(task(index).run().await),
                }
            }
            while let Some(outcome) = beside.join_next().await {
                outcomes.extend(outcome.ok().flatten());
            }
            if stop.is_triggered() {
                return;
            }
        }
        let took = began.elapsed();
        let samples = outcomes.iter().map(|outcome| outcome.samples).sum();
        running.metrics.finished(at, took, samples);
        running.problems().evaluated(&outcomes);
        let (this, finished) = (Arc::clone(self), Arc::clone(running));
        let finish = tokio::task::spawn_blocking(move || {
            let markers = finished.group().finish(at, took);
            this.store_markers(&markers);
        });
        let _ = finish.await;
        self.restore(running, at, &iteration, stop).await;
    }

    pub(crate) fn store_markers(&self, markers: &[rules::RuleSample]) {
        if let Err(error) = storage::store_markers(self.database.head(), markers) {
            tracing::warn!(error = %error, markers = markers.len(), "series that ended could not be marked");
        }
    }
}

impl RuleTask {
    /// Evaluates the rule; `None` if it was stopped before.
    async fn run(self) -> Option<RuleOutcome> {
        let began = Instant::now();
        let asked = self.ask().await?;
        let (name, running, index, at) =
            (self.rule().name.clone(), Arc::clone(&self.running), self.index, self.at);
        let (warning, asked) = match asked {
            Ok((samples, warning)) => (warning, Ok(samples)),
            Err(error) => (None, Err(error)),
        };
        // Templates, the state of alerts and the log take time, and templates may ask further queries.
        let handle = Handle::current();
        let taken = tokio::task::spawn_blocking(move || self.take(asked, &handle)).await;
        let outcome = taken.unwrap_or_else(|_| {
            let error = "the evaluation panicked; see the log".to_owned();
            let _ = running.group().apply(index, at, Err(error.clone()));
            RuleOutcome { error: Some(error), ..RuleOutcome::default() }
        });
        let took = began.elapsed();
        running.group().rule_took(index, took);
        running.metrics.evaluated(took, outcome.error.is_some());
        if warning.is_some() {
            running.metrics.warned();
        }
        Some(RuleOutcome { rule: name, warning, ..outcome })
    }

    fn rule(&self) -> &rules::Rule {
        &self.definition.rules[self.index]
    }

    /// Asks for the expression; `None` if it was stopped.
    async fn ask(&self) -> Option<Result<(Vec<VectorSample>, Option<String>), String>> {
        let at = self.running.group().query_time(self.at);
        let Some(timeout) = self.iteration.time_for_query() else { return Some(Err(LEFT_OUT.to_owned())) };
        let asked = self.query(&self.rule().query, at, timeout).await?;
        Some(asked.map(|answer| {
            let warning = (!answer.warnings.is_empty()).then(|| answer.warnings.join("; "));
            (answer.samples, warning)
        }))
    }

    /// Asks a query; `None` if it was stopped.
    async fn query(
        &self,
        text: &str,
        at: Timestamp,
        timeout: Duration,
    ) -> Option<Result<crate::source::SourceAnswer, String>> {
        let query = RuleQuery {
            text: text.to_owned(),
            at,
            partial_response: self.definition.partial_response,
            has_fixed_lookback: false,
            timeout,
        };
        let began = Instant::now();
        let asked = tokio::time::timeout(timeout, self.evaluator.source.query(&query));
        let asked = self.stop.until_triggered(asked).await?;
        let late = || Err(format!("no answer within {timeout:?}"));
        let answer = asked.unwrap_or_else(|_| late());
        // The source may have noticed it, too.
        if answer.is_err() && began.elapsed() + Duration::from_millis(50) >= timeout {
            self.iteration.has_hung();
        }
        Some(answer)
    }

    /// Takes the answer: changes the state of the rule, stores samples, sends alerts. This blocks.
    fn take(&self, asked: Result<Vec<VectorSample>, String>, handle: &Handle) -> RuleOutcome {
        let evaluator = &self.evaluator;
        let rule = self.rule();
        let query = |text: &str, at: Timestamp| {
            let timeout = self.iteration.time_for_query().ok_or_else(|| LEFT_OUT.to_owned())?;
            let asked = handle.block_on(self.query(text, at, timeout));
            asked.unwrap_or_else(|| Err("the ruler is stopping".to_owned())).map(|answer| answer.samples)
        };
        let context = TemplateContext { time: self.at, external_url: &evaluator.external_url, query: &query };
        let answer = asked.and_then(|samples| rule.answer(&samples, &evaluator.external, &context));
        let has_failed = answer.is_err();
        let mut group = self.running.group();
        let applied = group.apply(self.index, self.at, answer);
        let error = group.states()[self.index].last_error.clone();
        drop(group);
        if let Some(sender) = &evaluator.sender {
            sender.send(&rule.query, applied.alerts);
        }
        if has_failed || error.is_some() {
            return RuleOutcome {
                error: error.or(applied.errors.into_iter().next()),
                ..RuleOutcome::default()
            };
        }
        let error = self.store(&applied.samples).err();
        RuleOutcome {
            error,
            template_error: applied.errors.into_iter().next(),
            samples: applied.samples.len(),
            ..RuleOutcome::default()
        }
    }

    /// # Errors
    /// Some samples, or all, were not stored.
    fn store(&self, samples: &[rules::RuleSample]) -> Result<(), String> {
        match storage::store(self.evaluator.database.head(), samples) {
            Ok(rejected) => {
                let markers = self.running.group().stored(self.index, self.at, samples, &rejected);
                self.evaluator.store_markers(&markers);
                match rejected.first() {
                    None => Ok(()),
                    Some((at, why)) => Err(format!(
                        "{} samples were refused, the first is {}: {why}",
                        rejected.len(),
                        samples[*at].labels
                    )),
                }
            }
            Err(why) => {
                let why = why.to_string();
                self.running.group().not_stored(self.index, &why);
                Err(why)
            }
        }
    }
}
