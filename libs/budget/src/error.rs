//! Why work has to stop.

use std::fmt;

use crate::{Consumers, LimitKind};

/// Why work has to stop before it is done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The work needs more than a limit allows.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The time for the work is over: [`Interrupt::time_out`](crate::Interrupt::time_out) was called.
    #[error("timed out")]
    TimedOut,
    /// The caller does not need the result any more: [`Interrupt::cancel`](crate::Interrupt::cancel) was called.
    #[error("cancelled")]
    Cancelled,
}

/// A limit that work would exceed: which one, how large it is, and how much the work needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitError {
    /// Which limit it is.
    pub kind: LimitKind,
    /// The limit, in the [unit](LimitKind::unit) of `kind`.
    pub limit: u64,
    /// What the work would use with what it was refused.
    pub needed: u64,
    /// What other work uses; `Some` exactly where the limit is for all work together.
    pub used_by_others: Option<u64>,
    /// The part of the work that needs so much, where one part alone does.
    pub part: Option<String>,
    /// What the work is called.
    pub consumers: &'static Consumers,
}

impl LimitError {
    /// The same error, which also names the part of the work that needs so much.
    pub fn with_part(self, part: impl Into<String>) -> Self {
        Self { part: Some(part.into()), ..self }
    }
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, limit, needed, used_by_others, part, consumers } = self;
        let Consumers { one, many, advice } = consumers;
        if let Some(part) = part {
            write!(f, "{part}: ")?;
        }
        write!(f, "{one} would use {needed} {}", kind.unit())?;
        if let Some(used) = used_by_others {
            write!(f, " while other {many} use {used}")?;
        }
        write!(f, ", more than {kind}={limit} allows; ")?;
        if used_by_others.is_some() {
            write!(f, "retry when fewer {many} run, or ")?;
        }
        f.write_str(advice)
    }
}

impl std::error::Error for LimitError {}
