//! `--label`: the external labels.

use model::Labels;

/// Reads `NAME="VALUE"`, where the value may have the escapes `\"`, `\\`, `\n` and `\t`.
///
/// # Errors
/// It has another form.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    let refuse = || format!("label {text:?} is not of the form NAME=\"VALUE\"");
    let (name, value) = text.split_once('=').ok_or_else(refuse)?;
    let raw = value.strip_prefix('`').and_then(|value| value.strip_suffix('`'));
    if let Some(raw) = raw.filter(|raw| !raw.contains('`') && !name.is_empty()) {
        return Ok((name.to_owned(), raw.to_owned()));
    }
    let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(refuse)?;
    let (mut plain, mut chars) = (String::with_capacity(value.len()), value.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => plain.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('"' | '\\')) => c,
                _ => return Err(refuse()),
            }),
            '"' => return Err(refuse()),
            c => plain.push(c),
        }
    }
    if name.is_empty() { Err(refuse()) } else { Ok((name.to_owned(), plain)) }
}

/// The labels of all flags.
///
/// # Errors
/// A name occurs twice.
pub(crate) fn external_labels(flags: &[(String, String)]) -> Result<Labels, String> {
    let named = flags.iter().filter(|(_, value)| !value.is_empty());
    Labels::from_pairs(named.map(|(name, value)| (name, value))).map_err(|why| format!("--label: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_quotes() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = parse_label(text).ok();
            assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())), "{text}");
        };
        check(r#"replica="a""#, Some(("replica", "a")));
        check(r#"x="a\"b\\c\n""#, Some(("x", "a\"b\\c\n")));
        check("x=`a\\b`", Some(("x", "a\\b")));
        check(r#"x="""#, Some(("x", "")));
        for wrong in ["", "x", "x=a", r#"="a""#, r#"x="a"#, r#"x=a""#, r#"x="a"b""#, r#"x="\q""#] {
            check(wrong, None);
        }
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert!(external_labels(&twice).unwrap_err().starts_with("--label: "));
    }
}
