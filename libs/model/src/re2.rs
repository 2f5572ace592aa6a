//! Regular expressions as matchers read them: RE2 syntax as Go has it, anchored at both ends, dot matches newline.
//!
//! Rust's regex syntax is close to RE2's, but the same text can mean something else there (`\d` beyond ASCII,
//! `[a&&b]`, `\<`) or be an error (`{`, `\Q..\E`). So the syntax is parsed here, to the intermediate form
//! that the automata are built from. What a few comparisons of strings can decide never becomes an automaton.
//!
//! Reading order: `parse`, `class`, `escape`, `strategy`, `threads` (what would be too large an automaton).

mod class;
mod escape;
mod parse;
mod strategy;
#[cfg(test)]
mod tests;
mod threads;

use std::fmt;
use std::sync::{Arc, OnceLock};

use regex_automata::meta;
use regex_syntax::hir::{Hir, Look};

use parse::Size;
use strategy::Strategy;
use threads::{NOWHERE, Program, Slots};

/// Most states of an automaton, roughly, so that it is built in a fraction of a second. Thousands of alternatives have less.
const MAX_STATES: u64 = 3 << 16;

/// An expression that RE2 would refuse, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("error parsing regexp: {why}: `{part}`")]
pub struct RegexError {
    why: &'static str,
    /// The part of the expression that is wrong; all of it where no part is.
    part: String,
}

impl RegexError {
    fn new(why: &'static str, part: &str) -> Self {
        Self { why, part: part.to_owned() }
    }
}

/// A compiled, fully anchored expression; matching is linear in the text's length.
#[derive(Clone)]
pub struct Regex {
    source: Box<str>,
    strategy: Arc<Strategy>,
    /// Present where the strategy alone does not decide.
    machine: Option<Machine>,
    /// Built when groups are first asked for, if `machine` is absent.
    grouping: OnceLock<Option<Machine>>,
    /// What running for groups may take beyond what running for a match takes, where [`Regex::with_groups`] counts it.
    groups_bytes: usize,
}

/// What runs over a text.
#[derive(Clone)]
enum Machine {
    Automaton(meta::Regex),
    Threads(Arc<Program>),
}

impl Machine {
    /// The machine for an anchored expression.
    fn new(hir: Hir, size: Size) -> Self {
        if size.states <= MAX_STATES
            && let Some(automaton) = automaton(hir.clone())
        {
            return Self::Automaton(automaton);
        }
        Self::Threads(Arc::new(Program::new(&hir)))
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Automaton(automaton) => automaton.memory_usage(),
            Self::Threads(program) => program.size_bytes(),
        }
    }

    fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Automaton(automaton) => automaton.is_match(text),
            Self::Threads(program) => program.is_match(text),
        }
    }

    fn groups<'t>(&self, text: &'t str) -> Option<Groups<'t>> {
        let found = match self {
            Self::Automaton(automaton) => {
                let mut captures = automaton.create_captures();
                automaton.captures(text, &mut captures);
                captures.is_match().then_some(Found::Captures(captures))
            }
            Self::Threads(program) => {
                program.groups(text).map(|slots| Found::Slots(Arc::clone(program), slots))
            }
        };
        found.map(|found| Groups { text, found })
    }
}

impl Regex {
    /// Compiles `source` as `^(?s:source)$`.
    ///
    /// # Errors
    /// When the expression is no RE2 syntax, is nested too deeply, or too large: Go's limits.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        let (hir, size) = parse::parse(source)?;
        let strategy = Strategy::of(&hir, source.len());
        let machine = (!strategy.decides()).then(|| Machine::new(hir, size));
        Ok(Self {
            source: source.into(),
            strategy: Arc::new(strategy),
            machine,
            grouping: OnceLock::new(),
            groups_bytes: 0,
        })
    }

    /// As [`new`](Self::new), for one whose groups are asked for: [`size_bytes`](Self::size_bytes) counts all that
    /// [`groups`](Self::groups) may take, which is the product of groups and states. That bounds the work for a character too.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn with_groups(source: &str) -> Result<Self, RegexError> {
        let mut regex = Self::new(source)?;
        let (hir, size) = parse::parse(source)?;
        let slots = 2 * (hir.properties().explicit_captures_len() + 1);
        if regex.machine.is_none() {
            regex.grouping = OnceLock::from(Some(Machine::new(hir, size)));
        }
        let states = match regex.grouping_machine() {
            Some(Machine::Threads(program)) => program.len(),
            _ => usize::try_from(size.states).unwrap_or(usize::MAX),
        };
        // Threads wait in two lists.
        regex.groups_bytes = states.saturating_mul(2 * slots * size_of::<usize>());
        Ok(regex)
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.strategy.is_match(text) && self.machine.as_ref().is_none_or(|machine| machine.is_match(text))
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
        self.grouping_machine()?.groups(text)
    }

    /// What tells groups.
    fn grouping_machine(&self) -> Option<&Machine> {
        self.machine.as_ref().or_else(|| {
            let build = || parse::parse(&self.source).ok().map(|(hir, size)| Machine::new(hir, size));
            self.grouping.get_or_init(build).as_ref()
        })
    }

    /// Memory of what runs over texts, in bytes; 0 where comparisons of strings decide and groups are not asked for.
    pub fn size_bytes(&self) -> usize {
        let machine = self.machine.as_ref().or_else(|| self.grouping.get()?.as_ref());
        machine.map_or(0, Machine::size_bytes).saturating_add(self.groups_bytes)
    }

    /// The expression as it was written, without anchors.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// The automaton of an anchored expression; `None` where it cannot be built.
fn automaton(hir: Hir) -> Option<meta::Regex> {
    let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
    meta::Builder::new().configure(meta::Config::new().nfa_size_limit(None)).build_from_hir(&anchored).ok()
}

/// What the groups of an expression matched.
#[derive(Debug)]
pub struct Groups<'t> {
    text: &'t str,
    found: Found,
}

/// Where groups lie, as the machine tells it.
#[derive(Debug)]
enum Found {
    Captures(regex_automata::util::captures::Captures),
    Slots(Arc<Program>, Slots),
}

impl<'t> Groups<'t> {
    /// What group `index` matched, where 0 is the whole; `None` where there is no such group or it took no part.
    pub fn get(&self, index: usize) -> Option<&'t str> {
        match &self.found {
            Found::Captures(captures) => captures.get_group(index).map(|span| &self.text[span.range()]),
            Found::Slots(_, slots) => match slots.get(2 * index..2 * index + 2)? {
                [NOWHERE, _] | [_, NOWHERE] => None,
                [start, end] => Some(&self.text[*start..*end]),
                _ => None,
            },
        }
    }

    /// What the group `(?P<name>...)` matched; of several with the name, the first.
    pub fn name(&self, name: &str) -> Option<&'t str> {
        match &self.found {
            Found::Captures(captures) => {
                captures.get_group_by_name(name).map(|span| &self.text[span.range()])
            }
            Found::Slots(program, _) => self.get(program.group(name)?),
        }
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
