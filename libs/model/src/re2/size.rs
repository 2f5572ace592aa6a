//! How large the matcher for an expression becomes.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Estimated size of the machines for an expression.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegexSize {
    /// Instructions of a program over characters, counted as Go counts them.
    pub(super) instructions: u64,
    /// States of an automaton over bytes, estimated.
    pub(super) states: u64,
}

impl RegexSize {
    /// The size of a literal, a class or an assertion.
    pub(super) fn of(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Literal(literal) => {
                let chars = str::from_utf8(&literal.0).map_or(1, |text| text.chars().count());
                Self { instructions: chars.max(1) as u64, states: literal.0.len() as u64 }
            }
            HirKind::Class(Class::Unicode(class)) if !class.is_ascii() => {
                // In UTF-8, one range of characters becomes up to a few sequences of byte ranges.
                Self { instructions: 1, states: 4 * class.ranges().len() as u64 }
            }
            _ => Self { instructions: 1, states: 1 },
        }
    }

    pub(super) fn plus(self, instructions: u64) -> Self {
        let plus = |size: u64| size.saturating_add(instructions);
        Self { instructions: plus(self.instructions), states: plus(self.states) }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            instructions: self.instructions.saturating_add(other.instructions),
            states: self.states.saturating_add(other.states),
        }
    }

    pub(super) fn repeated(self, min: u32, max: Option<u32>) -> Self {
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
