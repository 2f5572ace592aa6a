//! The flag for the token to join with.

use std::path::{Path, PathBuf};

use pki::JoinToken;

use crate::membership::token_file::{read_token, read_token_from_stdin};

/// The flag for the token to join with. A token is never an argument itself: every user of a machine can read arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// File with the token to join with if there is no valid certificate; - is standard input
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
}

impl JoinArgs {
    /// Whether there is a token.
    pub fn is_given(&self) -> bool {
        self.join_file.is_some()
    }

    /// The file with the token; `None` for standard input, which cannot be read again.
    pub fn file(&self) -> Option<PathBuf> {
        self.join_file.clone().filter(|file| file != Path::new("-"))
    }

    /// Reads the token; `None` if the flag is not given.
    ///
    /// # Errors
    /// The file cannot be read, or it is not a token.
    pub fn load(&self) -> Result<Option<JoinToken>, String> {
        match (&self.join_file, self.file()) {
            (None, _) => Ok(None),
            (Some(_), Some(file)) => read_token(&file).map(Some),
            (Some(_), None) => read_token_from_stdin().map(Some),
        }
    }
}
