//! Decides or rules out a match by a few string comparisons, before any automaton runs.

use std::collections::HashSet;

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Most literals for an expression that is not already a plain list of them.
const MAX_LITERALS: usize = 1024;

/// Number of literals from which a hash table is faster than comparing with each.
const HASH_FROM: usize = 16;

/// How a text is matched.
#[derive(Debug)]
pub(super) enum Strategy {
    /// The text equals one of these literals.
    Literals(Literals),
    /// The text consists of these pieces in order, with arbitrary text between them.
    Pieces(Pieces),
    /// The text has this prefix and suffix, and the automaton matches it.
    Automaton { prefix: String, suffix: String },
}

/// A finite set of texts.
#[derive(Debug)]
pub(super) struct Literals {
    /// Sorted, without duplicates.
    sorted: Box<[Box<str>]>,
    /// The same texts, if there are at least [`HASH_FROM`].
    hashed: Option<HashSet<Box<str>>>,
}

/// Pieces of text and the gaps between them: `api-.*` or `.*error.+`.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The text before the first gap.
    prefix: String,
    /// Each gap except the last, with the text after it.
    middle: Vec<(Gap, String)>,
    /// The last gap.
    last: Gap,
    /// The text after the last gap.
    suffix: String,
}

/// The least number of characters between two pieces.
type Gap = usize;

impl Strategy {
    /// Chooses the strategy for an expression of `length` bytes.
    pub(super) fn of(hir: &Hir, length: usize) -> Self {
        let mut parts = Vec::new();
        flatten(hir, &mut parts);
        let mut parts = &parts[..];
        // The expression is anchored in any case.
        while let [HirKind::Look(Look::Start), rest @ ..] = parts {
            parts = rest;
        }
        while let [rest @ .., HirKind::Look(Look::End)] = parts {
            parts = rest;
        }
        // A plain list of literals may be as long as its source.
        let mut budget = MAX_LITERALS + length;
        if let Some(texts) = product(parts, &mut budget) {
            return Self::Literals(Literals::new(texts));
        }
        if let Some(pieces) = Pieces::of(parts) {
            return Self::Pieces(pieces);
        }
        let run = |parts: &mut dyn Iterator<Item = &&HirKind>| -> Vec<String> {
            parts.map_while(|part| literal(part)).map(str::to_owned).collect()
        };
        let prefix = run(&mut parts.iter()).concat();
        let mut suffix = run(&mut parts.iter().rev());
        suffix.reverse();
        Self::Automaton { prefix, suffix: suffix.concat() }
    }

    /// Whether [`is_match`](Self::is_match) decides alone, so that no automaton is needed.
    pub(super) fn decides(&self) -> bool {
        !matches!(self, Self::Automaton { .. })
    }

    /// Whether `text` matches. If the strategy does not [decide](Self::decides), true means that it may
    /// match.
    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Literals(literals) => literals.contains(text),
            Self::Pieces(pieces) => pieces.is_match(text),
            Self::Automaton { prefix, suffix } => {
                text.starts_with(prefix.as_str()) && text.ends_with(suffix.as_str())
            }
        }
    }

    pub(super) fn literals(&self) -> Option<&[Box<str>]> {
        match self {
            Self::Literals(literals) => Some(&literals.sorted),
            _ => None,
        }
    }

    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::Literals(literals) => literals.common_prefix(),
            Self::Pieces(Pieces { prefix, .. }) | Self::Automaton { prefix, .. } => prefix,
        }
    }
}

impl Literals {
    fn new(mut texts: Vec<String>) -> Self {
        texts.sort_unstable();
        texts.dedup();
        let sorted: Box<[Box<str>]> = texts.into_iter().map(String::into_boxed_str).collect();
        let hashed = (sorted.len() >= HASH_FROM).then(|| sorted.iter().cloned().collect());
        Self { sorted, hashed }
    }

    fn contains(&self, text: &str) -> bool {
        match &self.hashed {
            Some(hashed) => hashed.contains(text),
            None => self.sorted.iter().any(|literal| **literal == *text),
        }
    }

    fn common_prefix(&self) -> &str {
        // In a sorted list, the common prefix of the first and the last text is common to all.
        let (Some(first), Some(last)) = (self.sorted.first(), self.sorted.last()) else {
            return "";
        };
        let common = first.char_indices().zip(last.chars()).find(|((_, a), b)| a != b);
        &first[..common.map_or(first.len().min(last.len()), |((at, _), _)| at)]
    }
}

/// Collects the parts of a sequence. Groups around it and inside it are dissolved.
fn flatten<'a>(hir: &'a Hir, parts: &mut Vec<&'a HirKind>) {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Capture(capture) => flatten(&capture.sub, parts),
        HirKind::Concat(subs) => subs.iter().for_each(|sub| flatten(sub, parts)),
        kind => parts.push(kind),
    }
}

/// The text of a literal.
fn literal(kind: &HirKind) -> Option<&str> {
    match kind {
        // Literals are made from characters, so they are text.
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok(),
        _ => None,
    }
}

/// All texts that a sequence matches, or `None` if they are more than `budget`, which is reduced by their
/// number.
fn product(parts: &[&HirKind], budget: &mut usize) -> Option<Vec<String>> {
    let mut texts = vec![String::new()];
    for part in parts {
        let choices = choices(part, budget)?;
        if let [only] = &choices[..] {
            texts.iter_mut().for_each(|text| text.push_str(only));
            continue;
        }
        *budget = budget.checked_sub(texts.len() * choices.len())?;
        texts = texts
            .iter()
            .flat_map(|text| choices.iter().map(move |choice| format!("{text}{choice}")))
            .collect();
    }
    Some(texts)
}

/// All texts that one part matches.
fn choices(kind: &HirKind, budget: &mut usize) -> Option<Vec<String>> {
    match kind {
        HirKind::Literal(_) => literal(kind).map(|text| vec![text.to_owned()]),
        HirKind::Class(Class::Unicode(class)) => {
            let count: usize = class.iter().map(|range| range.len()).sum();
            *budget = budget.checked_sub(count)?;
            let chars = class.iter().flat_map(|range| range.start()..=range.end());
            Some(chars.map(String::from).collect())
        }
        HirKind::Alternation(subs) => {
            let mut texts = Vec::new();
            for sub in subs {
                let mut parts = Vec::new();
                flatten(sub, &mut parts);
                *budget = budget.checked_sub(1)?;
                texts.extend(product(&parts, budget)?);
            }
            Some(texts)
        }
        HirKind::Repetition(repetition) => {
            let max = repetition.max.filter(|max| *max <= 16)?;
            let mut parts = Vec::new();
            flatten(&repetition.sub, &mut parts);
            let mut texts = Vec::new();
            for times in repetition.min..=max {
                *budget = budget.checked_sub(1)?;
                texts.extend(product(&parts.repeat(times as usize), budget)?);
            }
            Some(texts)
        }
        _ => None,
    }
}

/// The least number of characters that a part of the form `.*`, `.+` or `.{n,}` matches.
fn gap(kind: &HirKind) -> Option<Gap> {
    let HirKind::Repetition(repetition) = kind else { return None };
    let any = matches!(repetition.sub.kind(), HirKind::Class(Class::Unicode(class))
        if matches!(class.ranges(), [all] if all.start() == '\0' && all.end() == char::MAX));
    (any && repetition.max.is_none()).then_some(repetition.min as usize)
}

/// `text` without its first `count` characters, or `None` if it is shorter.
fn skip(text: &str, count: usize) -> Option<&str> {
    match count {
        0 => Some(text),
        _ => text.char_indices().nth(count - 1).map(|(at, c)| &text[at + c.len_utf8()..]),
    }
}

impl Pieces {
    /// The pieces of a sequence of literals and gaps. `None` if it has other parts or no gap.
    fn of(parts: &[&HirKind]) -> Option<Self> {
        let mut pieces = Self::default();
        let mut any_gap = false;
        for part in parts {
            match (literal(part), gap(part)) {
                (Some(text), _) if any_gap => pieces.suffix.push_str(text),
                (Some(text), _) => pieces.prefix.push_str(text),
                (None, Some(least)) if pieces.suffix.is_empty() => {
                    pieces.last += least;
                    any_gap = true;
                }
                (None, Some(least)) => {
                    let gap = std::mem::replace(&mut pieces.last, least);
                    pieces.middle.push((gap, std::mem::take(&mut pieces.suffix)));
                }
                (None, None) => return None,
            }
        }
        any_gap.then_some(pieces)
    }

    fn is_match(&self, text: &str) -> bool {
        let Some(mut rest) = text.strip_prefix(self.prefix.as_str()) else {
            return false;
        };
        // Taking the first occurrence of each piece leaves the most text for the pieces after it.
        for (least, piece) in &self.middle {
            let Some(after_gap) = skip(rest, *least) else { return false };
            let Some(at) = after_gap.find(piece.as_str()) else { return false };
            rest = &after_gap[at + piece.len()..];
        }
        rest.strip_suffix(self.suffix.as_str()).is_some_and(|gap| skip(gap, self.last).is_some())
    }
}
