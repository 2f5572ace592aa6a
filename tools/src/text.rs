//! Parsing and printing for several commands: ids, labels, times, sizes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{Labels, Matcher, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tsdb::{Ulid, parse_block_id};

use crate::error::{Result, ToolError};

/// The clock of this machine.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Parses the block id of a flag.
pub(crate) fn block_id(text: &str) -> Result<Ulid, String> {
    parse_block_id(text).ok_or_else(|| {
        format!(
            "{text:?} is not a block id: expected a ULID of 26 characters, as `tools bucket ls` prints it"
        )
    })
}

/// Parses the label of a flag: `name="value"` or `name=value`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("{text:?} is not a label: expected name=\"value\", for example cluster=\"eu-1\"");
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    let value = match value.strip_prefix('"') {
        // Quoted values are escaped as in JSON. Go knows more escapes, which labels do not need.
        Some(_) => serde_json::from_str::<String>(value).map_err(|_| wrong())?,
        None => value.to_owned(),
    };
    match name.is_empty() || value.is_empty() {
        true => Err(wrong()),
        false => Ok((name.to_owned(), value)),
    }
}

/// The matchers of a selector, with or without braces: `{job="a"}`, `up{job="a"}`, `job="a", pod=~"b.*"`.
///
/// # Errors
/// A message with `flag` and what is wrong with the selector.
pub(crate) fn matchers(flag: &str, text: &str) -> Result<Vec<Matcher>> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(Vec::new());
    }
    let outside = trimmed.split('{').next().unwrap_or("");
    let selector = match outside.contains(['=', '!']) {
        true => format!("{{{trimmed}}}"),
        false => trimmed.to_owned(),
    };
    promql::parse_selector(&selector)
        .map_err(|error| ToolError::usage(format!("{flag}: {text:?} is not a valid selector: {error}")))
}

/// A time in UTC, without fractions if it is in whole seconds; bare milliseconds if the calendar cannot express it.
pub(crate) fn instant(at: Timestamp) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.as_millis()) * 1_000_000)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| at.to_string())
}

/// A duration, which may be negative in a damaged block.
pub(crate) fn length(millis: i64) -> String {
    let text = runtime::format_duration(Duration::from_millis(millis.unsigned_abs()));
    if millis < 0 { format!("-{text}") } else { text }
}

/// A duration, rounded up to whole seconds.
pub(crate) fn whole_seconds(length: Duration) -> String {
    let rounded = length + Duration::from_millis(999);
    runtime::format_duration(Duration::from_secs(rounded.as_secs()))
}

/// Labels from pairs with unique names.
pub(crate) fn labels_of(pairs: &BTreeMap<String, String>) -> Labels {
    let mut labels = model::LabelsBuilder::new();
    for (name, value) in pairs.iter().filter(|(name, _)| !name.is_empty()) {
        labels.set(name, value);
    }
    labels.build()
}

/// A number with its noun: `1 block`, `2 blocks`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let grouped = grouped(&number.to_string());
    // "series" is its own plural.
    let plural = if number == 1 || noun.ends_with('s') { "" } else { "s" };
    format!("{grouped} {noun}{plural}")
}

/// `1234567` as `1,234,567`; a text that is not a bare number is returned unchanged.
pub(crate) fn grouped(number: &str) -> String {
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return number.to_owned();
    }
    let mut text = String::with_capacity(number.len() * 4 / 3);
    for (index, digit) in number.chars().enumerate() {
        if index > 0 && (number.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size with a binary unit.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A text for a terminal or a log: control characters, and characters that change the direction of the text, are escaped.
/// Line breaks are kept if `keeps_lines`.
pub(crate) fn printable(text: &str, keeps_lines: bool) -> Cow<'_, str> {
    let is_unsafe = |c: char| {
        (c.is_control() && !(keeps_lines && c == '\n'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if is_unsafe(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escape).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, expected) in [
            ("plain \u{20ac}", "plain \u{20ac}"),
            ("\x1b[2Jred", "\\u{1b}[2Jred"),
            ("a\tb\r", "a\\tb\\r"),
            ("abc\u{202e}cba", "abc\\u{202e}cba"),
        ] {
            assert_eq!(printable(text, true), expected);
        }
        assert_eq!(printable("a\nb", true), "a\nb");
        assert_eq!(printable("a\nb", false), "a\\nb");
    }

    #[test]
    fn labels_may_be_quoted() {
        let read = |text: &str| label(text).map(|(name, value)| format!("{name}|{value}"));
        assert_eq!(read("a=b").as_deref(), Ok("a|b"));
        assert_eq!(read(r#"a="b=\"c\"""#).as_deref(), Ok("a|b=\"c\""));
        for wrong in ["a", "=b", "a=", "a=\"\"", "a=\"b"] {
            assert!(read(wrong).unwrap_err().contains("is not a label: expected"), "{wrong}");
        }
    }

    #[test]
    fn selectors_may_lack_braces() {
        let read = |text: &str| {
            let matchers = matchers("--matcher", text).map_err(|error| error.to_string())?;
            Ok::<_, String>(matchers.iter().map(Matcher::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(read(""), Ok(String::new()));
        assert_eq!(read("{job=\"a\"}").as_deref(), Ok("job=\"a\""));
        assert_eq!(read("job=\"a\", pod!~\"{b}.*\"").as_deref(), Ok("job=\"a\" pod!~\"{b}.*\""));
        assert_eq!(read("up{job=\"a\"}").as_deref(), Ok("job=\"a\" __name__=\"up\""));
        assert!(read("job=").unwrap_err().starts_with("--matcher: \"job=\" is not a valid selector: "));
    }

    #[test]
    fn times_and_counts_are_readable() {
        assert_eq!(instant(Timestamp::from_millis(1_700_000_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(instant(Timestamp::MAX), "9223372036854775807");
        assert_eq!(length(-7_200_000), "-2h");
        assert_eq!(count(1, "block"), "1 block");
        assert_eq!(count(12_345, "sample"), "12,345 samples");
        assert_eq!(count(2, "series"), "2 series");
    }
}
