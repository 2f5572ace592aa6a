//! Creating a PKI: two offline roots, an issuing CA, and the state directory of the online issuer.
//!
//! After an interruption, a second run with the same arguments completes the PKI: each file is written
//! atomically, and existing files are used. The order is: the roots, the issuing CA with its key in one file,
//! and last an audit entry that marks the state directory as complete.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use identity::{Name, Secret, TrustBundle, TrustDomain, write_public};
use serde_json::json;

use crate::{
    authority::{CertificateAuthority, ISSUING_LIFE, utc},
    error::PkiError,
    inventory::{CREATED, Inventory, StateDir, create_private_dir},
    roots::{RootFolder, sign_bundle},
    seal::Argon2Cost,
};

/// The sequence of the first bundle.
const FIRST_SEQUENCE: u64 = 1;

/// The parameters of [`init`].
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The state directory of the online issuer.
    pub state: PathBuf,
    /// Directory for the roots, which is taken offline later. It must not be inside the state directory, or
    /// contain it.
    pub root_out: PathBuf,
    /// The trust domain, one for each environment.
    pub trust_domain: TrustDomain,
    /// The cluster in which the issuer runs.
    pub cluster: Name,
    /// Encrypts the root keys.
    pub passphrase: Secret<String>,
}

/// The outcome of [`init`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitOutcome {
    /// The PKI was created or completed.
    Created,
    /// The PKI was already complete; nothing was changed.
    AlreadyComplete,
}

/// Creates a PKI, or completes one that was started with the same options.
///
/// # Errors
/// When the directories contain the PKI of another trust domain, when the passphrase does not decrypt
/// existing roots, or when a file cannot be written.
pub fn init(options: &InitOptions, now: SystemTime) -> Result<InitOutcome, PkiError> {
    init_at_cost(options, now, Argon2Cost::STRONG)
}

/// Does the same as [`init`], with another cost of guessing the passphrase.
pub(crate) fn init_at_cost(
    options: &InitOptions,
    now: SystemTime,
    cost: Argon2Cost,
) -> Result<InitOutcome, PkiError> {
    check_init(options)?;
    let dir = StateDir::new(&options.state);
    if is_complete(&dir, options)? {
        return Ok(InitOutcome::AlreadyComplete);
    }
    create_private_dir(&options.root_out)?;
    let folder = RootFolder {
        path: options.root_out.clone(),
        trust_domain: options.trust_domain.clone(),
        passphrase: options.passphrase.clone(),
    };
    let active = folder.load_or_create("active", now, cost)?;
    let standby = folder.load_or_create("standby", now, cost)?;
    let bundle =
        TrustBundle::new(options.trust_domain.clone(), [active.cert().clone(), standby.cert().clone()])?;
    let bundle = sign_bundle(bundle, FIRST_SEQUENCE, &active)?;

    dir.create()?;
    write_public(&dir.bundle(), bundle.to_pem().as_bytes()).map_err(PkiError::io("write", &dir.bundle()))?;
    if !dir.issuer().exists() {
        active.issuing(&options.trust_domain, now, ISSUING_LIFE)?.store(&dir.issuer())?;
    }
    let issuing = CertificateAuthority::load(&dir.issuer())?.pin();
    let mut inventory = Inventory::create(&dir, &options.trust_domain, &options.cluster)?;
    let roots: Vec<String> = bundle.pins().map(|pin| pin.to_string()).collect();
    let detail = json!({
        "trust_domain": options.trust_domain.as_str(), "cluster": options.cluster.as_str(), "roots": roots,
        "key": issuing.to_string(),
    });
    inventory.record(now, CREATED, &detail)?;
    Ok(InitOutcome::Created)
}

/// The parameters of [`renew_issuer`].
#[derive(Debug, Clone)]
pub(crate) struct RenewIssuerOptions {
    pub(crate) state: PathBuf,
    /// Directory with the roots, online for the renewal.
    pub(crate) root_out: PathBuf,
    pub(crate) passphrase: Secret<String>,
}

/// Replaces the issuing CA with a new one under the active root, and returns the end of its validity.
/// Certificates of the old CA stay valid, because peers trust the roots.
///
/// With `dry_run`, nothing is changed.
pub(crate) fn renew_issuer(
    options: &RenewIssuerOptions,
    dry_run: bool,
    now: SystemTime,
) -> Result<SystemTime, PkiError> {
    let dir = StateDir::new(&options.state);
    let mut inventory = Inventory::open(&dir)?;
    let (domain, _) = inventory.identity()?;
    let (path, passphrase) = (options.root_out.clone(), options.passphrase.clone());
    let folder = RootFolder { path, trust_domain: domain.clone(), passphrase };
    let root = folder.load("active")?;
    let bundle = TrustBundle::load(domain.clone(), &dir.bundle())?;
    if !bundle.roots().any(|known| known == root.cert()) {
        return Err(PkiError::Conflict(format!(
            "{}: this root is not in the trust bundle {}",
            folder.certificate("active").display(),
            dir.bundle().display()
        )));
    }
    let issuing = root.issuing(&domain, now, ISSUING_LIFE)?;
    if dry_run {
        return Ok(issuing.not_after());
    }
    let detail = json!({"until": utc(issuing.not_after()), "key": issuing.pin().to_string()});
    inventory.record(now, "issuing CA renewed", &detail)?;
    issuing.store(&dir.issuer())?;
    Ok(issuing.not_after())
}

/// Runs the checks of [`init`] that come before any change.
///
/// # Errors
/// Those of [`init`].
pub(crate) fn check_init(options: &InitOptions) -> Result<(), PkiError> {
    let (state, root_out) = (absolute(&options.state)?, absolute(&options.root_out)?);
    if root_out.starts_with(&state) || state.starts_with(&root_out) {
        return Err(PkiError::Usage(format!(
            "--root-out {} and --state {}: one is inside the other; the roots go offline, so choose \
             separate directories",
            options.root_out.display(),
            options.state.display()
        )));
    }
    if options.passphrase.expose().chars().count() < 8 {
        return Err(PkiError::Usage("the root passphrase must have at least 8 characters".into()));
    }
    Ok(())
}

/// Whether the state directory is complete. Rejects the state directory of another PKI.
fn is_complete(dir: &StateDir, options: &InitOptions) -> Result<bool, PkiError> {
    let Some(inventory) = Inventory::open_if_created(dir)? else { return Ok(false) };
    let (domain, cluster) = inventory.identity()?;
    if domain != options.trust_domain || cluster != options.cluster {
        return Err(PkiError::Conflict(format!(
            "{}: already contains the PKI of trust domain {domain} with issuer cluster {cluster}; \
             use another --state",
            dir.path().display()
        )));
    }
    Ok(inventory.first_audit_event()?.is_some_and(|event| event == CREATED))
}

fn absolute(path: &Path) -> Result<PathBuf, PkiError> {
    std::path::absolute(path).map_err(PkiError::io("resolve", path))
}

#[cfg(test)]
mod tests;
