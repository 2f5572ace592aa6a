//! The options that every command on a state directory takes.

use std::path::PathBuf;

/// Options of every command that works on a state directory.
#[derive(Debug, clap::Args)]
pub struct StateArgs {
    /// State directory of the issuer
    #[arg(long, value_name = "DIR", default_value = "pki-state")]
    pub(super) state: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub(super) json: bool,
}
