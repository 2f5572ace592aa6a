//! Values of fields: texts, durations, sizes, limits, label sets.

pub(crate) use httpclient::{yaml_duration as duration, yaml_duration_if_any as duration_if_any};
use model::Labels;
use runtime::yaml::{Mistakes, YamlNode, YamlValue};
pub(crate) use runtime::yaml::{filled_text as text, filled_texts as texts};

/// A number that is not negative.
pub(crate) fn limit(node: &YamlNode) -> Result<u64, String> {
    node.integer(0, i64::MAX).map(i64::unsigned_abs)
}

/// A number of bytes such as `10MB` or `1GiB`. All units are powers of 1024.
pub(crate) fn size(node: &YamlNode) -> Result<u64, String> {
    let text = node.scalar()?;
    parse_size(&text).ok_or_else(|| {
        format!("{text:?} is not a size: write a number with a unit (B KB MB GB TB), for example 10MB")
    })
}

const UNITS: [(&str, u32); 13] = [
    ("KiB", 1),
    ("MiB", 2),
    ("GiB", 3),
    ("TiB", 4),
    ("PiB", 5),
    ("EiB", 6),
    ("KB", 1),
    ("MB", 2),
    ("GB", 3),
    ("TB", 4),
    ("PB", 5),
    ("EB", 6),
    ("B", 0),
];

fn parse_size(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        let number: f64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let (unit, power) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        total += number * 1024f64.powi(i32::try_from(*power).ok()?);
        rest = &after[unit.len()..];
    }
    (!text.is_empty() && total < i64::MAX as f64).then_some(total as u64)
}

/// A mapping of names to texts.
pub(crate) fn labels(path: &str, node: &YamlNode, mistakes: &Mistakes) -> Labels {
    let YamlValue::Map(entries) = &node.value else {
        mistakes.add(node.line, path, format!("expected a mapping of labels, found {}", node.kind()));
        return Labels::empty();
    };
    let mut pairs = Vec::new();
    for (key, value) in entries {
        match value.scalar() {
            _ if key.name().is_empty() => mistakes.add(value.line, path, "the name of a label is empty"),
            Ok(text) => pairs.push((key.name().to_owned(), text)),
            Err(why) => mistakes.add(value.line, format!("{path}.{}", key.name()), why),
        }
    }
    Labels::from_pairs(pairs).unwrap_or_else(|why| {
        mistakes.add(node.line, path, why.to_string());
        Labels::empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_prometheus() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_size(text), expected, "{text}");
        check("0", Some(0));
        check("10MB", Some(10 << 20));
        check("1.5KiB", Some(1536));
        check("1GB512B", Some((1 << 30) + 512));
        check("10", None);
        check("10kB", None);
        check("10mb", None);
        check("-1B", None);
        check("", None);
        check("MB", None);
        check("1..5MB", None);
        check("9999999EB", None);
    }
}
