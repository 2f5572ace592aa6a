//! Upper and lower case as Go has them.

/// Every letter in upper case. Letters whose upper case is longer stay.
pub(super) fn upper(text: &str) -> String {
    text.chars().map(|c| single(c.to_uppercase(), c)).collect()
}

/// Every letter in lower case.
pub(super) fn lower(text: &str) -> String {
    text.chars().map(|c| single(c.to_lowercase(), c)).collect()
}

fn single(mut mapped: impl Iterator<Item = char>, c: char) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(mapped), None) => mapped,
        _ => c,
    }
}

/// The first letter of each word in upper case. Apostrophes, dots and colons inside a word do not end it.
pub(super) fn title(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for (at, &c) in chars.iter().enumerate() {
        let is_inner = |c: char| c.is_alphanumeric() || c == '_';
        if c.is_alphabetic() && !inside {
            out.extend(
                c.to_uppercase()
                    .enumerate()
                    .flat_map(|(at, c)| if at == 0 { vec![c] } else { c.to_lowercase().collect() }),
            );
            inside = true;
            continue;
        }
        out.push(c);
        let joins = matches!(c, '\'' | '.' | ':' | '\u{b7}' | '\u{2019}' | '\u{2018}')
            && at > 0
            && chars[at - 1].is_alphabetic()
            && chars.get(at + 1).is_some_and(|next| next.is_alphabetic());
        inside &= is_inner(c) || joins;
    }
    out
}
