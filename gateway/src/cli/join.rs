//! The flag for the token to join with.

use std::path::{Path, PathBuf};

use pki::JoinToken;

use crate::{
    component::has_credentials,
    membership::token_file::{read_token, read_token_from_stdin},
};

/// The flag for the token to join with. A token is never an argument itself: every user of a machine can read arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// File with the token to join with if there is no valid certificate; - is standard input. The file may be absent after the
    /// token was used
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
}

impl JoinArgs {
    /// The flag with this file, or without one.
    pub fn of_file(join_file: Option<PathBuf>) -> Self {
        Self { join_file }
    }

    /// Whether there is a token.
    pub fn is_given(&self) -> bool {
        self.join_file.is_some()
    }

    /// The file with the token; `None` for standard input, which cannot be read again.
    pub fn file(&self) -> Option<PathBuf> {
        self.join_file.clone().filter(|file| file != Path::new("-"))
    }

    /// Reads the token; `None` if the flag is not given, or if the file is absent and there are credentials in `data_dir`,
    /// for which it was used.
    ///
    /// # Errors
    /// The file cannot be read, or it is not a token.
    pub fn load(&self, data_dir: &Path) -> Result<Option<JoinToken>, String> {
        match (&self.join_file, self.file()) {
            (None, _) => Ok(None),
            (Some(_), Some(file)) if !file.exists() && has_credentials(data_dir) => Ok(None),
            (Some(_), Some(file)) => read_token(&file).map(Some),
            (Some(_), None) => read_token_from_stdin().map(Some),
        }
    }
}
