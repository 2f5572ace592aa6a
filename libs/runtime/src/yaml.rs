//! YAML as a tree with line numbers, and a reader that collects every mistake instead of stopping at the first.
//!
//! `serde` alone stops at the first wrong field. Here the file is read once into [`YamlNode`]s. [`YamlFields`] then reads the
//! fields of one mapping by name, notes fields that are missing, wrong or unknown, and continues.

use std::{cell::RefCell, fmt};

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::Spanned;

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; `None` where the mistake has no line.
    pub line: Option<u64>,
    /// Path of the field, such as `targets[0].name`; empty for the file as a whole.
    pub field: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.text)
    }
}

/// A YAML value with its line.
#[derive(Debug, Clone)]
pub struct YamlNode {
    /// Line in the file, from 1; `None` where the parser does not report it.
    pub line: Option<u64>,
    /// The value itself.
    pub value: YamlValue,
}

/// The value of a [`YamlNode`].
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names of YAML's own kinds")]
pub enum YamlValue {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<YamlNode>),
    Map(Vec<(YamlKey, YamlNode)>),
}

/// The name of a field in a mapping, with its line.
#[derive(Debug, Clone)]
pub struct YamlKey {
    line: Option<u64>,
    name: String,
}

impl YamlKey {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl YamlNode {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The text is not valid YAML.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        serde_saphyr::from_str(text).map_err(|error| {
            let error = error.without_snippet();
            let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
            // The message of the parser may have several lines; the first says what is wrong.
            let text = error.to_string().lines().next().unwrap_or("is not valid YAML").to_owned();
            Mistake { line, field: String::new(), text }
        })
    }

    /// The kind of the value, for a message.
    pub fn kind(&self) -> &'static str {
        match self.value {
            YamlValue::Null => "nothing",
            YamlValue::Bool(_) => "true or false",
            YamlValue::Integer(_) | YamlValue::Float(_) => "a number",
            YamlValue::Text(_) => "text",
            YamlValue::List(_) => "a list",
            YamlValue::Map(_) => "a mapping",
        }
    }

    /// The node as text, which must not be empty.
    ///
    /// # Errors
    /// The kind of the value that was found instead.
    pub fn text(&self) -> Result<&str, String> {
        match &self.value {
            YamlValue::Text(text) if text.is_empty() => Err("must not be empty".to_owned()),
            YamlValue::Text(text) => Ok(text),
            YamlValue::Bool(_) | YamlValue::Integer(_) | YamlValue::Float(_) => {
                Err(format!("expected text, found {}: put it in quotes", self.kind()))
            }
            _ => Err(format!("expected text, found {}", self.kind())),
        }
    }

    /// The node as text; `None` if it is empty.
    ///
    /// # Errors
    /// The kind of the value that was found instead.
    pub fn text_if_any(&self) -> Result<Option<&str>, String> {
        match &self.value {
            YamlValue::Text(text) if text.is_empty() => Ok(None),
            _ => self.text().map(Some),
        }
    }

    /// The node as text that `T` can be parsed from.
    ///
    /// # Errors
    /// The kind of the value that was found instead, or why the text cannot be parsed.
    pub fn parsed<T: std::str::FromStr<Err: fmt::Display>>(&self) -> Result<T, String> {
        self.text()?.parse().map_err(|error: T::Err| error.to_string())
    }

    /// The node as text that may be empty, or a scalar as it would be written.
    ///
    /// # Errors
    /// The node is a list or a mapping.
    pub fn scalar(&self) -> Result<String, String> {
        match &self.value {
            YamlValue::Null => Ok(String::new()),
            YamlValue::Bool(value) => Ok(value.to_string()),
            YamlValue::Integer(value) => Ok(value.to_string()),
            YamlValue::Float(value) => Ok(value.to_string()),
            YamlValue::Text(text) => Ok(text.clone()),
            YamlValue::List(_) | YamlValue::Map(_) => Err(format!("expected text, found {}", self.kind())),
        }
    }

    /// The node as `true` or `false`.
    ///
    /// # Errors
    /// The kind of the value that was found instead.
    pub fn boolean(&self) -> Result<bool, String> {
        match &self.value {
            YamlValue::Bool(value) => Ok(*value),
            // YAML 1.1, which Go's parser still accepts.
            YamlValue::Text(text) if matches!(text.as_str(), "yes" | "on") => Ok(true),
            YamlValue::Text(text) if matches!(text.as_str(), "no" | "off") => Ok(false),
            _ => Err(format!("expected true or false, found {}", self.kind())),
        }
    }

    /// The node as a whole number from `min` to `max`, both inclusive.
    ///
    /// # Errors
    /// The kind of the value that was found instead.
    pub fn integer(&self, min: i64, max: i64) -> Result<i64, String> {
        match self.value {
            YamlValue::Integer(number) if (min..=max).contains(&number) => Ok(number),
            YamlValue::Integer(number) => Err(format!("{number} is not in the range {min} to {max}")),
            _ => Err(format!("expected a whole number, found {}", self.kind())),
        }
    }
}

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<YamlValue>::deserialize(deserializer)?;
        Ok(Self { line: line_of(&spanned), value: spanned.value })
    }
}

fn line_of<T>(spanned: &Spanned<T>) -> Option<u64> {
    Some(spanned.referenced.line()).filter(|line| *line > 0)
}

impl<'de> Deserialize<'de> for YamlValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyValue;

        impl<'de> de::Visitor<'de> for AnyValue {
            type Value = YamlValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }
            fn visit_unit<E>(self) -> Result<YamlValue, E> {
                Ok(YamlValue::Null)
            }
            fn visit_none<E>(self) -> Result<YamlValue, E> {
                Ok(YamlValue::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<YamlValue, E> {
                Ok(YamlValue::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<YamlValue, E> {
                Ok(YamlValue::Integer(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<YamlValue, E> {
                Ok(i64::try_from(value).map_or(YamlValue::Float(value as f64), YamlValue::Integer))
            }
            fn visit_f64<E>(self, value: f64) -> Result<YamlValue, E> {
                Ok(YamlValue::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<YamlValue, E> {
                Ok(YamlValue::Text(value.to_owned()))
            }
            fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<YamlValue, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(YamlValue::List(items))
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<YamlValue, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = access.next_key::<Spanned<String>>()? {
                    let key = YamlKey { line: line_of(&key), name: key.value };
                    entries.push((key, access.next_value()?));
                }
                Ok(YamlValue::Map(entries))
            }
        }
        deserializer.deserialize_any(AnyValue)
    }
}

/// Reads YAML into a type.
///
/// # Errors
/// What is wrong, with its line.
pub fn from_str<T: de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        error.to_string().lines().next().unwrap_or("is not valid YAML").to_owned()
    })
}

/// Collects the mistakes of one file.
#[derive(Debug, Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    /// Notes a mistake; `field` is its path.
    pub fn add(&self, line: Option<u64>, field: impl Into<String>, text: impl Into<String>) {
        self.0.borrow_mut().push(Mistake { line, field: field.into(), text: text.into() });
    }

    /// All mistakes, in the order of the file.
    pub fn into_sorted(self) -> Vec<Mistake> {
        let mut mistakes = self.0.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }
}

/// Reads the fields of one mapping by name.
#[derive(Debug)]
pub struct YamlFields<'a> {
    path: String,
    line: Option<u64>,
    /// `None` when the node is not a mapping. That is noted once; its fields are not noted as missing.
    entries: Option<&'a [(YamlKey, YamlNode)]>,
    known: Vec<&'static str>,
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
        Self { path, line: node.line, entries, known: Vec::new(), mistakes }
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
        let is_unknown = |(key, _): &&(YamlKey, YamlNode)| !self.known.contains(&key.name.as_str());
        for (key, _) in self.entries.unwrap_or_default().iter().filter(is_unknown) {
            let name: String = key.name.chars().take(60).collect();
            let text = format!("unknown field; known fields: {}", self.known.join(", "));
            self.mistakes.add(key.line, self.path_of(&name.escape_debug().to_string()), text);
        }
    }
}
