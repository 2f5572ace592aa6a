//! Which producer the samples of a chunk come from.

use std::num::NonZeroU64;

use model::Labels;

/// Identifies a producer, such as one Prometheus: a hash of all its external labels, replica labels included.
///
/// Chunks of one producer have samples of the same scrapes, so chunks that overlap are united sample by sample. Chunks of
/// different producers are replicas. The hash is the one that StoreAPI uses for shards (xxHash64 over the sorted labels),
/// so that every store computes the same number for the same producer. It is no proof: a store can claim any number. That
/// gives it no new power, because a number only matters among series with equal labels, and the labels that a store may use
/// are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Producer(NonZeroU64);

impl Producer {
    /// The producer with these external labels; none without labels, which do not tell producers apart.
    pub fn of(external: &Labels) -> Option<Self> {
        if external.is_empty() {
            return None;
        }
        Self::from_number(external.shard_hash(|_| true).max(1))
    }

    /// The producer with this number; 0 means that the producer is not known.
    pub fn from_number(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// Its number, which is not 0.
    pub fn number(self) -> u64 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::labels;

    #[test]
    fn a_producer_is_all_of_its_external_labels() {
        let of = |replica| Producer::of(&labels(&[("cluster", "eu-1"), ("replica", replica)]));
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a").and_then(|producer| Producer::from_number(producer.number())), of("a"));
        assert_eq!((Producer::of(&Labels::empty()), Producer::from_number(0)), (None, None));
    }
}
