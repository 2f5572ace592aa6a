//! The messages in a body: a flag, a length and the content of each.

use bytes::{Buf, Bytes, BytesMut};
use tonic::Status;

use crate::memory::MessageMemory;

/// Flag and length before each message.
pub(crate) const HEADER_BYTES: usize = 5;

/// A message as it is on the wire.
pub(crate) struct WireMessage {
    pub(crate) compressed: bool,
    /// Header and content.
    pub(crate) bytes: Bytes,
}

impl WireMessage {
    pub(crate) fn content(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }
}

/// Collects the bytes of a body and cuts them into messages.
#[derive(Default)]
pub(crate) struct MessageBuffer {
    bytes: BytesMut,
}

impl MessageBuffer {
    pub(crate) fn push(&mut self, data: Bytes) {
        if self.bytes.is_empty() {
            // Copies only what others still read.
            self.bytes = data.into();
        } else {
            self.bytes.extend_from_slice(&data);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next message; `None` if it is not complete yet.
    ///
    /// # Errors
    /// Its content is larger than `memory` allows, or the flag is neither 0 nor 1.
    pub(crate) fn next(&mut self, memory: &MessageMemory) -> Result<Option<WireMessage>, Status> {
        let Some(mut header) = self.bytes.get(..HEADER_BYTES) else { return Ok(None) };
        let flag = header.get_u8();
        let length = header.get_u32() as usize;
        if flag > 1 {
            return Err(Status::internal(format!(
                "a message begins with {flag}, expected 0 or 1: it is not gRPC"
            )));
        }
        if length > memory.max_message_bytes() {
            return Err(memory.too_large(&format!("has {length} bytes")));
        }
        // Not what is only announced.
        memory.grow_to(self.bytes.len())?;
        if self.bytes.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let bytes = self.bytes.split_to(HEADER_BYTES + length).freeze();
        Ok(Some(WireMessage { compressed: flag == 1, bytes }))
    }
}
