//! `pki cluster bundle` and `pki cluster bundle verify`
//!
//! The trust bundle of `pki bundle` is another thing, so what the owner of a cluster gets is always called a cluster bundle.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use identity::{TrustDomain, write_private};
use serde_json::json;

use crate::{
    authority::utc,
    cli::{output::CommandOutput, state::StateArgs, token::NewTokenArgs},
    cluster_bundle::{BundleFile, BundleFormat, ClusterBundle, Expected, FoundBundle, MAX_GATEWAYS, examine},
    error::PkiError,
    inventory::{Inventory, StateDir},
    issuer::{Issuer, NewToken},
};

/// Exit code of `verify` for a bundle that must not be applied.
const REFUSED: u8 = 4;

/// Arguments of `pki cluster bundle`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ClusterBundleArgs {
    #[command(subcommand)]
    command: Option<ClusterBundleCommand>,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    token: NewTokenArgs,
    /// What the owner of the cluster applies it with
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "kubernetes")]
    format: BundleFormat,
    /// Gateways of the cluster (kubernetes and helm), 1 to 8: each gets a token of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_GATEWAYS)))]
    gateways: u8,
    /// File (kubernetes) or folder (all others) for the bundle, which must not exist or be empty; a bundle for kubernetes is printed
    /// without it
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Write the secret part, which has the token, to this file, so that it can be sent on another way
    #[arg(long, value_name = "FILE")]
    secret_out: Option<PathBuf>,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Commands for a bundle that was written before.
#[derive(Debug, clap::Subcommand)]
enum ClusterBundleCommand {
    /// Print what a bundle will do and what the other side will be able to read, and refuse one that must not be applied
    Verify(VerifyBundleArgs),
}

/// Arguments of `pki cluster bundle verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyBundleArgs {
    /// Files and folders of the bundle, with those of its secret part
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Refuse a bundle for another trust domain
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,
    /// State directory of the issuer, which knows the environment of the cluster, and whether the token was used or revoked
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(
    args: &ClusterBundleArgs,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    match &args.command {
        Some(ClusterBundleCommand::Verify(args)) => verify(args, output, now),
        None => create(args, output, now).map(|()| 0),
    }
}

fn create(args: &ClusterBundleArgs, output: &mut CommandOutput<'_>, now: SystemTime) -> Result<(), PkiError> {
    let issuer = Issuer::open(&args.state.state)?;
    let new = args.token.checked()?;
    // Everything that can be wrong, before there is a token.
    issuer.check_new_token(&new)?;
    args.format.check(&new.environment, args.gateways)?;
    match &args.out {
        Some(out) => check_free(out, args.format)?,
        None if args.format.is_one_file() && !args.state.json => {}
        None => {
            return Err(PkiError::Usage(
                "--out is missing: name the folder or the file for the bundle".into(),
            ));
        }
    }
    let expires_at = utc(now + new.ttl);
    if args.dry_run {
        let names = args.out.iter().chain(&args.secret_out);
        let names: Vec<String> = names.map(|path| path.display().to_string()).collect();
        return report(args, &new, &names, &expires_at, output);
    }
    let token = issuer.create_token(&new, now)?;
    let more = (1..args.gateways).map(|_| issuer.create_token(&new, now));
    let more_tokens = more.collect::<Result<Vec<_>, _>>()?;
    let bundle = ClusterBundle {
        trust_domain: issuer.trust_domain(),
        cluster: &new.cluster,
        environment: &new.environment,
        token: &token,
        more_tokens: &more_tokens,
        expires_at: expires_at.clone(),
    };
    let (apart, mut files): (Vec<_>, Vec<_>) =
        bundle.files(args.format).into_iter().partition(|file| file.is_secret && args.secret_out.is_some());
    let mut written = Vec::new();
    for (file, path) in apart.iter().zip(&args.secret_out) {
        written.push(write(path, file)?);
    }
    if args.format.is_one_file() {
        files = vec![BundleFile::joined(&files)];
    }
    let Some(out) = &args.out else {
        return files.iter().try_for_each(|file| output.line(file.content.expose().trim_end()));
    };
    if !args.format.is_one_file() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(out).map_err(PkiError::io("create", out))?;
    }
    for file in &files {
        let path = if args.format.is_one_file() { out.clone() } else { out.join(file.name) };
        written.push(write(&path, file)?);
    }
    report(args, &new, &written, &expires_at, output)
}

/// Refuses a file that exists, and a folder that has files: the files of two bundles do not belong together.
fn check_free(out: &Path, format: BundleFormat) -> Result<(), PkiError> {
    let conflict =
        |why: &str| PkiError::Conflict(format!("--out {}: {why}; name another one", out.display()));
    if format.is_one_file() {
        return if out.exists() { Err(conflict("exists already")) } else { Ok(()) };
    }
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(conflict("is not empty")),
            None => Ok(()),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(PkiError::io("read", out)(error)),
    }
}

/// Writes a file with mode 0600, and returns its name.
fn write(path: &Path, file: &BundleFile) -> Result<String, PkiError> {
    write_private(path, file.content.expose().as_bytes()).map_err(PkiError::io("write", path))?;
    Ok(path.display().to_string())
}

fn report(
    args: &ClusterBundleArgs,
    new: &NewToken,
    files: &[String],
    expires_at: &str,
    output: &mut CommandOutput<'_>,
) -> Result<(), PkiError> {
    if args.state.json {
        return output.object(json!({
            "dry_run": args.dry_run, "cluster": new.cluster.as_str(), "environment": new.environment,
            "gateways": args.gateways, "expires_at": expires_at, "files": files,
        }));
    }
    let would = if args.dry_run { "would write: " } else { "" };
    files.iter().try_for_each(|file| output.line(&format!("{would}{file}")))?;
    let joins = match args.gateways {
        1 => format!("The token in it joins cluster {} once", new.cluster),
        several => format!(
            "The {several} tokens in it join {several} gateways of cluster {}, each once",
            new.cluster
        ),
    };
    output.line(&format!("{joins}, until {expires_at}."))
}

pub(super) fn verify(
    args: &VerifyBundleArgs,
    output: &mut CommandOutput<'_>,
    now: SystemTime,
) -> Result<u8, PkiError> {
    let found = FoundBundle::read(&args.files)?;
    let issuer = match &args.state {
        Some(state) => {
            let inventory = Inventory::open(&StateDir::new(state))?;
            Some((inventory.tokens()?, inventory.clusters()?))
        }
        None => None,
    };
    let expected = Expected { trust_domain: args.trust_domain.as_ref(), issuer, now };
    let findings = examine(&found, &expected);
    let refused = findings.iter().any(|finding| finding.refuses);
    if args.json {
        let list: Vec<_> = findings
            .iter()
            .map(|f| json!({"about": f.about, "text": f.text, "refuses": f.refuses}))
            .collect();
        output.object(json!({"refused": refused, "findings": list}))?;
    } else {
        let lines = findings.iter().filter(|finding| !finding.refuses);
        lines.clone().try_for_each(|f| output.line(&format!("{:<13} {}", f.about, f.text)))?;
        let reasons = findings.iter().filter(|finding| finding.refuses);
        reasons.clone().try_for_each(|f| output.line(&format!("REFUSED: {}: {}", f.about, f.text)))?;
    }
    Ok(if refused { REFUSED } else { 0 })
}
