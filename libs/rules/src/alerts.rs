//! The alerts of a rule: pending, firing, resolved.
//!
//! The rules are those of Prometheus' `rules/alerting.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::{Labels, METRIC_NAME, Timestamp};
use promql::SampleValue;

use crate::answer::{ALERT_NAME, AnsweredAlert, RuleSample};

/// The series of the alerts that are pending or firing.
pub(crate) const ALERTS: &str = "ALERTS";
/// The series from which the state of alerts is restored.
pub(crate) const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";
/// The label of `ALERTS` that has the state.
const ALERT_STATE: &str = "alertstate";

/// How long a resolved alert is kept and sent again, so that Alertmanager hears of it although it was away.
pub const RESOLVED_RETENTION: Duration = Duration::from_secs(15 * 60);

/// The state of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertPhase {
    /// It was firing and is resolved.
    Resolved,
    /// The expression holds, but not for long enough.
    Pending,
    /// It fires.
    Firing,
}

/// An alert of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Its labels, with `alertname`.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// The value of the expression when it last held.
    pub value: f64,
    /// Its state.
    pub phase: AlertPhase,
    /// Since when the expression holds.
    pub active_at: Timestamp,
    /// Since when it fires.
    pub fired_at: Option<Timestamp>,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
    /// Since when it fires only because of `keep_firing_for`.
    pub keep_firing_since: Option<Timestamp>,
    /// When it was last sent.
    pub last_sent_at: Option<Timestamp>,
    /// Whether it is not known yet if it was active before the program started. Its state is not stored until then.
    pub awaits_restore: bool,
}

/// An alert for Alertmanager.
#[derive(Clone, Debug, PartialEq)]
pub struct SentAlert {
    /// Its labels, with `alertname` and without external labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Since when it fires.
    pub starts_at: Timestamp,
    /// When it was resolved. While it fires, the time until which it is taken for firing if it is not sent again.
    pub ends_at: Timestamp,
    /// Whether it is resolved.
    pub resolved: bool,
}

/// What a rule says about its alerts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AlertTiming {
    pub(crate) hold: Duration,
    pub(crate) keep_firing_for: Duration,
    /// Most alerts; 0 for no limit.
    pub(crate) limit: usize,
}

/// The alerts of a rule by their labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alerts {
    alerts: BTreeMap<Labels, Alert>,
}

/// `later - earlier`; negative if they are in another order.
fn millis_between(earlier: Timestamp, later: Timestamp) -> i64 {
    later.millis_since(earlier)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Alerts {
    /// All alerts, also resolved ones.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Alert> {
        self.alerts.values_mut()
    }

    /// The pending and firing alerts.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Alert> {
        self.iter().filter(|alert| alert.phase != AlertPhase::Resolved)
    }

    /// Takes the alerts for which the expression holds at `at`. Those that are new wait for what was stored of them if `awaits_restore`.
    ///
    /// # Errors
    /// There are more than the limit. All alerts are then forgotten.
    pub(crate) fn update(
        &mut self,
        answered: Vec<AnsweredAlert>,
        at: Timestamp,
        timing: AlertTiming,
        awaits_restore: bool,
    ) -> Result<(), String> {
        let mut held = BTreeSet::new();
        for answer in answered {
            held.insert(answer.labels.clone());
            match self.alerts.get_mut(&answer.labels) {
                Some(alert) if alert.phase != AlertPhase::Resolved => {
                    alert.value = answer.value;
                    alert.annotations = answer.annotations;
                }
                _ => {
                    let alert = Alert { awaits_restore, ..Alert::pending(answer, at) };
                    self.alerts.insert(alert.labels.clone(), alert);
                }
            }
        }
        let mut active = 0;
        self.alerts.retain(|labels, alert| {
            let kept = if held.contains(labels) {
                alert.keep_firing_since = None;
                true
            } else if !alert.keeps_firing(at, timing.keep_firing_for) {
                return alert.resolve(at);
            } else {
                true
            };
            active += usize::from(kept);
            alert.promote(at, timing.hold);
            true
        });
        if timing.limit > 0 && active > timing.limit {
            self.alerts.clear();
            return Err(format!("exceeded limit of {} with {active} alerts", timing.limit));
        }
        Ok(())
    }

    /// The series `ALERTS` and `ALERTS_FOR_STATE` of the active alerts that do not wait for what was stored of them.
    pub(crate) fn samples(&self, at: Timestamp) -> Vec<RuleSample> {
        self.samples_of(at, |alert| !alert.awaits_restore)
    }

    /// These series of the active alerts that are `chosen`.
    pub(crate) fn samples_of(&self, at: Timestamp, chosen: impl Fn(&Alert) -> bool) -> Vec<RuleSample> {
        let sample = |labels: Labels, value: f64| RuleSample { labels, at, value: SampleValue::Float(value) };
        let mut samples = Vec::new();
        for alert in self.active().filter(|alert| chosen(alert)) {
            let mut labels = alert.labels.to_builder();
            labels.set(METRIC_NAME, ALERTS_FOR_STATE);
            let for_state = labels.build();
            let state = if alert.phase == AlertPhase::Firing { "firing" } else { "pending" };
            labels.set(METRIC_NAME, ALERTS).set(ALERT_STATE, state);
            samples.push(sample(labels.build(), 1.0));
            let active_seconds = alert.active_at.as_millis().div_euclid(1000);
            samples.push(sample(for_state, active_seconds as f64));
        }
        samples
    }

    /// The alerts that are to be sent at `at`. They count as sent.
    pub(crate) fn take_due(
        &mut self,
        at: Timestamp,
        resend_delay: Duration,
        interval: Duration,
    ) -> Vec<SentAlert> {
        let valid_until = at.offset_millis(millis(resend_delay.max(interval)).saturating_mul(4));
        let due = self.alerts.values_mut().filter(|alert| alert.needs_sending(at, resend_delay));
        due.map(|alert| {
            alert.last_sent_at = Some(at);
            SentAlert {
                labels: alert.labels.clone(),
                annotations: alert.annotations.clone(),
                starts_at: alert.fired_at.unwrap_or(alert.active_at),
                ends_at: alert.resolved_at.unwrap_or(valid_until),
                resolved: alert.resolved_at.is_some(),
            }
        })
        .collect()
    }
}

impl Alert {
    fn pending(answer: AnsweredAlert, at: Timestamp) -> Self {
        Self {
            labels: answer.labels,
            annotations: answer.annotations,
            value: answer.value,
            phase: AlertPhase::Pending,
            active_at: at,
            fired_at: None,
            resolved_at: None,
            keep_firing_since: None,
            last_sent_at: None,
            awaits_restore: false,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.labels.value(ALERT_NAME)
    }

    /// Whether it fires on although the expression does not hold.
    fn keeps_firing(&mut self, at: Timestamp, keep_firing_for: Duration) -> bool {
        if self.phase != AlertPhase::Firing || keep_firing_for.is_zero() {
            return false;
        }
        let since = *self.keep_firing_since.get_or_insert(at);
        millis_between(since, at) < millis(keep_firing_for)
    }

    /// Resolves it, and returns whether it is kept.
    fn resolve(&mut self, at: Timestamp) -> bool {
        let is_old = |resolved: Timestamp| millis_between(resolved, at) > millis(RESOLVED_RETENTION);
        match self.phase {
            AlertPhase::Pending => false,
            AlertPhase::Resolved => !self.resolved_at.is_some_and(is_old),
            AlertPhase::Firing => {
                self.phase = AlertPhase::Resolved;
                self.resolved_at = Some(at);
                true
            }
        }
    }

    /// Lets it fire once the expression has held for long enough. It is pending again if `for` was made longer.
    pub(crate) fn promote(&mut self, at: Timestamp, hold: Duration) {
        let has_held = millis_between(self.active_at, at) >= millis(hold);
        match self.phase {
            AlertPhase::Pending if has_held => {
                self.phase = AlertPhase::Firing;
                self.fired_at = Some(at);
            }
            AlertPhase::Firing if !has_held => {
                self.phase = AlertPhase::Pending;
                self.fired_at = None;
                self.last_sent_at = None;
            }
            _ => {}
        }
    }

    fn needs_sending(&self, at: Timestamp, resend_delay: Duration) -> bool {
        if self.phase == AlertPhase::Pending {
            return false;
        }
        let Some(last) = self.last_sent_at else { return true };
        self.resolved_at.is_some_and(|resolved| resolved > last)
            || millis_between(last, at) > millis(resend_delay)
    }
}
