//! Limits on what a peer may send and on what one request may read.

/// Limits on one Series message of a peer. A larger message ends that peer's stream with an error.
///
/// A decoded message takes at most `1 MiB + 10 x` its size on the wire, whatever it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireLimits {
    /// Largest message. When it is smaller than a store's largest batch, that store cannot be read; a larger one costs memory
    /// per stream.
    pub message_bytes: usize,
    /// Most labels of one series.
    pub labels: usize,
    /// Longest label name.
    pub name_bytes: usize,
    /// Longest label value.
    pub value_bytes: usize,
    /// Largest label set, names and values together.
    pub set_bytes: usize,
    /// Largest payload of one chunk.
    pub chunk_bytes: usize,
}

impl Default for WireLimits {
    fn default() -> Self {
        Self {
            message_bytes: 64 << 20,
            labels: 128,
            name_bytes: 1 << 10,
            value_bytes: 16 << 10,
            set_bytes: 64 << 10,
            chunk_bytes: 1 << 20,
        }
    }
}

/// Limits on one Series request of a server (`--store.limits.*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most series in one answer; an answer with more ends with an error. `None`: no limit.
    pub series: Option<u64>,
    /// Most samples in one answer, where each chunk counts as 120. `None`: no limit.
    pub samples: Option<u64>,
}
