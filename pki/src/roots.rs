//! The roots, which are used on a machine that is offline: their folder, and what they sign besides certificates.
//!
//! A root signs trust bundles: each new one has a higher sequence than the one before and the signature of a root of that
//! one. So no online machine, not even the issuer, can change which roots are trusted.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use identity::{
    Secret, SpkiPin, TrustBundle, TrustDomain, read_bounded, read_private, write_private, write_public,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::json;

use crate::{
    authority::CertificateAuthority,
    error::PkiError,
    inventory::{Inventory, StateDir},
    seal::{Argon2Cost, seal, unseal},
    wiped_key::WipedKey,
};

const MAX_ROOT_FILE_BYTES: u64 = 64 * 1024;

/// The folder with the roots, `root-LABEL.pem` and `root-LABEL.key.sealed`. The first labels are `active` and `standby`.
pub(crate) struct RootFolder {
    pub(crate) path: PathBuf,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) passphrase: Secret<String>,
}

impl RootFolder {
    /// The file with a root's certificate.
    pub(crate) fn certificate(&self, label: &str) -> PathBuf {
        self.path.join(format!("root-{label}.pem"))
    }

    fn sealed_key(&self, label: &str) -> PathBuf {
        self.path.join(format!("root-{label}.key.sealed"))
    }

    /// Loads an existing root, or creates it. The certificate is written last, so when it exists the key exists too.
    pub(crate) fn load_or_create(
        &self,
        label: &str,
        now: SystemTime,
        cost: Argon2Cost,
    ) -> Result<CertificateAuthority, PkiError> {
        let (cert_path, key_path) = (self.certificate(label), self.sealed_key(label));
        if cert_path.exists() {
            return self.load(label);
        }
        let root = CertificateAuthority::root(&self.trust_domain, label, now)?;
        let sealed = seal(root.key_der().expose(), &self.passphrase, cost)?;
        write_private(&key_path, sealed.as_bytes()).map_err(PkiError::io("write", &key_path))?;
        write_public(&cert_path, root.cert_pem().as_bytes()).map_err(PkiError::io("write", &cert_path))?;
        Ok(root)
    }

    /// Loads a root and decrypts its key.
    pub(crate) fn load(&self, label: &str) -> Result<CertificateAuthority, PkiError> {
        let (cert_path, key_path) = (self.certificate(label), self.sealed_key(label));
        let read = |path: &Path| read_bounded(path, MAX_ROOT_FILE_BYTES).map_err(PkiError::io("read", path));
        let damaged = |path: &Path, why: &str| PkiError::Integrity(format!("{}: {why}", path.display()));
        let cert = CertificateDer::from_pem_slice(&read(&cert_path)?)
            .map_err(|e| damaged(&cert_path, &e.to_string()))?;
        let sealed = String::from_utf8(
            read_private(&key_path, MAX_ROOT_FILE_BYTES).map_err(PkiError::io("read", &key_path))?,
        )
        .map_err(|_| damaged(&key_path, "not valid UTF-8"))?;
        let key = unseal(&sealed, &self.passphrase).map_err(|e| match e {
            PkiError::Refused(why) => PkiError::Refused(format!("{}: {why}", key_path.display())),
            other => damaged(&key_path, &other.to_string()),
        })?;
        let key = WipedKey::from_der(&PrivatePkcs8KeyDer::from(key.as_slice()).into())
            .map_err(|e| damaged(&key_path, &e.to_string()))?;
        let root = CertificateAuthority::new(cert, key).map_err(|e| damaged(&cert_path, &e.to_string()))?;
        if !root.organization_is(self.trust_domain.as_str()) {
            return Err(PkiError::Conflict(format!(
                "{}: the root belongs to another trust domain, expected {}",
                cert_path.display(),
                self.trust_domain
            )));
        }
        Ok(root)
    }
}

/// A change of the roots to trust.
#[derive(Debug, Clone, Default)]
pub(crate) struct BundleChange {
    /// Roots to trust, too.
    pub(crate) add: Vec<CertificateDer<'static>>,
    /// Roots to trust no more.
    pub(crate) remove: Vec<SpkiPin>,
}

/// Makes the next bundle: the roots of `held` with a change, signed by a root of `held`.
pub(crate) fn next_bundle(
    held: &TrustBundle,
    change: &BundleChange,
    root: &CertificateAuthority,
    now: SystemTime,
) -> Result<TrustBundle, PkiError> {
    if let Some(unknown) = change.remove.iter().find(|pin| !held.pins().any(|held| held == **pin)) {
        return Err(PkiError::NotFound(format!(
            "root {unknown} is not in the bundle; `pki bundle show` prints its roots"
        )));
    }
    let kept = held.roots().zip(held.pins()).filter(|(_, pin)| !change.remove.contains(pin));
    let roots = kept.map(|(der, _)| der.clone()).chain(change.add.iter().cloned());
    let next = TrustBundle::new(held.trust_domain().clone(), roots)?;
    let next = sign_bundle(next, held.sequence() + 1, root)?;
    match held.successor(&next, now) {
        Ok(Some(_)) => {}
        Ok(None) => {
            return Err(PkiError::Refused("the root that signs is not in use; choose another --root".into()));
        }
        Err(why) => return Err(PkiError::Refused(format!("the new bundle would be refused: {why}"))),
    }
    Ok(next)
}

/// Signs a bundle with a root.
pub(crate) fn sign_bundle(
    bundle: TrustBundle,
    sequence: u64,
    root: &CertificateAuthority,
) -> Result<TrustBundle, PkiError> {
    let signature = root.sign(&bundle.statement(sequence))?;
    Ok(bundle.signed(sequence, root.pin(), signature))
}

/// The outcome of [`install_bundle`].
pub(crate) struct InstalledBundle {
    pub(crate) bundle: TrustBundle,
    /// Whether it differs from the one before.
    pub(crate) changed: bool,
}

/// Replaces the bundle of a state directory with the one in a file, if the bundle in use allows it. With `dry_run` only
/// the checks are made.
pub(crate) fn install_bundle(
    state: &Path,
    file: &Path,
    dry_run: bool,
    now: SystemTime,
) -> Result<InstalledBundle, PkiError> {
    let dir = StateDir::new(state);
    let mut inventory = Inventory::open(&dir)?;
    let held = dir.load_bundle()?;
    let offered = TrustBundle::load(held.trust_domain().clone(), file)?;
    let refuse = |why: &dyn std::fmt::Display| PkiError::Refused(format!("{}: {why}", file.display()));
    let Some(bundle) = held.successor(&offered, now).map_err(|why| refuse(&why))? else {
        return Ok(InstalledBundle { bundle: held, changed: false });
    };
    let issuing = CertificateAuthority::load(&dir.issuer())?;
    if !bundle.roots().any(|root| issuing.is_signed_by(root)) {
        return Err(refuse(
            &"the issuing CA is under a root that is not in it; renew the issuing CA under another root first",
        ));
    }
    if !dry_run {
        let roots: Vec<String> = bundle.pins().map(|pin| pin.to_string()).collect();
        inventory.record(
            now,
            "trust bundle installed",
            &json!({"sequence": bundle.sequence(), "roots": roots}),
        )?;
        write_public(&dir.bundle(), bundle.to_pem().as_bytes())
            .map_err(PkiError::io("write", &dir.bundle()))?;
    }
    Ok(InstalledBundle { bundle, changed: true })
}
