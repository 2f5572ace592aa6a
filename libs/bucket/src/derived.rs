//! Ids of blocks that are made of other blocks: the same for the same work, so that work that is repeated makes no second block.

use aws_lc_rs::digest::{Context, SHA256};
use tsdb::Ulid;

/// The id of a block that is made at `millis`, the time in the id, as these texts describe: the first 80 bits of their SHA-256. The
/// boundaries between the texts are part of it.
pub fn derived_id(millis: u64, texts: &[&str]) -> Ulid {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_le_bytes());
        context.update(text.as_bytes());
    }
    let mut random = [0; 16];
    random[6..].copy_from_slice(&context.finish().as_ref()[..10]);
    Ulid::from_parts(millis, u128::from_be_bytes(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_work_has_equal_ids_and_the_boundaries_of_texts_count() {
        let id = derived_id(5, &["ab", "c"]);
        assert_eq!(id, derived_id(5, &["ab", "c"]));
        assert_eq!(id.timestamp_ms(), 5);
        for other in [derived_id(6, &["ab", "c"]), derived_id(5, &["a", "bc"]), derived_id(5, &["abc"])] {
            assert_ne!(id, other);
        }
    }
}
