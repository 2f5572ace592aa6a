//! A YAML value with its line.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use serde_saphyr::{NonFiniteFloatPolicy, Spanned};

use crate::yaml::mistake::Mistake;

/// A YAML value with its line.
#[derive(Debug, Clone)]
pub struct YamlNode {
    /// Line in the file, from 1; `None` where the parser does not report it.
    pub line: Option<u64>,
    /// The value itself.
    pub value: YamlValue,
    /// A number, or `true` or `false`, as it is written in the file.
    written: Option<Box<str>>,
    /// Where it is written: offset and length in bytes.
    place: Option<(usize, usize)>,
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
    pub(super) line: Option<u64>,
    pub(super) name: String,
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
        // `.inf` is a number like any other; a field that needs a finite one says so.
        let options = serde_saphyr::options! { non_finite_float_policy: NonFiniteFloatPolicy::PassThrough };
        let parsed: Result<Self, _> = serde_saphyr::from_str_with_options(text, options);
        let mut node = parsed.map_err(|error| {
            let error = error.without_snippet();
            let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
            // The message of the parser may have several lines; the first says what is wrong.
            let text = error.to_string().lines().next().unwrap_or("is not valid YAML").to_owned();
            Mistake { line, field: String::new(), text }
        })?;
        node.note_written(text);
        Ok(node)
    }

    /// A field without a value at this line.
    pub fn nothing(line: Option<u64>) -> Self {
        Self { line, value: YamlValue::Null, written: None, place: None }
    }

    /// Notes how numbers are written, because `1.10` and `1.1` are different texts.
    fn note_written(&mut self, text: &str) {
        match &mut self.value {
            YamlValue::List(items) => items.iter_mut().for_each(|item| item.note_written(text)),
            YamlValue::Map(entries) => entries.iter_mut().for_each(|(_, node)| node.note_written(text)),
            YamlValue::Bool(_) | YamlValue::Integer(_) | YamlValue::Float(_) => {
                let written = self.place.and_then(|(from, length)| text.get(from..from + length));
                self.written = written.map(|written| written.trim().into());
            }
            YamlValue::Null | YamlValue::Text(_) => {}
        }
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

    /// The node as text that may be empty, or a scalar as it is written.
    ///
    /// # Errors
    /// The node is a list or a mapping.
    pub fn scalar(&self) -> Result<String, String> {
        if let Some(written) = &self.written {
            return Ok(written.to_string());
        }
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
        let span = spanned.defined.span();
        let place = span.byte_offset().zip(span.byte_len());
        let place = place.and_then(|(from, length)| Some((from.try_into().ok()?, length.try_into().ok()?)));
        Ok(Self { line: line_of(&spanned), value: spanned.value, written: None, place })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_read_as_they_are_written() {
        let check = |text: &str, expected: &[&str]| {
            let YamlValue::List(items) = YamlNode::parse(text).unwrap().value else { panic!("a list") };
            let read: Vec<String> = items.iter().map(|item| item.scalar().unwrap()).collect();
            assert_eq!(read, expected, "{text}");
        };
        check(
            "- 1.10\n- 0x10 # sixteen\n- true\n- text\n- ''\n-\n",
            &["1.10", "0x10", "true", "text", "", ""],
        );
        check("[ 1.50, 007 , 'ä', 1e3]", &["1.50", "007", "ä", "1e3"]);
        check("- &a 1.10\n- *a", &["1.10", "1.10"]);
        check("[.inf, -.INF, .nan]", &[".inf", "-.INF", ".nan"]);
    }
}
