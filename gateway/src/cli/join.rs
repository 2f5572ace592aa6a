//! The flags for the token to join with.

use std::path::{Path, PathBuf};

use identity::Secret;
use pki::JoinToken;

/// Largest token file that is read, in bytes.
const MAX_TOKEN_BYTES: u64 = 16 << 10;

/// The flags for the token to join with.
#[derive(Clone, Debug, clap::Args)]
pub struct JoinArgs {
    /// Token to join with if there is no valid certificate; other users of the machine can see it, so prefer --join-file
    #[arg(long, value_name = "TOKEN", value_parser = parse_secret, conflicts_with = "join_file")]
    join: Option<Secret<String>>,

    /// File with the token to join with if there is no valid certificate
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
}

impl JoinArgs {
    /// Whether there is a token.
    pub fn is_given(&self) -> bool {
        self.join.is_some() || self.join_file.is_some()
    }

    /// Reads the token; `None` if no flag is given.
    ///
    /// # Errors
    /// The file cannot be read, or it is not a token.
    pub fn load(&self) -> Result<Option<JoinToken>, String> {
        match (&self.join, &self.join_file) {
            (Some(token), _) => parse_token("--join", token.expose()).map(Some),
            (None, Some(file)) => read_token(file).map(Some),
            (None, None) => Ok(None),
        }
    }
}

fn parse_secret(text: &str) -> Result<Secret<String>, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

fn read_token(file: &Path) -> Result<JoinToken, String> {
    let from = format!("--join-file {}", file.display());
    let bytes = identity::read_bounded(file, MAX_TOKEN_BYTES).map_err(|error| format!("{from}: {error}"))?;
    let text = Secret::new(bytes);
    let text = std::str::from_utf8(text.expose()).map_err(|_| format!("{from}: is not valid UTF-8"))?;
    parse_token(&from, text)
}

fn parse_token(from: &str, text: &str) -> Result<JoinToken, String> {
    JoinToken::parse(text).map_err(|error| format!("{from}: {error}"))
}
