//! The `pki` commands, the same for `isthmus pki ...` and `isthmus-pki ...`.
//!
//! Exit codes: 0 success (or nothing to do) · 1 failure · 2 wrong usage · 3 not found · 4 refused by policy ·
//! 5 conflict with existing state · 7 integrity check failed · 10 `doctor` found a warning · 11 `doctor`
//! found a critical problem. With `--json` each command prints one object with `"v": 1`. Secrets are read
//! from files or a terminal, never from arguments or the environment.

mod init;
mod inspect;
mod issuer;
mod output;
mod passphrase;
mod state;
mod token;

use std::{process::ExitCode, time::SystemTime};

use crate::{cli::output::CommandOutput, error::PkiError};

/// The commands of the PKI.
#[derive(Debug, clap::Subcommand)]
pub enum PkiCommand {
    /// Create a PKI: two offline roots (active and standby), an issuing CA, and the issuer's state directory
    Init(init::InitArgs),
    /// Renew the issuing CA
    #[command(subcommand)]
    Issuer(issuer::IssuerCommand),
    /// Create, list and revoke join tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List the issued certificates
    #[command(subcommand)]
    Cert(inspect::CertCommand),
    /// List the registered clusters
    #[command(subcommand)]
    Cluster(inspect::ClusterCommand),
    /// Verify and print the audit log
    #[command(subcommand)]
    Audit(inspect::AuditCommand),
    /// Check the state directory: file modes, expiry dates, audit log
    Doctor(inspect::DoctorArgs),
}

/// Runs a command and returns its exit code. Prints the result to standard output, or an error as one line to
/// standard error.
pub fn run(command: PkiCommand) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match execute(command, &mut CommandOutput::new(&mut stdout, terminal::output_width()), SystemTime::now())
    {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code().into()
        }
    }
}

/// Runs a command at the time `now`, with its output to `output`.
fn execute(command: PkiCommand, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<u8, PkiError> {
    match command {
        PkiCommand::Init(args) => init::run(&args, output, now),
        PkiCommand::Issuer(command) => issuer::run(&command, output, now),
        PkiCommand::Token(command) => token::run(&command, output, now),
        PkiCommand::Cert(command) => inspect::cert(&command, output, now),
        PkiCommand::Cluster(command) => inspect::cluster(&command, output),
        PkiCommand::Audit(command) => inspect::audit(&command, output),
        PkiCommand::Doctor(args) => inspect::doctor(&args, output, now),
    }
}

#[cfg(test)]
mod tests;
