//! `pki issuer ...`

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use identity::{Name, TrustDomain};
use serde_json::json;

use crate::{
    authority::{CertificateAuthority, utc},
    cli::{
        bundle::RootArgs, output::CommandOutput, passphrase::read_passphrase, state::StateArgs,
        token::parse_duration,
    },
    error::PkiError,
    init::{RenewIssuerOptions, renew_issuer},
    inventory::StateDir,
    issuing,
};

/// Commands for the issuing CA.
#[derive(Debug, clap::Subcommand)]
pub enum IssuerCommand {
    /// Create a new issuing CA under the active root, valid for 30 days; a running gateway uses it without a
    /// restart
    Renew(RenewArgs),
    /// Print the pin of the issuing CA and its validity
    Show(StateArgs),
    /// Make the key of the next issuing CA, and a request that a root signs on another machine
    Request(RequestArgs),
    /// Sign the request for an issuing CA with a root; run it where the roots are
    Sign(SignArgs),
    /// Use the issuing CA that a root has signed; a running gateway uses it without a restart
    Install(InstallArgs),
}

/// Arguments of `pki issuer request`.
#[derive(Debug, clap::Args)]
pub struct RequestArgs {
    #[command(flatten)]
    state: StateArgs,
    /// File to write the request to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `pki issuer sign`.
#[derive(Debug, clap::Args)]
pub struct SignArgs {
    #[command(flatten)]
    root: RootArgs,
    /// Trust domain of the issuing CA
    #[arg(long, value_name = "NAME")]
    trust_domain: TrustDomain,
    /// The request that `pki issuer request` wrote
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// File to write the certificate to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Lifetime of the issuing CA, at most 2160h
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = parse_duration)]
    life: Duration,
    /// Let the issuing CA sign only certificates of this cluster
    #[arg(long, value_name = "NAME")]
    only_cluster: Option<Name>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `pki issuer install`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The certificate that `pki issuer sign` wrote
    file: PathBuf,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

const LONGEST_LIFE: Duration = Duration::from_secs(90 * 86_400);

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
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(
    command: &IssuerCommand,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    match command {
        IssuerCommand::Renew(args) => renew(args, output, now)?,
        IssuerCommand::Show(args) => {
            let authority = CertificateAuthority::load(&StateDir::new(&args.state).issuer())?;
            let (pin, from, until) =
                (authority.pin(), utc(authority.not_before()), utc(authority.not_after()));
            match args.json {
                true => output
                    .object(json!({"pin": pin.to_string(), "not_before": from, "issuer_not_after": until}))?,
                false => output.line(&format!("issuing CA     {pin}, valid from {from} to {until}"))?,
            }
        }
        IssuerCommand::Request(args) => {
            issuing::request(&args.state.state, &args.out, args.dry_run)?;
            let out = args.out.display();
            match (args.state.json, args.dry_run) {
                (true, dry_run) => output.object(json!({"request": out.to_string(), "dry_run": dry_run}))?,
                (false, true) => output.line(&format!("would write {out}"))?,
                (false, false) => {
                    output.line(&format!("{out}: sign it with `pki issuer sign` where the roots are"))?
                }
            }
        }
        IssuerCommand::Sign(args) => {
            if args.life > LONGEST_LIFE || args.life.is_zero() {
                return Err(PkiError::Usage("--life must be 1s to 2160h".into()));
            }
            let root = args.root.load(&args.trust_domain)?;
            let only = args.only_cluster.as_ref();
            let out = (!args.dry_run).then_some(args.out.as_path());
            let until = issuing::sign(&root, &args.trust_domain, &args.request, out, args.life, only, now)?;
            report(&args.out.display().to_string(), until, args.dry_run, args.json, output)?;
        }
        IssuerCommand::Install(args) => {
            let until = issuing::install(&args.state.state, &args.file, args.dry_run, now)?;
            report("installed", until, args.dry_run, args.state.json, output)?;
        }
    }
    Ok(0)
}

fn report(
    what: &str,
    until: SystemTime,
    dry_run: bool,
    json: bool,
    output: &mut CommandOutput<'_>,
) -> Result<(), PkiError> {
    let until = utc(until);
    match json {
        true => output.object(json!({"issuer_not_after": until, "dry_run": dry_run})),
        false if dry_run => output.line(&format!("issuing CA     would be valid until {until}")),
        false => output.line(&format!("issuing CA     valid until {until}; {what}")),
    }
}

fn renew(args: &RenewArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let options = RenewIssuerOptions {
        state: args.state.state.clone(),
        root_out: args.root_out.clone(),
        passphrase: read_passphrase(args.root_passphrase_file.as_deref(), false)?,
    };
    let until = renew_issuer(&options, args.dry_run, now)?;
    report("a running gateway uses it without a restart", until, args.dry_run, args.state.json, output)
}
