//! What is limited, by how much, and in which words a limit is reported.

use std::fmt;

/// How much may be used of each resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetLimits {
    /// Most samples that may be decoded: by one consumer in its whole life, or by all consumers that run at one time.
    pub samples: u64,
    /// Most bytes that may be reserved at one time.
    pub bytes: u64,
}

impl BudgetLimits {
    /// No limit on anything.
    pub const UNLIMITED: Self = Self { samples: u64::MAX, bytes: u64::MAX };

    /// At most `bytes` at one time, and any number of samples.
    pub const fn bytes(bytes: u64) -> Self {
        Self { bytes, ..Self::UNLIMITED }
    }
}

/// Which limit is meant: the resource, and whether it is one consumer's limit or that of all consumers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKind {
    /// `max_samples`: the samples of one consumer.
    Samples,
    /// `max_bytes`: the bytes of one consumer.
    Bytes,
    /// `max_total_samples`: the samples of all consumers.
    TotalSamples,
    /// `max_total_bytes`: the bytes of all consumers.
    TotalBytes,
}

impl LimitKind {
    /// The limit's name in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Samples => "max_samples",
            Self::Bytes => "max_bytes",
            Self::TotalSamples => "max_total_samples",
            Self::TotalBytes => "max_total_bytes",
        }
    }

    /// What is counted: `samples` or `bytes`.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Samples | Self::TotalSamples => "samples",
            Self::Bytes | Self::TotalBytes => "bytes",
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What draws on a [`TotalBudget`](crate::TotalBudget), in the words of error messages.
///
/// ```
/// use budget::Consumers;
///
/// static COMPACTIONS: Consumers = Consumers {
///     one: "compaction",
///     many: "compactions",
///     advice: "raise --compact.max-memory",
/// };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumers {
    /// One of them, such as `query`.
    pub one: &'static str,
    /// Several of them, such as `queries`.
    pub many: &'static str,
    /// How to need less: the end of a sentence, in the imperative, such as `select fewer series`.
    pub advice: &'static str,
}
