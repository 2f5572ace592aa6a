//! Restores the state of alerts after a restart, from what was stored before it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Labels, METRIC_NAME, Matcher, TimeRange, Timestamp, is_stale_nan};

use crate::alerts::{ALERTS_FOR_STATE, Alerts};
use crate::answer::ALERT_NAME;
use crate::rule::Rule;

/// How state is restored.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// Alerts that were stored longer ago than this are not restored. Longer than the longest expected outage; a very long time
    /// restores alerts that have nothing to do with those of today.
    pub outage_tolerance: Duration,
    /// A restored alert that was pending is pending for at least this long, so that an outage by itself lets none fire. Rules with a
    /// shorter `for` are not restored.
    pub grace_period: Duration,
    /// Whether alerts that were firing go on also where `for` is shorter than the grace period. In Prometheus they are pending again.
    pub keeps_firing: bool,
    /// Labels that stored series have and alerts do not: external labels and replica labels.
    pub ignored_labels: Vec<String>,
}

/// The series that are needed to restore a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RestoreQuery {
    /// A series has to match all of them.
    pub matchers: Vec<Matcher>,
    /// The samples that matter. Only the last one of each series is used.
    pub range: TimeRange,
}

/// The last sample of a series of a [`RestoreQuery`].
#[derive(Clone, Debug, PartialEq)]
pub struct StoredState {
    /// The series.
    pub labels: Labels,
    /// When the sample was stored.
    pub at: Timestamp,
    /// Since when the alert was active, in seconds since the epoch; or a staleness marker.
    pub value: f64,
}

/// What to ask for the rule; `None` if its state is not restored.
pub(crate) fn query(rule: &Rule, at: Timestamp, options: &RestoreOptions) -> Option<RestoreQuery> {
    let hold = rule.alerting()?.hold;
    if hold < options.grace_period && (hold.is_zero() || !options.keeps_firing) {
        return None;
    }
    let mut matchers =
        vec![Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE), Matcher::equal(ALERT_NAME, &rule.name)];
    // The value of a template is different in each alert; alerts are found by all of their labels anyway.
    let fixed = rule.labels.iter().filter(|(name, value)| {
        !value.contains("{{")
            && !value.is_empty()
            && !options.ignored_labels.contains(name)
            && *name != ALERT_NAME
    });
    matchers.extend(fixed.map(|(name, value)| Matcher::equal(name, value)));
    let tolerance = i64::try_from(options.outage_tolerance.as_millis()).unwrap_or(i64::MAX);
    Some(RestoreQuery { matchers, range: TimeRange::new(at.offset_millis(tolerance.saturating_neg()), at) })
}

/// Which alerts are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    /// All: where nothing was stored, an alert is new.
    All,
    /// Those of which a state was stored with exactly their labels. The other ones wait.
    Stored,
}

/// Sets since when the alerts are active that wait for it. Returns the labels of those that do not wait any longer.
pub(crate) fn restore(
    alerts: &mut Alerts,
    hold: Duration,
    stored: &[StoredState],
    at: Timestamp,
    options: &RestoreOptions,
    which: Restored,
) -> BTreeSet<Labels> {
    let ignored =
        |name: &str| name == METRIC_NAME || options.ignored_labels.iter().any(|ignored| ignored == name);
    let mut exact: BTreeMap<Labels, &StoredState> = BTreeMap::new();
    let mut reduced: BTreeMap<Labels, &StoredState> = BTreeMap::new();
    for state in stored {
        exact.insert(state.labels.without(|name| name == METRIC_NAME), state);
        // Of replicas, the one that wrote last counts.
        let newest = reduced.entry(state.labels.without(ignored)).or_insert(state);
        if state.at > newest.at {
            *newest = state;
        }
    }
    let mut restored = BTreeSet::new();
    for alert in alerts.iter_mut().filter(|alert| alert.awaits_restore) {
        let found = exact.get(&alert.labels);
        let found = match which {
            Restored::Stored if found.is_none() => continue,
            Restored::Stored => found,
            Restored::All => found.or_else(|| reduced.get(&alert.labels.without(ignored))),
        };
        alert.awaits_restore = false;
        restored.insert(alert.labels.clone());
        let Some(state) = found.filter(|state| !is_stale_nan(state.value)) else { continue };
        if hold >= options.grace_period || was_firing(state, hold) {
            alert.active_at = active_since(state, hold, at, options.grace_period);
            // It fires on at once.
            alert.promote(at, hold);
        }
    }
    restored
}

/// Whether an alert was firing when it was stored as `state`.
fn was_firing(state: &StoredState, hold: Duration) -> bool {
    // Seconds beyond the range of times become its limits.
    let stored = Timestamp::from_millis((state.value as i64).saturating_mul(1000));
    state.at.millis_since(stored) >= i64::try_from(hold.as_millis()).unwrap_or(i64::MAX)
}

/// Since when an alert is active that was stored as `state`.
fn active_since(state: &StoredState, hold: Duration, at: Timestamp, grace: Duration) -> Timestamp {
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    // Seconds beyond the range of times become its limits.
    let stored = Timestamp::from_millis((state.value as i64).saturating_mul(1000));
    let pending = state.at.millis_since(stored);
    let remaining = millis(hold).saturating_sub(pending);
    if remaining <= 0 {
        // It was firing, and fires again in the next evaluation.
        stored
    } else if remaining < millis(grace) {
        at.offset_millis(millis(grace)).offset_millis(-millis(hold))
    } else {
        // The outage does not count.
        stored.offset_millis(at.millis_since(state.at))
    }
}
