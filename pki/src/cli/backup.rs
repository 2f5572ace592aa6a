//! `pki backup` and `pki restore`

use std::{path::PathBuf, time::SystemTime};

use serde_json::json;

use crate::{
    backup::{RestoreOptions, backup, restore},
    cli::{output::CommandOutput, passphrase::read_named_passphrase, state::StateArgs},
    error::PkiError,
    seal::Argon2Cost,
};

/// Arguments of `pki backup`.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    #[command(flatten)]
    state: StateArgs,
    /// File to write the backup to; it is encrypted, and has the key of the issuing CA
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// File whose first line is the passphrase of the backup; without it, the terminal asks for it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Arguments of `pki restore`.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// File whose first line is the passphrase of the backup; without it, the terminal asks for it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The newest denylist.bin from the data directory of a gateway, so that what was revoked since the backup stays
    /// revoked; can be repeated
    #[arg(long, value_name = "FILE")]
    denylist: Vec<PathBuf>,
}

const FLAG: &str = "--passphrase-file";

pub(super) fn run_backup(
    args: &BackupArgs,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    let passphrase = read_named_passphrase(FLAG, "backup", args.passphrase_file.as_deref(), true)?;
    backup(&args.state.state, &args.out, &passphrase, Argon2Cost::STRONG, now)?;
    let out = args.out.display();
    match args.state.json {
        true => output.object(json!({"file": out.to_string()}))?,
        false => output.line(&format!("{out}: written; keep its passphrase in another place"))?,
    }
    Ok(0)
}

pub(super) fn run_restore(
    args: &RestoreArgs,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    let options = RestoreOptions {
        from: args.from.clone(),
        state: args.state.state.clone(),
        passphrase: read_named_passphrase(FLAG, "backup", args.passphrase_file.as_deref(), false)?,
        denylists: args.denylist.clone(),
    };
    let restored = restore(&options, now)?;
    match args.state.json {
        true => output.object(json!({"tokens_revoked": restored.tokens, "denials_added": restored.denials}))?,
        false => output.line(&format!(
            "restored; {} open tokens are revoked, {} denials were added. Certificates that were issued since the backup \
             are accepted when their owners connect",
            restored.tokens, restored.denials
        ))?,
    }
    Ok(0)
}
