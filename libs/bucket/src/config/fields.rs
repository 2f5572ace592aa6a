//! Fields that several types of object storage have in common: how they are read, and where warnings are collected.

use runtime::yaml::{Mistakes, YamlFields, YamlNode, YamlValue};

/// Collects mistakes, and warnings about fields that have no effect.
pub(super) struct ConfigNotes<'a> {
    pub(super) mistakes: &'a Mistakes,
    pub(super) warnings: &'a Mistakes,
}

impl ConfigNotes<'_> {
    /// Warns that a field which is given has no effect.
    pub(super) fn without_effect(
        &self,
        fields: &YamlFields<'_>,
        node: Option<&YamlNode>,
        name: &str,
        why: &str,
    ) {
        if let Some(node) = node {
            self.warnings.add(node.line, fields.path_of(name), format!("has no effect: {why}"));
        }
    }
}

/// Text that may be empty: Thanos' own examples write `field: ""` for "not set".
pub(super) fn text_or_empty(node: &YamlNode) -> Result<&str, String> {
    match &node.value {
        YamlValue::Text(text) => Ok(text),
        _ => node.text(),
    }
}

/// A text field; `None` if it is absent, empty or wrong.
pub(super) fn text(fields: &mut YamlFields<'_>, name: &'static str) -> Option<String> {
    fields.optional(name, |node| text_or_empty(node).map(str::to_owned)).filter(|text| !text.is_empty())
}

/// A text field that must have a value.
pub(super) fn required_text(fields: &mut YamlFields<'_>, name: &'static str) -> Option<String> {
    fields.required(name, |node| node.text().map(str::to_owned))
}

pub(super) fn boolean(fields: &mut YamlFields<'_>, name: &'static str) -> Option<bool> {
    fields.optional(name, YamlNode::boolean)
}

pub(super) fn count(fields: &mut YamlFields<'_>, name: &'static str, max: i64) -> Option<usize> {
    // The number is not negative, and `max` fits into `usize`.
    fields.optional(name, |node| node.integer(0, max)).map(|number| number as usize)
}

pub(super) fn duration(fields: &mut YamlFields<'_>, name: &'static str) -> Option<std::time::Duration> {
    fields.optional(name, |node| match &node.value {
        YamlValue::Integer(0) => Ok(std::time::Duration::ZERO),
        _ => runtime::parse_duration(node.text()?).map_err(|error| error.to_string()),
    })
}
