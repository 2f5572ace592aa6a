//! Names of the objects in a bucket. The layout is that of Thanos.
//!
//! ```text
//! <ULID>/meta.json               written last; without it the block does not exist yet
//! <ULID>/index
//! <ULID>/chunks/000001 ...
//! <ULID>/deletion-mark.json      and two other marks, see `marks`
//! isthmus/intent/<ULID>.json     ours: an upload of this block is running
//! isthmus/tombstones/<ULID>.json ours: series of this block that are deleted, see `deletions`
//! ```
//!
//! Thanos and this program ignore names whose first part is not a ULID.

use tsdb::Ulid;

/// The description of a block; the last object that is written, the first that is removed.
pub const META_FILE: &str = "meta.json";
/// The index of a block.
pub const INDEX_FILE: &str = "index";
/// The folder of a block's chunk segments.
pub const CHUNKS_DIR: &str = "chunks";
/// The file of deleted intervals. This program uploads none; other programs may.
pub const TOMBSTONES_FILE: &str = "tombstones";
/// Marks a block for deletion; the last object that is removed.
pub const DELETION_MARK_FILE: &str = "deletion-mark.json";
/// Keeps a block out of compaction.
pub const NO_COMPACT_MARK_FILE: &str = "no-compact-mark.json";
/// Keeps a block from being downsampled.
pub const NO_DOWNSAMPLE_MARK_FILE: &str = "no-downsample-mark.json";
/// Names of all marks.
pub const MARK_FILES: [&str; 3] = [DELETION_MARK_FILE, NO_COMPACT_MARK_FILE, NO_DOWNSAMPLE_MARK_FILE];
/// The folder of upload intents.
pub const INTENT_DIR: &str = "isthmus/intent";

/// The folder of deletions of series. They are not in the folders of their blocks, so that one listing finds all of them.
pub const TOMBSTONES_DIR: &str = "isthmus/tombstones";

/// The name of `file`, given relative to the block's folder.
pub fn block_file(block: Ulid, file: &str) -> String {
    format!("{block}/{file}")
}

/// The name of a block's `meta.json`.
pub fn meta(block: Ulid) -> String {
    block_file(block, META_FILE)
}

/// The name of the intent to upload a block.
pub fn intent(block: Ulid) -> String {
    format!("{INTENT_DIR}/{block}.json")
}

/// The name of the deletions of series of a block.
pub fn tombstones_mark(block: Ulid) -> String {
    format!("{TOMBSTONES_DIR}/{block}.json")
}

/// The block whose deletions of series an object has.
pub fn block_of_tombstones(name: &str) -> Option<Ulid> {
    let file = name.strip_prefix(TOMBSTONES_DIR)?.strip_prefix('/')?.strip_suffix(".json")?;
    tsdb::parse_block_id(file)
}

/// The block to which an object or a folder belongs, and the rest of the name, which is empty for the folder itself.
/// `None` if it belongs to no block.
pub fn split(name: &str) -> Option<(Ulid, &str)> {
    let (first, rest) = name.split_once('/').unwrap_or((name, ""));
    Some((tsdb::parse_block_id(first)?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_begin_with_a_block_id_belong_to_a_block() {
        let id = "01HZY3VQ6J0000000000000000";
        let block = tsdb::parse_block_id(id).unwrap();
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(split(name), expected.map(|rest| (block, rest)), "{name}");
        };
        check(&format!("{id}/chunks/000001"), Some("chunks/000001"));
        check(&meta(block), Some("meta.json"));
        check(id, Some(""));
        check(&intent(block), None);
        check(&tombstones_mark(block), None);
        assert_eq!(block_of_tombstones(&tombstones_mark(block)), Some(block));
        assert_eq!(block_of_tombstones("isthmus/tombstones/x.json"), None);
        check("debug/metas/01HZY3VQ6J0000000000000000.json", None);
        check("01HZY3VQ6J000000000000000/meta.json", None);
    }
}
