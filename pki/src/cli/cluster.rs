//! `pki cluster ...`

use std::time::SystemTime;

use identity::Name;
use serde_json::json;

use crate::{
    cli::{
        cluster_bundle::{self, ClusterBundleArgs},
        confirm::ConfirmArgs,
        output::CommandOutput,
        state::StateArgs,
    },
    error::PkiError,
    inventory::{Inventory, StateDir},
    issuer::Issuer,
};

/// Commands for clusters.
#[derive(Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Register a cluster, so that tokens can be created for it; no answer misses it before it has joined
    Add(AddArgs),
    /// Remove a cluster: revoke its certificates and tokens; no answer expects it any more
    Remove(ChangeArgs),
    /// Refuse a cluster until it is resumed; answers report it as missing
    Pause(ChangeArgs),
    /// Accept a cluster again that was paused
    Resume(ChangeArgs),
    /// Write what the owner of a cluster applies so that it joins: a configuration and a token, in one of several formats
    Bundle(Box<ClusterBundleArgs>),
    /// List the registered clusters and those that were removed
    List(StateArgs),
}

/// Arguments of `pki cluster add`.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Name of the cluster
    cluster: Name,
    /// Environment of the cluster, such as production; it cannot be changed later
    #[arg(long, value_name = "NAME")]
    environment: String,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of the commands that change a cluster.
#[derive(Debug, clap::Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Name of the cluster
    cluster: Name,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

pub(super) fn run(
    command: &ClusterCommand,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    match command {
        ClusterCommand::Add(args) => add(args, output, now)?,
        ClusterCommand::Remove(args) => change(args, Change::Remove, output, now)?,
        ClusterCommand::Pause(args) => change(args, Change::Pause, output, now)?,
        ClusterCommand::Resume(args) => change(args, Change::Resume, output, now)?,
        ClusterCommand::Bundle(args) => return cluster_bundle::run(args, output, now),
        ClusterCommand::List(args) => list(args, output)?,
    }
    Ok(0)
}

fn add(args: &AddArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let issuer = Issuer::open(&args.state.state)?;
    let changed = match args.dry_run {
        true => issuer.check_cluster(&args.cluster, &args.environment)?,
        false => issuer.add_cluster(&args.cluster, &args.environment, now)?,
    };
    let text = match (changed, args.dry_run) {
        (false, _) => "is already registered; nothing was changed",
        (true, true) => "would be registered",
        (true, false) => "registered; create a token for it with `pki token create`",
    };
    report(&args.state, &args.cluster, changed, args.dry_run, text, output)
}

#[derive(Clone, Copy)]
enum Change {
    Remove,
    Pause,
    Resume,
}

fn change(
    args: &ChangeArgs,
    change: Change,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<(), PkiError> {
    let issuer = Issuer::open(&args.state.state)?;
    let name = &args.cluster;
    let known = Inventory::open(&StateDir::new(&args.state.state))?
        .clusters()?
        .into_iter()
        .find(|known| known.cluster == *name)
        .ok_or_else(|| {
            PkiError::NotFound(format!(
                "cluster {name} is not registered; `pki cluster list` prints the clusters"
            ))
        })?;
    let (would_change, done) = match change {
        Change::Remove => (known.removed_at.is_none(), "removed; its certificates and tokens are revoked"),
        Change::Pause => (known.paused_at.is_none(), "paused"),
        Change::Resume => (known.paused_at.is_some(), "resumed"),
    };
    if args.confirm.dry_run || !would_change {
        let text = if would_change { "would be changed" } else { "nothing to do; nothing was changed" };
        return report(&args.state, name, would_change, args.confirm.dry_run, text, output);
    }
    let changed = match change {
        Change::Remove => {
            args.confirm.confirm(&format!("removing cluster {name}"), name.as_str())?;
            issuer.remove_cluster(name, now)?
        }
        Change::Pause => {
            args.confirm.confirm(&format!("pausing cluster {name}"), name.as_str())?;
            issuer.pause_cluster(name, true, now)?
        }
        Change::Resume => issuer.pause_cluster(name, false, now)?,
    };
    report(&args.state, name, changed, false, done, output)
}

fn report(
    state: &StateArgs,
    cluster: &Name,
    changed: bool,
    dry_run: bool,
    text: &str,
    output: &mut CommandOutput<'_>,
) -> Result<(), PkiError> {
    match state.json {
        true => output.object(json!({"cluster": cluster.as_str(), "changed": changed, "dry_run": dry_run})),
        false => output.line(&format!("cluster {cluster}: {text}")),
    }
}

fn list(args: &StateArgs, output: &mut CommandOutput<'_>) -> Result<(), PkiError> {
    let clusters = Inventory::open(&StateDir::new(&args.state))?.clusters()?;
    if args.json {
        let list: Vec<_> = clusters
            .iter()
            .map(|c| {
                json!({
                    "cluster": c.cluster.as_str(), "environment": c.environment, "state": c.state(),
                    "registered_at": c.registered_at, "joined_at": c.joined_at, "paused_at": c.paused_at,
                    "removed_at": c.removed_at,
                })
            })
            .collect();
        return output.object(json!({"clusters": list}));
    }
    let rows: Vec<_> = clusters
        .into_iter()
        .map(|c| {
            let (state, joined) = (c.state().to_owned(), c.joined_at.unwrap_or_else(|| "-".into()));
            vec![c.cluster.to_string(), c.environment, state, c.registered_at, joined]
        })
        .collect();
    output.table(&["CLUSTER", "ENVIRONMENT", "STATE", "REGISTERED", "JOINED"], rows)
}
