//! YAML as a tree with line numbers, and a reader that collects every mistake instead of stopping at the first.
//!
//! `serde` alone stops at the first wrong field. Here the file is read once into [`YamlNode`]s. [`YamlFields`] then reads the
//! fields of one mapping by name, notes fields that are missing, wrong or unknown, and continues.

mod fields;
mod mistake;
mod node;
mod relabel;
mod values;

pub use fields::YamlFields;
pub use mistake::{Mistake, Mistakes};
pub use node::{YamlKey, YamlNode, YamlValue, from_str};
pub use relabel::{read_relabel_list, read_relabel_rules};
pub use values::{filled_text, filled_texts};
