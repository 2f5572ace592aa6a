//! An issuing CA that comes as files from elsewhere, such as a Secret of Kubernetes that is mounted as a folder.
//!
//! The state directory is created from the files if it does not exist, and takes over what changes in them. So the issuing CA is replaced
//! by changing a Secret, and the inventory stays where it is.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use identity::{Name, TrustBundle, TrustDomain, read_bounded, write_public};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    authority::{CertificateAuthority, utc},
    error::PkiError,
    inventory::{CREATED, Inventory, StateDir},
    issuer::current::{FileVersion, file_version},
    roots::install_bundle,
};

const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A folder with `issuer.pem` (certificate and key of the issuing CA) and `bundle.pem` (the roots), as `pki init` writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredIssuer {
    /// The folder. Its files may be links, and others may be able to read them: who delivers them decides that.
    pub folder: PathBuf,
    /// The trust domain of the PKI.
    pub trust_domain: TrustDomain,
    /// The cluster in which the issuer runs.
    pub cluster: Name,
}

/// What a state directory has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// The state directory was created, with an empty inventory.
    pub created: bool,
    /// The end of the issuing CA that is used from now on.
    pub issuing_ca_until: Option<SystemTime>,
    /// The sequence of the trust bundle that is used from now on.
    pub bundle_sequence: Option<u64>,
}

/// Identifies what a folder contains; another value means that a file was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveredVersion([Option<FileVersion>; 2]);

impl DeliveredIssuer {
    /// What the folder contains now, without reading it.
    pub fn version(&self) -> DeliveredVersion {
        DeliveredVersion([&self.issuer(), &self.bundle()].map(|path| file_version(path)))
    }

    /// Creates the state directory if it does not exist, and takes over an issuing CA that is newer than the one in use, and a trust
    /// bundle that a root in use has signed. An older CA is left alone, so that `pki issuer renew` is not undone.
    ///
    /// # Errors
    /// When a file is missing or damaged, belongs to another trust domain, or is not signed by a root in use. Nothing, or only one of the
    /// two files, was taken over then.
    pub fn take_over(&self, state: &Path, now: SystemTime) -> Result<Delivered, PkiError> {
        let dir = StateDir::new(state);
        let offered = self.load_issuer()?;
        let Some(mut inventory) = Inventory::open_if_created(&dir)? else {
            return self.create(&dir, &offered, now);
        };
        let (domain, cluster) = inventory.identity()?;
        if (&domain, &cluster) != (&self.trust_domain, &self.cluster) {
            return Err(PkiError::Conflict(format!(
                "{}: is the PKI of trust domain {domain} with issuer cluster {cluster}, not of {} with {}",
                state.display(),
                self.trust_domain,
                self.cluster
            )));
        }
        // A bundle without the root of the present CA is refused until the next CA is in use, and a CA under a new root until the bundle
        // has it.
        let bundle = install_bundle(state, &self.bundle(), false, now);
        let issuing_ca_until = self.take_over_issuer(&dir, &mut inventory, &offered, now)?;
        let bundle = match bundle {
            Err(_) if issuing_ca_until.is_some() => install_bundle(state, &self.bundle(), false, now),
            first => first,
        }?;
        let bundle_sequence = bundle.changed.then(|| bundle.bundle.sequence());
        Ok(Delivered { created: false, issuing_ca_until, bundle_sequence })
    }

    fn create(
        &self,
        dir: &StateDir,
        offered: &CertificateAuthority,
        now: SystemTime,
    ) -> Result<Delivered, PkiError> {
        let bundle = TrustBundle::load(self.trust_domain.clone(), &self.bundle())?;
        self.check(offered, &bundle, now)?;
        dir.create()?;
        write_public(&dir.bundle(), bundle.to_pem().as_bytes())
            .map_err(PkiError::io("write", &dir.bundle()))?;
        offered.store(&dir.issuer())?;
        let mut inventory = Inventory::create(dir, &self.trust_domain, &self.cluster)?;
        let roots: Vec<String> = bundle.pins().map(|pin| pin.to_string()).collect();
        let detail = json!({
            "trust_domain": self.trust_domain.as_str(), "cluster": self.cluster.as_str(), "roots": roots,
            "from": self.folder.display().to_string(), "key": offered.pin().to_string(),
        });
        inventory.record(now, CREATED, &detail)?;
        Ok(Delivered {
            created: true,
            issuing_ca_until: Some(offered.not_after()),
            bundle_sequence: Some(bundle.sequence()),
        })
    }

    fn take_over_issuer(
        &self,
        dir: &StateDir,
        inventory: &mut Inventory,
        offered: &CertificateAuthority,
        now: SystemTime,
    ) -> Result<Option<SystemTime>, PkiError> {
        let held = CertificateAuthority::load(&dir.issuer())?;
        if offered.cert() == held.cert() || offered.not_before() <= held.not_before() {
            return Ok(None);
        }
        self.check(offered, &dir.load_bundle()?, now)?;
        let until = offered.not_after();
        let detail = json!({"until": utc(until), "key": offered.pin().to_string()});
        inventory.record(now, "issuing CA installed", &detail)?;
        offered.store(&dir.issuer())?;
        Ok(Some(until))
    }

    /// Checks that an issuing CA can be used with a bundle.
    fn check(
        &self,
        offered: &CertificateAuthority,
        bundle: &TrustBundle,
        now: SystemTime,
    ) -> Result<(), PkiError> {
        let refuse = |why: String| Err(PkiError::Refused(format!("{}: {why}", self.issuer().display())));
        if !offered.organization_is(self.trust_domain.as_str()) {
            return refuse(format!("the issuing CA is not one of trust domain {}", self.trust_domain));
        }
        if !bundle.roots().any(|root| offered.is_signed_by(root)) {
            return refuse("no root of the trust bundle has signed it".to_owned());
        }
        if now >= offered.not_after() {
            return refuse(format!("the issuing CA expired at {}", utc(offered.not_after())));
        }
        Ok(())
    }

    fn load_issuer(&self) -> Result<CertificateAuthority, PkiError> {
        let path = self.issuer();
        let pem = read_bounded(&path, MAX_FILE_BYTES).map_err(PkiError::io("read", &path))?;
        CertificateAuthority::from_pem(&Zeroizing::new(pem), &path)
    }

    fn issuer(&self) -> PathBuf {
        self.folder.join("issuer.pem")
    }

    fn bundle(&self) -> PathBuf {
        self.folder.join("bundle.pem")
    }
}

#[cfg(test)]
mod tests;
