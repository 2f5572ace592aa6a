//! SHA-256: for names that are derived from content, and to compare files.

use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use tsdb::Ulid;

/// The hash of several texts. The boundaries between them are part of the hash.
pub(crate) fn of_texts(texts: &[&str]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_le_bytes());
        context.update(text.as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// An id for a block that is made of block `old` by `changes`: the same for the same arguments.
pub(crate) fn derived_id(old: Ulid, changes: &str) -> Ulid {
    bucket::derived_id(old.timestamp_ms(), &[&old.to_string(), changes])
}

/// The hash of a file in lower case hexadecimal digits. Blocks the thread.
///
/// # Errors
/// Any error of the system.
pub(crate) fn of_file(path: &Path) -> io::Result<String> {
    let (mut file, mut context, mut buffer) =
        (std::fs::File::open(path)?, Context::new(&SHA256), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(context.finish().as_ref())),
            length => context.update(&buffer[..length]),
        }
    }
}

/// Lower case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
