//! Regular expressions as matchers read them: RE2 syntax, anchored at both ends, dot matches newline.

use std::fmt;

/// An expression that RE2 would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegexError(String);

/// A compiled, fully anchored expression; matching is linear in the text's length.
#[derive(Clone)]
pub struct Regex {
    source: Box<str>,
    automaton: regex_automata::meta::Regex,
}

impl Regex {
    /// Compiles `source` as `^(?s:source)$`.
    ///
    /// # Errors
    /// When the expression is no RE2 syntax or its automaton would be larger than 10 MiB.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        use regex_automata::{meta, util::syntax};
        let automaton = meta::Builder::new()
            .configure(meta::Config::new().nfa_size_limit(Some(10 << 20)))
            .syntax(syntax::Config::new().dot_matches_new_line(true).nest_limit(250))
            .build(&format!("^(?:{source})$"))
            .map_err(|e| RegexError(e.to_string()))?;
        Ok(Regex { source: source.into(), automaton })
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.automaton.is_match(text)
    }

    /// What each group of the expression matched, if the whole of `text` matches.
    pub fn groups<'t>(&self, text: &'t str) -> Option<Groups<'t>> {
        let mut captures = self.automaton.create_captures();
        self.automaton.captures(text, &mut captures);
        captures.is_match().then_some(Groups { text, captures })
    }

    /// The expression as it was written, without anchors.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// What the groups of an expression matched.
#[derive(Debug)]
pub struct Groups<'t> {
    text: &'t str,
    captures: regex_automata::util::captures::Captures,
}

impl<'t> Groups<'t> {
    /// What group `index` matched, where 0 is the whole; `None` where there is no such group or it took no part.
    pub fn get(&self, index: usize) -> Option<&'t str> {
        self.captures.get_group(index).map(|span| &self.text[span.range()])
    }

    /// What the group `(?P<name>...)` matched.
    pub fn name(&self, name: &str) -> Option<&'t str> {
        self.captures.get_group_by_name(name).map(|span| &self.text[span.range()])
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.source)
    }
}
