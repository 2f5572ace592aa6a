//! Label sets in records of the log: uvarint labels, labels x (name, value).

use model::Labels;
use tsdb::{ByteCursor, put_bytes, put_uvarint};

/// Appends a label set.
pub(crate) fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put_uvarint(out, labels.len() as u64);
    for label in labels.iter() {
        put_bytes(out, label.name.as_bytes());
        put_bytes(out, label.value.as_bytes());
    }
}

/// Reads a label set; none when bytes are missing or invalid.
pub(crate) fn parse_labels(cursor: &mut ByteCursor<'_>) -> Option<Labels> {
    let count = usize::try_from(cursor.uvarint()?).ok()?;
    // A label takes at least two bytes.
    let mut pairs = Vec::with_capacity(count.min(cursor.left() / 2));
    for _ in 0..count {
        pairs.push((std::str::from_utf8(cursor.bytes()?).ok()?, std::str::from_utf8(cursor.bytes()?).ok()?));
    }
    Labels::from_pairs(pairs).ok()
}
