//! The `pki` commands, the same for `isthmus pki ...` and `isthmus-pki ...`.
//!
//! Exit codes: 0 success (or nothing to do) · 1 failure · 2 wrong usage · 3 not found · 4 refused by policy ·
//! 5 conflict with existing state · 6 a gateway is out of reach · 7 integrity check failed · 10 `doctor` found a warning · 11 `doctor`
//! found a critical problem. With `--json` each command prints one object with `"v": 1`. Secrets are read
//! from files or a terminal, never from arguments or the environment.

mod backup;
mod bundle;
mod cert;
mod cluster;
mod cluster_bundle;
mod confirm;
mod denylist;
mod init;
mod inspect;
mod issuer;
mod look;
mod output;
mod passphrase;
mod prune;
mod state;
mod token;

use std::{process::ExitCode, time::SystemTime};

use crate::{cli::output::CommandOutput, error::PkiError};

/// The commands of the PKI.
#[derive(Debug, clap::Subcommand)]
pub enum PkiCommand {
    /// Create a PKI: two offline roots (active and standby), an issuing CA, and the issuer's state directory
    Init(init::InitArgs),
    /// Renew the issuing CA, with the roots here or on another machine
    #[command(subcommand)]
    Issuer(issuer::IssuerCommand),
    /// Print, sign and install the trust bundle
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Create roots
    #[command(subcommand)]
    Root(bundle::RootCommand),
    /// Create, list and revoke join tokens
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List and revoke certificates
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Register, pause, remove and list clusters
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Print the denylists, push them to the gateways, and see which gateways have them
    #[command(subcommand)]
    Denylist(denylist::DenylistCommand),
    /// Verify and print the audit log
    #[command(subcommand)]
    Audit(inspect::AuditCommand),
    /// Write an encrypted backup of the state directory
    Backup(backup::BackupArgs),
    /// Make a state directory from a backup, without reopening tokens
    Restore(backup::RestoreArgs),
    /// Remove certificates that expired long ago from the inventory; the audit log keeps all its entries
    Prune(prune::PruneArgs),
    /// Check the state directory: file modes, expiry dates, audit log
    Doctor(inspect::DoctorArgs),
}

/// Runs a command and returns its exit code. Prints the result to standard output, or an error as one line to
/// standard error.
pub fn run(command: PkiCommand) -> ExitCode {
    identity::forbid_core_dumps();
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
        PkiCommand::Bundle(command) => bundle::bundle(&command, output, now),
        PkiCommand::Root(command) => bundle::root(&command, output, now),
        PkiCommand::Token(command) => token::run(&command, output, now),
        PkiCommand::Cert(command) => cert::run(&command, output, now),
        PkiCommand::Cluster(command) => cluster::run(&command, output, now),
        PkiCommand::Denylist(command) => denylist::run(&command, output, now),
        PkiCommand::Audit(command) => inspect::audit(&command, output),
        PkiCommand::Backup(args) => backup::run_backup(&args, output, now),
        PkiCommand::Restore(args) => backup::run_restore(&args, output, now),
        PkiCommand::Prune(args) => prune::run(&args, output, now),
        PkiCommand::Doctor(args) => inspect::doctor(&args, output, now),
    }
}

#[cfg(test)]
mod tests;
