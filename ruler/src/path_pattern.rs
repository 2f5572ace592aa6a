//! Patterns of paths, as in Go's `filepath.Glob`: `*` and `?` in any part, `[a-z]` for one character of a class, `\` before a character
//! that means itself.

use std::path::{Path, PathBuf};

/// A pattern is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pattern {0:?}: a class [...] has no end, or is empty; write for example /etc/rules/*.yaml")]
pub(crate) struct BadPattern(String);

/// The files and folders that exist and match `pattern`, sorted.
///
/// # Errors
/// A class of the pattern is not complete.
pub(crate) fn matching_paths(pattern: &str) -> Result<Vec<PathBuf>, BadPattern> {
    let refuse = || BadPattern(pattern.to_owned());
    let mut found = vec![if pattern.starts_with('/') { PathBuf::from("/") } else { PathBuf::new() }];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        // Also where no folder has an entry, so that a wrong pattern is always found.
        matches(part, "").ok_or_else(refuse)?;
        let mut next = Vec::new();
        for folder in found {
            if !part.contains(['*', '?', '[', '\\']) {
                let path = folder.join(part);
                // Also a link that leads nowhere, which is then reported when it is read.
                if path.symlink_metadata().is_ok() {
                    next.push(path);
                }
                continue;
            }
            let listed = if folder.as_os_str().is_empty() { Path::new(".") } else { folder.as_path() };
            for entry in std::fs::read_dir(listed).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_str().unwrap_or_default();
                if matches(part, name).ok_or_else(refuse)? {
                    next.push(folder.join(name));
                }
            }
        }
        found = next;
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What the first characters of a pattern match.
enum Piece<'p> {
    Any,
    One,
    Char(char),
    Class(bool, &'p str),
}

/// The first piece of a pattern, and the rest; `None` if it is not complete.
fn piece(pattern: &str) -> Option<(Piece<'_>, &str)> {
    let mut chars = pattern.chars();
    let first = chars.next()?;
    match first {
        '*' => Some((Piece::Any, chars.as_str())),
        '?' => Some((Piece::One, chars.as_str())),
        '\\' => Some((Piece::Char(chars.next()?), chars.as_str())),
        '[' => {
            let body = chars.as_str();
            let (is_negated, body) = body.strip_prefix('^').map_or((false, body), |body| (true, body));
            let end = class_end(body)?;
            Some((Piece::Class(is_negated, &body[..end]), &body[end + 1..]))
        }
        other => Some((Piece::Char(other), chars.as_str())),
    }
}

/// Where the class ends that `body` begins with. It has at least one character.
fn class_end(body: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ']' if at > 0 => return Some(at),
            ']' => return None,
            _ => {}
        }
    }
    None
}

fn is_in_class(class: &str, wanted: char) -> bool {
    let mut chars = class.chars().peekable();
    let mut next = || match chars.next() {
        Some('\\') => chars.next(),
        other => other,
    };
    let mut found = false;
    let mut low = next();
    while let Some(begin) = low {
        let following = next();
        if following == Some('-') {
            match next() {
                Some(end) => found |= (begin..=end).contains(&wanted),
                None => found |= wanted == begin || wanted == '-',
            }
            low = next();
        } else {
            found |= begin == wanted;
            low = following;
        }
    }
    found
}

/// Whether a name matches a pattern without `/`; `None` if the pattern is wrong.
fn matches(pattern: &str, name: &str) -> Option<bool> {
    // Greedy: of several `*`, only the last one has to be tried again.
    let (mut pattern, mut name) = (pattern, name);
    let mut retry: Option<(&str, &str)> = None;
    // The whole pattern is checked, also after a difference.
    let mut rest = pattern;
    while !rest.is_empty() {
        rest = piece(rest)?.1;
    }
    loop {
        let step = if pattern.is_empty() { None } else { piece(pattern) };
        let first = name.chars().next();
        let is_match = match (&step, first) {
            (None, None) => return Some(true),
            (Some((Piece::Any, after)), _) => {
                retry = Some((after, name));
                pattern = after;
                continue;
            }
            (Some((Piece::One, _)), Some(_)) => true,
            (Some((Piece::Char(wanted), _)), Some(c)) => *wanted == c,
            (Some((Piece::Class(is_negated, class), _)), Some(c)) => is_in_class(class, c) != *is_negated,
            _ => false,
        };
        match (is_match, step, first, retry) {
            (true, Some((_, after)), Some(c), _) => {
                pattern = after;
                name = &name[c.len_utf8()..];
            }
            (_, _, _, Some((after, from))) => {
                let Some(c) = from.chars().next() else { return Some(false) };
                retry = Some((after, &from[c.len_utf8()..]));
                (pattern, name) = (after, &from[c.len_utf8()..]);
            }
            _ => return Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_go() {
        let check = |pattern: &str, name: &str, expected: Option<bool>| {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        };
        check("*.yaml", "a.yaml", Some(true));
        check("*.yaml", ".yaml", Some(true));
        check("*.yaml", "a.yml", Some(false));
        check("a*b*c", "aXbYbZc", Some(true));
        check("a*b*c", "aXbYbZ", Some(false));
        check("a?c", "abc", Some(true));
        check("a?c", "ac", Some(false));
        check("größe?", "größen", Some(true));
        check("[a-c]x", "bx", Some(true));
        check("[^a-c]x", "bx", Some(false));
        check("[ab-]", "-", Some(true));
        check(r"\*", "*", Some(true));
        check(r"\*", "a", Some(false));
        check("", "", Some(true));
        check("*", "", Some(true));
        for wrong in ["[", "[]", "[a", "x[a-", r"a\"] {
            check(wrong, "q", None);
        }
        // Much work for an implementation that tries every way.
        check(&"*a".repeat(30), &"a".repeat(29), Some(false));
    }

    #[test]
    fn stars_may_be_in_any_part_of_a_path() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["a/one.yaml", "b/two.yaml", "b/note.txt", "three.yaml"] {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = |pattern: &str| {
            let root = folder.path().to_str().unwrap();
            let found = matching_paths(&format!("{root}/{pattern}")).unwrap();
            found
                .iter()
                .map(|path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("*/*.yaml"), ["a/one.yaml", "b/two.yaml"]);
        assert_eq!(found("*.yaml"), ["three.yaml"]);
        assert_eq!(found("b/two.yaml"), ["b/two.yaml"]);
        assert_eq!(found("c/*.yaml"), [""; 0]);
        assert!(matching_paths("/nowhere/[").is_err());
    }
}
