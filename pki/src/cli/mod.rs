//! The `pki` commands, for `isthmus pki` and `isthmus-pki` alike.
use std::process::ExitCode;

/// The PKI's commands.
#[derive(Debug, clap::Subcommand)]
pub enum PkiCommand {}

/// Runs a command, prints its outcome, and answers the exit code.
pub fn run(command: PkiCommand) -> ExitCode {
    match command {}
}
