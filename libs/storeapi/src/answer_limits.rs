//! What the answer of a peer may take in memory.

use std::sync::{Arc, OnceLock};

use budget::{Budget, LimitError};
use compression::MessageMemory;
use mesh::{ChannelError, StreamWindow};
use tonic::{Code, Status};

use crate::StoreError;
use crate::transit::Transit;

/// What the answer to one request may take in memory. It is checked before an answer is decoded, because a small message can
/// become a large structure.
#[derive(Clone, Debug)]
pub struct AnswerLimits {
    bytes: usize,
    flag: &'static str,
    budget: Option<Budget>,
    window: StreamWindow,
    transit: Transit,
    refused: Arc<OnceLock<LimitError>>,
}

/// An answer would take too much memory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerTooLarge {
    #[error(
        "answer would take {needed} bytes of memory, the limit for one store is {limit}{flag}; select fewer series or labels"
    )]
    Store { needed: usize, limit: usize, flag: String },
    #[error(transparent)]
    Budget(LimitError),
}

impl Default for AnswerLimits {
    /// 256 MiB, without a budget.
    fn default() -> Self {
        Self::new(256 << 20, "")
    }
}

impl AnswerLimits {
    /// At most `bytes` for one message of a Series answer, and for every other answer as a whole. `flag` sets this limit.
    pub fn new(bytes: usize, flag: &'static str) -> Self {
        Self {
            bytes,
            flag,
            budget: None,
            window: StreamWindow::Large,
            transit: Transit::default(),
            refused: Arc::default(),
        }
    }

    /// The same limits, and what `budget` has left. They are then for one answer.
    pub fn with_budget(self, budget: &Budget) -> Self {
        let transit = Transit::new(budget);
        Self { budget: Some(budget.clone()), transit, refused: Arc::default(), ..self }
    }

    /// The same limits, with this window for the stream.
    pub fn with_window(self, window: StreamWindow) -> Self {
        Self { window, ..self }
    }

    /// The error of the budget, if it is the cause why an answer was rejected.
    pub fn refusal(&self) -> Option<&LimitError> {
        self.refused.get()
    }

    /// The window of the stream.
    pub(crate) fn window(&self) -> StreamWindow {
        self.window
    }

    /// Largest message. It is received whole before it is checked.
    pub(crate) fn message_bytes(&self) -> usize {
        self.bytes
    }

    /// The memory of messages of at most `most` bytes while they are received.
    pub(crate) fn message_memory(&self, most: usize) -> MessageMemory {
        let limits = self.clone();
        let (most, source) = if most < self.bytes { (most, "") } else { (self.bytes, self.flag) };
        MessageMemory::new(most, source, move |bytes| {
            limits.transit.grow_to(bytes).map_err(|error| {
                let _ = limits.refused.set(error.clone());
                Status::resource_exhausted(error.to_string())
            })
        })
    }

    /// A message was received. From here on, its reader accounts for its memory.
    pub(crate) fn received(&self) {
        self.transit.received();
    }

    /// The error of a request with these limits. gRPC rejects a message that is too large before this crate sees it.
    pub(crate) fn error(&self, status: Status) -> StoreError {
        if status.code() != Code::OutOfRange || ChannelError::is_cause_of(&status) {
            return status.into();
        }
        let flag = if self.flag.is_empty() { String::new() } else { format!(" ({})", self.flag) };
        StoreError::limit(format!(
            "a message of its answer is too large, the limit for one store is {}{flag}; select fewer series or labels",
            self.bytes
        ))
    }

    /// Checks an answer, or a message of it, that takes `bytes` when it is decoded. The caller reserves them afterwards.
    pub(crate) fn admit(&self, bytes: usize) -> Result<(), AnswerTooLarge> {
        if bytes > self.bytes {
            let flag = if self.flag.is_empty() { String::new() } else { format!(" ({})", self.flag) };
            return Err(AnswerTooLarge::Store { needed: bytes, limit: self.bytes, flag });
        }
        let Some(budget) = &self.budget else { return Ok(()) };
        budget.check_room(bytes as u64).map_err(|error| {
            let _ = self.refused.set(error.clone());
            AnswerTooLarge::Budget(error)
        })
    }
}
