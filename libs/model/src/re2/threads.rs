//! Runs large expressions over characters instead of bytes.
//!
//! A class such as `\pL` is a single instruction here but hundreds of states of an automaton over bytes, so
//! `\pL{1000}` is built at once. The matcher follows all paths through the program in parallel, as Go's
//! matcher does. The time is proportional to the length of the text times the length of the program, and is
//! usually longer than that of an automaton.
//!
//! The method is that of Pike's `sam`: <https://swtch.com/~rsc/regexp/regexp2.html>.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use regex_syntax::hir::{Class, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

/// Index of an instruction in its program.
type InstIndex = u32;

/// One step of a thread.
#[derive(Clone, Debug)]
enum Inst {
    /// Consume this character.
    Char(char),
    /// Consume a character of the class with this index.
    Class(u32),
    /// Continue at both instructions; the first is preferred.
    Split(InstIndex, InstIndex),
    /// Store the current offset in this slot.
    Save(u32),
    /// Continue if this assertion holds here.
    Look(Look),
    /// The expression has matched.
    Match,
}

/// An expression, compiled to instructions over characters.
#[derive(Debug)]
pub(super) struct CharProgram {
    insts: Vec<Inst>,
    classes: Vec<Box<[ClassUnicodeRange]>>,
    /// Names of the groups by index; group 0 is the whole match.
    names: Vec<Option<Box<str>>>,
    /// Buffers of finished runs, for reuse: as many as the most runs that were active at the same time.
    idle: Mutex<Vec<ThreadSet>>,
}

/// Byte offsets of the groups: group `n` starts at slot `2n` and ends at slot `2n + 1`. See [`NOWHERE`].
pub(super) type Slots = Vec<usize>;

/// The value of both slots of a group that did not take part in the match.
pub(super) const NOWHERE: usize = usize::MAX;

impl CharProgram {
    /// Compiles an expression.
    pub(super) fn new(hir: &Hir) -> Self {
        let mut program =
            Self { insts: Vec::new(), classes: Vec::new(), names: vec![None], idle: Mutex::default() };
        program.names_of(hir);
        program.add(hir, &mut HashMap::new());
        program.insts.push(Inst::Match);
        program
    }

    /// Memory of the program and of one run that does not record groups, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        let ranges: usize = self.classes.iter().map(|class| class.len()).sum();
        let run = self.insts.len() * (size_of::<u32>() + 2 * size_of::<InstIndex>());
        self.insts.len() * size_of::<Inst>() + ranges * size_of::<ClassUnicodeRange>() + run
    }

    /// Number of instructions.
    pub(super) fn len(&self) -> usize {
        self.insts.len()
    }

    /// Whether the whole of `text` matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        self.run(text, 0).is_some()
    }

    /// The slots of all groups, or `None` if `text` as a whole does not match.
    pub(super) fn groups(&self, text: &str) -> Option<Slots> {
        let mut slots = self.run(text, 2 * self.names.len())?;
        (slots[0], slots[1]) = (0, text.len());
        Some(slots)
    }

    /// The index of the first group with this name.
    pub(super) fn group(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| known.as_deref() == Some(name))
    }

    /// The number of rounds that each idle set of threads has made.
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

    fn here(&self) -> InstIndex {
        // Larger expressions, of a few million instructions, were rejected by the parser.
        InstIndex::try_from(self.insts.len()).unwrap_or(InstIndex::MAX)
    }

    /// Adds the instructions of `hir`. `known` contains the classes that were added, by the address of their
    /// part of the expression. The copies that a repetition makes share one class.
    fn add(&mut self, hir: &Hir, known: &mut HashMap<*const Hir, u32>) {
        match hir.kind() {
            HirKind::Empty => {}
            HirKind::Literal(literal) => {
                // The parser makes literals from characters, so they are valid UTF-8.
                let text = str::from_utf8(&literal.0).unwrap_or_default();
                self.insts.extend(text.chars().map(Inst::Char));
            }
            HirKind::Class(class) => {
                let class = *known.entry(hir).or_insert_with(|| {
                    self.classes.push(match class {
                        Class::Unicode(class) => class.ranges().into(),
                        // Only the empty class has this form.
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
                    self.insts[split] = Inst::Split(split as InstIndex + 1, here);
                }
                self.add(last, known);
                let here = self.here();
                ends.into_iter().for_each(|end| self.insts[end] = Inst::Split(here, here));
            }
            HirKind::Repetition(repetition) => self.add_repetition(repetition, known),
        }
    }

    fn add_repetition(&mut self, repetition: &Repetition, known: &mut HashMap<*const Hir, u32>) {
        let both = |first: InstIndex, second: InstIndex| match repetition.greedy {
            true => Inst::Split(first, second),
            false => Inst::Split(second, first),
        };
        (0..repetition.min).for_each(|_| self.add(&repetition.sub, known));
        match repetition.max {
            None => {
                let split = self.split();
                self.add(&repetition.sub, known);
                self.insts.push(Inst::Split(split as InstIndex, split as InstIndex));
                self.insts[split] = both(split as InstIndex + 1, self.here());
            }
            Some(max) => {
                let mut splits = Vec::new();
                for _ in repetition.min..max {
                    splits.push(self.split());
                    self.add(&repetition.sub, known);
                }
                let here = self.here();
                splits.into_iter().for_each(|split| self.insts[split] = both(split as InstIndex + 1, here));
            }
        }
    }

    /// Adds a `Split` whose targets are not known yet. Returns its index.
    fn split(&mut self) -> usize {
        self.insts.push(Inst::Split(0, 0));
        self.insts.len() - 1
    }

    /// Matches the whole of `text`. Returns the first `slots` slots of the match.
    fn run(&self, text: &str, slots: usize) -> Option<Slots> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle().pop();
        let mut threads = taken.unwrap_or_else(|| ThreadSet::new(self.insts.len()));
        let found = threads.run(self, text, slots);
        idle().push(threads);
        found
    }
}

/// The threads of a run. They are reused for the next text, so that a run costs only what its threads do and
/// not the length of the program.
#[derive(Debug)]
struct ThreadSet {
    /// Threads that wait for the next character.
    waiting: ThreadList,
    /// Threads that waited for the previous character.
    before: ThreadList,
    /// For each instruction, the last round in which a thread reached it.
    seen: Vec<u32>,
    round: u32,
    /// What remains to be done for the thread that is being added; the last entry comes first.
    open: Vec<PendingStep>,
    /// The slots of that thread. They are copied only when it starts to wait, because threads split and slots
    /// change far more often.
    slots: Slots,
}

/// Threads in the order of preference, with their slots.
#[derive(Debug, Default)]
struct ThreadList {
    places: Vec<InstIndex>,
    /// The slots of the first thread, then those of the second, and so on.
    slots: Slots,
}

/// A task that remains for the thread that is being added.
#[derive(Debug)]
enum PendingStep {
    /// Continue at this instruction.
    Way(InstIndex),
    /// Restore the value of a slot, for the paths that do not go through the group.
    Restore(u32, usize),
}

impl ThreadSet {
    fn new(insts: usize) -> Self {
        Self {
            waiting: ThreadList::default(),
            before: ThreadList::default(),
            seen: vec![0; insts],
            round: 0,
            open: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// As [`CharProgram::run`].
    fn run(&mut self, program: &CharProgram, text: &str, slots: usize) -> Option<Slots> {
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
        let is_done = |place: &InstIndex| matches!(program.insts[*place as usize], Inst::Match);
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

    /// Adds a thread that continues at an instruction and an offset of the text, and all threads into which
    /// it splits.
    fn add(&mut self, program: &CharProgram, text: &str, (place, at): (InstIndex, usize)) {
        self.open.push(PendingStep::Way(place));
        while let Some(open) = self.open.pop() {
            let place = match open {
                PendingStep::Way(place) => place,
                PendingStep::Restore(slot, old) => {
                    self.slots[slot as usize] = old;
                    continue;
                }
            };
            if std::mem::replace(&mut self.seen[place as usize], self.round) == self.round {
                continue;
            }
            match &program.insts[place as usize] {
                Inst::Split(first, second) => {
                    self.open.extend([PendingStep::Way(*second), PendingStep::Way(*first)])
                }
                Inst::Save(slot) => {
                    // There are no slots if the run does not record groups.
                    if let Some(saved) = self.slots.get_mut(*slot as usize) {
                        self.open.push(PendingStep::Restore(*slot, std::mem::replace(saved, at)));
                    }
                    self.open.push(PendingStep::Way(place + 1));
                }
                Inst::Look(look) if !holds(*look, text.as_bytes(), at) => {}
                Inst::Look(_) => self.open.push(PendingStep::Way(place + 1)),
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

/// Whether an assertion holds before offset `at`.
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
        // The parser makes no other assertions.
        _ => false,
    }
}
