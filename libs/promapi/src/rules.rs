//! Rules and their alerts, as `/api/v1/rules` and `/api/v1/alerts` have them.

use model::Labels;
use serde::{Deserialize, Serialize};

use crate::api_time::ApiTime;
use crate::json::{labels_json, null_is_default};

/// What a rule does when a store does not answer; only rules of Thanos have a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RuleStrategy {
    /// It is evaluated on the data of the other stores.
    Warn,
    /// Its evaluation fails. Prometheus has no other stores, so its rules have this strategy.
    #[default]
    Abort,
}

/// The rules that are evaluated together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleGroup {
    /// Its name; unique in its file.
    pub name: String,
    /// The file that defines it.
    pub file: String,
    /// Its rules.
    #[serde(deserialize_with = "null_is_default")]
    pub rules: Vec<Rule>,
    /// Seconds between evaluations.
    pub interval: f64,
    /// Most alerts or series that a rule may produce; 0 for no limit.
    pub limit: i64,
    /// Duration of the last evaluation in seconds.
    #[serde(rename = "evaluationTime")]
    pub evaluation_seconds: f64,
    /// Time of the last evaluation.
    pub last_evaluation: ApiTime,
    /// What it does when a store does not answer.
    pub partial_response_strategy: RuleStrategy,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Rule {
    /// A rule that produces alerts.
    Alerting(AlertingRule),
    /// A rule that produces series.
    Recording(RecordingRule),
}

impl Rule {
    /// Its name: that of the alert, or of the series.
    pub fn name(&self) -> &str {
        match self {
            Self::Alerting(rule) => &rule.name,
            Self::Recording(rule) => &rule.name,
        }
    }

    /// Its expression.
    pub fn query(&self) -> &str {
        match self {
            Self::Alerting(rule) => &rule.query,
            Self::Recording(rule) => &rule.query,
        }
    }

    /// The labels that it adds. Their values may be templates.
    pub fn labels(&self) -> &Labels {
        match self {
            Self::Alerting(rule) => &rule.labels,
            Self::Recording(rule) => &rule.labels,
        }
    }

    /// The labels, to change them.
    pub fn labels_mut(&mut self) -> &mut Labels {
        match self {
            Self::Alerting(rule) => &mut rule.labels,
            Self::Recording(rule) => &mut rule.labels,
        }
    }

    /// Its alerts; none if it is a recording rule.
    pub fn alerts(&self) -> &[Alert] {
        match self {
            Self::Alerting(rule) => &rule.alerts,
            Self::Recording(_) => &[],
        }
    }

    /// Its alerts, to change them.
    pub fn alerts_mut(&mut self) -> &mut [Alert] {
        match self {
            Self::Alerting(rule) => &mut rule.alerts,
            Self::Recording(_) => &mut [],
        }
    }
}

/// A rule that produces alerts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertingRule {
    /// The greatest state of its alerts.
    pub state: AlertState,
    /// The name of its alerts.
    pub name: String,
    /// Its expression.
    pub query: String,
    /// Seconds for which the expression must hold before an alert fires.
    #[serde(rename = "duration")]
    pub duration_seconds: f64,
    /// Seconds for which an alert keeps firing after the expression no longer holds.
    #[serde(rename = "keepFiringFor")]
    pub keep_firing_seconds: f64,
    /// The labels that it adds. Their values may be templates.
    #[serde(with = "labels_json")]
    pub labels: Labels,
    /// The annotations that it adds. Their values may be templates. Empty values are dropped.
    #[serde(with = "labels_json")]
    pub annotations: Labels,
    /// Its pending and firing alerts.
    #[serde(deserialize_with = "null_is_default")]
    pub alerts: Vec<Alert>,
    /// `ok`, `err` or `unknown`.
    pub health: String,
    /// Why the last evaluation failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    /// Duration of the last evaluation in seconds.
    #[serde(rename = "evaluationTime")]
    pub evaluation_seconds: f64,
    /// Time of the last evaluation.
    pub last_evaluation: ApiTime,
}

/// A rule that produces series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RecordingRule {
    /// The name of its series.
    pub name: String,
    /// Its expression.
    pub query: String,
    /// The labels that it adds.
    #[serde(with = "labels_json")]
    pub labels: Labels,
    /// `ok`, `err` or `unknown`.
    pub health: String,
    /// Why the last evaluation failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_error: String,
    /// Duration of the last evaluation in seconds.
    #[serde(rename = "evaluationTime")]
    pub evaluation_seconds: f64,
    /// Time of the last evaluation.
    pub last_evaluation: ApiTime,
}

/// The state of an alert, or of a rule; a greater one is more urgent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", from = "String")]
pub enum AlertState {
    /// Not evaluated yet.
    #[default]
    Unknown,
    /// There is no alert.
    Inactive,
    /// The expression holds, but not for long enough.
    Pending,
    /// The alert fires.
    Firing,
}

impl From<String> for AlertState {
    fn from(text: String) -> Self {
        match text.as_str() {
            "inactive" => Self::Inactive,
            "pending" => Self::Pending,
            "firing" => Self::Firing,
            _ => Self::Unknown,
        }
    }
}

/// A pending or firing alert.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Alert {
    /// Its labels.
    #[serde(with = "labels_json")]
    pub labels: Labels,
    /// Its annotations. Empty values are dropped.
    #[serde(with = "labels_json")]
    pub annotations: Labels,
    /// Its state.
    pub state: AlertState,
    /// Time since which the expression holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_at: Option<ApiTime>,
    /// Time since which it fires only because of `keep_firing_for`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_firing_since: Option<ApiTime>,
    /// The value of the expression, as text.
    pub value: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of Prometheus 2.42, shortened.
    const GROUP: &str = r#"{"name":"g","file":"/r.yml","rules":[
        {"state":"firing","name":"Up","query":"up == 1","duration":0,"labels":{"severity":"page"},
         "annotations":{"summary":"<b>"},"alerts":[{"labels":{"alertname":"Up"},"annotations":{},"state":"firing",
         "activeAt":"2024-05-01T12:00:00.5Z","value":"1e+00"}],"health":"ok","evaluationTime":0.5,
         "lastEvaluation":"2024-05-01T14:00:00+02:00","type":"alerting"},
        {"name":"r","query":"sum(up)","health":"err","lastError":"boom","evaluationTime":0.25,
         "lastEvaluation":"0001-01-01T00:00:00Z","type":"recording"}],
        "interval":15,"limit":0,"evaluationTime":0.75,"lastEvaluation":"2024-05-01T12:00:00Z"}"#;

    #[test]
    fn rules_of_prometheus_are_read_and_printed_in_its_format() {
        let group: RuleGroup = serde_json::from_str(GROUP).unwrap();
        let [Rule::Alerting(alerting), Rule::Recording(recording)] = &group.rules[..] else {
            panic!("{group:?}")
        };
        assert_eq!((alerting.state, alerting.alerts[0].value.as_str()), (AlertState::Firing, "1e+00"));
        assert_eq!((recording.last_error.as_str(), recording.labels.len()), ("boom", 0));
        let printed = serde_json::to_value(&group).unwrap();
        assert_eq!(printed["partialResponseStrategy"], "ABORT");
        assert_eq!(printed["rules"][0]["type"], "alerting");
        assert_eq!(printed["rules"][0]["lastEvaluation"], "2024-05-01T12:00:00Z");
        assert_eq!(printed["rules"][0]["alerts"][0]["activeAt"], "2024-05-01T12:00:00.5Z");
        assert!(printed["rules"][0].get("lastError").is_none());
        assert_eq!(printed["rules"][1]["labels"], serde_json::json!({}));
        assert_eq!(serde_json::from_value::<RuleGroup>(printed).unwrap(), group);
    }

    #[test]
    fn missing_and_null_fields_have_defaults() {
        let group: RuleGroup = serde_json::from_str(r#"{"name":"g","rules":null}"#).unwrap();
        assert_eq!(group, RuleGroup { name: "g".to_owned(), ..RuleGroup::default() });
        let rule: Rule = serde_json::from_str(r#"{"type":"alerting","alerts":null,"state":"odd"}"#).unwrap();
        assert_eq!(rule, Rule::Alerting(AlertingRule::default()));
        assert!(serde_json::from_str::<Rule>(r#"{"type":"other"}"#).is_err());
    }
}
