//! Variables of the environment in external labels.

/// Replaces `$NAME` and `${NAME}`, as Prometheus does in external labels; `$$` is one `$`. `unset` gets the names of variables that
/// are not set or empty, which become nothing.
pub(crate) fn expand(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
    mut unset: impl FnMut(&str),
) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, after) = variable(rest);
        match name {
            // Go leaves a $ as it is when nothing follows it, and drops what is not a name.
            None if rest.is_empty() => out.push('$'),
            None => {}
            Some("$") => out.push('$'),
            Some(name) => match lookup(name).filter(|value| !value.is_empty()) {
                Some(value) => out.push_str(&value),
                None => unset(name),
            },
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// The name at the start of a text after `$`, and what follows it.
fn variable(text: &str) -> (Option<&str>, &str) {
    const SPECIAL: &str = "*#$@!?-0123456789";
    let first = text.chars().next();
    if let Some(inner) = text.strip_prefix('{') {
        return match inner.split_once('}') {
            Some(("", after)) => (None, after),
            Some((name, after)) => (Some(name), after),
            // Go drops an open brace.
            None => (None, inner),
        };
    }
    if first.is_some_and(|first| SPECIAL.contains(first)) {
        return (Some(&text[..1]), &text[1..]);
    }
    let length = text.bytes().take_while(|b| *b == b'_' || b.is_ascii_alphanumeric()).count();
    match length {
        // Go keeps the character that follows a $ without a name, and drops the $ only if it is a brace.
        0 => (if text.is_empty() { None } else { Some("$") }, text),
        _ => (Some(&text[..length]), &text[length..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_by_go() {
        let check = |text: &str, expected: &str, missing: &[&str]| {
            let mut unset = Vec::new();
            let lookup = |name: &str| (name == "A_1").then(|| "x$B".to_owned());
            let out = expand(text, lookup, |name| unset.push(name.to_owned()));
            assert_eq!(
                (out.as_str(), unset),
                (expected, missing.iter().map(|n| (*n).to_owned()).collect()),
                "{text}"
            );
        };
        check("plain", "plain", &[]);
        check("$A_1-${A_1}", "x$B-x$B", &[]);
        check("${B}a$C", "a", &["B", "C"]);
        check("5$$ and $", "5$ and $", &[]);
        check("a$ b", "a$ b", &[]);
        check("a${}b${open", "abopen", &[]);
        check("$1x", "x", &["1"]);
    }
}
