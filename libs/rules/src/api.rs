//! Groups as `/api/v1/rules` and `/api/v1/alerts` print them.

use std::time::Duration;

use model::{Labels, Timestamp};
use promapi::{AlertState, AlertingRule, ApiTime, RecordingRule, RuleStrategy};

use crate::alerts::{Alert, AlertPhase};
use crate::group::{Group, RuleHealth, RuleState};
use crate::rule::{Alerting, PartialResponse, Rule};

impl Group {
    /// The group and its rules.
    pub fn to_api(&self) -> promapi::RuleGroup {
        let rules = self.rules().iter().zip(&self.states);
        promapi::RuleGroup {
            name: self.name().to_owned(),
            file: self.file.clone(),
            rules: rules.map(|(rule, state)| api_rule(rule, state)).collect(),
            interval: self.interval().as_secs_f64(),
            limit: i64::try_from(self.definition.limit).unwrap_or(i64::MAX),
            evaluation_seconds: self.evaluation.as_secs_f64(),
            last_evaluation: self.evaluated_at.map_or(ApiTime::NEVER, api_time),
            partial_response_strategy: match self.partial_response() {
                PartialResponse::Warn => RuleStrategy::Warn,
                PartialResponse::Abort => RuleStrategy::Abort,
            },
        }
    }

    /// The pending and firing alerts of all rules.
    pub fn api_alerts(&self) -> Vec<promapi::Alert> {
        self.states.iter().flat_map(api_alerts).collect()
    }
}

fn api_time(at: Timestamp) -> ApiTime {
    let millis = at.as_millis();
    // Less than a second.
    let nanos = millis.rem_euclid(1000) as i32 * 1_000_000;
    ApiTime::from_unix(millis.div_euclid(1000), nanos)
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

fn labels<'a>(texts: impl IntoIterator<Item = (&'a String, &'a String)>) -> Labels {
    // Names of a map are not empty and occur once.
    Labels::from_pairs(texts).unwrap_or_else(|_| Labels::empty())
}

fn api_rule(rule: &Rule, state: &RuleState) -> promapi::Rule {
    let health = match state.health {
        RuleHealth::Unknown => "unknown",
        RuleHealth::Good => "ok",
        RuleHealth::Bad => "err",
    };
    let last_error = state.last_error.clone().unwrap_or_default();
    let last_evaluation = state.evaluated_at.map_or(ApiTime::NEVER, api_time);
    match rule.alerting() {
        None => promapi::Rule::Recording(RecordingRule {
            name: rule.name.clone(),
            query: rule.query.clone(),
            labels: labels(&rule.labels),
            health: health.to_owned(),
            last_error,
            evaluation_seconds: seconds(state.evaluation),
            last_evaluation,
        }),
        Some(alerting) => promapi::Rule::Alerting(AlertingRule {
            health: health.to_owned(),
            last_error,
            evaluation_seconds: seconds(state.evaluation),
            last_evaluation,
            ..alerting_rule(rule, alerting, state)
        }),
    }
}

fn alerting_rule(rule: &Rule, alerting: &Alerting, state: &RuleState) -> AlertingRule {
    let alerts = api_alerts(state);
    let greatest = alerts.iter().map(|alert| alert.state).max();
    AlertingRule {
        state: match state.evaluated_at {
            None => AlertState::Unknown,
            Some(_) => greatest.unwrap_or(AlertState::Inactive),
        },
        name: rule.name.clone(),
        query: rule.query.clone(),
        duration_seconds: seconds(alerting.hold),
        keep_firing_seconds: seconds(alerting.keep_firing_for),
        labels: labels(&rule.labels),
        annotations: labels(&alerting.annotations),
        alerts,
        ..AlertingRule::default()
    }
}

fn api_alerts(state: &RuleState) -> Vec<promapi::Alert> {
    state.alerts.active().map(api_alert).collect()
}

fn api_alert(alert: &Alert) -> promapi::Alert {
    promapi::Alert {
        labels: alert.labels.clone(),
        annotations: alert.annotations.clone(),
        state: match alert.phase {
            AlertPhase::Firing => AlertState::Firing,
            AlertPhase::Pending | AlertPhase::Resolved => AlertState::Pending,
        },
        active_at: Some(api_time(alert.active_at)),
        keep_firing_since: alert.keep_firing_since.map(api_time),
        value: crate::template::scientific(alert.value),
    }
}
