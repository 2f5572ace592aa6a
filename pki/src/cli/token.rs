//! `pki token ...`

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use identity::{Name, write_private};
use serde_json::json;

use crate::{
    authority::utc,
    cli::{confirm::ConfirmArgs, look, output::CommandOutput, state::StateArgs},
    error::PkiError,
    inventory::{Inventory, StateDir},
    issuer::{Issuer, NewToken},
};

/// Commands for join tokens.
#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Create a join token, with which the gateway of one cluster joins once; it is printed only now
    Create(CreateArgs),
    /// Print what is in a token, without its secret
    Inspect(look::TokenInspectArgs),
    /// List the join tokens, without their secrets
    List(StateArgs),
    /// Revoke an unused join token
    Revoke(RevokeArgs),
}

/// Arguments of `pki token create`.
#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    new: NewTokenArgs,
    /// Write the token to this file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The token to create.
#[derive(Debug, clap::Args)]
pub(super) struct NewTokenArgs {
    /// Cluster that joins; it is registered if it is new
    #[arg(long, value_name = "NAME", required = true)]
    cluster: Option<Name>,
    /// Environment of the cluster, such as production; it cannot be changed later
    #[arg(long, value_name = "NAME", required = true)]
    environment: Option<String>,
    /// Address at which the cluster dials the issuer's gateway; up to 8, the preferred one first
    #[arg(long = "address", value_name = "HOST:PORT", required = true, num_args = 1..)]
    addresses: Vec<String>,
    /// How long the token can be used, 1s to 24h
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = parse_duration)]
    ttl: Duration,
}

impl NewTokenArgs {
    /// The parameters of the token. The command line requires each, unless there is a subcommand instead.
    pub(super) fn checked(&self) -> Result<NewToken, PkiError> {
        let missing = |flag: &str| PkiError::Usage(format!("{flag} is missing"));
        Ok(NewToken {
            cluster: self.cluster.clone().ok_or_else(|| missing("--cluster"))?,
            environment: self.environment.clone().ok_or_else(|| missing("--environment"))?,
            addresses: self.addresses.clone(),
            ttl: self.ttl,
        })
    }
}

/// Arguments of `pki token revoke`.
#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Id of the token, as `pki token list` prints it
    id: String,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

pub(super) fn run(
    command: &TokenCommand,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    match command {
        TokenCommand::Create(args) => create(args, output, now)?,
        TokenCommand::Inspect(args) => look::token(args, output)?,
        TokenCommand::List(args) => list(args, output, now)?,
        TokenCommand::Revoke(args) => revoke(args, output, now)?,
    }
    Ok(0)
}

fn create(args: &CreateArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let issuer = Issuer::open(&args.state.state)?;
    let new = args.new.checked()?;
    let expires_at = utc(now + new.ttl);
    if args.dry_run {
        issuer.check_new_token(&new)?;
        return match args.state.json {
            true => output
                .object(json!({"dry_run": true, "cluster": new.cluster.as_str(), "expires_at": expires_at})),
            false => output
                .line(&format!("would create a token for cluster {}, valid until {expires_at}", new.cluster)),
        };
    }
    let token = issuer.create_token(&new, now)?;
    let text = token.to_text();
    let mut object = json!({
        "cluster": new.cluster.as_str(), "environment": new.environment, "expires_at": expires_at,
    });
    if let Some(path) = &args.out {
        let line = zeroize::Zeroizing::new([text.expose(), "\n"].concat());
        write_private(path, line.as_bytes()).map_err(PkiError::io("write", path))?;
        object["file"] = json!(path.display().to_string());
    } else if args.state.json {
        // No character of a token is escaped in JSON. The object itself would keep a copy of it.
        let rest = object.to_string();
        let rest = rest.strip_prefix('{').unwrap_or(&rest);
        let line = ["{\"token\":\"", text.expose(), "\",\"v\":1,", rest].concat();
        return output.line(&zeroize::Zeroizing::new(line));
    } else {
        // Nothing else is printed to standard output, for `isthmus gateway --join "$(isthmus pki token create
        // ...)"`.
        return output.line(text.expose());
    }
    match (args.state.json, &args.out) {
        (false, Some(path)) => output.line(&format!(
            "{}: token for cluster {}, valid once until {expires_at}",
            path.display(),
            new.cluster
        )),
        _ => output.object(object),
    }
}

fn list(args: &StateArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let tokens = Inventory::open(&StateDir::new(&args.state))?.tokens()?;
    if args.json {
        let tokens: Vec<_> = tokens
            .iter()
            .map(|t| {
                json!({
                    "id": t.id, "cluster": t.cluster, "state": t.state(now), "created_at": t.created_at,
                    "expires_at": t.expires_at, "used_at": t.used_at, "revoked_at": t.revoked_at,
                    "refusals": t.refusals,
                })
            })
            .collect();
        return output.object(json!({"tokens": tokens}));
    }
    let rows: Vec<_> = tokens
        .into_iter()
        .map(|t| {
            let (state, used_at) = (t.state(now).to_owned(), t.used_at.unwrap_or_else(|| "-".into()));
            vec![t.id, t.cluster, state, t.expires_at, used_at, t.refusals.to_string()]
        })
        .collect();
    output.table(&["ID", "CLUSTER", "STATE", "EXPIRES", "USED", "REFUSALS"], rows)
}

fn revoke(args: &RevokeArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let mut inventory = Inventory::open(&StateDir::new(&args.state.state))?;
    let would_change = inventory.check_revocable(&args.id)?;
    let changed = match args.confirm.dry_run || !would_change {
        true => would_change,
        false => {
            args.confirm.confirm(&format!("revoking token {}", args.id), &args.id)?;
            inventory.revoke_token(&args.id, now)?
        }
    };
    if args.state.json {
        let dry_run = args.confirm.dry_run;
        return output.object(json!({"id": args.id, "changed": changed, "dry_run": dry_run}));
    }
    output.line(match (changed, args.confirm.dry_run) {
        (false, _) => "already revoked; nothing was changed",
        (true, true) => "would be revoked",
        (true, false) => "revoked",
    })
}

/// Parses a duration as Prometheus writes it, with one unit: `90s`, `15m`, `24h`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("expected a number and a unit (s, m or h), such as 15m".into()),
    };
    let number: u32 =
        number.parse().map_err(|_| "expected a number and a unit (s, m or h), such as 15m".to_owned())?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}
