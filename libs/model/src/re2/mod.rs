//! Regular expressions as matchers read them: RE2 syntax as Go has it, anchored at both ends, dot matches newline.
//!
//! Rust's regex syntax is close to RE2's, but the same text can mean something else there (`\d` beyond ASCII,
//! `[a&&b]`, `\<`) or be an error (`{`, `\Q..\E`). So the syntax is parsed here, to the intermediate form
//! that the automata are built from. What a few comparisons of strings can decide never becomes an automaton.
//!
//! Reading order: `parse`, `class`, `escape`, `strategy`.

mod class;
mod escape;
mod parse;
mod strategy;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};

use regex_automata::meta;
use regex_syntax::hir::{Hir, Look};

use strategy::Strategy;

/// Most memory of an automaton, in bytes. What needs more is refused: `(?:\pL{1000}){5}` does, no sane matcher. Thousands
/// of alternatives and `\pL{500}`, which Go takes, need less.
const AUTOMATON_LIMIT_BYTES: usize = 64 << 20;

/// An expression that RE2 would refuse, in Go's words, or whose automaton would be too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {why}: `{part}`")]
pub struct RegexError {
    why: &'static str,
    /// The part of the expression that is wrong; all of it where no part is.
    part: String,
}

impl RegexError {
    fn new(why: &'static str, part: &str) -> Self {
        RegexError { why, part: part.to_owned() }
    }
}

/// A compiled, fully anchored expression; matching is linear in the text's length.
#[derive(Clone)]
pub struct Regex {
    source: Box<str>,
    strategy: Arc<Strategy>,
    /// Present where the strategy alone does not decide.
    automaton: Option<meta::Regex>,
    /// Built when groups are first asked for, if `automaton` is absent.
    grouping: OnceLock<Option<meta::Regex>>,
}

impl Regex {
    /// Compiles `source` as `^(?s:source)$`.
    ///
    /// # Errors
    /// When the expression is no RE2 syntax, is nested too deeply, or its automaton would be larger than 64 MiB.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        let hir = parse::parse(source)?;
        let strategy = Strategy::of(&hir, source.len());
        let automaton = if strategy.decides() {
            None
        } else {
            Some(automaton(hir, Some(AUTOMATON_LIMIT_BYTES)).ok_or_else(|| {
                RegexError::new("expression needs an automaton of more than 64 MiB", source)
            })?)
        };
        Ok(Regex {
            source: source.into(),
            strategy: Arc::new(strategy),
            automaton,
            grouping: OnceLock::new(),
        })
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.strategy.is_match(text)
            && self.automaton.as_ref().is_none_or(|automaton| automaton.is_match(text))
    }

    /// All texts that match, sorted and without duplicates, where they are few enough to be listed: `a|b`, `x[1-3]`,
    /// `(?i:ab)`. Each can then be looked up instead of trying the expression on all there is.
    pub fn literals(&self) -> Option<&[Box<str>]> {
        self.strategy.literals()
    }

    /// A text that all matches start with; empty where none is known.
    pub fn prefix(&self) -> &str {
        self.strategy.prefix()
    }

    /// What each group of the expression matched, if the whole of `text` matches.
    pub fn groups<'t>(&self, text: &'t str) -> Option<Groups<'t>> {
        if !self.is_match(text) {
            return None;
        }
        let automaton = self.automaton.as_ref().or_else(|| {
            // It is as large as the expression, which decides without one only if it has nothing to unfold.
            let build = || parse::parse(&self.source).ok().and_then(|hir| automaton(hir, None));
            self.grouping.get_or_init(build).as_ref()
        })?;
        let mut captures = automaton.create_captures();
        automaton.captures(text, &mut captures);
        captures.is_match().then_some(Groups { text, captures })
    }

    /// The expression as it was written, without anchors.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// The automaton of an anchored expression; `None` where it would be larger than `limit` bytes.
fn automaton(hir: Hir, limit: Option<usize>) -> Option<meta::Regex> {
    let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
    meta::Builder::new().configure(meta::Config::new().nfa_size_limit(limit)).build_from_hir(&anchored).ok()
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

    /// What the group `(?P<name>...)` matched; of several with the name, the first.
    pub fn name(&self, name: &str) -> Option<&'t str> {
        self.captures.get_group_by_name(name).map(|span| &self.text[span.range()])
    }

    /// `template` with what groups matched in the place of `$1`, `${1}`, `$name` and `${name}`; `$$` is a dollar
    /// sign. A group that does not exist is empty, and a dollar sign that names nothing stays, as Go's
    /// `Regexp.Expand` has it.
    pub fn expand(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len());
        self.each_piece(template, |piece| out.push_str(piece));
        out
    }

    /// Length in bytes of what [`expand`](Self::expand) makes of `template`, which may name a long group very often.
    pub fn expanded_bytes(&self, template: &str) -> usize {
        let mut bytes = 0usize;
        self.each_piece(template, |piece| bytes = bytes.saturating_add(piece.len()));
        bytes
    }

    /// Hands the pieces of an expanded template to `put`.
    fn each_piece(&self, template: &str, mut put: impl FnMut(&str)) {
        let mut rest = template;
        while let Some(at) = rest.find('$') {
            put(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                put("$");
                rest = after;
                continue;
            }
            let (braced, body) = rest.strip_prefix('{').map_or((false, rest), |body| (true, body));
            let length = body.find(|c: char| !(c == '_' || c.is_alphanumeric())).unwrap_or(body.len());
            let (name, after) = body.split_at(length);
            let after = if braced { after.strip_prefix('}') } else { Some(after) };
            let (false, Some(after)) = (name.is_empty(), after) else {
                put("$");
                continue;
            };
            let group = if name.bytes().all(|b| b.is_ascii_digit()) {
                name.parse().ok().and_then(|index| self.get(index))
            } else {
                self.name(name)
            };
            put(group.unwrap_or(""));
            rest = after;
        }
        put(rest);
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regex({:?})", self.source)
    }
}
