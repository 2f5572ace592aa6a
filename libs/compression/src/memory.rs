//! The memory of the messages of an answer.

use std::fmt;
use std::sync::Arc;

use tonic::Status;

/// Limits and counts the memory of the messages of one answer. It is an extension of a request; without it, only the limit of
/// the layer applies.
#[derive(Clone)]
pub struct MessageMemory {
    max_message_bytes: usize,
    source: &'static str,
    grow: Arc<dyn Fn(usize) -> Result<(), Status> + Send + Sync>,
}

impl MessageMemory {
    /// Memory for messages of at most `max_message_bytes`. `source` says in errors where this limit comes from, such as
    /// ` (--flag)`. `grow` is called with the bytes that the message being received
    /// needs in all, before they are allocated, and refuses them with an error.
    pub fn new(
        max_message_bytes: usize,
        source: &'static str,
        grow: impl Fn(usize) -> Result<(), Status> + Send + Sync + 'static,
    ) -> Self {
        Self { max_message_bytes, source, grow: Arc::new(grow) }
    }

    /// Memory for messages of at most `max_message_bytes`, which nothing counts.
    pub fn uncounted(max_message_bytes: usize) -> Self {
        Self::new(max_message_bytes, "", |_| Ok(()))
    }

    /// The same memory for messages of at most `bytes`, if that is less.
    pub(crate) fn at_most(self, bytes: usize) -> Self {
        if self.max_message_bytes <= bytes {
            self
        } else {
            Self { max_message_bytes: bytes, source: "", ..self }
        }
    }

    /// Largest message, also after it is decompressed.
    pub fn max_message_bytes(&self) -> usize {
        self.max_message_bytes
    }

    /// The error of a message that is too large; `found` says how large it is.
    pub(crate) fn too_large(&self, found: &str) -> Status {
        let (limit, source) = (self.max_message_bytes, self.source);
        Status::resource_exhausted(format!(
            "a message {found}, the limit is {limit} bytes{source}; ask for less at once"
        ))
    }

    /// Counts `bytes` for the message that is being received, if it needs more than before.
    ///
    /// # Errors
    /// There is not as much memory.
    pub fn grow_to(&self, bytes: usize) -> Result<(), Status> {
        (self.grow)(bytes)
    }
}

impl fmt::Debug for MessageMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageMemory({} bytes a message)", self.max_message_bytes)
    }
}
