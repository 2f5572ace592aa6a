//! The credentials in use, replaceable while connections run.

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

/// Credentials and the bundle that goes with them; they are always replaced together.
#[derive(Debug, Clone)]
pub struct ActiveCredentials {
    /// Who we are.
    pub credentials: Credentials,
    /// Whom we trust.
    pub bundle: TrustBundle,
}

/// Holds what TLS handshakes use now. Each new handshake, in either role, takes what is here at that moment;
/// connections that exist are not touched by a replacement.
pub struct CredentialStore {
    active: ArcSwap<ActiveCredentials>,
}

impl CredentialStore {
    /// Starts with these credentials.
    ///
    /// # Errors
    /// When a peer holding this bundle would refuse our own chain at `now` (expired, cut short, another domain's).
    pub fn new(
        credentials: Credentials,
        bundle: TrustBundle,
        now: SystemTime,
    ) -> Result<Arc<Self>, CredentialsError> {
        credentials.check(&bundle, now)?;
        Ok(Arc::new(Self { active: ArcSwap::from_pointee(ActiveCredentials { credentials, bundle }) }))
    }

    /// Starts with the credentials and the bundle in two files; the trust domain is that of the credentials.
    ///
    /// # Errors
    /// As [`CredentialStore::new`], and for unreadable files, naming them.
    pub fn load(credentials: &Path, bundle: &Path, now: SystemTime) -> Result<Arc<Self>, CredentialsError> {
        let (credentials, bundle) = load_pair(credentials, bundle)?;
        Self::new(credentials, bundle, now)
    }

    /// Replaces credentials and bundle for all handshakes from now on.
    ///
    /// # Errors
    /// As [`CredentialStore::new`]; what was held before then stays in use.
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

    /// Replaces both by what the two files hold now.
    ///
    /// # Errors
    /// As [`CredentialStore::load`]; what was held before then stays in use.
    pub fn reload(&self, credentials: &Path, bundle: &Path, now: SystemTime) -> Result<(), CredentialsError> {
        let (credentials, bundle) = load_pair(credentials, bundle)?;
        self.replace(credentials, bundle, now)
    }

    /// What is in use now.
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
