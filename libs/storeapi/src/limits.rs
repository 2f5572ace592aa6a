//! Limits on what a peer may send and on what one request may read.

/// Limits on one Series message of a peer.
///
/// A message over [`message_bytes`](Self::message_bytes) or [`chunk_bytes`](Self::chunk_bytes) ends that peer's stream with
/// an error. A series over [`labels`](Self::labels) is dropped with a warning. What a decoded message may take in memory is
/// limited by [`AnswerLimits`](crate::AnswerLimits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireLimits {
    /// Largest message. When it is smaller than a store's largest batch, that store cannot be read; a larger one costs memory
    /// per stream.
    pub message_bytes: usize,
    /// Limits on the labels of a series, and on label names and values.
    pub labels: LabelLimits,
    /// Largest payload of one chunk.
    pub chunk_bytes: usize,
}

impl Default for WireLimits {
    fn default() -> Self {
        Self { message_bytes: 64 << 20, labels: LabelLimits::OFF, chunk_bytes: 1 << 20 }
    }
}

/// Limits on the labels of a series, with the names that they have in the configuration of a Prometheus. Each is off by
/// default, as there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelLimits {
    /// Most labels of a series. `None`: no limit.
    pub labels: Option<usize>,
    /// Longest label name in bytes. `None`: no limit.
    pub name_bytes: Option<usize>,
    /// Longest label value in bytes. `None`: no limit.
    pub value_bytes: Option<usize>,
    /// What the names of the flags for these limits begin with, such as `--gateway`. Warnings name the flags.
    pub flags: &'static str,
}

impl Default for LabelLimits {
    fn default() -> Self {
        Self::OFF
    }
}

impl LabelLimits {
    /// No limit.
    pub const OFF: Self = Self { labels: None, name_bytes: None, value_bytes: None, flags: "" };

    /// What is wrong with a label name; `None` if it is short enough.
    pub(crate) fn name_problem(&self, name: &str) -> Option<String> {
        let (found, limit) = (name.len(), self.name_bytes.filter(|limit| name.len() > *limit)?);
        let (name, flags) = (shortened(name), self.flags);
        Some(format!(
            "label name {name:?} has {found} bytes, the limit is {limit} ({flags}.label-name-length-limit)"
        ))
    }

    /// What is wrong with a value of the label `name`; `None` if it is short enough.
    pub(crate) fn value_problem(&self, name: &str, value: &str) -> Option<String> {
        let (found, limit) = (value.len(), self.value_bytes.filter(|limit| value.len() > *limit)?);
        let (name, flags) = (shortened(name), self.flags);
        Some(format!(
            "a value of label {name:?} has {found} bytes, the limit is {limit} ({flags}.label-value-length-limit)"
        ))
    }

    /// What is wrong with the number of labels of a series; `None` if it has few enough.
    pub(crate) fn count_problem(&self, found: usize) -> Option<String> {
        let limit = self.labels.filter(|limit| found > *limit)?;
        Some(format!("it has {found} labels, the limit is {limit} ({}.label-limit)", self.flags))
    }
}

/// The begin of a text that may be of any length.
pub(crate) fn shortened(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
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
