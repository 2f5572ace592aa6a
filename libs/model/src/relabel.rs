//! Relabelling: rules that change, keep or drop label sets, as in Prometheus' `relabel_configs`.
//!
//! Specified by Prometheus' `model/relabel/relabel.go`. A label name may be any text that is not empty.

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::{Labels, LabelsBuilder, Regex, RegexError};

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RelabelAction {
    /// Writes the replacement to the target label if the expression matches.
    #[default]
    Replace,
    /// Drops label sets that the expression does not match.
    Keep,
    /// Drops label sets that the expression matches.
    Drop,
    /// Drops label sets whose text does not equal the target label.
    KeepEqual,
    /// Drops label sets whose text equals the target label.
    DropEqual,
    /// Writes the hash of the text, modulo `modulus`, to the target label.
    HashMod,
    /// Copies each label whose name matches to the name that the replacement gives.
    LabelMap,
    /// Removes labels whose name matches.
    LabelDrop,
    /// Removes labels whose name does not match.
    LabelKeep,
    /// Writes the text in lower case to the target label.
    Lowercase,
    /// Writes the text in upper case to the target label.
    Uppercase,
}

const ACTIONS: [(&str, RelabelAction); 11] = [
    ("replace", RelabelAction::Replace),
    ("keep", RelabelAction::Keep),
    ("drop", RelabelAction::Drop),
    ("keepequal", RelabelAction::KeepEqual),
    ("dropequal", RelabelAction::DropEqual),
    ("hashmod", RelabelAction::HashMod),
    ("labelmap", RelabelAction::LabelMap),
    ("labeldrop", RelabelAction::LabelDrop),
    ("labelkeep", RelabelAction::LabelKeep),
    ("lowercase", RelabelAction::Lowercase),
    ("uppercase", RelabelAction::Uppercase),
];

impl RelabelAction {
    /// The action as it is written in configurations.
    pub fn as_str(self) -> &'static str {
        ACTIONS.iter().find(|(_, action)| *action == self).map_or("replace", |(name, _)| name)
    }

    /// The action with this name in lower case.
    pub fn parse(name: &str) -> Option<Self> {
        ACTIONS.iter().find(|(known, _)| *known == name).map(|(_, action)| *action)
    }

    /// The names of all actions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ACTIONS.iter().map(|(name, _)| *name)
    }
}

impl Serialize for RelabelAction {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RelabelAction {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text.to_lowercase()).ok_or_else(|| {
            let names: Vec<&str> = Self::names().collect();
            serde::de::Error::custom(format_args!(
                "unknown relabel action {text:?}; expected one of {}",
                names.join(", ")
            ))
        })
    }
}

/// A rule as it is written in a configuration. Unknown fields are rejected. [`Relabeling::new`] checks the
/// rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelabelConfig {
    /// The rule's text is the values of these labels, joined.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_labels: Vec<String>,
    /// Placed between the joined values.
    pub separator: String,
    /// Matched against the whole text, or against label names.
    pub regex: String,
    /// The divisor of `hashmod`, which rejects 0.
    #[serde(skip_serializing_if = "is_zero")]
    pub modulus: u64,
    /// The label that is written or compared. May contain `$1` or `${name}` if the action is `replace`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub target_label: String,
    /// The value that is written. May contain `$1` or `${name}`.
    pub replacement: String,
    /// What the rule does.
    pub action: RelabelAction,
}

impl Default for RelabelConfig {
    fn default() -> Self {
        Self {
            source_labels: Vec::new(),
            separator: ";".to_owned(),
            regex: "(.*)".to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: "$1".to_owned(),
            action: RelabelAction::Replace,
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Why a rule is rejected. Rules are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelabelError {
    /// A field that the action requires is missing.
    #[error("relabel rule {rule}: action {action} requires {field}")]
    Missing {
        /// Number of the rule.
        rule: usize,
        /// Its action.
        action: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field is set that the action does not use.
    #[error("relabel rule {rule}: action {action} does not use {field}")]
    Unused {
        /// Number of the rule.
        rule: usize,
        /// Its action.
        action: &'static str,
        /// The field.
        field: &'static str,
    },
    /// The expression is not valid RE2 syntax.
    #[error("relabel rule {rule}: {cause}")]
    Regex {
        /// Number of the rule.
        rule: usize,
        /// The error in the expression.
        cause: RegexError,
    },
}

#[derive(Clone, Debug)]
struct CheckedRule {
    config: RelabelConfig,
    regex: Regex,
}

/// Rules that are applied in order.
#[derive(Clone, Debug, Default)]
pub struct Relabeling {
    rules: Vec<CheckedRule>,
}

impl Relabeling {
    /// Checks rules and compiles their expressions.
    ///
    /// # Errors
    /// If a rule lacks a field that its action requires, has a field that its action does not use, or has an
    /// invalid expression. The error is about the first such rule.
    pub fn new(configs: Vec<RelabelConfig>) -> Result<Self, RelabelError> {
        let checked = configs.into_iter().enumerate().map(|(index, config)| {
            let rule = index + 1;
            check(rule, &config)?;
            let regex = Regex::new(&config.regex).map_err(|cause| RelabelError::Regex { rule, cause })?;
            Ok(CheckedRule { config, regex })
        });
        Ok(Self { rules: checked.collect::<Result<_, _>>()? })
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules as they were given to [`new`](Self::new).
    pub fn configs(&self) -> impl Iterator<Item = &RelabelConfig> {
        self.rules.iter().map(|rule| &rule.config)
    }

    /// Applies the rules to `labels`. The result may be the empty set; it is `None` if a rule drops the
    /// labels.
    pub fn apply(&self, labels: &Labels) -> Option<Labels> {
        let mut labels = labels.clone();
        for rule in &self.rules {
            labels = rule.apply(labels)?;
        }
        Some(labels)
    }
}

impl CheckedRule {
    fn apply(&self, labels: Labels) -> Option<Labels> {
        let config = &self.config;
        let text = || {
            let values: Vec<&str> = config.source_labels.iter().map(|name| labels.value(name)).collect();
            values.join(&config.separator)
        };
        let set = |name: &str, value: &str| labels.to_builder().set(name, value).build();
        let target = config.target_label.as_str();
        let keep = |kept: bool| kept.then(|| labels.clone());
        match config.action {
            RelabelAction::Keep => keep(self.regex.is_match(&text())),
            RelabelAction::Drop => keep(!self.regex.is_match(&text())),
            RelabelAction::KeepEqual => keep(labels.value(target) == text()),
            RelabelAction::DropEqual => keep(labels.value(target) != text()),
            RelabelAction::Replace => {
                let text = text();
                let Some(groups) = self.regex.groups(&text) else { return Some(labels) };
                let name = groups.expand(target);
                if name.is_empty() {
                    return Some(labels);
                }
                Some(set(&name, &groups.expand(&config.replacement)))
            }
            RelabelAction::HashMod => Some(set(target, &(hash(&text()) % config.modulus).to_string())),
            RelabelAction::Lowercase => Some(set(target, &text().to_lowercase())),
            RelabelAction::Uppercase => Some(set(target, &text().to_uppercase())),
            RelabelAction::LabelMap => Some(self.map_names(&labels)),
            RelabelAction::LabelDrop => Some(labels.without(|name| self.regex.is_match(name))),
            RelabelAction::LabelKeep => Some(labels.only(|name| self.regex.is_match(name))),
        }
    }

    fn map_names(&self, labels: &Labels) -> Labels {
        let mut mapped: LabelsBuilder = labels.to_builder();
        for label in labels.iter() {
            let Some(groups) = self.regex.groups(label.name) else { continue };
            let name = groups.expand(&self.config.replacement);
            if !name.is_empty() {
                mapped.set(&name, label.value);
            }
        }
        mapped.build()
    }
}

/// The last 8 bytes of the text's MD5. Prometheus and Thanos shard targets by this hash.
fn hash(text: &str) -> u64 {
    let digest = Md5::digest(text.as_bytes());
    digest.iter().skip(8).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
}

fn check(rule: usize, config: &RelabelConfig) -> Result<(), RelabelError> {
    use RelabelAction::{
        DropEqual, HashMod, KeepEqual, LabelDrop, LabelKeep, LabelMap, Lowercase, Replace, Uppercase,
    };
    let action = config.action.as_str();
    let default = RelabelConfig::default();
    let needs_target = [Replace, HashMod, Lowercase, Uppercase, KeepEqual, DropEqual];
    if needs_target.contains(&config.action) && config.target_label.is_empty() {
        return Err(RelabelError::Missing { rule, action, field: "target_label" });
    }
    if config.action == HashMod && config.modulus == 0 {
        return Err(RelabelError::Missing { rule, action, field: "modulus" });
    }
    if config.action == LabelMap && config.replacement.is_empty() {
        return Err(RelabelError::Missing { rule, action, field: "replacement" });
    }
    let (equal, by_name) = ([KeepEqual, DropEqual], [LabelDrop, LabelKeep]);
    let unused = [
        ("source_labels", by_name.contains(&config.action) && !config.source_labels.is_empty()),
        ("target_label", by_name.contains(&config.action) && !config.target_label.is_empty()),
        ("regex", equal.contains(&config.action) && config.regex != default.regex),
        (
            "separator",
            (equal.contains(&config.action) || by_name.contains(&config.action))
                && config.separator != default.separator,
        ),
        (
            "modulus",
            (equal.contains(&config.action) || by_name.contains(&config.action)) && config.modulus != 0,
        ),
        (
            "replacement",
            (equal.contains(&config.action)
                || by_name.contains(&config.action)
                || [Lowercase, Uppercase].contains(&config.action))
                && config.replacement != default.replacement,
        ),
    ];
    match unused.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(RelabelError::Unused { rule, action, field }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(action: RelabelAction) -> RelabelConfig {
        RelabelConfig { action, ..RelabelConfig::default() }
    }

    fn sources(action: RelabelAction, names: &[&str]) -> RelabelConfig {
        RelabelConfig { source_labels: names.iter().map(|n| (*n).to_owned()).collect(), ..rule(action) }
    }

    /// The cases of Prometheus' own tests start from `a="foo" b="bar" c="baz"`.
    fn check(config: RelabelConfig, expected: Option<&str>) {
        let labels = Labels::from_pairs([("a", "foo"), ("b", "bar"), ("c", "baz")]).unwrap();
        let relabeling = Relabeling::new(vec![config.clone()]).unwrap();
        let text = relabeling.apply(&labels).map(|labels| labels.to_string());
        assert_eq!(text.as_deref(), expected, "{config:?}");
    }

    #[test]
    fn each_action_does_what_prometheus_does() {
        use RelabelAction::*;
        let same = r#"{a="foo", b="bar", c="baz"}"#;
        let with = |config: RelabelConfig, regex: &str, target: &str, replacement: &str| RelabelConfig {
            regex: regex.into(),
            target_label: target.into(),
            replacement: replacement.into(),
            ..config
        };
        check(
            with(sources(Replace, &["a"]), "f(.*)", "d", "ch${1}-ch${1}"),
            Some(r#"{a="foo", b="bar", c="baz", d="choo-choo"}"#),
        );
        check(
            with(sources(Replace, &["a", "b"]), "(f).*;(.*)r", "a", "b${1}${2}m"),
            Some(r#"{a="bfbam", b="bar", c="baz"}"#),
        );
        check(with(sources(Replace, &["a"]), "nothing", "d", "x"), Some(same));
        check(
            with(sources(Replace, &["a"]), "(f).*", "${1}", "x"),
            Some(r#"{a="foo", b="bar", c="baz", f="x"}"#),
        );
        check(with(sources(Replace, &["a"]), "f()oo", "$1", "x"), Some(same));
        check(with(sources(Replace, &["a"]), ".*", "b", ""), Some(r#"{a="foo", c="baz"}"#));
        check(with(sources(Drop, &["a"]), ".*o.*", "", "$1"), None);
        check(with(sources(Drop, &["a"]), "o", "", "$1"), Some(same));
        check(with(sources(Keep, &["a"]), "no-match", "", "$1"), None);
        check(with(sources(Keep, &["a"]), "f.*", "", "$1"), Some(same));
        check(with(rule(LabelMap), "(b.*)", "", "x_${1}"), Some(r#"{a="foo", b="bar", c="baz", x_b="bar"}"#));
        check(with(rule(LabelDrop), "(b.*)", "", "$1"), Some(r#"{a="foo", c="baz"}"#));
        check(with(rule(LabelKeep), "(b.*)", "", "$1"), Some(r#"{b="bar"}"#));
        check(
            with(sources(Uppercase, &["a"]), "(.*)", "d", "$1"),
            Some(r#"{a="foo", b="bar", c="baz", d="FOO"}"#),
        );
        check(
            with(sources(Lowercase, &["a"]), "(.*)", "d", "$1"),
            Some(r#"{a="foo", b="bar", c="baz", d="foo"}"#),
        );
        check(with(sources(KeepEqual, &["a"]), "(.*)", "b", "$1"), None);
        check(with(sources(DropEqual, &["a"]), "(.*)", "b", "$1"), Some(same));
        check(with(sources(DropEqual, &["a"]), "(.*)", "a", "$1"), None);
        let hashed = RelabelConfig { modulus: 1000, target_label: "d".into(), ..sources(HashMod, &["c"]) };
        check(hashed, Some(r#"{a="foo", b="bar", c="baz", d="976"}"#));
    }

    #[test]
    fn invalid_rules_are_rejected_by_number() {
        let rejected = |config: RelabelConfig| {
            Relabeling::new(vec![
                RelabelConfig { target_label: "x".into(), ..rule(RelabelAction::Replace) },
                config,
            ])
            .unwrap_err()
            .to_string()
        };
        assert_eq!(
            rejected(rule(RelabelAction::Replace)),
            "relabel rule 2: action replace requires target_label"
        );
        let hash = RelabelConfig { target_label: "x".into(), ..rule(RelabelAction::HashMod) };
        assert_eq!(rejected(hash), "relabel rule 2: action hashmod requires modulus");
        let unused = sources(RelabelAction::LabelDrop, &["a"]);
        assert_eq!(rejected(unused), "relabel rule 2: action labeldrop does not use source_labels");
        let regex = RelabelConfig { regex: "a(".into(), ..rule(RelabelAction::Keep) };
        assert!(rejected(regex).starts_with("relabel rule 2: error parsing regexp: "));
    }
}
