//! Strings and label sets in the format of the JSON library of Prometheus.

use model::Labels;
use serde::{Deserialize, Deserializer};

/// Writes `text` as a JSON string and escapes `<`, `>` and `&`. Prometheus writes all strings this way,
/// except those of label sets.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    write_escaped(out, text, true);
}

/// Writes `text` as a JSON string without the HTML escapes, as in label sets.
pub fn write_string_plain(out: &mut Vec<u8>, text: &str) {
    write_escaped(out, text, false);
}

/// Writes a label set as a JSON object, in the order of names.
pub fn write_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (i, label) in labels.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string_plain(out, label.name);
        out.push(b':');
        write_string_plain(out, label.value);
    }
    out.push(b'}');
}

/// Label sets as JSON objects, for `serde(with = ...)`.
pub(crate) mod labels_json {
    use std::collections::BTreeMap;

    use model::Labels;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(labels: &Labels, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(labels.iter().map(|label| (label.name, label.value)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
        let pairs = Option::<BTreeMap<String, String>>::deserialize(deserializer)?.unwrap_or_default();
        Labels::from_pairs(pairs).map_err(de::Error::custom)
    }
}

/// Reads `null`, which Go prints for empty lists, as the default.
pub(crate) fn null_is_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

fn write_escaped(out: &mut Vec<u8>, text: &str, html: bool) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => &unicode_escape(byte),
            b'<' | b'>' | b'&' if html => &unicode_escape(byte),
            // The line and paragraph separators U+2028 and U+2029 are e2 80 a8 and e2 80 a9.
            0xe2 if html && bytes[at..].starts_with(b"\xe2\x80\xa8") => b"\\u2028",
            0xe2 if html && bytes[at..].starts_with(b"\xe2\x80\xa9") => b"\\u2029",
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..at]);
        out.extend_from_slice(escape);
        written = at + if byte == 0xe2 { 3 } else { 1 };
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

fn unicode_escape(byte: u8) -> [u8; 6] {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 0xf)];
    [b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn html_is_escaped_in_strings_but_not_in_label_sets() {
        assert_eq!(
            written(|out| write_string(out, "a<b>&\"\\\n\u{1}é\u{2028}x")),
            r#""a\u003cb\u003e\u0026\"\\\n\u0001é\u2028x""#
        );
        let labels = Labels::from_pairs([("b", "<&>\t"), ("a", "\u{2028}")]).unwrap();
        assert_eq!(written(|out| write_labels(out, &labels)), "{\"a\":\"\u{2028}\",\"b\":\"<&>\\t\"}");
        assert_eq!(written(|out| write_labels(out, &Labels::empty())), "{}");
    }

    #[test]
    fn written_strings_are_read_back_unchanged() {
        let text: String = (0..0x300).chain([0x2028, 0x2029, 0x1f600]).filter_map(char::from_u32).collect();
        for write in [write_string, write_string_plain] {
            let json = written(|out| write(out, &text));
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
