//! The file with a join token.

use std::{
    io::{self, Read},
    path::Path,
};

use pki::JoinToken;
use zeroize::Zeroizing;

/// Largest token file that is read, in bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Reads the token of `--join-file`.
///
/// # Errors
/// The file cannot be read, or it is not a token; in one line.
pub(crate) fn read_token(file: &Path) -> Result<JoinToken, String> {
    let read = identity::read_bounded(file, MAX_TOKEN_BYTES as u64).map(Zeroizing::new);
    parse(&format!("--join-file {}", file.display()), read)
}

/// Reads the token of `--join-file -`.
///
/// # Errors
/// Those of [`read_token`].
pub(crate) fn read_token_from_stdin() -> Result<JoinToken, String> {
    // A vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_TOKEN_BYTES + 1));
    let read = io::stdin().lock().take(MAX_TOKEN_BYTES as u64).read_to_end(&mut bytes);
    parse("--join-file -", read.map(|_| bytes))
}

fn parse(from: &str, read: io::Result<Zeroizing<Vec<u8>>>) -> Result<JoinToken, String> {
    let text = read.map_err(|error| format!("{from}: {error}"))?;
    let text = std::str::from_utf8(&text).map_err(|_| format!("{from}: is not valid UTF-8"))?;
    JoinToken::parse(text).map_err(|error| format!("{from}: {error}"))
}
