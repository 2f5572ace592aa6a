//! Restores the state of alerts after a restart, from what this ruler has stored and from what all stores have.
//!
//! The last sample of a series is found by queries at instants, which every querier answers: one at each end of a lookback, from the present
//! into the past. A series that is visible at one instant and not at the next one has ended, or its ruler stopped to write. It has
//! ended if it is not visible for as long as its last sample is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, METRIC_NAME, Timestamp};
use promql::{SampleValue, VectorSample};
use rules::{AlertPhase, Applied, Group, PartialResponse, RestoreQuery, RuleHealth, StoredState};
use runtime::Shutdown;

use crate::evaluation::{Evaluator, RunningGroup};
use crate::iteration::Iteration;
use crate::source::{LOOKBACK, RuleQuery};
use crate::storage;
use crate::stored_states::stored_states;

/// After so many attempts, a view with stores that are missing is good enough.
const COMPLETE_ATTEMPTS: u32 = 5;

/// The states that a rule needs.
struct Wanted {
    query: RestoreQuery,
    /// How long an alert of the rule is pending.
    hold: Duration,
    /// The labels of the alerts that are active.
    active: BTreeSet<Labels>,
    /// The labels of those that are not restored yet.
    waiting: BTreeSet<Labels>,
    at: Timestamp,
    partial_response: PartialResponse,
}

impl Evaluator {
    /// Restores the alerts of all rules that were evaluated and not restored yet. Those that this ruler knows best come first: they
    /// are sent and stored whatever becomes of the queries for the other ones.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        running: &Arc<RunningGroup>,
        at: Timestamp,
        iteration: &Iteration,
        stop: &Shutdown,
    ) {
        let rules = running.group().rules().len();
        let failures = running.problems().restore_failures;
        let mut unsettled = Vec::new();
        for rule in 0..rules {
            let Some(mut wanted) = wanted(running, rule, at, failures) else { continue };
            let own = match wanted.waiting.is_empty() {
                true => Vec::new(),
                false => match stored_states(&self.local, &wanted.query).await {
                    Ok(own) => own,
                    Err(error) => {
                        running.problems().restored(Some(error));
                        return;
                    }
                },
            };
            let settled: Vec<StoredState> =
                own.iter().filter(|state| is_settled(state, &wanted)).cloned().collect();
            for state in &settled {
                wanted.waiting.remove(&own_labels(state));
            }
            if !settled.is_empty() {
                self.restored(running, rule, move |group| group.restore_some(rule, at, &settled)).await;
            }
            unsettled.push((rule, wanted, own));
        }
        let mut tried = false;
        for (rule, wanted, own) in unsettled {
            let states = match wanted.waiting.is_empty() {
                true => Ok(Vec::new()),
                false => match stop.until_triggered(self.find(&wanted, own, iteration)).await {
                    Some(states) => states,
                    None => return,
                },
            };
            match states {
                Ok(states) => {
                    self.restored(running, rule, move |group| group.restore(rule, at, &states)).await;
                    tried |= !wanted.waiting.is_empty();
                }
                Err(error) => {
                    running.problems().restored(Some(error));
                    return;
                }
            }
        }
        if tried {
            running.problems().restored(None);
        }
    }

    /// Sends the alerts that `restore` restores as firing, and stores the states of those that it restores.
    async fn restored(
        self: &Arc<Self>,
        running: &Arc<RunningGroup>,
        rule: usize,
        restore: impl FnOnce(&mut Group) -> Applied + Send + 'static,
    ) {
        let (this, running) = (Arc::clone(self), Arc::clone(running));
        let blocking = tokio::task::spawn_blocking(move || {
            let mut group = running.group();
            let applied = restore(&mut group);
            let definition = group.definition();
            drop(group);
            if let Some(sender) = &this.sender {
                sender.send(&definition.rules[rule].query, applied.alerts);
            }
            if applied.samples.is_empty() {
                return;
            }
            match storage::store(this.database.head(), &applied.samples) {
                Ok(rejected) => running.group().stored_besides(rule, &applied.samples, &rejected),
                Err(why) => running.group().not_stored(rule, &why.to_string()),
            }
        });
        // It fails only if it panicked, which was logged.
        let _ = blocking.await;
    }

    fn reduced(&self, labels: &Labels) -> Labels {
        labels
            .without(|name| name == METRIC_NAME || self.ignored_labels.iter().any(|ignored| ignored == name))
    }

    /// # Errors
    /// What is stored here, or in all stores, cannot be read.
    async fn find(
        &self,
        wanted: &Wanted,
        own: Vec<StoredState>,
        iteration: &Iteration,
    ) -> Result<Vec<StoredState>, String> {
        let mut own: BTreeMap<Labels, StoredState> =
            own.into_iter().map(|state| (own_labels(&state), state)).collect();
        let mut by_reduced: BTreeMap<Labels, Vec<&Labels>> = BTreeMap::new();
        for alert in &wanted.active {
            by_reduced.entry(self.reduced(alert)).or_default().push(alert);
        }
        // Where external labels hide the difference of two alerts, only what is stored here tells them apart.
        by_reduced.retain(|_, alerts| alerts.len() == 1 && wanted.waiting.contains(alerts[0]));
        let mut missing: BTreeSet<Labels> = by_reduced.keys().cloned().collect();
        let mut found = Vec::new();
        let mut instant = wanted.at;
        let mut is_first = true;
        while !missing.is_empty() && instant >= wanted.query.range.min {
            // Of replicas, the one that wrote last counts; of instants, the one that is nearest to the present.
            let mut newest: BTreeMap<Labels, StoredState> = BTreeMap::new();
            for state in self.visible(wanted, instant, is_first, iteration).await? {
                let key = self.reduced(&state.labels);
                if missing.contains(&key) && newest.get(&key).is_none_or(|known| known.at < state.at) {
                    newest.insert(key, state);
                }
            }
            missing.retain(|key| !newest.contains_key(key));
            found.extend(newest.into_values());
            instant = instant.offset_millis(-millis(LOOKBACK));
            is_first = false;
        }
        // What another ruler stored later is right.
        for state in &found {
            if let Some([alert]) = by_reduced.get(&self.reduced(&state.labels)).map(Vec::as_slice)
                && own.get(alert).is_some_and(|own| own.at < state.at)
            {
                own.remove(*alert);
            }
        }
        found.extend(own.into_values());
        Ok(found)
    }

    /// The states that are visible at an instant. If it is not the present, those that have ended later are staleness markers.
    async fn visible(
        &self,
        wanted: &Wanted,
        instant: Timestamp,
        is_present: bool,
        iteration: &Iteration,
    ) -> Result<Vec<StoredState>, String> {
        let matchers: Vec<String> = wanted.query.matchers.iter().map(ToString::to_string).collect();
        let selector = format!("{{{}}}", matchers.join(","));
        let values = self.ask(wanted, selector.clone(), instant, iteration).await?;
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let times = self.ask(wanted, format!("timestamp({selector})"), instant, iteration).await?;
        let times: BTreeMap<Labels, f64> = times.into_iter().filter_map(named).collect();
        let mut states = Vec::with_capacity(values.len());
        for (labels, value) in values.into_iter().filter_map(named) {
            let Some(time) = times.get(&labels) else { continue };
            states.push(StoredState { at: Timestamp::from_secs_f64(*time), labels, value });
        }
        if is_present {
            return Ok(states);
        }
        let last: BTreeSet<Timestamp> = states.iter().map(|state| state.at).collect();
        for at in last {
            let end = at.offset_millis(millis(LOOKBACK) - 1).min(wanted.at);
            let lasting = self.ask(wanted, selector.clone(), end, iteration).await?;
            let lasting: BTreeSet<Labels> =
                lasting.into_iter().filter_map(named).map(|(labels, _)| labels).collect();
            for state in states.iter_mut().filter(|state| state.at == at && !lasting.contains(&state.labels))
            {
                state.value = model::stale_nan();
            }
        }
        Ok(states)
    }

    /// # Errors
    /// There is no answer in the time that the evaluation has.
    async fn ask(
        &self,
        wanted: &Wanted,
        text: String,
        at: Timestamp,
        iteration: &Iteration,
    ) -> Result<Vec<VectorSample>, String> {
        let timeout =
            iteration.time_for_query().ok_or("an earlier query of the group did not end in time")?;
        let query = RuleQuery {
            text,
            at,
            partial_response: wanted.partial_response,
            has_fixed_lookback: true,
            timeout,
        };
        let asked = tokio::time::timeout(timeout, self.source.query(&query)).await;
        asked.map_err(|_| format!("no answer within {timeout:?}"))?.map(|answer| answer.samples)
    }
}

/// The labels of an alert whose state is stored here.
fn own_labels(state: &StoredState) -> Labels {
    state.labels.without(|name| name == METRIC_NAME)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The labels without the name of the metric, and the value.
fn named(sample: VectorSample) -> Option<(Labels, f64)> {
    match sample.value {
        SampleValue::Float(value) => Some((sample.labels.without(|name| name == METRIC_NAME), value)),
        SampleValue::Histogram(_) => None,
    }
}

/// Whether no other ruler can know better.
fn is_settled(state: &StoredState, wanted: &Wanted) -> bool {
    let since = Timestamp::from_secs_f64(state.value);
    let was_firing = state.at.millis_since(since) >= millis(wanted.hold);
    !model::is_stale_nan(state.value) && (was_firing || wanted.at.millis_since(state.at) <= millis(LOOKBACK))
}

/// What is needed to restore a rule; `None` if it is not restored now.
fn wanted(running: &RunningGroup, rule: usize, at: Timestamp, failures: u32) -> Option<Wanted> {
    let mut group = running.group();
    // After an evaluation that failed, it is not known which alerts are active.
    if group.states()[rule].health != RuleHealth::Good {
        return None;
    }
    let query = group.restore_query(rule, at)?;
    let alerts = group.states()[rule].alerts().filter(|alert| alert.phase != AlertPhase::Resolved);
    let (mut active, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    for alert in alerts {
        active.insert(alert.labels.clone());
        if alert.awaits_restore {
            waiting.insert(alert.labels.clone());
        }
    }
    let partial_response = match failures < COMPLETE_ATTEMPTS {
        true => PartialResponse::Abort,
        false => PartialResponse::Warn,
    };
    let hold = group.rules()[rule].alerting()?.hold;
    Some(Wanted { query, hold, active, waiting, at, partial_response })
}
