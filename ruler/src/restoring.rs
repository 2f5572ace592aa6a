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
use rules::{AlertPhase, PartialResponse, RestoreQuery, RuleHealth, StoredState};
use runtime::Shutdown;

use crate::evaluation::{Evaluator, RunningGroup};
use crate::source::{LOOKBACK, RuleQuery};
use crate::stored_states::stored_states;

/// After so many attempts, a view with stores that are missing is good enough.
const COMPLETE_ATTEMPTS: u32 = 5;

/// The states that a rule needs.
struct Wanted {
    query: RestoreQuery,
    /// How long an alert of the rule is pending.
    hold: Duration,
    /// The labels of the alerts that are active.
    alerts: BTreeSet<Labels>,
    at: Timestamp,
    partial_response: PartialResponse,
}

impl Evaluator {
    /// Restores the alerts of all rules that were evaluated and not restored yet.
    pub(crate) async fn restore(
        self: &Arc<Self>,
        running: &Arc<RunningGroup>,
        at: Timestamp,
        stop: &Shutdown,
    ) {
        let rules = running.group().rules().len();
        let failures = running.problems().restore_failures;
        let mut tried = false;
        for rule in 0..rules {
            let Some(wanted) = wanted(running, rule, at, failures) else { continue };
            let states = match wanted.alerts.is_empty() {
                true => Ok(Vec::new()),
                false => match stop.until_triggered(self.find(&wanted)).await {
                    Some(states) => states,
                    None => return,
                },
            };
            match states {
                Ok(states) => {
                    running.group().restore(rule, at, &states);
                    tried |= !wanted.alerts.is_empty();
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

    fn reduced(&self, labels: &Labels) -> Labels {
        labels
            .without(|name| name == METRIC_NAME || self.ignored_labels.iter().any(|ignored| ignored == name))
    }

    /// # Errors
    /// What is stored here, or in all stores, cannot be read.
    async fn find(&self, wanted: &Wanted) -> Result<Vec<StoredState>, String> {
        let own = stored_states(&self.local, &wanted.query).await?;
        let mut own: BTreeMap<Labels, StoredState> =
            own.into_iter().map(|state| (state.labels.without(|name| name == METRIC_NAME), state)).collect();
        let mut by_reduced: BTreeMap<Labels, Vec<&Labels>> = BTreeMap::new();
        for alert in &wanted.alerts {
            by_reduced.entry(self.reduced(alert)).or_default().push(alert);
        }
        // Where external labels hide the difference of two alerts, only what is stored here tells them apart.
        by_reduced.retain(|_, alerts| {
            alerts.len() == 1 && !own.get(alerts[0]).is_some_and(|state| is_settled(state, wanted))
        });
        let mut missing: BTreeSet<Labels> = by_reduced.keys().cloned().collect();
        let mut found = Vec::new();
        let mut instant = wanted.at;
        let mut is_first = true;
        while !missing.is_empty() && instant >= wanted.query.range.min {
            // Of replicas, the one that wrote last counts; of instants, the one that is nearest to the present.
            let mut newest: BTreeMap<Labels, StoredState> = BTreeMap::new();
            for state in self.visible(wanted, instant, is_first).await? {
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
    ) -> Result<Vec<StoredState>, String> {
        let matchers: Vec<String> = wanted.query.matchers.iter().map(ToString::to_string).collect();
        let selector = format!("{{{}}}", matchers.join(","));
        let values = self.ask(wanted, selector.clone(), instant).await?;
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let times = self.ask(wanted, format!("timestamp({selector})"), instant).await?;
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
            let lasting = self.ask(wanted, selector.clone(), end).await?;
            let lasting: BTreeSet<Labels> =
                lasting.into_iter().filter_map(named).map(|(labels, _)| labels).collect();
            for state in states.iter_mut().filter(|state| state.at == at && !lasting.contains(&state.labels))
            {
                state.value = model::stale_nan();
            }
        }
        Ok(states)
    }

    async fn ask(&self, wanted: &Wanted, text: String, at: Timestamp) -> Result<Vec<VectorSample>, String> {
        let query = RuleQuery {
            text,
            at,
            partial_response: wanted.partial_response,
            has_fixed_lookback: true,
            timeout: self.query_limit,
        };
        self.source.query(&query).await.map(|answer| answer.samples)
    }
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
    let alerts = group.states()[rule].alerts();
    let alerts = alerts.filter(|alert| alert.phase != AlertPhase::Resolved).map(|alert| alert.labels.clone());
    let partial_response = match failures < COMPLETE_ATTEMPTS {
        true => PartialResponse::Abort,
        false => PartialResponse::Warn,
    };
    let alerts = alerts.collect();
    let hold = group.rules()[rule].alerting()?.hold;
    Some(Wanted { query, hold, alerts, at, partial_response })
}
