//! The mistakes of a file.

use std::{cell::RefCell, fmt};

/// One mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line in the file, from 1; `None` where the mistake has no line.
    pub line: Option<u64>,
    /// Path of the field, such as `targets[0].name`; empty for the file as a whole.
    pub field: String,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.text)
    }
}

/// Collects the mistakes of one file.
#[derive(Debug, Default)]
pub struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    /// Notes a mistake; `field` is its path.
    pub fn add(&self, line: Option<u64>, field: impl Into<String>, text: impl Into<String>) {
        self.0.borrow_mut().push(Mistake { line, field: field.into(), text: text.into() });
    }

    /// All mistakes, in the order of the file.
    pub fn into_sorted(self) -> Vec<Mistake> {
        let mut mistakes = self.0.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }
}
