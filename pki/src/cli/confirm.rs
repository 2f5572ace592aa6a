//! Confirmation of changes that take something away, and what they have in common.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::error::PkiError;

/// Options of every command that takes something away.
#[derive(Debug, clap::Args)]
pub(super) struct ConfirmArgs {
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(super) yes: bool,
}

impl ConfirmArgs {
    /// Asks the person at the terminal to type `name`. Without a terminal, `--yes` must be given.
    pub(super) fn confirm(&self, question: &str, name: &str) -> Result<(), PkiError> {
        if self.yes {
            return Ok(());
        }
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Err(PkiError::Usage(format!(
                "{question} needs a confirmation, and standard input is not a terminal; give --yes"
            )));
        }
        let failed = |e: io::Error| PkiError::Failed(format!("ask for a confirmation: {e}"));
        let mut stderr = io::stderr();
        write!(stderr, "{question}. Type {name} to confirm: ")
            .and_then(|()| stderr.flush())
            .map_err(failed)?;
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer).map_err(failed)?;
        match answer.trim() == name {
            true => Ok(()),
            false => Err(PkiError::Usage("not confirmed; nothing was changed".into())),
        }
    }
}
