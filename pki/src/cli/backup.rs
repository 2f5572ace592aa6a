//! `pki backup` and `pki restore`

use std::{path::PathBuf, time::SystemTime};

use serde_json::json;

use crate::{
    backup::{RestoreOptions, backup, check_restore, restore},
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
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
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
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

const FLAG: &str = "--passphrase-file";

pub(super) fn run_backup(
    args: &BackupArgs,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    let passphrase = read_named_passphrase(FLAG, "backup", args.passphrase_file.as_deref(), true)?;
    let out = (!args.dry_run).then_some(args.out.as_path());
    let bytes = backup(&args.state.state, out, &passphrase, Argon2Cost::STRONG, now)?;
    let out = args.out.display();
    match (args.state.json, args.dry_run) {
        (true, dry_run) => {
            output.object(json!({"file": out.to_string(), "bytes": bytes, "dry_run": dry_run}))?
        }
        (false, true) => output.line(&format!("would encrypt {bytes} bytes, and write them to {out}"))?,
        (false, false) => output.line(&format!("{out}: written; keep its passphrase in another place"))?,
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
    let restored = match args.dry_run {
        true => check_restore(options, now)?,
        false => restore(&options, now)?,
    };
    let (tokens, denials) = (restored.tokens, restored.denials);
    match (args.state.json, args.dry_run) {
        (true, dry_run) => output
            .object(json!({"tokens_revoked": tokens, "denials_added": denials, "dry_run": dry_run}))?,
        (false, true) => output.line(&format!(
            "the backup can be restored; {tokens} open tokens would be revoked, {denials} denials would be added"
        ))?,
        (false, false) => output.line(&format!(
            "restored; {tokens} open tokens are revoked, {denials} denials were added. Certificates that were issued since \
             the backup are accepted when their owners connect. The clusters report that the audit log was cut, until a root \
             signs the trust bundle again (`pki bundle sign`)"
        ))?,
    }
    Ok(0)
}
