//! Mistakes of rule files.

use std::fmt;

use runtime::yaml::{Mistake, YamlNode, YamlValue};

/// One mistake in a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleMistake {
    /// Line in the file, from 1; `None` where it is not known.
    pub line: Option<u64>,
    /// The group that has the mistake, by name or number.
    pub group: Option<String>,
    /// The rule that has the mistake: its number, from 1, and its name.
    pub rule: Option<(usize, String)>,
    /// The field below the rule, group or file; empty for all of it.
    pub field: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl RuleMistake {
    /// A mistake of the file as a whole.
    pub(super) fn of_file(mistake: Mistake) -> Self {
        let Mistake { line, field, text } = mistake;
        Self { line, group: None, rule: None, field, text }
    }

    /// A mistake of the rule at index `at` of a group.
    pub(super) fn of_rule(mistake: Mistake, group: &str, at: usize, name: &str) -> Self {
        let Mistake { line, field, text } = mistake;
        Self { line, group: Some(group.to_owned()), rule: Some((at + 1, name.to_owned())), field, text }
    }

    /// A mistake whose field is a path such as `groups[0].rules[1].expr`; names are taken from `file`.
    pub(super) fn new(mistake: Mistake, file: &YamlNode) -> Self {
        let Some((group, rest)) = item(&mistake.field, "groups[") else { return Self::of_file(mistake) };
        let group_node = list_item(file, "groups", group);
        let group_name = group_node.and_then(|node| name(node, &["name"]));
        let group_name = Some(group_name.unwrap_or_else(|| format!("{}", group + 1)));
        let Some((rule, field)) = item(rest, "rules[") else {
            let field = rest.to_owned();
            return Self { line: mistake.line, group: group_name, rule: None, field, text: mistake.text };
        };
        let rule_node = group_node.and_then(|node| list_item(node, "rules", rule));
        let rule_name = rule_node.and_then(|node| name(node, &["alert", "record"])).unwrap_or_default();
        Self {
            line: mistake.line,
            group: group_name,
            rule: Some((rule + 1, rule_name)),
            field: field.to_owned(),
            text: mistake.text,
        }
    }
}

/// Splits `groups[3].rest` into 3 and `rest`.
fn item<'p>(path: &'p str, prefix: &str) -> Option<(usize, &'p str)> {
    let (index, rest) = path.strip_prefix(prefix)?.split_once(']')?;
    Some((index.parse().ok()?, rest.strip_prefix('.').unwrap_or(rest)))
}

fn field<'n>(node: &'n YamlNode, name: &str) -> Option<&'n YamlNode> {
    let YamlValue::Map(entries) = &node.value else { return None };
    entries.iter().find(|(key, _)| key.name() == name).map(|(_, value)| value)
}

fn list_item<'n>(node: &'n YamlNode, name: &str, index: usize) -> Option<&'n YamlNode> {
    let YamlValue::List(items) = &field(node, name)?.value else { return None };
    items.get(index)
}

fn name(node: &YamlNode, fields: &[&str]) -> Option<String> {
    fields.iter().find_map(|name| field(node, name)?.scalar().ok().filter(|name| !name.is_empty()))
}

impl fmt::Display for RuleMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(group) = &self.group {
            write!(f, "group {group:?}")?;
            match &self.rule {
                Some((number, name)) if name.is_empty() => write!(f, ", rule {number}: ")?,
                Some((number, name)) => write!(f, ", rule {number} {name:?}: ")?,
                None => f.write_str(": ")?,
            }
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.text)
    }
}
