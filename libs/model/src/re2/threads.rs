//! Expressions that would make large automata over bytes, run over characters instead.
//!
//! A class such as `\pL` is hundreds of states over bytes and a single instruction here, so `\pL{1000}` is built at once.
//! Matching follows all ways through the program side by side, as Go's matcher does: in time proportional to the text times
//! the program, and usually slower than an automaton.
//!
//! The method is that of Pike's `sam`: <https://swtch.com/~rsc/regexp/regexp2.html>.

use std::collections::HashMap;
use std::sync::Arc;

use regex_syntax::hir::{Class, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

/// Place of an instruction.
type Place = u32;

/// What a thread does next.
#[derive(Clone, Debug)]
enum Inst {
    /// Reads this character.
    Char(char),
    /// Reads a character of this class.
    Class(u32),
    /// Goes both ways; the first is preferred.
    Split(Place, Place),
    /// Notes where it is.
    Save(u32),
    /// Goes on if this holds here.
    Look(Look),
    /// Is done.
    Match,
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Program {
    insts: Vec<Inst>,
    classes: Vec<Box<[ClassUnicodeRange]>>,
    /// Names of groups; the first is the whole.
    names: Vec<Option<Box<str>>>,
}

/// Where groups begin and end, by twice their number.
pub(super) type Slots = Arc<[Option<usize>]>;

impl Program {
    /// Compiles an expression.
    pub(super) fn new(hir: &Hir) -> Self {
        let mut program = Program { insts: Vec::new(), classes: Vec::new(), names: vec![None] };
        program.names_of(hir);
        program.add(hir, &mut HashMap::new());
        program.insts.push(Inst::Match);
        program
    }

    pub(super) fn size_bytes(&self) -> usize {
        let ranges: usize = self.classes.iter().map(|class| class.len()).sum();
        self.insts.len() * size_of::<Inst>() + ranges * size_of::<ClassUnicodeRange>()
    }

    /// Whether the whole of `text` matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.run(text, None).is_some()
    }

    /// Where the groups of a match of the whole of `text` lie.
    pub(super) fn groups(&self, text: &str) -> Option<Slots> {
        let mut slots = self.run(text, Some(vec![None; 2 * self.names.len()].into()))??.to_vec();
        (slots[0], slots[1]) = (Some(0), Some(text.len()));
        Some(slots.into())
    }

    /// The number of the group with this name.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known.as_deref() == Some(name))
    }

    fn names_of(&mut self, hir: &Hir) {
        match hir.kind() {
            HirKind::Capture(capture) => {
                let index = capture.index as usize;
                self.names.resize(self.names.len().max(index + 1), None);
                self.names[index] = capture.name.clone();
                self.names_of(&capture.sub);
            }
            HirKind::Repetition(repetition) => self.names_of(&repetition.sub),
            HirKind::Concat(subs) | HirKind::Alternation(subs) => {
                subs.iter().for_each(|sub| self.names_of(sub));
            }
            _ => {}
        }
    }

    fn here(&self) -> Place {
        // Expressions of more than some million instructions are refused before they come here.
        Place::try_from(self.insts.len()).unwrap_or(Place::MAX)
    }

    /// Adds the instructions of `hir`. `known` are the classes that were added, by the address of the part of the expression
    /// that they are: the copies that a repetition makes share one.
    fn add(&mut self, hir: &Hir, known: &mut HashMap<*const Hir, u32>) {
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Literal(literal) => {
                // Literals are made from characters, so they are text.
                let text = str::from_utf8(&literal.0).unwrap_or_default();
                self.insts.extend(text.chars().map(Inst::Char));
            }
            HirKind::Class(class) => {
                let class = *known.entry(hir).or_insert_with(|| {
                    self.classes.push(match class {
                        Class::Unicode(class) => class.ranges().into(),
                        // Only the class without characters is one of bytes.
                        Class::Bytes(_) => Box::default(),
                    });
                    self.classes.len() as u32 - 1
                });
                self.insts.push(Inst::Class(class));
            }
            HirKind::Look(look) => self.insts.push(Inst::Look(*look)),
            HirKind::Capture(capture) => {
                self.insts.push(Inst::Save(2 * capture.index));
                self.add(&capture.sub, known);
                self.insts.push(Inst::Save(2 * capture.index + 1));
            }
            HirKind::Concat(subs) => subs.iter().for_each(|sub| self.add(sub, known)),
            HirKind::Alternation(subs) => {
                let mut ends = Vec::new();
                let (last, others) = subs.split_last().expect("an alternation has at least two parts");
                for sub in others {
                    let split = self.split();
                    self.add(sub, known);
                    ends.push(self.split());
                    let here = self.here();
                    self.insts[split] = Inst::Split(split as Place + 1, here);
                }
                self.add(last, known);
                let here = self.here();
                ends.into_iter().for_each(|end| self.insts[end] = Inst::Split(here, here));
            }
            HirKind::Repetition(repetition) => self.add_repetition(repetition, known),
        }
    }

    fn add_repetition(&mut self, repetition: &Repetition, known: &mut HashMap<*const Hir, u32>) {
        let both = |first: Place, second: Place| match repetition.greedy {
            true => Inst::Split(first, second),
            false => Inst::Split(second, first),
        };
        (0..repetition.min).for_each(|_| self.add(&repetition.sub, known));
        match repetition.max {
            None => {
                let split = self.split();
                self.add(&repetition.sub, known);
                self.insts.push(Inst::Split(split as Place, split as Place));
                self.insts[split] = both(split as Place + 1, self.here());
            }
            Some(max) => {
                let mut splits = Vec::new();
                for _ in repetition.min..max {
                    splits.push(self.split());
                    self.add(&repetition.sub, known);
                }
                let here = self.here();
                splits.into_iter().for_each(|split| self.insts[split] = both(split as Place + 1, here));
            }
        }
    }

    /// Adds an instruction whose ways are not known yet and tells its place.
    fn split(&mut self) -> usize {
        self.insts.push(Inst::Split(0, 0));
        self.insts.len() - 1
    }

    /// Runs over all of `text`; `slots` are those to begin with where groups are asked for.
    fn run(&self, text: &str, slots: Option<Slots>) -> Option<Option<Slots>> {
        let mut threads = Threads { list: Vec::new(), seen: vec![0; self.insts.len()], round: 0 };
        let mut ahead = Vec::new();
        threads.add(self, text, (0, 0), slots);
        for (at, c) in text.char_indices() {
            if threads.list.is_empty() {
                return None;
            }
            std::mem::swap(&mut ahead, &mut threads.list);
            threads.round += 1;
            for (place, slots) in ahead.drain(..) {
                let goes_on = match &self.insts[place as usize] {
                    Inst::Char(wanted) => *wanted == c,
                    Inst::Class(class) => contains(&self.classes[*class as usize], c),
                    _ => false,
                };
                if goes_on {
                    threads.add(self, text, (place + 1, at + c.len_utf8()), slots);
                }
            }
        }
        let is_done = |(place, _): &(Place, _)| matches!(self.insts[*place as usize], Inst::Match);
        threads.list.into_iter().find(is_done).map(|(_, slots)| slots)
    }
}

/// The threads that wait for the same character, the preferred ones first.
struct Threads {
    list: Vec<(Place, Option<Slots>)>,
    /// For each instruction, the round in which a thread came to it last, plus one.
    seen: Vec<u32>,
    round: u32,
}

impl Threads {
    /// Adds a thread that goes on from an instruction at an offset of the text, and all that it parts into.
    fn add(&mut self, program: &Program, text: &str, (place, at): (Place, usize), slots: Option<Slots>) {
        let mut open = vec![(place, slots)];
        while let Some((place, slots)) = open.pop() {
            let seen = &mut self.seen[place as usize];
            if *seen == self.round + 1 {
                continue;
            }
            *seen = self.round + 1;
            match &program.insts[place as usize] {
                Inst::Split(first, second) => {
                    open.push((*second, slots.clone()));
                    open.push((*first, slots));
                }
                Inst::Save(slot) => {
                    let saved = slots.map(|slots| {
                        let mut slots = slots.to_vec();
                        slots[*slot as usize] = Some(at);
                        slots.into()
                    });
                    open.push((place + 1, saved));
                }
                Inst::Look(look) if !holds(*look, text.as_bytes(), at) => {}
                Inst::Look(_) => open.push((place + 1, slots)),
                Inst::Char(_) | Inst::Class(_) | Inst::Match => self.list.push((place, slots)),
            }
        }
    }
}

fn contains(class: &[ClassUnicodeRange], c: char) -> bool {
    let at = class.partition_point(|range| range.end() < c);
    class.get(at).is_some_and(|range| range.start() <= c)
}

/// Whether an assertion holds in front of offset `at`.
fn holds(look: Look, text: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).map(|at| text[at]);
    let after = text.get(at).copied();
    let is_word = |byte: Option<u8>| byte.is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    match look {
        Look::Start => before.is_none(),
        Look::End => after.is_none(),
        Look::StartLF => before.is_none_or(|byte| byte == b'\n'),
        Look::EndLF => after.is_none_or(|byte| byte == b'\n'),
        Look::WordAscii => is_word(before) != is_word(after),
        Look::WordAsciiNegate => is_word(before) == is_word(after),
        // The parser makes no others.
        _ => false,
    }
}
