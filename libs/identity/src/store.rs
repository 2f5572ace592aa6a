//! The credentials in use. They can be replaced while connections are open.

use std::{fmt, path::Path, sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    bundle::TrustBundle,
    credentials::{Credentials, CredentialsError},
};

/// The credentials in use and the trust bundle that belongs to them. Both are always replaced together.
#[derive(Debug, Clone)]
pub struct ActiveCredentials {
    /// Our certificate chain and key.
    pub credentials: Credentials,
    /// The roots that we trust.
    pub bundle: TrustBundle,
}

/// Keeps the credentials and the bundle that TLS handshakes use. Each new handshake, as client or server,
/// uses the current pair. A replacement does not affect connections that are already open.
pub struct CredentialStore {
    active: ArcSwap<ActiveCredentials>,
}

impl CredentialStore {
    /// Makes a store with these credentials.
    ///
    /// # Errors
    /// When a peer with this bundle would refuse our chain at `now`: it has expired, is incomplete, or
    /// belongs to another trust domain.
    pub fn new(
        credentials: Credentials,
        bundle: TrustBundle,
        now: SystemTime,
    ) -> Result<Arc<Self>, CredentialsError> {
        credentials.check(&bundle, now)?;
        Ok(Arc::new(Self { active: ArcSwap::from_pointee(ActiveCredentials { credentials, bundle }) }))
    }

    /// Makes a store with the credentials and the bundle from two files. The trust domain is read from the
    /// credentials.
    ///
    /// # Errors
    /// Those of [`CredentialStore::new`], and an error that names the file when a file cannot be read.
    pub fn load(credentials: &Path, bundle: &Path, now: SystemTime) -> Result<Arc<Self>, CredentialsError> {
        let (credentials, bundle) = load_pair(credentials, bundle)?;
        Self::new(credentials, bundle, now)
    }

    /// Replaces credentials and bundle for all handshakes from now on.
    ///
    /// # Errors
    /// Those of [`CredentialStore::new`]; the old pair then stays in use.
    pub fn replace(
        &self,
        credentials: Credentials,
        bundle: TrustBundle,
        now: SystemTime,
    ) -> Result<(), CredentialsError> {
        credentials.check(&bundle, now)?;
        self.active.store(Arc::new(ActiveCredentials { credentials, bundle }));
        Ok(())
    }

    /// Reads the two files again and replaces both credentials and bundle.
    ///
    /// # Errors
    /// Those of [`CredentialStore::load`]; the old pair then stays in use.
    pub fn reload(&self, credentials: &Path, bundle: &Path, now: SystemTime) -> Result<(), CredentialsError> {
        let (credentials, bundle) = load_pair(credentials, bundle)?;
        self.replace(credentials, bundle, now)
    }

    /// The credentials and bundle in use now.
    pub fn current(&self) -> Arc<ActiveCredentials> {
        self.active.load_full()
    }
}

fn load_pair(credentials: &Path, bundle: &Path) -> Result<(Credentials, TrustBundle), CredentialsError> {
    let credentials = Credentials::load(credentials)?;
    let bundle = TrustBundle::load(credentials.spiffe_id().trust_domain().clone(), bundle)?;
    Ok((credentials, bundle))
}

impl fmt::Debug for CredentialStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialStore({})", self.current().credentials.spiffe_id())
    }
}

impl ResolvesServerCert for CredentialStore {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.active.load().credentials.certified().clone())
    }
}

impl ResolvesClientCert for CredentialStore {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.active.load().credentials.certified().clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
