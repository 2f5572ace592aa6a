//! `pki issuer ...`

use std::{path::PathBuf, time::SystemTime};

use serde_json::json;

use crate::{
    authority::utc,
    cli::{output::CommandOutput, passphrase::read_passphrase, state::StateArgs},
    error::PkiError,
    init::{RenewIssuerOptions, renew_issuer},
};

/// Commands for the issuing CA.
#[derive(Debug, clap::Subcommand)]
pub enum IssuerCommand {
    /// Create a new issuing CA under the active root, valid for 30 days; a running gateway uses it without a
    /// restart
    Renew(RenewArgs),
}

/// Arguments of `pki issuer renew`.
#[derive(Debug, clap::Args)]
pub struct RenewArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Directory with the root keys, as `pki init` created it
    #[arg(long, value_name = "DIR")]
    root_out: PathBuf,
    /// File whose first line is the passphrase of the root keys; without it, the terminal asks for the
    /// passphrase
    #[arg(long, value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
}

pub(super) fn run(
    command: &IssuerCommand,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    let IssuerCommand::Renew(args) = command;
    let options = RenewIssuerOptions {
        state: args.state.state.clone(),
        root_out: args.root_out.clone(),
        passphrase: read_passphrase(args.root_passphrase_file.as_deref(), false)?,
    };
    let until = utc(renew_issuer(&options, now)?);
    if args.state.json {
        output.object(json!({"issuer_not_after": until}))?;
    } else {
        output.line(&format!(
            "issuing CA     valid until {until}; a running gateway uses it without a restart"
        ))?;
    }
    Ok(0)
}
