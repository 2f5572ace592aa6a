//! Reads groups and rules, and notes their mistakes.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{METRIC_NAME, is_legacy_label_name};
use promql::syntax::ast::Expr;
use runtime::yaml::{Mistakes, YamlFields, YamlNode, YamlValue};

use crate::file::options::{NameScheme, RuleFileOptions};
use crate::rule::{Alerting, PartialResponse, Rule, RuleGroup, RuleKind};
use crate::template::Template;

/// Reads one file.
pub(super) struct Reader<'a> {
    pub(super) options: &'a RuleFileOptions,
    pub(super) mistakes: &'a Mistakes,
}

/// A mapping of names to text, and the line of each value.
type Texts = BTreeMap<String, (String, Option<u64>)>;

impl Reader<'_> {
    /// Reads a group. `None` if it cannot be read; a group that has mistakes may be returned without its wrong parts.
    pub(super) fn group(&self, path: String, node: &YamlNode) -> Option<RuleGroup> {
        let mut fields = YamlFields::new(path, node, self.mistakes);
        let name = fields.required("name", |node| match node.scalar()? {
            name if name.is_empty() => Err("must not be empty; give the group a name".to_owned()),
            name => Ok(name),
        });
        let interval =
            fields.optional("interval", |node| self.duration(node)).filter(|interval| !interval.is_zero());
        let query_offset = fields.optional("query_offset", |node| self.duration(node));
        let limit = fields.optional("limit", |node| node.integer(i64::MIN, i64::MAX));
        let partial_response =
            fields.optional("partial_response_strategy", |node| self.partial_response(node));
        let labels_path = fields.path_of("labels");
        let labels = fields.node("labels").map(|node| self.texts(&labels_path, node)).unwrap_or_default();
        self.check_labels(&labels_path, &labels);
        let rules = fields.list("rules", |path, item| self.rule(path, item, &labels));
        if !self.options.ignore_unknown_fields {
            fields.finish();
        }
        Some(RuleGroup {
            name: name?,
            interval,
            query_offset,
            limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0),
            partial_response: partial_response.unwrap_or_default(),
            rules,
        })
    }

    fn duration(&self, node: &YamlNode) -> Result<Duration, String> {
        let text = node.scalar()?;
        promapi::parse_prometheus_duration(&text)
            .map_err(|_| format!("{text:?} is not a duration; write it as 30s, 5m or 1h30m"))
    }

    fn partial_response(&self, node: &YamlNode) -> Result<PartialResponse, String> {
        let text = node.scalar()?;
        match text.to_ascii_lowercase().as_str() {
            "warn" => Ok(PartialResponse::Warn),
            "abort" => Ok(PartialResponse::Abort),
            _ => Err(format!("{text:?} is not a strategy; write warn or abort")),
        }
    }

    fn texts(&self, path: &str, node: &YamlNode) -> Texts {
        let YamlValue::Map(entries) = &node.value else {
            self.mistakes.add(
                node.line,
                path,
                format!("expected a mapping of names to text, found {}", node.kind()),
            );
            return Texts::new();
        };
        let mut texts = Texts::new();
        for (key, value) in entries {
            match value.scalar() {
                Ok(text) => {
                    texts.insert(key.name().to_owned(), (text, value.line));
                }
                Err(why) => self.mistakes.add(value.line, format!("{path}.{}", key.name()), why),
            }
        }
        texts
    }

    fn is_valid_name(&self, name: &str) -> bool {
        match self.options.names {
            NameScheme::Utf8 => !name.is_empty(),
            NameScheme::Legacy => is_legacy_label_name(name),
        }
    }

    fn name_advice(&self) -> &'static str {
        match self.options.names {
            NameScheme::Utf8 => "it must not be empty",
            NameScheme::Legacy => "use only letters, digits and underscores",
        }
    }

    fn check_labels(&self, path: &str, labels: &Texts) {
        for (name, (_, line)) in labels {
            if name == METRIC_NAME {
                let text =
                    "invalid label name \"__name__\"; the name of a rule is in its field record or alert";
                self.mistakes.add(*line, path, text);
            } else if !self.is_valid_name(name) {
                self.mistakes.add(
                    *line,
                    path,
                    format!("invalid label name {name:?}; {}", self.name_advice()),
                );
            }
        }
    }

    fn rule(&self, path: String, node: &YamlNode, group_labels: &Texts) -> Option<Rule> {
        let mut fields = YamlFields::new(path, node, self.mistakes);
        let text = |node: &YamlNode| node.scalar();
        let record = fields.optional("record", text).filter(|name| !name.is_empty());
        let alert = fields.optional("alert", text).filter(|name| !name.is_empty());
        let expr = self.expression(&mut fields);
        let hold = fields.optional("for", |node| self.duration(node)).unwrap_or_default();
        let keep = fields.optional("keep_firing_for", |node| self.duration(node)).unwrap_or_default();
        let [labels_path, annotations_path] = ["labels", "annotations"].map(|name| fields.path_of(name));
        let labels = fields.node("labels").map(|node| self.texts(&labels_path, node)).unwrap_or_default();
        let annotations =
            fields.node("annotations").map(|node| self.texts(&annotations_path, node)).unwrap_or_default();
        self.check_labels(&labels_path, &labels);
        for (name, (_, line)) in &annotations {
            if !self.is_valid_name(name) {
                let text = format!("invalid annotation name {name:?}; {}", self.name_advice());
                self.mistakes.add(*line, annotations_path.as_str(), text);
            }
        }
        match (&record, &alert) {
            (Some(_), Some(_)) => {
                fields.wrong("alert", "a rule has only one of 'record' and 'alert'; make two rules of it");
            }
            (None, None) => fields.wrong(
                "",
                "one of 'record' or 'alert' must be set; 'record' names a series, 'alert' names alerts",
            ),
            _ => {}
        }
        if let Some(name) = &record {
            self.check_recording(&fields, name, [!hold.is_zero(), !keep.is_zero(), !annotations.is_empty()]);
        }
        if !self.options.ignore_unknown_fields {
            fields.finish();
        }
        let merged: Texts = group_labels.clone().into_iter().chain(labels).collect();
        let is_alerting = alert.is_some();
        let name = alert.or(record)?;
        let templates = |path: &str, texts: &Texts| self.templates(&name, path, texts);
        let kind = if is_alerting {
            RuleKind::Alerting(Box::new(Alerting {
                hold,
                keep_firing_for: keep,
                label_templates: templates(&labels_path, &merged),
                annotation_templates: templates(&annotations_path, &annotations),
                annotations: without_lines(annotations),
            }))
        } else {
            RuleKind::Recording
        };
        let expr = expr?;
        Some(Rule {
            query: expr.to_string(),
            expr,
            labels: without_lines(merged),
            line: node.line,
            kind,
            name,
        })
    }

    fn expression(&self, fields: &mut YamlFields<'_>) -> Option<Expr> {
        fields.required("expr", |node| match node.scalar()? {
            text if text.is_empty() => Err("must be set; write the expression of the rule".to_owned()),
            text => promql::parse(&text, &self.options.parse)
                .map_err(|error| format!("could not parse expression: {error}")),
        })
    }

    /// Checks what recording rules must not have; `set` says whether `for`, `keep_firing_for` and `annotations` are set.
    fn check_recording(&self, fields: &YamlFields<'_>, name: &str, set: [bool; 3]) {
        for (field, is_set) in ["for", "keep_firing_for", "annotations"].into_iter().zip(set) {
            if is_set {
                fields.wrong(field, "only alerting rules have this field; remove it from the recording rule");
            }
        }
        let is_valid = match self.options.names {
            NameScheme::Utf8 => true,
            NameScheme::Legacy => is_legacy_label_name(&name.replace(':', "_")),
        };
        if !is_valid {
            fields.wrong(
                "record",
                format!("invalid name {name:?}; use only letters, digits, underscores and colons"),
            );
        }
        if name.contains(['{', '}']) {
            let text = format!(
                "braces in the name {name:?}; put selectors into expr, and labels of the result into labels"
            );
            fields.wrong("record", text);
        }
    }

    fn templates(&self, alert: &str, path: &str, texts: &Texts) -> Vec<Template> {
        let mut templates = Vec::new();
        for (name, (text, line)) in texts {
            match Template::parse(alert, text) {
                Ok(template) => templates.push(template),
                Err(error) => self.mistakes.add(*line, format!("{path}.{name}"), error.to_string()),
            }
        }
        templates
    }
}

fn without_lines(texts: Texts) -> BTreeMap<String, String> {
    texts.into_iter().map(|(name, (text, _))| (name, text)).collect()
}
