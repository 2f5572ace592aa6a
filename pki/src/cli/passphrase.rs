//! Reading the passphrase of the root keys.

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use identity::{Secret, read_bounded};

use crate::error::PkiError;

const MAX_PASSPHRASE_BYTES: u64 = 4096;

/// Reads the passphrase from the file, or asks for it on the terminal. Asks twice for a new passphrase.
pub(super) fn read_passphrase(file: Option<&Path>, is_new: bool) -> Result<Secret<String>, PkiError> {
    read_named_passphrase("--root-passphrase-file", "root keys", file, is_new)
}

/// Reads the passphrase of `what` from the file of a flag, or asks for it on the terminal.
pub(super) fn read_named_passphrase(
    flag: &str,
    what: &str,
    file: Option<&Path>,
    is_new: bool,
) -> Result<Secret<String>, PkiError> {
    if let Some(path) = file {
        let wrong =
            |what: &dyn std::fmt::Display| PkiError::Usage(format!("{flag} {}: {what}", path.display()));
        let bytes = Secret::new(read_bounded(path, MAX_PASSPHRASE_BYTES).map_err(|error| wrong(&error))?);
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| wrong(&"not valid UTF-8"))?;
        return Ok(Secret::new(text.lines().next().unwrap_or_default().to_owned()));
    }
    if !io::stdin().is_terminal() {
        return Err(PkiError::Usage(format!(
            "passphrase of the {what}: standard input is not a terminal; use {flag} FILE"
        )));
    }
    let ask = |prompt: &str| {
        let answer = rpassword::prompt_password(prompt)
            .map_err(|e| PkiError::Failed(format!("read the passphrase from the terminal: {e}")))?;
        Ok::<_, PkiError>(Secret::new(answer))
    };
    let first = ask(&format!("Passphrase of the {what}: "))?;
    if is_new && ask("Repeat the passphrase: ")?.expose() != first.expose() {
        return Err(PkiError::Usage("the two passphrases differ; run the command again".into()));
    }
    Ok(first)
}
