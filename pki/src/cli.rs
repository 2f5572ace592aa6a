//! The `pki` commands, the same for `isthmus pki ...` and `isthmus-pki ...`.
//!
//! Exit codes: 0 done (or nothing to do) · 1 failed · 2 wrong usage · 3 not found · 4 refused by policy ·
//! 5 conflict with what is there · 7 integrity check failed · 10 `doctor` warns · 11 `doctor` finds it critical.
//! With `--json` each command prints one object with `"v": 1`. Secrets come from files or a terminal, never from
//! arguments or the environment.

mod init;
mod inspect;
mod issuer;
mod output;
mod passphrase;
mod state;
mod token;

use std::{process::ExitCode, time::SystemTime};

use crate::{cli::output::CommandOutput, error::PkiError};

/// The PKI's commands.
#[derive(Debug, clap::Subcommand)]
pub enum PkiCommand {
    /// Make a PKI: offline roots (active and standby), an issuing CA, and the issuer's state directory
    Init(init::InitArgs),
    /// The issuing CA: renew it before it expires
    #[command(subcommand)]
    Issuer(issuer::IssuerCommand),
    /// Join tokens: create, list, revoke
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Certificates issued
    #[command(subcommand)]
    Cert(inspect::CertCommand),
    /// Registered clusters
    #[command(subcommand)]
    Cluster(inspect::ClusterCommand),
    /// The audit log
    #[command(subcommand)]
    Audit(inspect::AuditCommand),
    /// Look the state directory over: file modes, expiry, audit chain
    Doctor(inspect::DoctorArgs),
}

/// Runs a command: prints its outcome to standard output, or one line to standard error, and answers the exit code.
pub fn run(command: PkiCommand) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match execute(command, &mut CommandOutput::new(&mut stdout), SystemTime::now()) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("error: {error}");
            error.exit_code().into()
        }
    }
}

/// Runs a command at a given time, printing to a given place.
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
