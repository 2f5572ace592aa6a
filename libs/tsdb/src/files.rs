//! Names of the files of a block.

/// The name of the index inside a block's directory.
pub const INDEX_FILE: &str = "index";
/// The name of the directory of segments inside a block's directory.
pub const CHUNKS_DIR: &str = "chunks";

/// The name of a segment's file, counted from 0.
pub(crate) fn segment_file_name(number: u32) -> String {
    format!("{:06}", u64::from(number) + 1)
}
