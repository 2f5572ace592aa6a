//! Rule files: those of Prometheus 3.14, with `partial_response_strategy` of Thanos.
//!
//! A file is checked as a whole: every mistake is reported, with its line, group, rule and field, and what to do.

mod group;
mod mistake;
mod options;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use runtime::yaml::{Mistake, Mistakes, YamlFields, YamlNode};

pub use mistake::RuleMistake;
pub use options::{NameScheme, RuleFileOptions};

use crate::rule::{Rule, RuleGroup};

/// The contents of a rule file, checked.
#[derive(Debug, Default)]
pub struct RuleFile {
    /// Its groups in the order of the file.
    pub groups: Vec<RuleGroup>,
}

impl RuleFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// Every mistake, in the order of the file; never an empty list.
    pub fn parse(text: &str, options: &RuleFileOptions) -> Result<Self, Vec<RuleMistake>> {
        let node = match YamlNode::parse(text) {
            Ok(node) => node,
            Err(mistake) => return Err(vec![RuleMistake::of_file(mistake)]),
        };
        let mistakes = Mistakes::default();
        let reader = group::Reader { options, mistakes: &mistakes };
        let mut fields = YamlFields::new("", &node, &mistakes);
        let mut lines: HashMap<String, Option<u64>> = HashMap::new();
        let groups = fields.list("groups", |path, item| {
            let group = reader.group(path.clone(), item)?;
            if let Some(first) = lines.get(&group.name) {
                let first = first.map_or_else(String::new, |line| format!(" at line {line}"));
                let text = format!(
                    "group {:?} is defined twice, first{first}; names of groups must be unique in a file",
                    group.name
                );
                mistakes.add(item.line, format!("{path}.name"), text);
            }
            lines.entry(group.name.clone()).or_insert(item.line);
            Some(group)
        });
        if !options.ignore_unknown_fields {
            fields.finish();
        }
        let mistakes = mistakes.into_sorted();
        if mistakes.is_empty() {
            Ok(Self { groups })
        } else {
            Err(mistakes.into_iter().map(|mistake| RuleMistake::new(mistake, &node)).collect())
        }
    }

    /// Rules of this file that have the name and the labels of an earlier rule. Their series or alerts are mixed, which is rarely
    /// wanted. They are no mistakes for Prometheus.
    pub fn duplicates(&self) -> Vec<RuleMistake> {
        let mut first: BTreeMap<(bool, &str, &BTreeMap<String, String>), &Rule> = BTreeMap::new();
        let mut found = Vec::new();
        for group in &self.groups {
            for (at, rule) in group.rules.iter().enumerate() {
                let key = (rule.alerting().is_some(), rule.name.as_str(), &rule.labels);
                let Some(earlier) = first.get(&key) else {
                    first.insert(key, rule);
                    continue;
                };
                let line = earlier.line.map_or_else(String::new, |line| format!(" at line {line}"));
                let text = format!(
                    "has the name and the labels of the rule{line}; give one of them another name or another label"
                );
                let mistake = Mistake { line: rule.line, field: String::new(), text };
                found.push(RuleMistake::of_rule(mistake, &group.name, at, &rule.name));
            }
        }
        found
    }
}
