//! A cluster that has joined: its credentials, and what the join has said about it.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use futures::future::BoxFuture;
use httpclient::{Proxies, ProxyConfig};
use identity::{ActiveCredentials, Credentials, Name, SpiffeId, TrustBundle};
use pki::JoinToken;
use runtime::{ListenAddress, RoleError};

use crate::membership::{
    credentials::{DataDir, Membership},
    join,
    recovery::by_key,
};

/// A cluster that has joined the mesh and is not connected yet. No other process can use its data directory meanwhile.
#[derive(Debug)]
pub struct Member {
    pub(super) data_dir: DataDir,
    pub(super) credentials: Credentials,
    pub(super) bundle: TrustBundle,
    pub(super) membership: Membership,
    /// The file that a new token may be written to, after the certificate has expired.
    pub(super) join_file: Option<PathBuf>,
}

impl Member {
    /// Loads the credentials of the data directory if they are valid; otherwise joins with the token, through `proxy`. With
    /// `listen`, it also waits there for the issuer to connect.
    ///
    /// # Errors
    /// The directory cannot be used, it has no valid credentials and there is no token, or the token is refused.
    // Boxed here, so that callers in other crates do not compile it again.
    pub fn join<'a>(
        data_dir: &'a Path,
        token: Option<JoinToken>,
        proxy: &'a ProxyConfig,
        listen: Option<&'a ListenAddress>,
    ) -> BoxFuture<'a, Result<Self, RoleError>> {
        Box::pin(async move {
            identity::forbid_core_dumps();
            let data_dir = DataDir::open(data_dir)?;
            let (credentials, bundle) = load_or_join(&data_dir, token.as_ref(), proxy, listen).await?;
            let membership = data_dir.load_membership()?;
            Ok(Self { data_dir, credentials, bundle, membership, join_file: None })
        })
    }

    /// Sets the file that a new token may be written to. It is read again after the certificate has expired.
    pub fn with_join_file(mut self, file: Option<PathBuf>) -> Self {
        self.join_file = file;
        self
    }

    /// The identity in the certificate.
    pub(super) fn identity(&self) -> &SpiffeId {
        self.credentials.spiffe_id()
    }

    /// The registered name of the cluster.
    pub fn cluster(&self) -> &Name {
        self.credentials.spiffe_id().cluster()
    }

    /// The registered environment of the cluster.
    pub fn environment(&self) -> &str {
        &self.membership.environment
    }
}

/// Whether a directory has credentials, valid or not, so that a gateway may start without a token.
pub fn has_credentials(data_dir: &Path) -> bool {
    data_dir.join("credentials.pem").exists()
}

/// The credentials to start with: those of the data directory if they are valid; otherwise joins with the token.
async fn load_or_join(
    data_dir: &DataDir,
    token: Option<&JoinToken>,
    proxy: &ProxyConfig,
    listen: Option<&ListenAddress>,
) -> Result<(Credentials, TrustBundle), RoleError> {
    let path = data_dir.path().display();
    let now = SystemTime::now();
    if let Some((credentials, bundle)) = data_dir.load()? {
        let identity = credentials.spiffe_id().clone();
        if let Some(token) = token
            && token.subject() != identity
        {
            let wanted = token.subject();
            return Err(RoleError::wrong_configuration(format!(
                "data directory {path}: belongs to {identity}, but the token is for {wanted}; use another data directory"
            )));
        }
        let checked = credentials.check(&bundle, now).map(drop);
        if checked.is_err() && now > credentials.identity().refused_from() {
            let held = ActiveCredentials { credentials: credentials.clone(), bundle: bundle.clone() };
            let proxies = Proxies::of(proxy).map_err(RoleError::wrong_configuration)?;
            match by_key(&held, &data_dir.load_membership()?, &proxies).await {
                Ok((new, roots)) => {
                    data_dir.store(&new, &roots)?;
                    tracing::warn!(%identity, data_dir = %path, "the stored certificate had expired, and was exchanged with its key");
                    return Ok((new, roots));
                }
                Err(error) => {
                    tracing::warn!(error, "the stored certificate has expired and cannot be exchanged");
                }
            }
        }
        match (checked, token) {
            (Ok(_), Some(_)) => {
                tracing::info!(%identity, data_dir = %path, "already joined, the token is not used");
                return Ok((credentials, bundle));
            }
            (Ok(_), None) => return Ok((credentials, bundle)),
            (Err(error), None) => {
                return Err(RoleError::wrong_configuration(format!(
                    "{error}; join again with a new token (--join-file)"
                )));
            }
            (Err(error), Some(_)) => {
                tracing::warn!(error = %error, "the stored certificate cannot be used any more, joining again")
            }
        }
    }
    let Some(token) = token else {
        return Err(RoleError::wrong_configuration(format!(
            "data directory {path}: contains no certificate; join with --join-file FILE \
             (`isthmus pki token create` in the observability cluster creates a token)"
        )));
    };
    let proxies = Proxies::of(proxy).map_err(RoleError::wrong_configuration)?;
    join::join(token, data_dir, &proxies, listen).await?;
    data_dir.load()?.ok_or_else(|| {
        RoleError::failed(format!("data directory {path}: the certificate that was just stored is missing"))
    })
}
