//! Rules.

use std::ops::Range;

use promapi::{Alert, AlertState, AlertingRule, RecordingRule, Rule, RuleGroup, RuleStrategy};
use prost::Message;
use proto::thanos as wire;

use crate::convert::listing::{ListingReader, ReadError, WireListing, number, pieces, set, timestamp};
use crate::convert::read::FieldValue::{Bytes, Fixed, Number};
use crate::convert::request::{partial_from_wire, partial_to_wire};
use crate::{RuleKind, RulesRequest, StoreError};

impl WireListing for RuleGroup {
    type WireRequest = wire::RulesRequest;
    type WireResponse = wire::RulesResponse;
    const SERVICE: &'static str = wire::rules_server::SERVICE_NAME;
    const PATH: &'static str = "/thanos.Rules/Rules";

    fn request_to_wire(request: &RulesRequest) -> wire::RulesRequest {
        use wire::rules_request::Type;
        let kind = match request.kind {
            None => Type::All,
            Some(RuleKind::Alerting) => Type::Alert,
            Some(RuleKind::Recording) => Type::Record,
        };
        wire::RulesRequest {
            r#type: kind.into(),
            partial_response_strategy: partial_to_wire(request.partial_response).1,
            ..Default::default()
        }
    }

    /// The conditions on names, files and matchers are applied by the client that merges the answers.
    fn request_from_wire(request: wire::RulesRequest) -> Result<RulesRequest, StoreError> {
        use wire::rules_request::Type;
        let kind = match Type::try_from(request.r#type) {
            Ok(Type::All) => None,
            Ok(Type::Alert) => Some(RuleKind::Alerting),
            Ok(Type::Record) => Some(RuleKind::Recording),
            Err(_) => {
                let message = format!("rules: type is {}, expected 0, 1 or 2", request.r#type);
                return Err(StoreError::invalid(message));
            }
        };
        Ok(RulesRequest {
            kind,
            partial_response: partial_from_wire(false, request.partial_response_strategy),
        })
    }

    fn read(reader: &ListingReader<'_>, item: Range<usize>, into: &mut Vec<Self>) -> Result<(), ReadError> {
        // The default of the wire is the first value.
        let mut group = Self { partial_response_strategy: RuleStrategy::Warn, ..Self::default() };
        let mut fields = reader.message::<Self>(item)?;
        while let Some(field) = fields.next()? {
            match field {
                (1, Bytes(window)) => group.name = reader.text(window)?,
                (2, Bytes(window)) => group.file = reader.text(window)?,
                (3, Bytes(window)) => group.rules.extend(rule(reader, window)?),
                (4, Fixed(bits)) => group.interval = number(bits),
                (5, Fixed(bits)) => group.evaluation_seconds = number(bits),
                (6, Bytes(window)) => group.last_evaluation = reader.time(window)?,
                (8, Number(strategy)) => group.partial_response_strategy = strategy_from_wire(strategy),
                (9, Number(limit)) => group.limit = limit as i64,
                _ => {}
            }
        }
        into.push(group);
        Ok(())
    }

    /// A large group becomes several groups of the same name and file, which clients join.
    fn to_wire(mut self) -> Vec<wire::RulesResponse> {
        let rules = self.rules.drain(..).map(rule_to_wire).collect();
        let response = |rules: Vec<wire::Rule>| {
            let group = wire::RuleGroup {
                name: self.name.clone(),
                file: self.file.clone(),
                rules,
                interval: self.interval,
                evaluation_duration_seconds: self.evaluation_seconds,
                last_evaluation: timestamp(self.last_evaluation),
                partial_response_strategy: match self.partial_response_strategy {
                    RuleStrategy::Warn => wire::PartialResponseStrategy::Warn.into(),
                    RuleStrategy::Abort => wire::PartialResponseStrategy::Abort.into(),
                },
                limit: self.limit,
            };
            wire::RulesResponse { result: Some(wire::rules_response::Result::Group(group)) }
        };
        pieces(rules, Message::encoded_len).into_iter().map(response).collect()
    }

    fn warning_to_wire(text: String) -> wire::RulesResponse {
        wire::RulesResponse { result: Some(wire::rules_response::Result::Warning(text)) }
    }
}

fn strategy_from_wire(strategy: u64) -> RuleStrategy {
    if strategy == wire::PartialResponseStrategy::Abort as u64 {
        RuleStrategy::Abort
    } else {
        RuleStrategy::Warn
    }
}

/// A rule of an unknown type is skipped.
fn rule(reader: &ListingReader<'_>, window: Range<usize>) -> Result<Option<Rule>, ReadError> {
    let mut fields = reader.message::<Rule>(window)?;
    let mut rule = None;
    while let Some(field) = fields.next()? {
        match field {
            (1, Bytes(window)) => rule = Some(Rule::Recording(recording(reader, window)?)),
            (2, Bytes(window)) => rule = Some(Rule::Alerting(alerting(reader, window)?)),
            _ => {}
        }
    }
    Ok(rule)
}

fn recording(reader: &ListingReader<'_>, window: Range<usize>) -> Result<RecordingRule, ReadError> {
    let mut rule = RecordingRule::default();
    let mut fields = reader.message::<()>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Bytes(window)) => rule.name = reader.text(window)?,
            (2, Bytes(window)) => rule.query = reader.text(window)?,
            (3, Bytes(window)) => rule.labels = reader.labels(window)?,
            (4, Bytes(window)) => rule.health = reader.text(window)?,
            (5, Bytes(window)) => rule.last_error = reader.text(window)?,
            (6, Fixed(bits)) => rule.evaluation_seconds = number(bits),
            (7, Bytes(window)) => rule.last_evaluation = reader.time(window)?,
            _ => {}
        }
    }
    Ok(rule)
}

fn alerting(reader: &ListingReader<'_>, window: Range<usize>) -> Result<AlertingRule, ReadError> {
    let mut rule = AlertingRule::default();
    let mut fields = reader.message::<()>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Number(state)) => rule.state = state_from_wire(state),
            (2, Bytes(window)) => rule.name = reader.text(window)?,
            (3, Bytes(window)) => rule.query = reader.text(window)?,
            (4, Fixed(bits)) => rule.duration_seconds = number(bits),
            (5, Bytes(window)) => rule.labels = reader.labels(window)?,
            (6, Bytes(window)) => rule.annotations = reader.labels(window)?,
            (7, Bytes(window)) => rule.alerts.push(alert(reader, window)?),
            (8, Bytes(window)) => rule.health = reader.text(window)?,
            (9, Bytes(window)) => rule.last_error = reader.text(window)?,
            (10, Fixed(bits)) => rule.evaluation_seconds = number(bits),
            (11, Bytes(window)) => rule.last_evaluation = reader.time(window)?,
            (12, Fixed(bits)) => rule.keep_firing_seconds = number(bits),
            _ => {}
        }
    }
    Ok(rule)
}

fn alert(reader: &ListingReader<'_>, window: Range<usize>) -> Result<Alert, ReadError> {
    let mut alert = Alert::default();
    let mut fields = reader.message::<Alert>(window)?;
    while let Some(field) = fields.next()? {
        match field {
            (1, Bytes(window)) => alert.labels = reader.labels(window)?,
            (2, Bytes(window)) => alert.annotations = reader.labels(window)?,
            (3, Number(state)) => alert.state = state_from_wire(state),
            (4, Bytes(window)) => alert.active_at = Some(reader.time(window)?),
            (5, Bytes(window)) => alert.value = reader.text(window)?,
            (1000, Bytes(window)) => alert.keep_firing_since = Some(reader.time(window)?),
            _ => {}
        }
    }
    Ok(alert)
}

fn state_from_wire(state: u64) -> AlertState {
    match state {
        1 => AlertState::Inactive,
        2 => AlertState::Pending,
        3 => AlertState::Firing,
        _ => AlertState::Unknown,
    }
}

fn state_to_wire(state: AlertState) -> i32 {
    match state {
        AlertState::Unknown => wire::AlertState::Unknown,
        AlertState::Inactive => wire::AlertState::Inactive,
        AlertState::Pending => wire::AlertState::Pending,
        AlertState::Firing => wire::AlertState::Firing,
    }
    .into()
}

fn rule_to_wire(rule: Rule) -> wire::Rule {
    use wire::rule::Result as Kind;
    let kind = match rule {
        Rule::Recording(rule) => Kind::Recording(wire::RecordingRule {
            labels: set(&rule.labels),
            last_evaluation: timestamp(rule.last_evaluation),
            evaluation_duration_seconds: rule.evaluation_seconds,
            name: rule.name,
            query: rule.query,
            health: rule.health,
            last_error: rule.last_error,
        }),
        Rule::Alerting(rule) => Kind::Alert(wire::Alert {
            state: state_to_wire(rule.state),
            duration_seconds: rule.duration_seconds,
            labels: set(&rule.labels),
            annotations: set(&rule.annotations),
            alerts: rule.alerts.into_iter().map(alert_to_wire).collect(),
            evaluation_duration_seconds: rule.evaluation_seconds,
            last_evaluation: timestamp(rule.last_evaluation),
            keep_firing_for_seconds: rule.keep_firing_seconds,
            name: rule.name,
            query: rule.query,
            health: rule.health,
            last_error: rule.last_error,
        }),
    };
    wire::Rule { result: Some(kind) }
}

fn alert_to_wire(alert: Alert) -> wire::AlertInstance {
    wire::AlertInstance {
        labels: set(&alert.labels),
        annotations: set(&alert.annotations),
        state: state_to_wire(alert.state),
        active_at: alert.active_at.and_then(timestamp),
        value: alert.value,
        partial_response_strategy: wire::PartialResponseStrategy::Warn.into(),
        keep_firing_since: alert.keep_firing_since.and_then(timestamp),
    }
}
