//! `pki issuer ...`

use std::{path::PathBuf, time::SystemTime};

use serde_json::json;

use crate::{
    authority::utc,
    cli::{output::CommandOutput, passphrase::read_passphrase, state::StateArgs},
    error::PkiError,
    init::{RenewIssuerOptions, renew_issuer},
};

/// The commands on the issuing CA.
#[derive(Debug, clap::Subcommand)]
pub enum IssuerCommand {
    /// Make a new issuing CA under the active root, for another 30 days; a running gateway takes it up by itself
    Renew(RenewArgs),
}

/// Arguments of `pki issuer renew`.
#[derive(Debug, clap::Args)]
pub struct RenewArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Directory of the roots, as `pki init` made it
    #[arg(long, value_name = "DIR")]
    root_out: PathBuf,
    /// File whose first line is the passphrase of the root keys; without it, a terminal asks
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
        output
            .line(&format!("issuing CA     valid until {until}; a running gateway takes it up by itself"))?;
    }
    Ok(0)
}
