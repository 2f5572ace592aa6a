//! `pki prune`

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::{
    cli::{confirm::ConfirmArgs, output::CommandOutput, state::StateArgs},
    error::PkiError,
    inventory::{Inventory, StateDir},
};

/// Arguments of `pki prune`.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Remove certificates that expired more than this many days ago, at least 45
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    expired_for: u32,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

pub(super) fn run(args: &PruneArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<u8, PkiError> {
    let mut inventory = Inventory::open(&StateDir::new(&args.state.state))?;
    let age = Duration::from_secs(u64::from(args.expired_for) * 86_400);
    let mut pruned = inventory.prune(age, true, now)?;
    let (dry_run, found) = (args.confirm.dry_run, pruned.certificates);
    if !dry_run && found > 0 {
        args.confirm
            .confirm(&format!("removing {found} expired certificates from the inventory"), "prune")?;
        pruned = inventory.prune(age, false, now)?;
    }
    let (count, before) = (pruned.certificates, &pruned.expired_before);
    match args.state.json {
        true => {
            output.object(json!({"certificates": count, "expired_before": before, "dry_run": dry_run}))?
        }
        false => {
            let would = if dry_run { "would remove" } else { "removed" };
            output.line(&format!("{would} {count} certificates that expired before {before}"))?;
        }
    }
    Ok(0)
}
