//! Character classes: in brackets, by name, by Unicode property.

use regex_syntax::hir::{Class, ClassUnicode, ClassUnicodeRange, HirKind};

use crate::re2::error::RegexError;
use crate::re2::scanner::RegexScanner;

const BAD_RANGE: &str = "invalid character class range";

/// The class of one character.
pub(super) fn literal_class(c: char) -> ClassUnicode {
    ClassUnicode::new([ClassUnicodeRange::new(c, c)])
}

/// The class with the characters of all `ranges`; both ends of each range are included.
fn ranges(ranges: &[(char, char)]) -> ClassUnicode {
    ClassUnicode::new(ranges.iter().map(|(lo, hi)| ClassUnicodeRange::new(*lo, *hi)))
}

/// Adds the characters from `lo` to `hi`, both included. Skips surrogates, which no text contains.
fn push_range(class: &mut ClassUnicode, lo: u32, hi: u32) {
    let lo = if (0xd800..=0xdfff).contains(&lo) { 0xe000 } else { lo };
    let hi = if (0xd800..=0xdfff).contains(&hi) { 0xd7ff } else { hi };
    if let (true, Some(lo), Some(hi)) = (lo <= hi, char::from_u32(lo), char::from_u32(hi)) {
        class.push(ClassUnicodeRange::new(lo, hi));
    }
}

/// `\d`, `\s`, `\w`: ASCII only.
fn perl_class(letter: char) -> Option<ClassUnicode> {
    Some(match letter {
        'd' => ranges(&[('0', '9')]),
        's' => ranges(&[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')]),
        'w' => ranges(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        _ => return None,
    })
}

/// `[:alpha:]` and the other POSIX classes: ASCII only.
fn posix_class(name: &str) -> Option<ClassUnicode> {
    Some(match name {
        "alnum" => ranges(&[('0', '9'), ('A', 'Z'), ('a', 'z')]),
        "alpha" => ranges(&[('A', 'Z'), ('a', 'z')]),
        "ascii" => ranges(&[('\0', '\x7f')]),
        "blank" => ranges(&[('\t', '\t'), (' ', ' ')]),
        "cntrl" => ranges(&[('\0', '\x1f'), ('\x7f', '\x7f')]),
        "digit" => ranges(&[('0', '9')]),
        "graph" => ranges(&[('!', '~')]),
        "lower" => ranges(&[('a', 'z')]),
        "print" => ranges(&[(' ', '~')]),
        "punct" => ranges(&[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
        "space" => ranges(&[('\t', '\r'), (' ', ' ')]),
        "upper" => ranges(&[('A', 'Z')]),
        "word" => ranges(&[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')]),
        "xdigit" => ranges(&[('0', '9'), ('A', 'F'), ('a', 'f')]),
        _ => return None,
    })
}

/// The characters of a general category or script. The name may be written in any case and with `_`, `-` or
/// spaces.
fn unicode_class(name: &str) -> Option<ClassUnicode> {
    // Rust's parser has the tables and accepts the spellings. It also accepts other kinds of properties,
    // which RE2 rejects.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ');
    let squeezed: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if name.is_empty() || !name.chars().all(plain) || squeezed.starts_with("is") {
        return None;
    }
    ["gc", "sc"].into_iter().find_map(|property| {
        let hir = regex_syntax::parse(&format!("\\p{{{property}={squeezed}}}")).ok()?;
        match hir.into_kind() {
            HirKind::Class(Class::Unicode(class)) => Some(class),
            _ => None,
        }
    })
}

/// `class` with every case of its letters if `fold_case`, then its complement if `negated`.
fn with_flags(mut class: ClassUnicode, fold_case: bool, negated: bool) -> ClassUnicode {
    if fold_case {
        class.case_fold_simple();
    }
    if negated {
        class.negate();
    }
    class
}

impl RegexScanner<'_> {
    /// Parses `\d`, `\pL` and similar classes. Returns `None` and reads nothing if there is no such class
    /// here.
    pub(super) fn escaped_class(&mut self, fold_case: bool) -> Result<Option<ClassUnicode>, RegexError> {
        let mut chars = self.rest().chars();
        let (Some('\\'), Some(letter)) = (chars.next(), chars.next()) else {
            return Ok(None);
        };
        let negated = letter.is_ascii_uppercase();
        if letter.eq_ignore_ascii_case(&'p') {
            return self.property(fold_case, negated).map(Some);
        }
        let Some(class) = perl_class(letter.to_ascii_lowercase()) else {
            return Ok(None);
        };
        self.at += 2;
        Ok(Some(with_flags(class, fold_case, negated)))
    }

    /// Parses `\pL`, `\p{Greek}`, `\p{^Greek}`.
    fn property(&mut self, fold_case: bool, mut negated: bool) -> Result<ClassUnicode, RegexError> {
        let start = self.at;
        self.at += 2;
        let name = if self.accept("{") {
            let Some(end) = self.rest().find('}') else {
                self.at = self.source.len();
                return self.fail(BAD_RANGE, start);
            };
            let name = &self.rest()[..end];
            self.at += end + 1;
            name
        } else {
            let from = self.at;
            self.next();
            &self.source[from..self.at]
        };
        let name = match name.strip_prefix('^') {
            Some(name) => {
                negated = !negated;
                name
            }
            None => name,
        };
        match unicode_class(name) {
            Some(class) => Ok(with_flags(class, fold_case, negated)),
            None => self.fail(BAD_RANGE, start),
        }
    }

    /// Parses `[:alpha:]` or `[:^alpha:]`. Returns `None` and reads nothing if there is no such class here.
    fn named_class(&mut self, fold_case: bool) -> Result<Option<ClassUnicode>, RegexError> {
        let start = self.at;
        let Some(end) = self.rest().strip_prefix("[:").and_then(|rest| rest.find(":]")) else {
            return Ok(None);
        };
        let name = &self.rest()[2..2 + end];
        self.at += end + 4;
        let (name, negated) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
        match posix_class(name) {
            Some(class) => Ok(Some(with_flags(class, fold_case, negated))),
            None => self.fail(BAD_RANGE, start),
        }
    }

    /// Parses a class in brackets.
    pub(super) fn bracket_class(&mut self, fold_case: bool) -> Result<ClassUnicode, RegexError> {
        let start = self.at;
        self.accept("[");
        let negated = self.accept("^");
        let mut class = ClassUnicode::empty();
        let mut first = true;
        while first || !self.rest().starts_with(']') {
            first = false;
            if let Some(named) = self.named_class(fold_case)? {
                class.union(&named);
                continue;
            }
            if let Some(escaped) = self.escaped_class(fold_case)? {
                class.union(&escaped);
                continue;
            }
            let from = self.at;
            let lo = self.class_char(start)?;
            let mut hi = lo;
            // In `[a-]` the minus is a character of the class.
            let mut after_hi = self.rest().chars();
            if after_hi.next() == Some('-') && after_hi.next().is_some_and(|c| c != ']') {
                self.accept("-");
                hi = self.class_char(start)?;
                if hi < lo {
                    return self.fail(BAD_RANGE, from);
                }
            }
            let mut range = ClassUnicode::empty();
            push_range(&mut range, lo, hi);
            if fold_case {
                range.case_fold_simple();
            }
            for range in range.iter() {
                class.push(*range);
            }
        }
        self.accept("]");
        if negated {
            class.negate();
        }
        Ok(class)
    }

    /// Parses one character of the class that starts at `start`.
    fn class_char(&mut self, start: usize) -> Result<u32, RegexError> {
        match self.peek() {
            None => Err(RegexError::new("missing closing ]", &self.source[start..])),
            Some('\\') => self.escape(),
            Some(c) => {
                self.next();
                Ok(u32::from(c))
            }
        }
    }
}
