//! Making a PKI: two offline roots, an issuing CA, and the state directory of the online issuer.
//!
//! Interrupted at any point, it is completed by running it again with the same arguments: each file is written
//! whole or not at all, and what is there is used. The roots come first, the issuing CA and its key as one file
//! next, the mark that all is done (an audit entry) last.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use identity::{Name, Secret, TrustBundle, TrustDomain, read_bounded, write_private, write_public};
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::json;

use crate::{
    authority::{CertificateAuthority, ISSUING_LIFE, utc},
    error::PkiError,
    inventory::{Inventory, StateDir, create_private_dir},
    seal::{Argon2Cost, seal, unseal},
};

/// The audit entry that says that the state directory is complete.
const DONE: &str = "initialised";

const MAX_ROOT_FILE_BYTES: u64 = 64 * 1024;

/// What to make, and where.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The state directory of the online issuer.
    pub state: PathBuf,
    /// Where the roots go: a directory that will be taken offline. Not within the state directory.
    pub root_out: PathBuf,
    /// The trust domain, one for each environment.
    pub trust_domain: TrustDomain,
    /// The cluster in which the issuer lives.
    pub cluster: Name,
    /// Encrypts the root keys.
    pub passphrase: Secret<String>,
}

/// What [`init`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitOutcome {
    /// Made everything, or what was missing.
    Created,
    /// Found everything in place and changed nothing.
    AlreadyComplete,
}

/// Makes a PKI, or completes one that was begun with the same options.
///
/// # Errors
/// When the directories hold another trust domain's PKI, the passphrase is not that of the roots found, or a
/// file cannot be written.
pub fn init(options: &InitOptions, now: SystemTime) -> Result<InitOutcome, PkiError> {
    init_at_cost(options, now, Argon2Cost::STRONG)
}

/// As [`init`], with the cost of guessing a passphrase given.
pub(crate) fn init_at_cost(
    options: &InitOptions,
    now: SystemTime,
    cost: Argon2Cost,
) -> Result<InitOutcome, PkiError> {
    check_init(options)?;
    let dir = StateDir::new(&options.state);
    if is_done(&dir, options)? {
        return Ok(InitOutcome::AlreadyComplete);
    }
    create_private_dir(&options.root_out)?;
    let active = load_or_create_root(options, "active", now, cost)?;
    let standby = load_or_create_root(options, "standby", now, cost)?;
    let bundle =
        TrustBundle::new(options.trust_domain.clone(), [active.cert().clone(), standby.cert().clone()])?;

    dir.create()?;
    write_public(&dir.bundle(), bundle.to_pem().as_bytes()).map_err(PkiError::io("write", &dir.bundle()))?;
    if !dir.issuer().exists() {
        active.issuing(&options.trust_domain, now, ISSUING_LIFE)?.store(&dir.issuer())?;
    }
    let mut inventory = Inventory::create(&dir, &options.trust_domain, &options.cluster)?;
    let roots: Vec<String> = bundle.pins().map(|pin| pin.to_string()).collect();
    let detail = json!({
        "trust_domain": options.trust_domain.as_str(), "cluster": options.cluster.as_str(), "roots": roots,
    });
    inventory.record(now, DONE, &detail)?;
    Ok(InitOutcome::Created)
}

/// What [`renew_issuer`] works on.
#[derive(Debug, Clone)]
pub(crate) struct RenewIssuerOptions {
    pub(crate) state: PathBuf,
    /// The roots' directory, back for a moment.
    pub(crate) root_out: PathBuf,
    pub(crate) passphrase: Secret<String>,
}

/// Replaces the issuing CA by a new one under the active root, and answers its last moment. What the old one
/// signed stays good: peers trust the roots.
pub(crate) fn renew_issuer(options: &RenewIssuerOptions, now: SystemTime) -> Result<SystemTime, PkiError> {
    let dir = StateDir::new(&options.state);
    let mut inventory = Inventory::open(&dir)?;
    let (domain, _) = inventory.identity()?;
    let cert_path = options.root_out.join("root-active.pem");
    let key_path = options.root_out.join("root-active.key.sealed");
    let root = load_root(&domain, &options.passphrase, &cert_path, &key_path)?;
    let bundle = TrustBundle::load(domain.clone(), &dir.bundle())?;
    if !bundle.roots().any(|known| known == root.cert()) {
        return Err(PkiError::Conflict(format!(
            "{} is not a root of {}",
            cert_path.display(),
            dir.bundle().display()
        )));
    }
    let issuing = root.issuing(&domain, now, ISSUING_LIFE)?;
    inventory.record(now, "issuing CA renewed", &json!({"until": utc(issuing.not_after())}))?;
    issuing.store(&dir.issuer())?;
    Ok(issuing.not_after())
}

/// Checks what [`init`] would before it changes anything.
///
/// # Errors
/// As [`init`].
pub(crate) fn check_init(options: &InitOptions) -> Result<(), PkiError> {
    let (state, root_out) = (absolute(&options.state)?, absolute(&options.root_out)?);
    if root_out.starts_with(&state) || state.starts_with(&root_out) {
        return Err(PkiError::Usage(format!(
            "--root-out {} and --state {} must be apart: the roots go offline, the state stays online",
            options.root_out.display(),
            options.state.display()
        )));
    }
    if options.passphrase.expose().chars().count() < 8 {
        return Err(PkiError::Usage("the root passphrase must have at least 8 characters".into()));
    }
    Ok(())
}

/// Whether the state directory is complete; refuses one that is somebody else's.
fn is_done(dir: &StateDir, options: &InitOptions) -> Result<bool, PkiError> {
    let Some(inventory) = Inventory::open_if_made(dir)? else { return Ok(false) };
    let (domain, cluster) = inventory.identity()?;
    if domain != options.trust_domain || cluster != options.cluster {
        return Err(PkiError::Conflict(format!(
            "{} already holds the PKI of trust domain {domain} with issuer cluster {cluster}",
            dir.path().display()
        )));
    }
    Ok(inventory.first_audit_event()?.is_some_and(|event| event == DONE))
}

/// Reads a root that is there, or makes it. The certificate is written last: with it, the key is there too.
fn load_or_create_root(
    options: &InitOptions,
    label: &str,
    now: SystemTime,
    cost: Argon2Cost,
) -> Result<CertificateAuthority, PkiError> {
    let cert_path = options.root_out.join(format!("root-{label}.pem"));
    let key_path = options.root_out.join(format!("root-{label}.key.sealed"));
    if cert_path.exists() {
        return load_root(&options.trust_domain, &options.passphrase, &cert_path, &key_path);
    }
    let root = CertificateAuthority::root(&options.trust_domain, label, now)?;
    let sealed = seal(&root.key_der(), &options.passphrase, cost)?;
    write_private(&key_path, sealed.as_bytes()).map_err(PkiError::io("write", &key_path))?;
    write_public(&cert_path, root.cert_pem().as_bytes()).map_err(PkiError::io("write", &cert_path))?;
    Ok(root)
}

fn load_root(
    domain: &TrustDomain,
    passphrase: &Secret<String>,
    cert_path: &Path,
    key_path: &Path,
) -> Result<CertificateAuthority, PkiError> {
    let read = |path: &Path| read_bounded(path, MAX_ROOT_FILE_BYTES).map_err(PkiError::io("read", path));
    let damaged = |path: &Path, why: &str| PkiError::Integrity(format!("{}: {why}", path.display()));
    let cert =
        CertificateDer::from_pem_slice(&read(cert_path)?).map_err(|e| damaged(cert_path, &e.to_string()))?;
    let sealed = String::from_utf8(read(key_path)?).map_err(|_| damaged(key_path, "is not text"))?;
    let key = unseal(&sealed, passphrase).map_err(|e| match e {
        PkiError::Refused(why) => PkiError::Refused(format!("{}: {why}", key_path.display())),
        other => damaged(key_path, &other.to_string()),
    })?;
    let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.as_slice()))
        .map_err(|e| damaged(key_path, &e.to_string()))?;
    let root = CertificateAuthority::new(cert, key).map_err(|e| damaged(cert_path, &e.to_string()))?;
    if !root.organization_is(domain.as_str()) {
        return Err(PkiError::Conflict(format!(
            "{} is a root of another trust domain than {}",
            cert_path.display(),
            domain
        )));
    }
    Ok(root)
}

fn absolute(path: &Path) -> Result<PathBuf, PkiError> {
    std::path::absolute(path).map_err(PkiError::io("resolve", path))
}

#[cfg(test)]
mod tests;
