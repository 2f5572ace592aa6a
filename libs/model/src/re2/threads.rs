//! Expressions that would make large automata over bytes, run over characters instead.
//!
//! A class such as `\pL` is hundreds of states over bytes and a single instruction here, so `\pL{1000}` is built at once.
//! Matching follows all ways through the program side by side, as Go's matcher does: in time proportional to the text times
//! the program, and usually slower than an automaton.
//!
//! The method is that of Pike's `sam`: <https://swtch.com/~rsc/regexp/regexp2.html>.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

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
    /// What runs have used, for the next ones: as many as there were runs at a time.
    idle: Mutex<Vec<Threads>>,
}

/// Where groups begin and end, by twice their number: offsets, or [`NOWHERE`].
pub(super) type Slots = Vec<usize>;

/// In the place of an offset, where a group took no part.
pub(super) const NOWHERE: usize = usize::MAX;

impl Program {
    /// Compiles an expression.
    pub(super) fn new(hir: &Hir) -> Self {
        let mut program =
            Self { insts: Vec::new(), classes: Vec::new(), names: vec![None], idle: Mutex::default() };
        program.names_of(hir);
        program.add(hir, &mut HashMap::new());
        program.insts.push(Inst::Match);
        program
    }

    /// Memory of the program and of a run that does not ask for groups.
    pub(super) fn size_bytes(&self) -> usize {
        let ranges: usize = self.classes.iter().map(|class| class.len()).sum();
        let run = self.insts.len() * (size_of::<u32>() + 2 * size_of::<Place>());
        self.insts.len() * size_of::<Inst>() + ranges * size_of::<ClassUnicodeRange>() + run
    }

    /// How many instructions there are.
    pub(super) fn len(&self) -> usize {
        self.insts.len()
    }

    /// Whether the whole of `text` matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.run(text, 0).is_some()
    }

    /// Where the groups of a match of the whole of `text` lie.
    pub(super) fn groups(&self, text: &str) -> Option<Slots> {
        let mut slots = self.run(text, 2 * self.names.len())?;
        (slots[0], slots[1]) = (0, text.len());
        Some(slots)
    }

    /// The number of the group with this name.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known.as_deref() == Some(name))
    }

    /// For each set of threads that is kept, the rounds it has made.
    #[cfg(test)]
    pub(super) fn rounds(&self) -> Vec<u32> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|threads| threads.round).collect()
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

    /// Runs over all of `text` and tells the first `slots` slots of a match.
    fn run(&self, text: &str, slots: usize) -> Option<Slots> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut threads = taken.unwrap_or_else(|| Threads::new(self.insts.len()));
        let found = threads.run(self, text, slots);
        idle().push(threads);
        found
    }
}

/// The threads of a run. They are kept from text to text, so that a text costs what its threads come to, and not the length of
/// the program.
#[derive(Debug)]
struct Threads {
    /// Those that wait for the next character.
    waiting: Waiting,
    /// Those that waited for the one before.
    before: Waiting,
    /// For each instruction, the round in which a thread came to it last.
    seen: Vec<u32>,
    round: u32,
    /// What is still to be done for the thread that is being added, the last first.
    open: Vec<Open>,
    /// Its slots. They are copied only when it comes to wait: ways part and slots change far more often.
    slots: Slots,
}

/// Threads in the order of preference, and the slots of each.
#[derive(Debug, Default)]
struct Waiting {
    places: Vec<Place>,
    /// Those of the first thread, then those of the second, and so on.
    slots: Slots,
}

/// What is still to be done for a thread.
#[derive(Debug)]
enum Open {
    /// Goes on from here.
    Way(Place),
    /// Gives a slot its value back, for the ways that do not lead through the group.
    Restore(u32, usize),
}

impl Threads {
    fn new(insts: usize) -> Self {
        Self {
            waiting: Waiting::default(),
            before: Waiting::default(),
            seen: vec![0; insts],
            round: 0,
            open: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// As [`Program::run`].
    fn run(&mut self, program: &Program, text: &str, slots: usize) -> Option<Slots> {
        self.slots.clear();
        self.slots.resize(slots, NOWHERE);
        self.begin_round();
        self.add(program, text, (0, 0));
        for (at, c) in text.char_indices() {
            if self.waiting.places.is_empty() {
                return None;
            }
            std::mem::swap(&mut self.before, &mut self.waiting);
            self.begin_round();
            for index in 0..self.before.places.len() {
                let place = self.before.places[index];
                let goes_on = match &program.insts[place as usize] {
                    Inst::Char(wanted) => *wanted == c,
                    Inst::Class(class) => contains(&program.classes[*class as usize], c),
                    _ => false,
                };
                if goes_on {
                    self.slots.copy_from_slice(&self.before.slots[index * slots..][..slots]);
                    self.add(program, text, (place + 1, at + c.len_utf8()));
                }
            }
        }
        let is_done = |place: &Place| matches!(program.insts[*place as usize], Inst::Match);
        let done = self.waiting.places.iter().position(is_done)?;
        Some(self.waiting.slots[done * slots..][..slots].to_vec())
    }

    fn begin_round(&mut self) {
        self.waiting.places.clear();
        self.waiting.slots.clear();
        self.round = self.round.checked_add(1).unwrap_or_else(|| {
            self.seen.fill(0);
            1
        });
    }

    /// Adds a thread that goes on from an instruction at an offset of the text, and all that it parts into.
    fn add(&mut self, program: &Program, text: &str, (place, at): (Place, usize)) {
        self.open.push(Open::Way(place));
        while let Some(open) = self.open.pop() {
            let place = match open {
                Open::Way(place) => place,
                Open::Restore(slot, old) => {
                    self.slots[slot as usize] = old;
                    continue;
                }
            };
            if std::mem::replace(&mut self.seen[place as usize], self.round) == self.round {
                continue;
            }
            match &program.insts[place as usize] {
                Inst::Split(first, second) => self.open.extend([Open::Way(*second), Open::Way(*first)]),
                Inst::Save(slot) => {
                    // Where groups are not asked for there are no slots.
                    if let Some(saved) = self.slots.get_mut(*slot as usize) {
                        self.open.push(Open::Restore(*slot, std::mem::replace(saved, at)));
                    }
                    self.open.push(Open::Way(place + 1));
                }
                Inst::Look(look) if !holds(*look, text.as_bytes(), at) => {}
                Inst::Look(_) => self.open.push(Open::Way(place + 1)),
                Inst::Char(_) | Inst::Class(_) | Inst::Match => {
                    self.waiting.places.push(place);
                    self.waiting.slots.extend_from_slice(&self.slots);
                }
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
