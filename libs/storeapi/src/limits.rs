//! Budgets: what a peer may send us, and what one request may take.

/// What one Series message of a peer may hold. A message beyond it ends that peer's stream with an error.
///
/// A decoded message never takes more than `1 MiB + 10 x` its size on the wire, whatever is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireLimits {
    /// Largest message. Smaller than a store's largest batch refuses that store; larger costs memory per stream.
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

/// What one Series request may take from a server (`--store.limits.*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most series in one answer; past it the answer ends with an error. `None`: no limit.
    pub series: Option<u64>,
    /// Most samples in one answer, counted as 120 a chunk. `None`: no limit.
    pub samples: Option<u64>,
}
