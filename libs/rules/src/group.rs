//! A group of rules at work.
//!
//! A [`Group`] is a state machine. For an evaluation, its driver takes the rules of each of [`Group::batches`], evaluates
//! [`Group::query`] of each, calls [`Rule::answer`] with the samples, and passes the result to [`Group::apply`]. It stores the samples
//! and sends the alerts that it gets back, reports what was stored to [`Group::stored`], and stores the staleness markers that this
//! returns. After the last rule it calls [`Group::finish`]. After a start it then restores alerts: [`Group::restore_query`].

mod restoring;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, Timestamp};

use crate::alerts::{Alert, AlertTiming, Alerts, SentAlert};
use crate::answer::{RuleAnswer, RuleSample, stale};
use crate::dependencies;
use crate::restore::RestoreOptions;
use crate::rule::{PartialResponse, Rule, RuleGroup};
use crate::schedule::Schedule;

/// What a program says about its groups.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Time between evaluations of groups without an `interval`.
    pub interval: Duration,
    /// How far in the past groups without a `query_offset` are evaluated. Long enough for the samples of slow scrapes to arrive.
    pub query_offset: Duration,
    /// Time after which an alert is sent again. A short one causes load, a long one delays what Alertmanager learns after a restart.
    pub resend_delay: Duration,
    /// How the state of alerts is restored.
    pub restore: RestoreOptions,
    /// Whether rules that are new need not be restored, because the program runs already.
    pub restored: bool,
}

/// Whether a rule was evaluated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuleHealth {
    /// It was not evaluated yet.
    #[default]
    Unknown,
    /// Its last evaluation succeeded.
    Good,
    /// Its last evaluation failed.
    Bad,
}

/// The state of a rule.
#[derive(Clone, Debug, Default)]
pub struct RuleState {
    pub(crate) alerts: Alerts,
    /// The series of the last evaluation that was stored.
    series: BTreeSet<Labels>,
    /// Whether the state of its alerts was restored, so that alerts that are found from now on are new.
    restored: bool,
    /// Evaluations that succeeded.
    evaluations: u32,
    /// Whether it was evaluated.
    pub health: RuleHealth,
    /// Why the last evaluation failed.
    pub last_error: Option<String>,
    /// When it was last evaluated.
    pub evaluated_at: Option<Timestamp>,
    /// How long that took.
    pub evaluation: Duration,
}

impl RuleState {
    /// Its alerts, also resolved ones, by their labels.
    pub fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter()
    }

    fn fail(&mut self, error: String) {
        self.health = RuleHealth::Bad;
        self.last_error = Some(error);
    }
}

/// A group of rules and its state.
#[derive(Debug)]
pub struct Group {
    /// The file that defines it.
    pub file: String,
    pub(crate) definition: Arc<RuleGroup>,
    options: GroupOptions,
    pub(crate) states: Vec<RuleState>,
    batches: Vec<Vec<usize>>,
    /// Series of rules that exist no more, which have to be ended.
    orphans: BTreeSet<Labels>,
    /// When its last evaluation began.
    pub evaluated_at: Option<Timestamp>,
    /// How long that took.
    pub evaluation: Duration,
}

/// What is to be done after a rule was evaluated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// Samples to store.
    pub samples: Vec<RuleSample>,
    /// Alerts to send.
    pub alerts: Vec<SentAlert>,
    /// What to log: templates that failed, or why the evaluation failed.
    pub errors: Vec<String>,
}

impl Group {
    /// The group `definition` of `file`, without any state.
    pub fn new(file: &str, definition: RuleGroup, options: GroupOptions) -> Self {
        let state = || RuleState { restored: options.restored, ..RuleState::default() };
        Self {
            file: file.to_owned(),
            states: definition.rules.iter().map(|_| state()).collect(),
            batches: dependencies::batches(&definition.rules),
            orphans: BTreeSet::new(),
            evaluated_at: None,
            evaluation: Duration::ZERO,
            definition: Arc::new(definition),
            options,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// What its file says. It is shared, so that [`Rule::answer`] can run without the state of the group.
    pub fn definition(&self) -> Arc<RuleGroup> {
        Arc::clone(&self.definition)
    }

    /// Its rules.
    pub fn rules(&self) -> &[Rule] {
        &self.definition.rules
    }

    /// The state of each rule, in the order of the rules.
    pub fn states(&self) -> &[RuleState] {
        &self.states
    }

    /// Time between evaluations.
    pub fn interval(&self) -> Duration {
        self.definition.interval.unwrap_or(self.options.interval)
    }

    /// When it is evaluated.
    pub fn schedule(&self) -> Schedule {
        Schedule::new(&self.file, self.name(), self.interval())
    }

    /// What its rules do when a store does not answer.
    pub fn partial_response(&self) -> PartialResponse {
        self.definition.partial_response
    }

    /// The rules by their index, in the order of evaluation. The rules of a batch may be evaluated at the same time.
    pub fn batches(&self) -> &[Vec<usize>] {
        &self.batches
    }

    /// The instant at which expressions are evaluated, and with which samples are stored, in the evaluation of `at`.
    pub fn query_time(&self, at: Timestamp) -> Timestamp {
        let offset = self.definition.query_offset.unwrap_or(self.options.query_offset);
        at.offset_millis(-i64::try_from(offset.as_millis()).unwrap_or(i64::MAX))
    }

    /// Takes the answer to a rule in the evaluation of `at`. An error leaves the alerts and series of the rule as they are. Alerts are also
    /// sent again after an error: Alertmanager would resolve them, as if the expression no longer held.
    pub fn apply(&mut self, rule: usize, at: Timestamp, answer: Result<RuleAnswer, String>) -> Applied {
        let query_time = self.query_time(at);
        let interval = self.interval();
        let limit = self.definition.limit;
        let (definition, state) = (&self.definition.rules[rule], &mut self.states[rule]);
        state.evaluated_at = Some(at);
        let mut applied = Applied::default();
        let outcome =
            answer.and_then(|answer| match answer {
                RuleAnswer::Series(series) if limit > 0 && series.len() > limit => {
                    Err(format!("exceeded limit of {limit} with {} series", series.len()))
                }
                RuleAnswer::Series(series) => Ok(series
                    .into_iter()
                    .map(|(labels, value)| RuleSample { labels, at: query_time, value })
                    .collect()),
                RuleAnswer::Alerts { alerts, template_errors } => {
                    applied.errors = template_errors;
                    let timing = definition.alerting().map_or(AlertTiming::default(), |alerting| {
                        AlertTiming { hold: alerting.hold, keep_firing_for: alerting.keep_firing_for, limit }
                    });
                    state.alerts.update(alerts, at, timing, !state.restored)?;
                    applied.alerts = state.alerts.take_due(at, self.options.resend_delay, interval);
                    Ok(state.alerts.samples(query_time))
                }
            });
        match outcome {
            Ok(samples) => {
                state.health = RuleHealth::Good;
                state.last_error = None;
                state.evaluations = state.evaluations.saturating_add(1);
                applied.samples = samples;
            }
            Err(error) => {
                applied.alerts = state.alerts.take_due(at, self.options.resend_delay, interval);
                applied.errors.push(error.clone());
                state.fail(error);
            }
        }
        applied
    }

    /// Takes what became of the samples of [`apply`](Self::apply): `rejected` are those that were not stored, by their index, and
    /// why. Returns staleness markers to store for the series that the rule does not have any more. They may be rejected, because
    /// another rule writes the same series.
    ///
    /// Do not call it if the evaluation failed.
    pub fn stored(
        &mut self,
        rule: usize,
        at: Timestamp,
        samples: &[RuleSample],
        rejected: &[(usize, String)],
    ) -> Vec<RuleSample> {
        let query_time = self.query_time(at);
        let state = &mut self.states[rule];
        if let Some((_, why)) = rejected.last() {
            state.fail(why.clone());
        }
        let series: BTreeSet<Labels> = accepted(samples, rejected).collect();
        let gone = state.series.difference(&series).map(|labels| stale(labels, query_time)).collect();
        state.series = series;
        gone
    }

    /// Takes the news that no sample of a rule could be stored. Its series are those of the evaluation before, so that they are ended
    /// later if they are gone.
    pub fn not_stored(&mut self, rule: usize, error: &str) {
        self.states[rule].fail(error.to_owned());
    }

    /// Takes how long a rule took.
    pub fn rule_took(&mut self, rule: usize, duration: Duration) {
        self.states[rule].evaluation = duration;
    }

    /// Ends the evaluation of `at`. Returns staleness markers to store for the series of rules that exist no more.
    pub fn finish(&mut self, at: Timestamp, duration: Duration) -> Vec<RuleSample> {
        self.evaluated_at = Some(at);
        self.evaluation = duration;
        let query_time = self.query_time(at);
        std::mem::take(&mut self.orphans).iter().map(|labels| stale(labels, query_time)).collect()
    }

    /// Whether `other` defines the same group, so that this one can go on.
    pub fn is_same(&self, other: &Self) -> bool {
        let (a, b) = (&self.definition, &other.definition);
        let head = |group: &Self| (group.file.clone(), group.interval(), group.query_time(Timestamp::EPOCH));
        head(self) == head(other)
            && (&a.name, a.limit, a.partial_response) == (&b.name, b.limit, b.partial_response)
            && a.rules.len() == b.rules.len()
            && a.rules.iter().zip(&b.rules).all(|(a, b)| a.is_same(b))
    }

    /// Takes the state of the group that this one replaces. Rules are the same if their names and labels are; of several such rules,
    /// the first is matched with the first. The series of rules that exist no more are ended by the next [`finish`](Self::finish).
    pub fn take_state(&mut self, old: Self) {
        self.evaluated_at = old.evaluated_at;
        self.evaluation = old.evaluation;
        self.orphans = old.orphans;
        let key = |rule: &Rule| (rule.alerting().is_some(), rule.name.clone(), rule.labels.clone());
        let mut states: BTreeMap<_, Vec<RuleState>> = BTreeMap::new();
        for (rule, state) in old.definition.rules.iter().zip(old.states).rev() {
            states.entry(key(rule)).or_default().push(state);
        }
        for (rule, state) in self.definition.rules.iter().zip(&mut self.states) {
            if let Some(old) = states.get_mut(&key(rule)).and_then(Vec::pop) {
                *state = old;
            }
        }
        self.orphans.extend(states.into_values().flatten().flat_map(|state| state.series));
    }

    /// Staleness markers for all series of a group that exists no more. Store them two intervals after `at`, the last evaluation, so
    /// that other groups can write the series first; those that another group writes are then rejected.
    pub fn removed(self, at: Timestamp) -> Vec<RuleSample> {
        let query_time = self.query_time(at);
        let series: BTreeSet<Labels> =
            self.states.into_iter().flat_map(|state| state.series).chain(self.orphans).collect();
        series.iter().map(|labels| stale(labels, query_time)).collect()
    }
}

/// The series of the samples that were stored.
fn accepted(samples: &[RuleSample], rejected: &[(usize, String)]) -> impl Iterator<Item = Labels> {
    let is_stored = |index: &usize| !rejected.iter().any(|(rejected, _)| rejected == index);
    let stored = samples.iter().enumerate().filter(move |(index, _)| is_stored(index));
    stored.map(|(_, sample)| sample.labels.clone())
}
