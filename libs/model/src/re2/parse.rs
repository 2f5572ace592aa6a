//! The structure of expressions: alternatives, sequences, repetitions, groups and flags.
//!
//! Restates `regexp/syntax/parse.go` of Go with the flags `Perl | DotNL`. What looks odd is so there: a flag group such as
//! `(?i)` leaves nothing behind, so that a `*` after it repeats what stands before it.

use std::collections::HashSet;

use regex_syntax::hir::{Capture, Class, ClassUnicode, Dot, Hir, HirKind, Look, Repetition};

use crate::re2::RegexError;
use crate::re2::class::literal_class;

/// Deepest nesting of groups and repetitions.
const MAX_HEIGHT: usize = 250;

/// Largest count in braces, and largest product of counts that are nested.
const MAX_REPEAT: u32 = 1000;

/// Most instructions that Go compiles an expression to: 128 MiB of them.
const MAX_INSTRUCTIONS: u64 = (128 << 20) / 40;

/// Most ranges of characters in classes. Go takes sixteen times as many, which is 26,000 times `\pL`, and here as many would
/// take seconds to read.
const MAX_RANGES: usize = 1 << 20;

/// How the rest of a group is read.
#[derive(Clone, Copy)]
pub(super) struct Flags {
    /// `i`: letters match in any case.
    pub(super) fold_case: bool,
    /// `m`: `^` and `$` match at line breaks.
    multi_line: bool,
    /// `s`: a dot matches newline.
    dot_newline: bool,
    /// `U`: repetitions prefer few, and many with a `?`.
    swap_greed: bool,
}

/// Part of an expression.
struct Item {
    hir: Hir,
    /// The longest way down.
    height: usize,
    /// The largest product of nested counts.
    copies: u32,
    size: Size,
}

/// How large the machines for an expression are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Instructions over characters, as Go counts them.
    pub(super) instructions: u64,
    /// States over bytes, roughly.
    pub(super) states: u64,
}

impl Size {
    /// The size of a literal, a class or an assertion.
    fn of(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Literal(literal) => {
                let chars = str::from_utf8(&literal.0).map_or(1, |text| text.chars().count());
                Self { instructions: chars.max(1) as u64, states: literal.0.len() as u64 }
            }
            HirKind::Class(Class::Unicode(class)) if !class.is_ascii() => {
                // A range of characters is up to a few sequences of ranges of bytes.
                Self { instructions: 1, states: 4 * class.ranges().len() as u64 }
            }
            _ => Self { instructions: 1, states: 1 },
        }
    }

    fn plus(self, instructions: u64) -> Self {
        let plus = |size: u64| size.saturating_add(instructions);
        Self { instructions: plus(self.instructions), states: plus(self.states) }
    }

    fn and(self, other: Self) -> Self {
        Self {
            instructions: self.instructions.saturating_add(other.instructions),
            states: self.states.saturating_add(other.states),
        }
    }

    fn repeated(self, min: u32, max: Option<u32>) -> Self {
        let times = |times: u32| Self {
            instructions: self.instructions.saturating_mul(times.into()),
            states: self.states.saturating_mul(times.into()),
        };
        let repeated = match max {
            None => times(min.max(1)).plus(2),
            Some(max) => times(max).plus((max - min).into()),
        };
        Self { instructions: repeated.instructions.max(1), states: repeated.states.max(1) }
    }
}

impl Item {
    fn leaf(hir: Hir) -> Self {
        Self { size: Size::of(&hir), hir, height: 1, copies: 1 }
    }

    /// One item that holds `items` in the form `join` gives them, with so many instructions between two of them.
    fn join(mut items: Vec<Self>, join: fn(Vec<Hir>) -> Hir, forks: u64) -> Self {
        if items.len() == 1
            && let Some(only) = items.pop()
        {
            return only;
        }
        let height = 1 + items.iter().map(|item| item.height).max().unwrap_or(0);
        let copies = items.iter().map(|item| item.copies).max().unwrap_or(1);
        // An alternation has an instruction more for each of its parts but one.
        let mut size = Size { instructions: 0, states: 0 }.plus(forks * items.len().saturating_sub(1) as u64);
        items.iter().for_each(|item| size = size.and(item.size));
        Self { hir: join(items.into_iter().map(|item| item.hir).collect()), height, copies, size }
    }
}

/// Reads an expression from left to right.
pub(super) struct Parser<'a> {
    /// All of it.
    pub(super) source: &'a str,
    /// Offset of what was not read yet.
    pub(super) at: usize,
    pub(super) flags: Flags,
    /// Groups so far.
    groups: u32,
    names: HashSet<&'a str>,
    /// Ranges of characters in all classes so far.
    ranges: usize,
}

/// Parses an expression; the anchors around it are not part of the result.
pub(super) fn parse(source: &str) -> Result<(Hir, Size), RegexError> {
    let flags = Flags { fold_case: false, multi_line: false, dot_newline: true, swap_greed: false };
    let mut parser = Parser { source, at: 0, flags, groups: 0, names: HashSet::new(), ranges: 0 };
    let item = parser.alternation(0)?;
    if parser.at < source.len() {
        return Err(RegexError::new("unexpected )", source));
    }
    Ok((item.hir, item.size))
}

impl<'a> Parser<'a> {
    pub(super) fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    pub(super) fn accept(&mut self, text: &str) -> bool {
        let found = self.rest().starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    /// What is wrong is the text from `start` to here.
    pub(super) fn fail<T>(&self, why: &'static str, start: usize) -> Result<T, RegexError> {
        Err(RegexError::new(why, &self.source[start..self.at]))
    }

    fn check(&self, item: Item) -> Result<Item, RegexError> {
        if item.size.instructions > MAX_INSTRUCTIONS {
            return Err(RegexError::new("expression too large", self.source));
        }
        if item.height > MAX_HEIGHT {
            return Err(RegexError::new("expression nests too deeply", self.source));
        }
        Ok(item)
    }

    /// Parses up to a closing parenthesis or the end.
    fn alternation(&mut self, depth: usize) -> Result<Item, RegexError> {
        if depth > MAX_HEIGHT {
            return Err(RegexError::new("expression nests too deeply", self.source));
        }
        let mut alternatives = vec![self.concatenation(depth)?];
        while self.accept("|") {
            alternatives.push(self.concatenation(depth)?);
        }
        self.check(Item::join(alternatives, Hir::alternation, 1))
    }

    /// Parses up to a bar, a closing parenthesis or the end.
    fn concatenation(&mut self, depth: usize) -> Result<Item, RegexError> {
        let mut items: Vec<Item> = Vec::new();
        // Where the repetition directly before here starts.
        let mut last_repeat = None;
        while let Some(c) = self.peek() {
            let start = self.at;
            let mut repeat = None;
            match c {
                '|' | ')' => break,
                '(' => items.extend(self.group(depth)?),
                '*' | '+' | '?' => {
                    self.next();
                    let (min, max) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(&mut items, (min, max), start, last_repeat)?;
                    repeat = Some(start);
                }
                '{' => match self.counts()? {
                    None => {
                        self.next();
                        items.push(self.literal('{'));
                    }
                    Some(counts) => {
                        self.repeat(&mut items, counts, start, last_repeat)?;
                        let copies = counts.1.unwrap_or(counts.0);
                        let item = items.last_mut().expect("a repetition was just pushed");
                        item.copies = if copies == 0 { 1 } else { item.copies.saturating_mul(copies) };
                        if item.copies > MAX_REPEAT && copies >= 2 {
                            return self.fail("invalid repeat count", start);
                        }
                        repeat = Some(start);
                    }
                },
                _ => self.atom(c, &mut items)?,
            }
            last_repeat = repeat;
        }
        self.check(Item::join(items, Hir::concat, 0))
    }

    /// Parses what is neither a group nor a repetition.
    fn atom(&mut self, c: char, items: &mut Vec<Item>) -> Result<(), RegexError> {
        let hir = match c {
            '^' | '$' => {
                self.next();
                Hir::look(match (c, self.flags.multi_line) {
                    ('^', false) => Look::Start,
                    ('^', true) => Look::StartLF,
                    (_, false) => Look::End,
                    (_, true) => Look::EndLF,
                })
            }
            '.' => {
                self.next();
                Hir::dot(if self.flags.dot_newline { Dot::AnyChar } else { Dot::AnyCharExceptLF })
            }
            '[' => {
                let class = self.bracket_class()?;
                self.class(class)?
            }
            '\\' => return self.escaped_atom(items),
            c => {
                self.next();
                items.push(self.literal(c));
                return Ok(());
            }
        };
        items.push(Item::leaf(hir));
        Ok(())
    }

    fn escaped_atom(&mut self, items: &mut Vec<Item>) -> Result<(), RegexError> {
        let start = self.at;
        for (text, look) in [
            ("\\A", Look::Start),
            ("\\b", Look::WordAscii),
            ("\\B", Look::WordAsciiNegate),
            ("\\z", Look::End),
        ] {
            if self.accept(text) {
                items.push(Item::leaf(Hir::look(look)));
                return Ok(());
            }
        }
        if self.accept("\\C") {
            return self.fail("invalid escape sequence", start);
        }
        if self.accept("\\Q") {
            let (quoted, end) = match self.rest().split_once("\\E") {
                Some((quoted, _)) => (quoted, quoted.len() + 2),
                None => (self.rest(), self.rest().len()),
            };
            items.extend(quoted.chars().map(|c| self.literal(c)));
            self.at += end;
            return Ok(());
        }
        if let Some(class) = self.escaped_class()? {
            items.push(Item::leaf(self.class(class)?));
            return Ok(());
        }
        let item = match char::from_u32(self.escape()?) {
            Some(c) => self.literal(c),
            // No text has half a surrogate pair.
            None => Item::leaf(Hir::fail()),
        };
        items.push(item);
        Ok(())
    }

    fn class(&mut self, class: ClassUnicode) -> Result<Hir, RegexError> {
        self.ranges += class.ranges().len();
        if self.ranges > MAX_RANGES {
            return Err(RegexError::new("expression too large", self.source));
        }
        Ok(Hir::class(Class::Unicode(class)))
    }

    fn literal(&self, c: char) -> Item {
        // What is no letter has no cases, and finding that out takes longer than all the rest.
        let folds = !c.is_ascii() || c.is_ascii_alphabetic();
        if self.flags.fold_case && folds {
            let mut class: ClassUnicode = literal_class(c);
            class.case_fold_simple();
            return Item::leaf(Hir::class(Class::Unicode(class)));
        }
        Item::leaf(Hir::literal(c.to_string().into_bytes()))
    }

    /// Repeats the last of `items`. The operator started at `start` and was read but for a `?` behind it.
    fn repeat(
        &mut self,
        items: &mut Vec<Item>,
        (min, max): (u32, Option<u32>),
        start: usize,
        last_repeat: Option<usize>,
    ) -> Result<(), RegexError> {
        let greedy = !self.accept("?") ^ self.flags.swap_greed;
        if let Some(last) = last_repeat {
            return self.fail("invalid nested repetition operator", last);
        }
        let Some(item) = items.pop() else {
            return self.fail("missing argument to repetition operator", start);
        };
        let (height, copies, size) = (item.height + 1, item.copies, item.size.repeated(min, max));
        let hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(item.hir) });
        items.push(self.check(Item { hir, height, copies, size })?);
        Ok(())
    }

    /// Parses `{2}`, `{2,}` or `{2,5}`; `None`, and nothing read, where the brace is none of these.
    fn counts(&mut self) -> Result<Option<(u32, Option<u32>)>, RegexError> {
        let start = self.at;
        let counts = self.braces();
        match counts {
            None => {
                self.at = start;
                Ok(None)
            }
            Some((min, max)) if min > MAX_REPEAT || max.is_some_and(|max| max > MAX_REPEAT || min > max) => {
                self.fail("invalid repeat count", start)
            }
            counts => Ok(counts),
        }
    }

    fn braces(&mut self) -> Option<(u32, Option<u32>)> {
        self.accept("{");
        let min = self.integer()?;
        let max = match () {
            () if !self.accept(",") => Some(min),
            () if self.rest().starts_with('}') => None,
            () => Some(self.integer()?),
        };
        self.accept("}").then_some((min, max))
    }

    /// Digits without leading zeros; too many of them give the largest number.
    fn integer(&mut self) -> Option<u32> {
        let rest = self.rest();
        let digits = &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()];
        if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        self.at += digits.len();
        Some(digits.parse().unwrap_or(u32::MAX))
    }

    /// Parses a group; `None` for flags alone.
    fn group(&mut self, depth: usize) -> Result<Option<Item>, RegexError> {
        let outer = self.flags;
        let name = if self.rest().starts_with("(?") {
            match self.group_prefix()? {
                Prefix::Flags => return Ok(None),
                Prefix::Plain => {
                    let inner = self.inside_group(depth, outer)?;
                    return Ok(Some(inner));
                }
                Prefix::Name(name) => Some(name),
            }
        } else {
            self.accept("(");
            None
        };
        self.groups += 1;
        let index = self.groups;
        // The automaton knows a name once.
        let name = name.filter(|name| self.names.insert(name)).map(Into::into);
        let Item { hir, height, copies, size } = self.inside_group(depth, outer)?;
        let hir = Hir::capture(Capture { index, name, sub: Box::new(hir) });
        self.check(Item { hir, height: height + 1, copies, size: size.plus(2) }).map(Some)
    }

    /// Parses the inside of a group and its closing parenthesis, and restores the flags of before.
    fn inside_group(&mut self, depth: usize, outer: Flags) -> Result<Item, RegexError> {
        let item = self.alternation(depth + 1)?;
        if !self.accept(")") {
            return Err(RegexError::new("missing closing )", self.source));
        }
        self.flags = outer;
        Ok(item)
    }

    /// Parses what follows a parenthesis and a question mark, which are still to be read.
    fn group_prefix(&mut self) -> Result<Prefix<'a>, RegexError> {
        let start = self.at;
        if let Some(open) = ["(?P<", "(?<"].into_iter().find(|open| {
            // Go looks for one character more before it takes the text for a name.
            self.rest().starts_with(open) && self.rest().len() > open.len()
        }) {
            let Some(end) = self.rest().find('>') else {
                self.at = self.source.len();
                return self.fail("invalid named capture", start);
            };
            let name = &self.rest()[open.len()..end];
            self.at += end + 1;
            if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
                return self.fail("invalid named capture", start);
            }
            return Ok(Prefix::Name(name));
        }
        self.accept("(?");
        let mut flags = self.flags;
        let (mut on, mut got_flag) = (true, false);
        while let Some(c) = self.next() {
            match c {
                'i' => flags.fold_case = on,
                'm' => flags.multi_line = on,
                's' => flags.dot_newline = on,
                'U' => flags.swap_greed = on,
                '-' if on => {
                    (on, got_flag) = (false, false);
                    continue;
                }
                ':' | ')' if on || got_flag => {
                    self.flags = flags;
                    return Ok(if c == ':' { Prefix::Plain } else { Prefix::Flags });
                }
                _ => break,
            }
            got_flag = true;
        }
        self.fail("invalid or unsupported Perl syntax", start)
    }
}

/// What a group begins with.
enum Prefix<'a> {
    /// `(?i)`: no group at all.
    Flags,
    /// `(?:`, `(?i:`
    Plain,
    /// `(?P<name>`, `(?<name>`
    Name(&'a str),
}
