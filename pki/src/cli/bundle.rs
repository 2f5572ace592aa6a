//! `pki bundle ...` and `pki root ...`: which roots are trusted. Roots sign on a machine that is offline.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use identity::{Secret, SpkiPin, TrustBundle, TrustDomain, read_bounded, write_public};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

use crate::{
    authority::{CertificateAuthority, utc},
    cli::{
        cluster_bundle::{VerifyBundleArgs, verify},
        output::CommandOutput,
        passphrase::read_passphrase,
        state::StateArgs,
    },
    error::PkiError,
    inventory::StateDir,
    roots::{BundleChange, RootFolder, install_bundle, next_bundle},
    seal::Argon2Cost,
};

const MAX_CERTIFICATE_FILE_BYTES: u64 = 64 * 1024;

/// Commands for the trust bundle.
#[derive(Debug, clap::Subcommand)]
pub enum BundleCommand {
    /// Print the sequence of the trust bundle and its roots
    Show(ShowArgs),
    /// Make the next trust bundle and sign it with a root; run it where the roots are
    Sign(SignArgs),
    /// Use a trust bundle that a root has signed; running gateways pass it on to the clusters
    Install(InstallArgs),
    /// The same as `pki cluster bundle verify`: a cluster bundle is looked for here, too
    #[command(hide = true)]
    Verify(VerifyBundleArgs),
}

/// Commands for roots.
#[derive(Debug, clap::Subcommand)]
pub enum RootCommand {
    /// Create another root beside the existing ones; run it where the roots are
    Create(RootCreateArgs),
}

/// Where the roots are, and how to use them.
#[derive(Debug, clap::Args)]
pub(super) struct RootArgs {
    /// Directory with the root keys, as `pki init` created it
    #[arg(long, value_name = "DIR")]
    pub(super) root_out: PathBuf,
    /// Root to sign with: active, standby, or the label that `pki root create` was given
    #[arg(long, value_name = "LABEL", default_value = "active", value_parser = parse_label)]
    pub(super) root: String,
    /// File whose first line is the passphrase of the root keys; without it, the terminal asks for the
    /// passphrase
    #[arg(long, value_name = "FILE")]
    pub(super) root_passphrase_file: Option<PathBuf>,
}

impl RootArgs {
    /// Loads the root.
    pub(super) fn load(&self, domain: &TrustDomain) -> Result<CertificateAuthority, PkiError> {
        let passphrase = read_passphrase(self.root_passphrase_file.as_deref(), false)?;
        folder(&self.root_out, domain, passphrase).load(&self.root)
    }
}

fn folder(path: &Path, domain: &TrustDomain, passphrase: Secret<String>) -> RootFolder {
    RootFolder { path: path.to_owned(), trust_domain: domain.clone(), passphrase }
}

/// Arguments of `pki bundle show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Read this file instead of the bundle of the state directory
    #[arg(long, value_name = "FILE", requires = "trust_domain")]
    bundle: Option<PathBuf>,
    /// Trust domain of the file
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
}

/// Arguments of `pki bundle sign`.
#[derive(Debug, clap::Args)]
pub struct SignArgs {
    #[command(flatten)]
    root: RootArgs,
    /// Trust domain of the bundle
    #[arg(long, value_name = "NAME")]
    trust_domain: TrustDomain,
    /// The bundle in use: a copy of bundle.pem in the state directory
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Certificate of a root to trust, too; can be repeated
    #[arg(long, value_name = "FILE")]
    add: Vec<PathBuf>,
    /// Pin of a root to trust no more; can be repeated
    #[arg(long, value_name = "PIN", value_parser = parse_pin)]
    remove: Vec<SpkiPin>,
    /// File to write the next bundle to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print what would be signed, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Arguments of `pki bundle install`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The bundle that `pki bundle sign` wrote
    file: PathBuf,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Arguments of `pki root create`.
#[derive(Debug, clap::Args)]
pub struct RootCreateArgs {
    /// Directory with the root keys, as `pki init` created it
    #[arg(long, value_name = "DIR")]
    root_out: PathBuf,
    /// Name of the new root in the directory, such as next
    #[arg(long, value_name = "LABEL", value_parser = parse_label)]
    label: String,
    /// Trust domain of the roots
    #[arg(long, value_name = "NAME")]
    trust_domain: TrustDomain,
    /// File whose first line is the passphrase of the root keys; without it, the terminal asks for the
    /// passphrase
    #[arg(long, value_name = "FILE")]
    root_passphrase_file: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// A label becomes part of a file name.
fn parse_label(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match (1..=32).contains(&text.len()) && text.chars().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("use only a-z, 0-9 and -, at most 32 characters".into()),
    }
}

pub(super) fn parse_pin(text: &str) -> Result<SpkiPin, String> {
    text.parse().map_err(|e: identity::PinError| e.to_string())
}

pub(super) fn bundle(
    command: &BundleCommand,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    match command {
        BundleCommand::Show(args) => show(args, output)?,
        BundleCommand::Sign(args) => sign(args, output, now)?,
        BundleCommand::Install(args) => install(args, output, now)?,
        BundleCommand::Verify(args) => return verify(args, output, now),
    }
    Ok(0)
}

pub(super) fn root(
    command: &RootCommand,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    let RootCommand::Create(args) = command;
    let passphrase = read_passphrase(args.root_passphrase_file.as_deref(), false)?;
    let folder = folder(&args.root_out, &args.trust_domain, passphrase);
    // The passphrase of the existing roots, so that one passphrase opens all of them.
    folder.load("active")?;
    let path = folder.certificate(&args.label);
    if args.dry_run {
        let exists = path.exists();
        return match args.json {
            true => output.object(
                json!({"certificate": path.display().to_string(), "exists": exists, "dry_run": true}),
            ),
            false if exists => output.line(&format!("{}: exists; nothing would be changed", path.display())),
            false => output.line(&format!("would create a root in {}", path.display())),
        }
        .map(|()| 0);
    }
    let root = folder.load_or_create(&args.label, now, Argon2Cost::STRONG)?;
    let pin = root.pin().to_string();
    match args.json {
        true => output.object(json!({"certificate": path.display().to_string(), "pin": pin}))?,
        false => output.line(&format!("{}: root {pin}", path.display()))?,
    }
    Ok(0)
}

fn show(args: &ShowArgs, output: &mut CommandOutput<'_>) -> Result<(), PkiError> {
    let bundle = match (&args.bundle, &args.trust_domain) {
        (Some(path), Some(domain)) => TrustBundle::load(domain.clone(), path)?,
        _ => StateDir::new(&args.state.state).load_bundle()?,
    };
    print(&bundle, args.state.json, json!({}), output)
}

fn sign(args: &SignArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let held = TrustBundle::load(args.trust_domain.clone(), &args.bundle)?;
    let add = args.add.iter().map(|path| {
        let pem = read_bounded(path, MAX_CERTIFICATE_FILE_BYTES).map_err(PkiError::io("read", path))?;
        CertificateDer::from_pem_slice(&pem).map_err(|e| {
            PkiError::Usage(format!("--add {}: {e}, expected a PEM certificate", path.display()))
        })
    });
    let change = BundleChange { add: add.collect::<Result<_, _>>()?, remove: args.remove.clone() };
    let next = next_bundle(&held, &change, &args.root.load(&args.trust_domain)?, now)?;
    if !args.dry_run {
        write_public(&args.out, next.to_pem().as_bytes()).map_err(PkiError::io("write", &args.out))?;
    }
    let more = json!({"dry_run": args.dry_run, "file": args.out.display().to_string()});
    print(&next, args.json, more, output)
}

fn install(args: &InstallArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let installed = install_bundle(&args.state.state, &args.file, args.dry_run, now)?;
    let more = json!({"dry_run": args.dry_run, "changed": installed.changed});
    print(&installed.bundle, args.state.json, more, output)?;
    match (args.state.json, installed.changed) {
        (true, _) => Ok(()),
        (false, true) if args.dry_run => output.line("would be installed"),
        (false, true) => output.line("installed; running gateways pass it on to the clusters"),
        (false, false) => output.line("already in use; nothing was changed"),
    }
}

/// Prints a bundle; `object` has more fields for programs.
fn print(
    bundle: &TrustBundle,
    json: bool,
    mut object: Value,
    output: &mut CommandOutput<'_>,
) -> Result<(), PkiError> {
    if json {
        let roots: Vec<_> = bundle
            .root_facts()
            .map(|root| json!({"pin": root.pin.to_string(), "subject": root.subject, "not_after": utc(root.not_after)}))
            .collect();
        object["sequence"] = json!(bundle.sequence());
        object["roots"] = json!(roots);
        return output.object(object);
    }
    output.line(&format!("trust bundle {} of {}", bundle.sequence(), bundle.trust_domain()))?;
    let rows = bundle.root_facts().map(|root| vec![root.pin.to_string(), root.subject, utc(root.not_after)]);
    output.table(&["PIN", "ROOT", "EXPIRES"], rows.collect())
}
