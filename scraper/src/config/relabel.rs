//! Rules of relabelling.

use model::{RelabelAction, RelabelConfig, RelabelError, Relabeling};
use runtime::yaml::{Mistakes, YamlFields, YamlNode};

use crate::config::protocol::NameValidation;
use crate::config::values::{limit, text, texts};

/// Reads a list of rules. Each is checked, so that [`Relabeling::new`] accepts them.
pub(crate) fn read_rules(
    fields: &mut YamlFields<'_>,
    name: &'static str,
    validation: NameValidation,
    mistakes: &Mistakes,
) -> Vec<RelabelConfig> {
    fields.list(name, |path, node| read_rule(path, node, validation, mistakes))
}

fn read_rule(
    path: String,
    node: &YamlNode,
    validation: NameValidation,
    mistakes: &Mistakes,
) -> Option<RelabelConfig> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let default = RelabelConfig::default();
    let scalar = YamlNode::scalar;
    let config = RelabelConfig {
        source_labels: texts(&mut fields, "source_labels", mistakes),
        separator: fields.optional("separator", scalar).unwrap_or(default.separator),
        regex: fields.optional("regex", scalar).unwrap_or(default.regex),
        modulus: fields.optional("modulus", limit).unwrap_or(default.modulus),
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
        Ok(_) if validation == NameValidation::Legacy => check_names(&fields, &config),
        Ok(_) => {}
    }
    fields.finish();
    Some(config)
}

fn action(node: &YamlNode) -> Result<RelabelAction, String> {
    let name = text(node)?.to_lowercase();
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
