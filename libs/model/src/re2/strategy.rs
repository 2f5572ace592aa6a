//! What a few comparisons of strings can decide, or rule out, before any automaton runs.

use std::collections::HashSet;

use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// Most texts that are listed for an expression which is no plain list of them.
const MAX_LITERALS: usize = 1024;

/// From how many texts on a hash table is faster than comparing with each.
const HASH_FROM: usize = 16;

/// How a text is matched.
#[derive(Debug)]
pub(super) enum Strategy {
    /// One of these texts, nothing else.
    Literals(Literals),
    /// These pieces in order, with anything in between.
    Pieces(Pieces),
    /// What the automaton says, if the text starts and ends like this.
    Automaton { prefix: String, suffix: String },
}

/// A finite set of texts.
#[derive(Debug)]
pub(super) struct Literals {
    /// Sorted, without duplicates.
    sorted: Box<[Box<str>]>,
    /// The same, where there are many.
    hashed: Option<HashSet<Box<str>>>,
}

/// Pieces of text and the gaps between them: `api-.*` or `.*error.+`.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// Before the first gap.
    prefix: String,
    /// Each gap but the last, and the text behind it.
    middle: Vec<(Gap, String)>,
    /// The last gap.
    last: Gap,
    /// Behind the last gap.
    suffix: String,
}

/// How many characters of any kind stand between two pieces, at least.
type Gap = usize;

impl Strategy {
    /// The strategy for an expression of `length` bytes.
    pub(super) fn of(hir: &Hir, length: usize) -> Self {
        let mut parts = Vec::new();
        flatten(hir, &mut parts);
        let mut parts = &parts[..];
        // The expression is anchored anyway.
        while let [HirKind::Look(Look::Start), rest @ ..] = parts {
            parts = rest;
        }
        while let [rest @ .., HirKind::Look(Look::End)] = parts {
            parts = rest;
        }
        // A plain list of texts may be as long as it was written.
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

    /// Whether [`is_match`](Self::is_match) is the whole answer.
    pub(super) fn decides(&self) -> bool {
        !matches!(self, Self::Automaton { .. })
    }

    /// Whether `text` matches, or may match where the strategy does not decide.
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
        // Of a sorted list, the first and the last differ earliest.
        let (Some(first), Some(last)) = (self.sorted.first(), self.sorted.last()) else {
            return "";
        };
        let common = first.char_indices().zip(last.chars()).find(|((_, a), b)| a != b);
        &first[..common.map_or(first.len().min(last.len()), |((at, _), _)| at)]
    }
}

/// The parts of a sequence, without groups around it or in it.
fn flatten<'a>(hir: &'a Hir, parts: &mut Vec<&'a HirKind>) {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Capture(capture) => flatten(&capture.sub, parts),
        HirKind::Concat(subs) => subs.iter().for_each(|sub| flatten(sub, parts)),
        kind => parts.push(kind),
    }
}

/// The text that `kind` stands for.
fn literal(kind: &HirKind) -> Option<&str> {
    match kind {
        // Literals are made from characters, so they are text.
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok(),
        _ => None,
    }
}

/// All texts that a sequence stands for; `None` where they are more than `budget`, which is used up.
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

/// All texts that a part stands for.
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

/// The least number of characters of a part that stands for any text at least so long.
fn gap(kind: &HirKind) -> Option<Gap> {
    let HirKind::Repetition(repetition) = kind else { return None };
    let any = matches!(repetition.sub.kind(), HirKind::Class(Class::Unicode(class))
        if matches!(class.ranges(), [all] if all.start() == '\0' && all.end() == char::MAX));
    (any && repetition.max.is_none()).then_some(repetition.min as usize)
}

/// `text` without its first `count` characters; `None` where it has fewer.
fn skip(text: &str, count: usize) -> Option<&str> {
    match count {
        0 => Some(text),
        _ => text.char_indices().nth(count - 1).map(|(at, c)| &text[at + c.len_utf8()..]),
    }
}

impl Pieces {
    /// The pieces of a sequence of texts and gaps that has at least one gap.
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
        // The first place for each piece leaves most to those behind it.
        for (least, piece) in &self.middle {
            let Some(behind) = skip(rest, *least) else { return false };
            let Some(at) = behind.find(piece.as_str()) else { return false };
            rest = &behind[at + piece.len()..];
        }
        rest.strip_suffix(self.suffix.as_str()).is_some_and(|gap| skip(gap, self.last).is_some())
    }
}
