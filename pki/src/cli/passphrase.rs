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
    if let Some(path) = file {
        let wrong = |what: &dyn std::fmt::Display| {
            PkiError::Usage(format!("--root-passphrase-file {}: {what}", path.display()))
        };
        let bytes = Secret::new(read_bounded(path, MAX_PASSPHRASE_BYTES).map_err(|error| wrong(&error))?);
        let text = std::str::from_utf8(bytes.expose()).map_err(|_| wrong(&"not valid UTF-8"))?;
        return Ok(Secret::new(text.lines().next().unwrap_or_default().to_owned()));
    }
    if !io::stdin().is_terminal() {
        return Err(PkiError::Usage(
            "root passphrase: standard input is not a terminal; use --root-passphrase-file FILE".into(),
        ));
    }
    let ask = |prompt: &str| {
        let answer = rpassword::prompt_password(prompt)
            .map_err(|e| PkiError::Failed(format!("read the passphrase from the terminal: {e}")))?;
        Ok::<_, PkiError>(Secret::new(answer))
    };
    let first = ask("Passphrase of the root keys: ")?;
    if is_new && ask("Repeat the passphrase: ")?.expose() != first.expose() {
        return Err(PkiError::Usage("the two passphrases differ; run the command again".into()));
    }
    Ok(first)
}
