//! Regular expressions of matchers: RE2 syntax as Go implements it, anchored at both ends, where a dot
//! matches newline.
//!
//! Rust's regex syntax is close to RE2's, but some texts mean something else in it (`\d` beyond ASCII,
//! `[a&&b]`, `\<`) and others are errors (`{`, `\Q..\E`). Therefore this module parses the syntax itself and
//! produces the intermediate form from which `regex-automata` builds automata. An expression that a few
//! string comparisons can decide never becomes an automaton.
//!
//! Reading order: `parse`, `scanner`, `class`, `escape`, `size`, `strategy`, `threads` (for expressions whose
//! automaton would be too large), `search` (expressions that are not anchored).

mod class;
mod error;
mod escape;
mod parse;
mod scanner;
mod search;
mod size;
mod strategy;
#[cfg(test)]
mod tests;
mod threads;

use std::fmt;
use std::sync::{Arc, OnceLock};

use regex_automata::meta;
use regex_syntax::hir::{Hir, Look};

pub use error::RegexError;
pub use search::SearchRegex;
use size::RegexSize;
use strategy::Strategy;
use threads::{CharProgram, NOWHERE, Slots};

/// Most states of an automaton, estimated. An automaton of this size is built in a fraction of a second.
/// Expressions with thousands of alternatives stay below it.
const MAX_STATES: u64 = 3 << 16;

/// A compiled regular expression, anchored at both ends. Matching takes time linear in the length of the
/// text.
#[derive(Clone)]
pub struct Regex {
    source: Box<str>,
    strategy: Arc<Strategy>,
    /// Absent if the strategy alone decides whether a text matches.
    machine: Option<Machine>,
    /// Built at the first call of [`groups`](Self::groups) if `machine` is absent.
    grouping: OnceLock<Option<Machine>>,
    /// Bytes that a run that records groups may use in addition to a run that only matches. 0 unless built by
    /// [`Regex::with_groups`].
    groups_bytes: usize,
}

/// Runs an expression over a text.
#[derive(Clone)]
enum Machine {
    Automaton(meta::Regex),
    Threads(Arc<CharProgram>),
}

impl Machine {
    /// Builds the machine for an anchored expression.
    fn new(hir: Hir, size: RegexSize) -> Self {
        if size.states <= MAX_STATES
            && let Some(automaton) = automaton(hir.clone())
        {
            return Self::Automaton(automaton);
        }
        Self::Threads(Arc::new(CharProgram::new(&hir)))
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

    fn groups<'t>(&self, text: &'t str) -> Option<RegexGroups<'t>> {
        let found = match self {
            Self::Automaton(automaton) => {
                let mut captures = automaton.create_captures();
                automaton.captures(text, &mut captures);
                captures.is_match().then_some(GroupSpans::Captures(captures))
            }
            Self::Threads(program) => {
                program.groups(text).map(|slots| GroupSpans::Slots(Arc::clone(program), slots))
            }
        };
        found.map(|found| RegexGroups { text, found })
    }
}

impl Regex {
    /// Compiles `source` as `^(?s:source)$`.
    ///
    /// # Errors
    /// If the expression is not valid RE2 syntax, is nested too deeply, or is too large. The limits are Go's.
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

    /// Like [`new`](Self::new), for an expression whose groups will be used. [`size_bytes`](Self::size_bytes)
    /// then includes all memory that [`groups`](Self::groups) may use, which is the product of groups and
    /// states. Limiting it also limits the work per character of text.
    ///
    /// # Errors
    /// The same as [`new`](Self::new).
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
        // A run keeps two lists of waiting threads.
        regex.groups_bytes = states.saturating_mul(2 * slots * size_of::<usize>());
        Ok(regex)
    }

    /// Whether the whole of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.strategy.is_match(text) && self.machine.as_ref().is_none_or(|machine| machine.is_match(text))
    }

    /// All texts that match, sorted and without duplicates, if the list is short: `a|b`, `x[1-3]`, `(?i:ab)`.
    /// The caller can then look up each text instead of matching every value.
    pub fn literals(&self) -> Option<&[Box<str>]> {
        self.strategy.literals()
    }

    /// A text with which every match starts. Empty if none is known.
    pub fn prefix(&self) -> &str {
        self.strategy.prefix()
    }

    /// What each group matched, or `None` if `text` as a whole does not match.
    pub fn groups<'t>(&self, text: &'t str) -> Option<RegexGroups<'t>> {
        if !self.is_match(text) {
            return None;
        }
        self.grouping_machine()?.groups(text)
    }

    /// The machine that records groups.
    fn grouping_machine(&self) -> Option<&Machine> {
        self.machine.as_ref().or_else(|| {
            let build = || parse::parse(&self.source).ok().map(|(hir, size)| Machine::new(hir, size));
            self.grouping.get_or_init(build).as_ref()
        })
    }

    /// Memory of the machines in bytes. 0 if string comparisons decide and groups were never used.
    pub fn size_bytes(&self) -> usize {
        let machine = self.machine.as_ref().or_else(|| self.grouping.get()?.as_ref());
        machine.map_or(0, Machine::size_bytes).saturating_add(self.groups_bytes)
    }

    /// The expression as the user wrote it, without anchors.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

/// The automaton of an anchored expression, or `None` if it cannot be built.
fn automaton(hir: Hir) -> Option<meta::Regex> {
    unanchored(&Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]))
}

/// The automaton of an expression as it is, or `None` if it cannot be built.
fn unanchored(hir: &Hir) -> Option<meta::Regex> {
    meta::Builder::new().configure(meta::Config::new().nfa_size_limit(None)).build_from_hir(hir).ok()
}

/// What the groups of an expression matched.
#[derive(Debug)]
pub struct RegexGroups<'t> {
    text: &'t str,
    found: GroupSpans,
}

/// Where the groups are in the text, in the form that the machine reports.
#[derive(Debug)]
enum GroupSpans {
    Captures(regex_automata::util::captures::Captures),
    Slots(Arc<CharProgram>, Slots),
}

impl<'t> RegexGroups<'t> {
    /// What group `index` matched; group 0 is the whole match. `None` if there is no such group or it did not
    /// take part in the match.
    pub fn get(&self, index: usize) -> Option<&'t str> {
        match &self.found {
            GroupSpans::Captures(captures) => captures.get_group(index).map(|span| &self.text[span.range()]),
            GroupSpans::Slots(_, slots) => match slots.get(2 * index..2 * index + 2)? {
                [NOWHERE, _] | [_, NOWHERE] => None,
                [start, end] => Some(&self.text[*start..*end]),
                _ => None,
            },
        }
    }

    /// What the group `(?P<name>...)` matched. If several groups have this name, the first one counts.
    pub fn name(&self, name: &str) -> Option<&'t str> {
        match &self.found {
            GroupSpans::Captures(captures) => {
                captures.get_group_by_name(name).map(|span| &self.text[span.range()])
            }
            GroupSpans::Slots(program, _) => self.get(program.group(name)?),
        }
    }

    /// Replaces `$1`, `${1}`, `$name` and `${name}` in `template` by what these groups matched, and `$$` by a
    /// dollar sign. A group that does not exist is replaced by nothing. A dollar sign that is not followed by
    /// a name stays. Go's `Regexp.Expand` does the same.
    pub fn expand(&self, template: &str) -> String {
        let mut out = String::with_capacity(template.len());
        self.each_piece(template, |piece| out.push_str(piece));
        out
    }

    /// Length in bytes of the result of [`expand`](Self::expand). Callers check it first, because a template
    /// may name a long group many times.
    pub fn expanded_bytes(&self, template: &str) -> usize {
        let mut bytes = 0usize;
        self.each_piece(template, |piece| bytes = bytes.saturating_add(piece.len()));
        bytes
    }

    /// Passes the pieces of the expanded template to `put`, in order.
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
