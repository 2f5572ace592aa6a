//! `--selector.relabel-config`: which blocks belong to a shard.

use model::{RelabelAction, RelabelConfig, RelabelError, Relabeling};
use runtime::yaml::{Mistake, Mistakes, YamlFields, YamlNode, YamlValue};

/// The mistakes in the rules of selection; at least one.
#[derive(Debug, PartialEq, Eq)]
pub struct SelectorError {
    mistakes: Vec<Mistake>,
}

impl std::fmt::Display for SelectorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("selector relabel configuration: ")?;
        let texts: Vec<String> = self.mistakes.iter().map(Mistake::to_string).collect();
        f.write_str(&texts.join("\n  "))
    }
}

impl std::error::Error for SelectorError {}

/// Parses a list of relabel rules. The actions `keep`, `drop` and `hashmod` apply to whole blocks; others are rejected.
///
/// ```
/// let rules = "- {action: hashmod, source_labels: [__block_id], target_label: shard, modulus: 2}\n\
///              - {action: keep, source_labels: [shard], regex: '0'}";
/// assert_eq!(bucket::parse_selector(rules).unwrap().configs().count(), 2);
/// let error = bucket::parse_selector("- {action: replace, target_label: a}").unwrap_err().to_string();
/// assert!(error.contains("line 1: [0].action: \"replace\" is unknown, expected keep, drop or hashmod"), "{error}");
/// ```
///
/// # Errors
/// All mistakes.
pub fn parse_selector(yaml: &str) -> Result<Relabeling, SelectorError> {
    let mistakes = Mistakes::default();
    let rules = match YamlNode::parse(yaml) {
        Ok(YamlNode { value: YamlValue::Null, .. }) => Vec::new(),
        Ok(YamlNode { value: YamlValue::List(items), .. }) => {
            let read = |(index, node): (usize, &YamlNode)| read_rule(&format!("[{index}]"), node, &mistakes);
            items.iter().enumerate().filter_map(read).collect()
        }
        Ok(node) => {
            mistakes.add(node.line, "", format!("expected a list of rules, found {}", node.kind()));
            Vec::new()
        }
        Err(mistake) => return Err(SelectorError { mistakes: vec![mistake] }),
    };
    let found = mistakes.into_sorted();
    if !found.is_empty() {
        return Err(SelectorError { mistakes: found });
    }
    Relabeling::new(rules).map_err(|error: RelabelError| SelectorError {
        mistakes: vec![Mistake { line: None, field: String::new(), text: error.to_string() }],
    })
}

fn read_rule(path: &str, node: &YamlNode, mistakes: &Mistakes) -> Option<RelabelConfig> {
    let mut fields = YamlFields::new(path, node, mistakes);
    let action = fields.required("action", |node| match node.text()?.to_lowercase().as_str() {
        "keep" => Ok(RelabelAction::Keep),
        "drop" => Ok(RelabelAction::Drop),
        "hashmod" => Ok(RelabelAction::HashMod),
        other => Err(format!("{other:?} is unknown, expected keep, drop or hashmod")),
    });
    let source_labels = fields.parsed_list::<String>("source_labels");
    let text = |node: &YamlNode| match &node.value {
        YamlValue::Text(text) => Ok(text.clone()),
        // An expression such as `0` is often written without quotes.
        YamlValue::Integer(number) => Ok(number.to_string()),
        _ => node.text().map(str::to_owned),
    };
    let default = RelabelConfig::default();
    let separator = fields.optional("separator", text);
    let regex = fields.optional("regex", text);
    let target_label = fields.optional("target_label", text);
    let replacement = fields.optional("replacement", text);
    let modulus = fields.optional("modulus", |node| node.integer(1, i64::MAX));
    fields.finish();
    Some(RelabelConfig {
        action: action?,
        source_labels,
        separator: separator.unwrap_or(default.separator),
        regex: regex.unwrap_or(default.regex),
        target_label: target_label.unwrap_or_default(),
        replacement: replacement.unwrap_or(default.replacement),
        modulus: modulus.map_or(0, i64::unsigned_abs),
    })
}
