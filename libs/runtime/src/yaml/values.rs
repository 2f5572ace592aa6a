//! Values that many files have: texts.

use crate::yaml::fields::YamlFields;
use crate::yaml::mistake::Mistakes;
use crate::yaml::node::YamlNode;

/// A text that is not empty. Numbers are texts, too, as they are written.
///
/// # Errors
/// It is empty, or not a scalar.
pub fn filled_text(node: &YamlNode) -> Result<String, String> {
    match node.scalar()? {
        text if text.is_empty() => Err("must not be empty".to_owned()),
        text => Ok(text),
    }
}

/// A list of texts, of which none is empty.
pub fn filled_texts(fields: &mut YamlFields<'_>, name: &'static str, mistakes: &Mistakes) -> Vec<String> {
    fields.list(name, |path, item| filled_text(item).map_err(|why| mistakes.add(item.line, path, why)).ok())
}
