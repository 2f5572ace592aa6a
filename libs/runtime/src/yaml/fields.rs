//! The fields of a mapping.

use std::fmt;

use crate::yaml::mistake::Mistakes;
use crate::yaml::node::{YamlKey, YamlNode, YamlValue};

/// Reads the fields of one mapping by name.
#[derive(Debug)]
pub struct YamlFields<'a> {
    path: String,
    line: Option<u64>,
    /// `None` when the node is not a mapping. That is noted once; its fields are not noted as missing.
    entries: Option<&'a [(YamlKey, YamlNode)]>,
    known: Vec<&'static str>,
    refused: Vec<&'static str>,
    mistakes: &'a Mistakes,
}

impl<'a> YamlFields<'a> {
    /// The fields of `node`; a node that is not a mapping is noted and has no fields.
    pub fn new(path: impl Into<String>, node: &'a YamlNode, mistakes: &'a Mistakes) -> Self {
        let path = path.into();
        let entries = match &node.value {
            YamlValue::Map(entries) => Some(entries.as_slice()),
            // A key without a value, or an empty file: a mapping without fields.
            YamlValue::Null => Some(&[][..]),
            _ => {
                mistakes.add(
                    node.line,
                    &path,
                    format!("expected a mapping of fields, found {}", node.kind()),
                );
                None
            }
        };
        Self { path, line: node.line, entries, known: Vec::new(), refused: Vec::new(), mistakes }
    }

    /// The full path of a field.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Notes a mistake about the field `name`, which need not be present.
    pub fn wrong(&self, name: &str, text: impl Into<String>) {
        if self.entries.is_some() {
            let line = self.entry(name).map_or(self.line, |(key, _)| key.line);
            self.mistakes.add(line, self.path_of(name), text);
        }
    }

    fn entry(&self, name: &str) -> Option<&'a (YamlKey, YamlNode)> {
        self.entries?.iter().find(|(key, _)| key.name == name)
    }

    /// The node of a field; `None` when absent or without a value.
    pub fn node(&mut self, name: &'static str) -> Option<&'a YamlNode> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.entry(name).map(|(_, node)| node).filter(|node| !matches!(node.value, YamlValue::Null))
    }

    /// The node of a field, also one without a value; `None` when absent.
    pub fn given(&mut self, name: &'static str) -> Option<&'a YamlNode> {
        let _ = self.node(name);
        self.entry(name).map(|(_, node)| node)
    }

    /// Notes a mistake if a field is there that another program knows and this one does not. `text` says what to do instead.
    pub fn refuse(&mut self, name: &'static str, text: impl Into<String>) {
        self.refused.push(name);
        if self.entry(name).is_some_and(|(_, node)| !matches!(node.value, YamlValue::Null)) {
            self.wrong(name, text);
        }
    }

    /// A field that may be absent; `None` also when it is wrong, which is noted.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a YamlNode) -> Result<T, String>,
    ) -> Option<T> {
        let node = self.node(name)?;
        read(node).map_err(|text| self.mistakes.add(node.line, self.path_of(name), text)).ok()
    }

    /// A field that must be present.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a YamlNode) -> Result<T, String>,
    ) -> Option<T> {
        if self.node(name).is_none() {
            self.wrong(name, "is missing");
            return None;
        }
        self.optional(name, read)
    }

    /// The items of a list that may be absent. `read` gets the path of an item and its node.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(String, &'a YamlNode) -> Option<T>,
    ) -> Vec<T> {
        let Some(node) = self.node(name) else { return Vec::new() };
        match &node.value {
            YamlValue::List(items) => items
                .iter()
                .enumerate()
                .filter_map(|(index, item)| read(format!("{}[{index}]", self.path_of(name)), item))
                .collect(),
            _ => {
                self.mistakes.add(
                    node.line,
                    self.path_of(name),
                    format!("expected a list, found {}", node.kind()),
                );
                Vec::new()
            }
        }
    }

    /// A list of scalars that `T` can be parsed from.
    pub fn parsed_list<T: std::str::FromStr<Err: fmt::Display>>(&mut self, name: &'static str) -> Vec<T> {
        let mistakes = self.mistakes;
        self.list(name, |path, item| item.parsed().map_err(|text| mistakes.add(item.line, path, text)).ok())
    }

    /// Notes every field that was not read as unknown.
    pub fn finish(self) {
        let is_unknown = |(key, _): &&(YamlKey, YamlNode)| {
            !self.known.contains(&key.name.as_str()) && !self.refused.contains(&key.name.as_str())
        };
        for (key, _) in self.entries.unwrap_or_default().iter().filter(is_unknown) {
            let name: String = key.name.chars().take(60).collect();
            let text = format!("unknown field; known fields: {}", self.known.join(", "));
            self.mistakes.add(key.line, self.path_of(&name.escape_debug().to_string()), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_other_programs_are_refused_and_not_listed_as_known() {
        let node = YamlNode::parse("a: 1\nold: 2\nnew: 3\ngone:\n").unwrap();
        let mistakes = Mistakes::default();
        let mut fields = YamlFields::new("", &node, &mistakes);
        assert_eq!(fields.optional("a", |node| node.integer(0, 9)), Some(1));
        fields.refuse("old", "is not known here; use a");
        fields.refuse("gone", "is not known here; use a");
        fields.finish();
        let mistakes: Vec<String> = mistakes.into_sorted().iter().map(ToString::to_string).collect();
        assert_eq!(
            mistakes,
            ["line 2: old: is not known here; use a", "line 3: new: unknown field; known fields: a"]
        );
    }
}
