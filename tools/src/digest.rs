//! SHA-256: for names that follow from what they name, and to tell whether files are equal.

use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

/// The hash of some texts; where one ends and the next begins counts.
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

/// The hash of a file in lower case hexadecimal digits. Blocks the thread.
///
/// # Errors
/// What the system says.
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
