//! Rules of relabelling.

use model::{RelabelAction, RelabelConfig, RelabelError, Relabeling};

use crate::yaml::fields::YamlFields;
use crate::yaml::mistake::Mistakes;
use crate::yaml::node::{YamlNode, YamlValue};
use crate::yaml::values::{filled_text, filled_texts};

/// Reads a list of rules. Each is checked, so that [`Relabeling::new`] accepts them. With `legacy_names`, names that rules write must be
/// legal in Prometheus before 3.0.
pub fn read_relabel_rules(
    fields: &mut YamlFields<'_>,
    name: &'static str,
    legacy_names: bool,
    mistakes: &Mistakes,
) -> Vec<RelabelConfig> {
    fields.list(name, |path, node| read_rule(path, node, legacy_names, mistakes))
}

/// As [`read_relabel_rules`], for a file that is only such a list.
pub fn read_relabel_list(node: &YamlNode, legacy_names: bool, mistakes: &Mistakes) -> Vec<RelabelConfig> {
    match &node.value {
        YamlValue::Null => Vec::new(),
        YamlValue::List(items) => {
            let rules = items.iter().enumerate();
            let rules = rules.map(|(at, item)| read_rule(format!("[{at}]"), item, legacy_names, mistakes));
            rules.flatten().collect()
        }
        _ => {
            mistakes.add(node.line, "", format!("expected a list of rules, found {}", node.kind()));
            Vec::new()
        }
    }
}

fn read_rule(
    path: String,
    node: &YamlNode,
    legacy_names: bool,
    mistakes: &Mistakes,
) -> Option<RelabelConfig> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let default = RelabelConfig::default();
    let scalar = YamlNode::scalar;
    let config = RelabelConfig {
        source_labels: filled_texts(&mut fields, "source_labels", mistakes),
        separator: fields.optional("separator", scalar).unwrap_or(default.separator),
        regex: fields.optional("regex", scalar).unwrap_or(default.regex),
        modulus: fields
            .optional("modulus", |node| node.integer(0, i64::MAX).map(i64::unsigned_abs))
            .unwrap_or(default.modulus),
        target_label: fields.optional("target_label", scalar).unwrap_or(default.target_label),
        replacement: fields.optional("replacement", scalar).unwrap_or(default.replacement),
        action: fields.optional("action", action).unwrap_or_default(),
    };
    match Relabeling::new(vec![config.clone()]) {
        Err(RelabelError::Missing { action, field, .. }) => {
            fields.wrong(field, format!("is missing: the action {action} needs it"));
        }
        Err(RelabelError::Unused { action, field, .. }) => {
            fields.wrong(field, format!("is not used by the action {action}: remove it"));
        }
        Err(RelabelError::Regex { cause, .. }) => fields.wrong("regex", cause.to_string()),
        Ok(_) if legacy_names => check_names(&fields, &config),
        Ok(_) => {}
    }
    fields.finish();
    Some(config)
}

fn action(node: &YamlNode) -> Result<RelabelAction, String> {
    let name = filled_text(node)?.to_lowercase();
    RelabelAction::parse(&name).ok_or_else(|| {
        let names: Vec<&str> = RelabelAction::names().collect();
        format!("{name:?} is not known; expected one of {}", names.join(", "))
    })
}

/// Names that are written must be legal where only these are accepted.
fn check_names(fields: &YamlFields<'_>, config: &RelabelConfig) {
    use RelabelAction::{DropEqual, HashMod, KeepEqual, LabelMap, Lowercase, Replace, Uppercase};
    let (field, name) = match config.action {
        Replace | Lowercase | Uppercase | KeepEqual | DropEqual | HashMod => {
            ("target_label", config.target_label.as_str())
        }
        LabelMap => ("replacement", config.replacement.as_str()),
        _ => return,
    };
    // References to groups are replaced by something that is legal.
    let bare = match config.action {
        Replace | LabelMap => name.replace("${", "_").replace(['$', '}'], "_"),
        _ => name.to_owned(),
    };
    if !model::is_legacy_label_name(&bare) {
        fields.wrong(
            field,
            format!("{name:?} is not the name of a label with metric_name_validation_scheme legacy"),
        );
    }
}
