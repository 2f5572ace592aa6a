//! `pki denylist ...`

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use identity::{DenySubject, DenylistSigner, SignedDenylist, read_bounded, write_public};
use serde_json::{Value, json};

use crate::{
    authority::utc,
    cli::{output::CommandOutput, state::StateArgs, token::parse_duration},
    error::PkiError,
    issuer::{Issuer, gateways::GatewayStatus},
};

/// The pause between two looks at the reports of gateways.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Commands for the denylists.
#[derive(Debug, clap::Subcommand)]
pub enum DenylistCommand {
    /// Print the denylists: that of the issuing CA, and that of a root
    Show(StateArgs),
    /// Sign the next denylist of the issuing CA, and wait until all connected gateways have it
    Push(PushArgs),
    /// Print which gateways have which denylist and trust bundle
    Status(StateArgs),
    /// Use a denylist that a root has signed
    Install(InstallArgs),
    /// Write the denylist that a root has signed to a file, to sign the next one where the roots are
    Export(ExportArgs),
}

/// Arguments of `pki denylist push`.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    #[command(flatten)]
    state: StateArgs,
    /// How long to wait for the gateways; 0s does not wait
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    wait: Duration,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `pki denylist install`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The denylist
    file: PathBuf,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `pki denylist export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    state: StateArgs,
    /// File to write to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(
    command: &DenylistCommand,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    match command {
        DenylistCommand::Show(args) => show(args, output, now),
        DenylistCommand::Push(args) => push(args, output, now),
        DenylistCommand::Status(args) => status(args, output, now),
        DenylistCommand::Install(args) => install(args, output, now),
        DenylistCommand::Export(args) => export(args, output),
    }
}

fn show(args: &StateArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<u8, PkiError> {
    let held = Issuer::open(&args.state)?.denylists(now)?;
    let lists = [held.issuer(), held.root()];
    if args.json {
        let lists: Vec<_> = lists.into_iter().flatten().map(described).collect();
        output.object(json!({"denylists": lists}))?;
        return Ok(0);
    }
    for list in lists.into_iter().flatten() {
        let (signer, _) = signer_of(list);
        output.line(&format!(
            "denylist {} of the {signer}, signed at {}",
            list.number(),
            utc(list.signed_at())
        ))?;
        let rows: Vec<_> = list
            .entries()
            .iter()
            .map(|entry| {
                let (kind, value) = subject_of(&entry.subject);
                let until = entry.issued_until.map_or_else(|| "any time".into(), utc);
                vec![kind.to_owned(), value, until, entry.reason.clone()]
            })
            .collect();
        if !rows.is_empty() {
            output.table(&["KIND", "DENIED", "ISSUED UNTIL", "REASON"], rows)?;
        }
    }
    Ok(0)
}

fn described(list: &SignedDenylist) -> Value {
    let (signer, pin) = signer_of(list);
    let entries: Vec<_> = list
        .entries()
        .iter()
        .map(|entry| {
            let (kind, value) = subject_of(&entry.subject);
            json!({"kind": kind, "value": value, "issued_until": entry.issued_until.map(utc), "reason": entry.reason})
        })
        .collect();
    json!({
        "signer": signer, "pin": pin, "number": list.number(), "signed_at": utc(list.signed_at()),
        "entries": entries,
    })
}

fn signer_of(list: &SignedDenylist) -> (&'static str, String) {
    match list.signer() {
        DenylistSigner::Root(pin) => ("root", pin.to_string()),
        DenylistSigner::Issuer(pin) => ("issuer", pin.to_string()),
    }
}

fn subject_of(subject: &DenySubject) -> (&'static str, String) {
    match subject {
        DenySubject::Serial(serial) => ("serial", serial.clone()),
        DenySubject::Key(pin) => ("key", pin.to_string()),
        DenySubject::Id(id) => ("id", id.to_string()),
        DenySubject::Cluster(cluster) => ("cluster", cluster.to_string()),
        DenySubject::Issuer(pin) => ("issuer", pin.to_string()),
    }
}

fn push(args: &PushArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<u8, PkiError> {
    let issuer = Issuer::open(&args.state.state)?;
    if args.dry_run {
        let gateways = issuer.connected_gateways()?;
        match args.state.json {
            true => output.object(json!({"dry_run": true, "connected_gateways": gateways}))?,
            false => output
                .line(&format!("would sign the next denylist, and wait for {gateways} connected gateways"))?,
        }
        return Ok(0);
    }
    issuer.sign_denylist(now)?;
    let began = Instant::now();
    loop {
        let status = issuer.gateway_status(now)?;
        if status.iter().all(GatewayStatus::is_settled) || began.elapsed() >= args.wait {
            let all = status.iter().all(GatewayStatus::is_settled);
            print_status(&status, args.state.json, output)?;
            // 6: a gateway is out of reach.
            return Ok(if all || args.wait.is_zero() { 0 } else { 6 });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn status(args: &StateArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<u8, PkiError> {
    let status = Issuer::open(&args.state)?.gateway_status(now)?;
    print_status(&status, args.json, output)?;
    Ok(0)
}

fn print_status(
    status: &[GatewayStatus],
    json: bool,
    output: &mut CommandOutput<'_>,
) -> Result<(), PkiError> {
    if json {
        let list: Vec<_> = status
            .iter()
            .map(|s| {
                json!({
                    "id": s.report.id, "instance": s.report.instance, "remote": s.report.remote,
                    "serial": s.report.serial, "denylist": s.report.denylist,
                    "root_denylist": s.report.root_denylist, "bundle": s.report.bundle,
                    "refused": s.report.refused, "reported_at": s.reported_at,
                    "disconnected_at": s.disconnected_at, "current": s.is_current,
                })
            })
            .collect();
        return output.object(json!({"gateways": list}));
    }
    let rows: Vec<_> = status
        .iter()
        .map(|s| {
            let state = match (&s.disconnected_at, s.is_current) {
                (Some(at), _) => format!("not connected since {at}"),
                (None, true) => "has all".to_owned(),
                (None, false) if s.report.refused.is_empty() => "waiting".to_owned(),
                (None, false) => format!("refuses: {}", s.report.refused),
            };
            let instance = s.report.instance.chars().take(8).collect();
            let numbers = [s.report.denylist, s.report.root_denylist, s.report.bundle].map(|n| n.to_string());
            let [denylist, root, bundle] = numbers;
            vec![s.report.id.clone(), instance, s.report.remote.clone(), denylist, root, bundle, state]
        })
        .collect();
    output.table(&["GATEWAY", "INSTANCE", "ADDRESS", "DENYLIST", "OF ROOT", "BUNDLE", "STATE"], rows)
}

fn install(args: &InstallArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<u8, PkiError> {
    let bytes = read_bounded(&args.file, identity::MAX_DENYLIST_BYTES as u64)
        .map_err(PkiError::io("read", &args.file))?;
    let changed = Issuer::open(&args.state.state)?.install_root_denylist(&bytes, args.dry_run, now)?;
    match (args.state.json, changed) {
        (true, _) => output.object(json!({"changed": changed, "dry_run": args.dry_run}))?,
        (false, false) => output.line("already in use; nothing was changed")?,
        (false, true) => output.line(if args.dry_run { "would be installed" } else { "installed" })?,
    }
    Ok(0)
}

fn export(args: &ExportArgs, output: &mut CommandOutput<'_>) -> Result<u8, PkiError> {
    let held = Issuer::open(&args.state.state)?.stored_denylists()?;
    let list = held.root().ok_or_else(|| PkiError::NotFound("no root has signed a denylist yet".into()))?;
    let (out, number) = (args.out.display(), list.number());
    if !args.dry_run {
        write_public(&args.out, list.as_bytes()).map_err(PkiError::io("write", &args.out))?;
    }
    match (args.state.json, args.dry_run) {
        (true, dry_run) => {
            output.object(json!({"number": number, "file": out.to_string(), "dry_run": dry_run}))?
        }
        (false, true) => output.line(&format!("would write denylist {number} to {out}"))?,
        (false, false) => output.line(&format!("{out}: denylist {number}"))?,
    }
    Ok(0)
}
