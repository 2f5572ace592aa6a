//! Which series `limit_ratio` chooses.

use model::Labels;

use crate::syntax::ast::AggregateOp;

/// Maps the hash of a series' labels to a number between 0 and 1, so that a ratio always chooses the same series.
pub(super) struct RatioSample {
    offset: f64,
}

impl RatioSample {
    pub(super) fn new(op: AggregateOp, labels: &Labels) -> Self {
        let offset =
            if op == AggregateOp::LimitRatio { labels_hash(labels) as f64 / u64::MAX as f64 } else { 0.0 };
        Self { offset }
    }

    /// Whether the series is in the first `ratio` of all series, or in the last for a negative ratio.
    #[inline]
    pub(super) fn is_within(&self, ratio: f64) -> bool {
        let ratio = ratio.clamp(-1.0, 1.0);
        if ratio >= 0.0 { self.offset < ratio } else { self.offset >= 1.0 + ratio }
    }
}

/// The hash of Prometheus' `labels.Labels`: xxHash64 over names and values, each after its length (one byte, or 255 and
/// three bytes, the least significant first).
fn labels_hash(labels: &Labels) -> u64 {
    let mut hash = xxhash_rust::xxh64::Xxh64::new(0);
    for label in labels {
        for text in [label.name, label.value] {
            let length = text.len();
            match u8::try_from(length) {
                Ok(short) if short < 255 => hash.update(&[short]),
                _ => hash.update(&[255, length as u8, (length >> 8) as u8, (length >> 16) as u8]),
            }
            hash.update(text.as_bytes());
        }
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_prometheus() {
        // labels.FromStrings("foo", "bar").Hash() with the default string encoding.
        let labels = Labels::from_pairs([("foo", "bar")]).unwrap();
        assert_eq!(labels_hash(&labels), xxhash_rust::xxh64::xxh64(b"\x03foo\x03bar", 0));
    }
}
