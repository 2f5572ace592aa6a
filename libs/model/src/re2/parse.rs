//! Parses the structure of an expression: alternatives, sequences, repetitions, groups and flags.
//!
//! Follows Go's `regexp/syntax/parse.go` with the flags `Perl | DotNL`, including its oddities: a flag group
//! such as `(?i)` adds nothing to the sequence, so a `*` after it repeats the item before it.

use std::collections::HashSet;

use regex_syntax::hir::{Capture, Class, ClassUnicode, Dot, Hir, Look, Repetition};

use crate::re2::class::literal_class;
use crate::re2::error::RegexError;
use crate::re2::scanner::RegexScanner;
use crate::re2::size::RegexSize;

/// Deepest nesting of groups and repetitions, as in Go.
const MAX_HEIGHT: usize = 250;

/// Largest count in braces, and largest product of nested counts.
const MAX_REPEAT: u32 = 1000;

/// Most instructions that Go accepts: 128 MiB of them.
const MAX_INSTRUCTIONS: u64 = (128 << 20) / 40;

/// Most character ranges in all classes together. Go accepts 16 times as many (26,000 times `\pL`); parsing
/// that many would take seconds here.
const MAX_RANGES: usize = 1 << 20;

/// The flags that apply to the rest of a group.
#[derive(Clone, Copy)]
struct RegexFlags {
    /// `i`: letters match in any case.
    fold_case: bool,
    /// `m`: `^` and `$` match at line breaks.
    multi_line: bool,
    /// `s`: a dot matches newline.
    dot_newline: bool,
    /// `U`: repetitions prefer few matches, and many if followed by `?`.
    swap_greed: bool,
}

/// A parsed part of the expression.
struct SubExpr {
    hir: Hir,
    /// Depth of the tree.
    height: usize,
    /// The largest product of nested counts.
    copies: u32,
    size: RegexSize,
}

impl SubExpr {
    fn leaf(hir: Hir) -> Self {
        Self { size: RegexSize::of(&hir), hir, height: 1, copies: 1 }
    }

    /// Joins `items` into one item with `join`. `forks` is the number of extra instructions between two
    /// neighbours.
    fn join(mut items: Vec<Self>, join: fn(Vec<Hir>) -> Hir, forks: u64) -> Self {
        if items.len() == 1
            && let Some(only) = items.pop()
        {
            return only;
        }
        let height = 1 + items.iter().map(|item| item.height).max().unwrap_or(0);
        let copies = items.iter().map(|item| item.copies).max().unwrap_or(1);
        // An alternation has one extra instruction for each part except the last.
        let mut size =
            RegexSize { instructions: 0, states: 0 }.plus(forks * items.len().saturating_sub(1) as u64);
        items.iter().for_each(|item| size = size.and(item.size));
        Self { hir: join(items.into_iter().map(|item| item.hir).collect()), height, copies, size }
    }
}

/// Parses an expression from left to right.
struct RegexParser<'a> {
    scanner: RegexScanner<'a>,
    flags: RegexFlags,
    /// Number of groups so far.
    groups: u32,
    names: HashSet<&'a str>,
    /// Number of character ranges in all classes so far.
    ranges: usize,
}

/// Parses an expression. The result does not include the anchors around it.
pub(super) fn parse(source: &str) -> Result<(Hir, RegexSize), RegexError> {
    let flags = RegexFlags { fold_case: false, multi_line: false, dot_newline: true, swap_greed: false };
    let scanner = RegexScanner { source, at: 0 };
    let mut parser = RegexParser { scanner, flags, groups: 0, names: HashSet::new(), ranges: 0 };
    let item = parser.alternation(0)?;
    if parser.scanner.at < source.len() {
        return Err(RegexError::new("unexpected )", source));
    }
    Ok((item.hir, item.size))
}

impl<'a> RegexParser<'a> {
    fn check(&self, item: SubExpr) -> Result<SubExpr, RegexError> {
        if item.size.instructions > MAX_INSTRUCTIONS {
            return Err(RegexError::new("expression too large", self.scanner.source));
        }
        if item.height > MAX_HEIGHT {
            return Err(RegexError::new("expression nests too deeply", self.scanner.source));
        }
        Ok(item)
    }

    /// Parses up to a closing parenthesis or the end of the expression.
    fn alternation(&mut self, depth: usize) -> Result<SubExpr, RegexError> {
        if depth > MAX_HEIGHT {
            return Err(RegexError::new("expression nests too deeply", self.scanner.source));
        }
        let mut alternatives = vec![self.concatenation(depth)?];
        while self.scanner.accept("|") {
            alternatives.push(self.concatenation(depth)?);
        }
        self.check(SubExpr::join(alternatives, Hir::alternation, 1))
    }

    /// Parses up to a `|`, a closing parenthesis or the end of the expression.
    fn concatenation(&mut self, depth: usize) -> Result<SubExpr, RegexError> {
        let mut items: Vec<SubExpr> = Vec::new();
        // Where the repetition operator directly before this position starts.
        let mut last_repeat = None;
        while let Some(c) = self.scanner.peek() {
            let start = self.scanner.at;
            let mut repeat = None;
            match c {
                '|' | ')' => break,
                '(' => items.extend(self.group(depth)?),
                '*' | '+' | '?' => {
                    self.scanner.next();
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
                        self.scanner.next();
                        items.push(self.literal('{'));
                    }
                    Some(counts) => {
                        self.repeat(&mut items, counts, start, last_repeat)?;
                        let copies = counts.1.unwrap_or(counts.0);
                        let item = items.last_mut().expect("a repetition was just pushed");
                        item.copies = if copies == 0 { 1 } else { item.copies.saturating_mul(copies) };
                        if item.copies > MAX_REPEAT && copies >= 2 {
                            return self.scanner.fail("invalid repeat count", start);
                        }
                        repeat = Some(start);
                    }
                },
                _ => self.atom(c, &mut items)?,
            }
            last_repeat = repeat;
        }
        self.check(SubExpr::join(items, Hir::concat, 0))
    }

    /// Parses an item that is neither a group nor a repetition operator.
    fn atom(&mut self, c: char, items: &mut Vec<SubExpr>) -> Result<(), RegexError> {
        let hir = match c {
            '^' | '$' => {
                self.scanner.next();
                Hir::look(match (c, self.flags.multi_line) {
                    ('^', false) => Look::Start,
                    ('^', true) => Look::StartLF,
                    (_, false) => Look::End,
                    (_, true) => Look::EndLF,
                })
            }
            '.' => {
                self.scanner.next();
                Hir::dot(if self.flags.dot_newline { Dot::AnyChar } else { Dot::AnyCharExceptLF })
            }
            '[' => {
                let class = self.scanner.bracket_class(self.flags.fold_case)?;
                self.class(class)?
            }
            '\\' => return self.escaped_atom(items),
            c => {
                self.scanner.next();
                items.push(self.literal(c));
                return Ok(());
            }
        };
        items.push(SubExpr::leaf(hir));
        Ok(())
    }

    fn escaped_atom(&mut self, items: &mut Vec<SubExpr>) -> Result<(), RegexError> {
        let start = self.scanner.at;
        for (text, look) in [
            ("\\A", Look::Start),
            ("\\b", Look::WordAscii),
            ("\\B", Look::WordAsciiNegate),
            ("\\z", Look::End),
        ] {
            if self.scanner.accept(text) {
                items.push(SubExpr::leaf(Hir::look(look)));
                return Ok(());
            }
        }
        if self.scanner.accept("\\C") {
            return self.scanner.fail("invalid escape sequence", start);
        }
        if self.scanner.accept("\\Q") {
            let (quoted, end) = match self.scanner.rest().split_once("\\E") {
                Some((quoted, _)) => (quoted, quoted.len() + 2),
                None => (self.scanner.rest(), self.scanner.rest().len()),
            };
            items.extend(quoted.chars().map(|c| self.literal(c)));
            self.scanner.at += end;
            return Ok(());
        }
        if let Some(class) = self.scanner.escaped_class(self.flags.fold_case)? {
            items.push(SubExpr::leaf(self.class(class)?));
            return Ok(());
        }
        let item = match char::from_u32(self.scanner.escape()?) {
            Some(c) => self.literal(c),
            // A text never contains one half of a surrogate pair.
            None => SubExpr::leaf(Hir::fail()),
        };
        items.push(item);
        Ok(())
    }

    fn class(&mut self, class: ClassUnicode) -> Result<Hir, RegexError> {
        self.ranges += class.ranges().len();
        if self.ranges > MAX_RANGES {
            return Err(RegexError::new("expression too large", self.scanner.source));
        }
        Ok(Hir::class(Class::Unicode(class)))
    }

    fn literal(&self, c: char) -> SubExpr {
        // Only letters have cases. Checking this first saves the case folding, which takes longer than
        // everything else.
        let folds = !c.is_ascii() || c.is_ascii_alphabetic();
        if self.flags.fold_case && folds {
            let mut class: ClassUnicode = literal_class(c);
            class.case_fold_simple();
            return SubExpr::leaf(Hir::class(Class::Unicode(class)));
        }
        SubExpr::leaf(Hir::literal(c.to_string().into_bytes()))
    }

    /// Repeats the last of `items`. The operator started at `start`; it was read except for a `?` that may
    /// follow.
    fn repeat(
        &mut self,
        items: &mut Vec<SubExpr>,
        (min, max): (u32, Option<u32>),
        start: usize,
        last_repeat: Option<usize>,
    ) -> Result<(), RegexError> {
        let greedy = !self.scanner.accept("?") ^ self.flags.swap_greed;
        if let Some(last) = last_repeat {
            return self.scanner.fail("invalid nested repetition operator", last);
        }
        let Some(item) = items.pop() else {
            return self.scanner.fail("missing argument to repetition operator", start);
        };
        let (height, copies, size) = (item.height + 1, item.copies, item.size.repeated(min, max));
        let hir = Hir::repetition(Repetition { min, max, greedy, sub: Box::new(item.hir) });
        items.push(self.check(SubExpr { hir, height, copies, size })?);
        Ok(())
    }

    /// Parses `{2}`, `{2,}` or `{2,5}`. Returns `None` and reads nothing if the brace starts none of these.
    fn counts(&mut self) -> Result<Option<(u32, Option<u32>)>, RegexError> {
        let start = self.scanner.at;
        let counts = self.braces();
        match counts {
            None => {
                self.scanner.at = start;
                Ok(None)
            }
            Some((min, max)) if min > MAX_REPEAT || max.is_some_and(|max| max > MAX_REPEAT || min > max) => {
                self.scanner.fail("invalid repeat count", start)
            }
            counts => Ok(counts),
        }
    }

    fn braces(&mut self) -> Option<(u32, Option<u32>)> {
        self.scanner.accept("{");
        let min = self.integer()?;
        let max = match () {
            () if !self.scanner.accept(",") => Some(min),
            () if self.scanner.rest().starts_with('}') => None,
            () => Some(self.integer()?),
        };
        self.scanner.accept("}").then_some((min, max))
    }

    /// Parses digits without leading zeros. A number that is too large becomes the largest number.
    fn integer(&mut self) -> Option<u32> {
        let rest = self.scanner.rest();
        let digits = &rest[..rest.bytes().take_while(u8::is_ascii_digit).count()];
        if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        self.scanner.at += digits.len();
        Some(digits.parse().unwrap_or(u32::MAX))
    }

    /// Parses a group. Returns `None` for a group that only sets flags.
    fn group(&mut self, depth: usize) -> Result<Option<SubExpr>, RegexError> {
        let outer = self.flags;
        let name = if self.scanner.rest().starts_with("(?") {
            match self.group_prefix()? {
                Prefix::Flags => return Ok(None),
                Prefix::Plain => {
                    let inner = self.inside_group(depth, outer)?;
                    return Ok(Some(inner));
                }
                Prefix::Name(name) => Some(name),
            }
        } else {
            self.scanner.accept("(");
            None
        };
        self.groups += 1;
        let index = self.groups;
        // The automaton accepts each name once.
        let name = name.filter(|name| self.names.insert(name)).map(Into::into);
        let SubExpr { hir, height, copies, size } = self.inside_group(depth, outer)?;
        let hir = Hir::capture(Capture { index, name, sub: Box::new(hir) });
        self.check(SubExpr { hir, height: height + 1, copies, size: size.plus(2) }).map(Some)
    }

    /// Parses the inside of a group and its closing parenthesis, then restores the flags from before the
    /// group.
    fn inside_group(&mut self, depth: usize, outer: RegexFlags) -> Result<SubExpr, RegexError> {
        let item = self.alternation(depth + 1)?;
        if !self.scanner.accept(")") {
            return Err(RegexError::new("missing closing )", self.scanner.source));
        }
        self.flags = outer;
        Ok(item)
    }

    /// Parses the `(?` at the start of a group and what belongs to it.
    fn group_prefix(&mut self) -> Result<Prefix<'a>, RegexError> {
        let start = self.scanner.at;
        if let Some(open) = ["(?P<", "(?<"].into_iter().find(|open| {
            // Go treats this as a name only if at least one more character follows.
            self.scanner.rest().starts_with(open) && self.scanner.rest().len() > open.len()
        }) {
            let Some(end) = self.scanner.rest().find('>') else {
                self.scanner.at = self.scanner.source.len();
                return self.scanner.fail("invalid named capture", start);
            };
            let name = &self.scanner.rest()[open.len()..end];
            self.scanner.at += end + 1;
            if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
                return self.scanner.fail("invalid named capture", start);
            }
            return Ok(Prefix::Name(name));
        }
        self.scanner.accept("(?");
        let mut flags = self.flags;
        let (mut on, mut got_flag) = (true, false);
        while let Some(c) = self.scanner.next() {
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
        self.scanner.fail("invalid or unsupported Perl syntax", start)
    }
}

/// How a group begins.
enum Prefix<'a> {
    /// `(?i)`: sets flags and is not a group.
    Flags,
    /// `(?:`, `(?i:`
    Plain,
    /// `(?P<name>`, `(?<name>`
    Name(&'a str),
}
