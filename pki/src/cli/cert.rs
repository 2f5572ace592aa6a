//! `pki cert ...`

use std::{path::PathBuf, time::SystemTime};

use identity::{Name, SpiffeId, SpkiPin};
use serde_json::json;

use crate::{
    authority::utc,
    cli::{
        bundle::{RootArgs, parse_pin},
        confirm::ConfirmArgs,
        look,
        output::CommandOutput,
        state::StateArgs,
    },
    error::PkiError,
    inventory::{Inventory, Revocation, StateDir},
    issuer::{Issuer, denylist::deny_issuer},
};

/// Commands for certificates.
#[derive(Debug, clap::Subcommand)]
pub enum CertCommand {
    /// List the issued certificates, oldest first
    List(StateArgs),
    /// Print what is in the certificates of a PEM file
    Inspect(look::InspectArgs),
    /// Check a chain as a gateway does: roots, validity, names, denylist, inventory
    Verify(look::VerifyArgs),
    /// Revoke certificates: running gateways refuse them and close their connections
    Revoke(Box<RevokeArgs>),
}

/// Arguments of `pki cert revoke`.
#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    what: WhatArgs,
    /// Why, in a few words; peers see it
    #[arg(long, value_name = "TEXT", default_value = "revoked")]
    reason: String,
    #[command(flatten)]
    confirm: ConfirmArgs,
    /// Directory with the root keys; only with --issuer, which needs the signature of a root
    #[arg(long, value_name = "DIR", requires = "issuer")]
    root_out: Option<PathBuf>,
    /// Root to sign with
    #[arg(long, value_name = "LABEL", default_value = "active")]
    root: String,
    /// File whose first line is the passphrase of the root keys; without it, the terminal asks for the
    /// passphrase
    #[arg(long, value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
}

/// What to revoke: exactly one of them.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct WhatArgs {
    /// The certificate with this serial number
    #[arg(long, value_name = "SERIAL", value_parser = parse_serial)]
    serial: Option<String>,
    /// All certificates that this SPIFFE id has now; it can join again
    #[arg(long, value_name = "SPIFFE-ID")]
    id: Option<SpiffeId>,
    /// All certificates that this cluster has now; it can join again
    #[arg(long, value_name = "NAME")]
    cluster: Option<Name>,
    /// All certificates below the issuing CA with this pin, and its denylists
    #[arg(long, value_name = "PIN", value_parser = parse_pin, requires = "root_out")]
    issuer: Option<SpkiPin>,
}

fn parse_serial(text: &str) -> Result<String, String> {
    let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
    match (1..=40).contains(&text.len()) && text.bytes().all(is_digit) {
        true => Ok(text.to_owned()),
        false => Err("a serial number has only lower-case hexadecimal digits".into()),
    }
}

pub(super) fn run(
    command: &CertCommand,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    match command {
        CertCommand::List(args) => list(args, output, now)?,
        CertCommand::Inspect(args) => look::inspect(args, output)?,
        CertCommand::Verify(args) => look::verify(args, output, now)?,
        CertCommand::Revoke(args) => revoke(args, output, now)?,
    }
    Ok(0)
}

fn revoke(args: &RevokeArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let issuer = Issuer::open(&args.state.state)?;
    let what = match (&args.what.serial, &args.what.id, &args.what.cluster, &args.what.issuer) {
        (Some(serial), ..) => Revocation::Serial(serial.clone()),
        (_, Some(id), ..) => Revocation::Id(id.clone()),
        (_, _, Some(cluster), _) => Revocation::Cluster(cluster.clone()),
        (.., Some(pin)) => return revoke_issuer(args, &issuer, *pin, output, now),
        _ => return Err(PkiError::Usage("give one of --serial, --id, --cluster and --issuer".into())),
    };
    let name = match &what {
        Revocation::Serial(serial) => serial.clone(),
        Revocation::Id(id) => id.to_string(),
        Revocation::Cluster(cluster) => cluster.to_string(),
    };
    let count = issuer.count_revocable(&what)?;
    if args.confirm.dry_run {
        return match args.state.json {
            true => output.object(json!({"dry_run": true, "certificates": count})),
            false => output.line(&format!("would revoke {count} certificates of {name}")),
        };
    }
    args.confirm.confirm(&format!("revoking {count} certificates of {name}"), &name)?;
    let revoked = issuer.revoke(&what, &args.reason, now)?;
    let number = issuer.denylists(now)?.issuer().map_or(0, |list| list.number());
    match args.state.json {
        true => output.object(json!({"certificates": revoked, "denylist": number})),
        false => output.line(&format!(
            "revoked {revoked} certificates; denylist {number}, `pki denylist status` shows which gateways have it"
        )),
    }
}

fn revoke_issuer(
    args: &RevokeArgs,
    issuer: &Issuer,
    pin: SpkiPin,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<(), PkiError> {
    if args.confirm.dry_run {
        return match args.state.json {
            true => output.object(json!({"dry_run": true, "issuer": pin.to_string()})),
            false => output.line(&format!("would deny issuing CA {pin} with the signature of a root")),
        };
    }
    args.confirm.confirm(&format!("denying every certificate of issuing CA {pin}"), &pin.to_string()[..8])?;
    let root_out =
        args.root_out.clone().ok_or_else(|| PkiError::Usage("--issuer needs --root-out".into()))?;
    let root = RootArgs {
        root_out,
        root: args.root.clone(),
        root_passphrase_file: args.root_passphrase_file.clone(),
    };
    let (bundle, held) = (issuer.bundle(), issuer.denylists(now)?);
    let root = root.load(bundle.trust_domain())?;
    let bytes = deny_issuer(&root, &bundle, held.root(), pin, &args.reason, now)?;
    issuer.install_root_denylist(&bytes, false, now)?;
    match args.state.json {
        true => output.object(json!({"issuer": pin.to_string(), "denied": true})),
        false => output.line(&format!(
            "denied issuing CA {pin}; install another one with `pki issuer renew`, then clusters renew or join again"
        )),
    }
}

fn list(args: &StateArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let certificates = Inventory::open(&StateDir::new(&args.state))?.certificates()?;
    let now = utc(now);
    let state = |revoked: bool, not_after: &str| match (revoked, not_after < now.as_str()) {
        (true, _) => "revoked",
        (false, true) => "expired",
        (false, false) => "valid",
    };
    if args.json {
        let list: Vec<_> = certificates
            .iter()
            .map(|c| {
                json!({
                    "serial": c.serial, "spiffe_id": c.spiffe_id, "spki_sha256": c.spki,
                    "state": state(c.revoked_at.is_some(), &c.not_after), "not_before": c.not_before,
                    "not_after": c.not_after, "issued_at": c.issued_at, "revoked_at": c.revoked_at,
                    "generation": c.generation, "parent": c.parent, "first_seen_at": c.first_seen_at,
                })
            })
            .collect();
        return output.object(json!({"certificates": list}));
    }
    let rows: Vec<_> = certificates
        .into_iter()
        .map(|c| {
            let state = state(c.revoked_at.is_some(), &c.not_after).to_owned();
            vec![c.serial, c.spiffe_id, state, c.generation.to_string(), c.issued_at, c.not_after]
        })
        .collect();
    output.table(&["SERIAL", "SPIFFE ID", "STATE", "GENERATION", "ISSUED", "EXPIRES"], rows)
}
