//! The next issuing CA: its key is made on the online machine, and a root signs it on an offline one. Only a request and a
//! certificate travel, so no root key comes to the online machine, and no issuing key leaves it.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use identity::{Name, TrustBundle, TrustDomain, read_bounded, read_private, write_private, write_public};
use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    authority::{CertificateAuthority, utc},
    csr::ProvenKey,
    error::PkiError,
    inventory::{Inventory, StateDir},
    wiped_key::WipedKey,
};

const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Makes the key of the next issuing CA, and writes a request for it. A key that was made before is used again, so that the
/// request can be written twice. With `dry_run`, nothing is written.
pub(crate) fn request(state: &Path, out: &Path, dry_run: bool) -> Result<(), PkiError> {
    let dir = StateDir::new(state);
    // Fails for a directory that is not a state directory.
    Inventory::open(&dir)?;
    let failed = |e: rcgen::Error| PkiError::Failed(format!("create a certificate request: {e}"));
    let path = dir.next_issuer_key();
    let made = load_key(&path)?;
    if dry_run {
        return Ok(());
    }
    let key = match made {
        Some(key) => key,
        None => {
            let key = WipedKey::generate(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
            write_private(&path, key.pkcs8().expose()).map_err(PkiError::io("write", &path))?;
            key
        }
    };
    let request = CertificateParams::default().serialize_request(&key).map_err(failed)?;
    let pem = request.pem().map_err(failed)?;
    write_public(out, pem.as_bytes()).map_err(PkiError::io("write", out))
}

fn load_key(path: &Path) -> Result<Option<WipedKey>, PkiError> {
    if !path.exists() {
        return Ok(None);
    }
    let der = Zeroizing::new(read_private(path, MAX_FILE_BYTES).map_err(PkiError::io("read", path))?);
    let key = WipedKey::from_der(&PrivatePkcs8KeyDer::from(der.as_slice()).into());
    key.map(Some).map_err(|e| PkiError::Integrity(format!("{}: {e}; remove the file", path.display())))
}

/// Signs a request with a root, and writes the certificate to `out`. With `only`, the CA can sign only certificates of one cluster.
pub(crate) fn sign(
    root: &CertificateAuthority,
    domain: &TrustDomain,
    request: &Path,
    out: Option<&Path>,
    life: Duration,
    only: Option<&Name>,
    now: SystemTime,
) -> Result<SystemTime, PkiError> {
    let pem = read_bounded(request, MAX_FILE_BYTES).map_err(PkiError::io("read", request))?;
    let csr = CertificateSigningRequestDer::from_pem_slice(&pem).map_err(|e| {
        PkiError::Usage(format!("{}: {e}, expected a PEM certificate request", request.display()))
    })?;
    let key = ProvenKey::from_csr(&csr)?;
    let (cert, until) = root.sign_issuing(domain, &key.spki, now, life, only)?;
    if let Some(out) = out {
        write_public(out, identity::certificate_pem(&cert).as_bytes()).map_err(PkiError::io("write", out))?;
    }
    Ok(until)
}

/// Uses the certificate that a root has signed, with the key of [`request`]. Returns the end of its validity.
pub(crate) fn install(
    state: &Path,
    file: &Path,
    dry_run: bool,
    now: SystemTime,
) -> Result<SystemTime, PkiError> {
    let dir = StateDir::new(state);
    let mut inventory = Inventory::open(&dir)?;
    let in_file = |why: &dyn std::fmt::Display| PkiError::Refused(format!("{}: {why}", file.display()));
    let pem = read_bounded(file, MAX_FILE_BYTES).map_err(PkiError::io("read", file))?;
    let cert = CertificateDer::from_pem_slice(&pem).map_err(|e| in_file(&e))?;
    let key_path = dir.next_issuer_key();
    let key = load_key(&key_path)?.ok_or_else(|| {
        PkiError::NotFound("there is no key for it; `pki issuer request` makes one".to_owned())
    })?;
    let authority = CertificateAuthority::new(cert, key).map_err(|e| in_file(&e))?;
    let bundle: TrustBundle = dir.load_bundle()?;
    if !bundle.roots().any(|root| authority.is_signed_by(root)) {
        return Err(in_file(&"no root of the trust bundle has signed it"));
    }
    if now >= authority.not_after() {
        return Err(in_file(&format!("it expired at {}", utc(authority.not_after()))));
    }
    let until = authority.not_after();
    if !dry_run {
        let detail = json!({"until": utc(until), "key": authority.pin().to_string()});
        inventory.record(now, "issuing CA installed", &detail)?;
        authority.store(&dir.issuer())?;
        std::fs::remove_file(&key_path).map_err(PkiError::io("remove", &key_path))?;
    }
    Ok(until)
}

#[cfg(test)]
mod tests;
