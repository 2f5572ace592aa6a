//! Label names in URL paths.

use std::borrow::Cow;

/// Decodes names that Prometheus has escaped: `U__foo_2e_bar` is `foo.bar`, `__` is `_`.
///
/// A name that does not start with `U__`, or has an invalid escape, is returned unchanged. Specified by
/// `UnescapeName` in common/model of Prometheus.
pub(super) fn unescape(name: &str) -> Cow<'_, str> {
    name.strip_prefix("U__").and_then(decode).map_or(Cow::Borrowed(name), Cow::Owned)
}

fn decode(escaped: &str) -> Option<String> {
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(at) = rest.find('_') {
        out.push_str(&rest[..at]);
        let (code, after) = rest[at + 1..].split_once('_')?;
        out.push(match code {
            "" => '_',
            code if code.len() <= 6 => char::from_u32(u32::from_str_radix(code, 16).ok()?)?,
            _ => return None,
        });
        rest = after;
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn escaped_names_are_decoded_and_others_unchanged() {
        for (escaped, name) in [
            ("U__foo_2e_bar", "foo.bar"),
            ("U__my__label", "my_label"),
            ("U__gr_f6__df_e", "größe"),
            ("job", "job"),
            ("U__broken_zz_", "U__broken_zz_"),
            ("U__open_2e", "U__open_2e"),
            ("U__surrogate_d800_", "U__surrogate_d800_"),
            ("U__", ""),
        ] {
            assert_eq!(unescape(escaped), name, "{escaped}");
        }
    }
}
