//! Expressions that are looked for inside of a text.

use regex_automata::meta;

use crate::re2::{GroupSpans, MAX_STATES, RegexError, RegexGroups, parse, unanchored};

/// A compiled expression that is looked for in texts, as Go's `regexp` does: not anchored, and a dot does not match newline.
#[derive(Clone, Debug)]
pub struct SearchRegex {
    automaton: meta::Regex,
}

impl SearchRegex {
    /// Compiles `source`.
    ///
    /// # Errors
    /// If the expression is not valid RE2 syntax, is nested too deeply, or is too large. Large ones that Go accepts are rejected,
    /// such as `\pL{1000}`.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        // Parsed alone first, so that `a)(b` is not completed by the group around it.
        parse::parse(source)?;
        let (hir, size) = parse::parse(&format!("(?-s:{source})"))?;
        let automaton = if size.states <= MAX_STATES { unanchored(&hir) } else { None };
        automaton
            .map(|automaton| Self { automaton })
            .ok_or_else(|| RegexError::new("expression is too large to be searched for", source))
    }

    /// Whether `text` contains a match.
    pub fn is_match(&self, text: &str) -> bool {
        self.automaton.is_match(text)
    }

    /// `text` with each match replaced by `template`, in which `$1` and `${name}` are what groups have matched. `None` if the
    /// result would have more than `max_bytes`.
    pub fn replace_all(&self, text: &str, template: &str, max_bytes: usize) -> Option<String> {
        let mut out = String::new();
        let mut end = 0;
        for captures in self.automaton.captures_iter(text) {
            let span = captures.get_group(0)?;
            out.push_str(&text[end..span.start]);
            end = span.end;
            let groups = RegexGroups { text, found: GroupSpans::Captures(captures) };
            if out.len().saturating_add(groups.expanded_bytes(template)) > max_bytes {
                return None;
            }
            out.push_str(&groups.expand(template));
        }
        out.push_str(&text[end..]);
        (out.len() <= max_bytes).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_are_replaced_as_in_go() {
        let check = |pattern: &str, text: &str, template: &str, expected: &str| {
            let replaced = SearchRegex::new(pattern).unwrap().replace_all(text, template, 1000);
            assert_eq!(replaced.as_deref(), Some(expected), "{pattern} in {text:?}");
        };
        check("(a)b", "ab", "x$1", "xa");
        check("a*", "baac", "x", "xbxcx");
        check("^.", "ab\ncd", "", "b\ncd");
        check(r"(?P<host>[^:]+):(\d+)", "web:80 db:5432", "${2}@$host", "80@web5432@ db");
        check(".+", "a\nb", "<$0>", "<a>\n<b>");
        check("é?", "é1", "-", "-1-");
    }

    #[test]
    fn results_and_expressions_are_bounded() {
        let regex = SearchRegex::new("a").unwrap();
        assert_eq!(regex.replace_all("aaaa", "$0$0$0", 11), None);
        assert!(regex.is_match("xax") && !regex.is_match("x"));
        for pattern in ["a)(b", "(", "[", "a{1001}", "\\pL{1000}"] {
            assert!(SearchRegex::new(pattern).is_err(), "{pattern}");
        }
    }
}
