//! A message while it is decompressed.

use std::io::Read;

use tonic::Status;

use crate::error::DecompressError;
use crate::messages::HEADER_BYTES;

/// Bytes by which the buffer grows at least.
const STEP_BYTES: usize = 16 << 10;

/// A plain message, which grows within its limit and only with permission. It begins with room for its header.
pub(crate) struct PlainMessage<F> {
    bytes: Vec<u8>,
    /// Largest length with header.
    most: usize,
    permit: F,
}

impl<F: Fn(usize) -> Result<(), Status>> PlainMessage<F> {
    /// An empty message, which may grow to `limit` bytes. `permit` is called with the length of the buffer before it grows.
    pub(crate) fn new(limit: usize, permit: F) -> Self {
        Self { bytes: vec![0; HEADER_BYTES], most: limit.saturating_add(HEADER_BYTES), permit }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Makes room for `bytes` more and returns the buffer, to which they have to be appended.
    ///
    /// # Errors
    /// The limit or the memory is exceeded.
    pub(crate) fn room(&mut self, bytes: usize) -> Result<&mut Vec<u8>, DecompressError> {
        if bytes > self.most - self.bytes.len() {
            return Err(DecompressError::TooLarge);
        }
        if bytes > self.bytes.capacity() - self.bytes.len() {
            // Doubling, so that few bytes are copied.
            let more = bytes.max(STEP_BYTES).max(self.bytes.len()).min(self.most - self.bytes.len());
            (self.permit)(self.bytes.len() + more).map_err(DecompressError::Refused)?;
            self.bytes.reserve_exact(more);
        }
        Ok(&mut self.bytes)
    }

    /// Appends all that `reader` returns.
    pub(crate) fn read_from(&mut self, mut reader: impl Read) -> Result<(), DecompressError> {
        loop {
            let left = self.most - self.bytes.len();
            if left == 0 {
                return match reader.read(&mut [0])? {
                    0 => Ok(()),
                    _ => Err(DecompressError::TooLarge),
                };
            }
            let step = left.min(STEP_BYTES);
            let room = self.room(step)?;
            let read = reader.by_ref().take(step as u64).read_to_end(room)?;
            if read < step {
                return Ok(());
            }
        }
    }
}
