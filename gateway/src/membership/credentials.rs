//! The data directory with a gateway's credentials, and their renewal.
//!
//! ```text
//! data_dir/            0700
//!   credentials.pem    0600  private key and certificate chain, one file so that the two always match
//!   bundle.pem         0644  roots to trust
//!   membership.json    0600  results of the join: issuer, environment, addresses of the observability gateway
//!   instance           0600  distinguishes this gateway from others of its cluster
//!   lock               0600  locked while a gateway uses the directory
//! ```
//!
//! Each file is replaced as a whole. The credentials are written last, so a directory with credentials is complete.

use std::{
    fs::{self, File, TryLockError},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use identity::{
    ActiveCredentials, CredentialStore, Credentials, CredentialsError, PeerIdentity, SpiffeId, TrustBundle,
};
use runtime::RoleError;
use serde::{Deserialize, Serialize};

use crate::{
    clock::{humantime, sleep_until},
    config::DialAddress,
    membership::renewal,
    metrics::GatewayMetrics,
};

/// Length of the id of an instance: 16 bytes as hexadecimal digits.
const INSTANCE_CHARS: usize = 32;
const MEMBERSHIP_FILE: &str = "membership.json";
/// Largest membership file, in bytes.
const MAX_MEMBERSHIP_BYTES: u64 = 64 << 10;
/// Time limit of one attempt to renew.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Upper bound of the size of a chain, a key, the roots and a membership, in bytes.
const STORED_BYTES: usize = 32 << 10;

/// The results of a join in addition to the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The gateway that issues certificates, and the only one whose sessions are served.
    pub(crate) issuer: SpiffeId,
    /// The registered environment.
    pub(crate) environment: String,
    /// Addresses of the observability gateway from the token.
    pub(crate) addresses: Vec<DialAddress>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMembership {
    issuer: String,
    environment: String,
    addresses: Vec<String>,
}

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("data_dir {path}: {source}")]
    Folder { path: String, source: std::io::Error },
    #[error("data_dir {path}: another process uses it; start each gateway with a directory of its own")]
    Locked { path: String },
    #[error("{path}: {reason}; join again with a new token, or restore the file")]
    Membership { path: String, reason: String },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl From<DataDirError> for RoleError {
    fn from(error: DataDirError) -> Self {
        Self::failed(error)
    }
}

/// The data directory. No other process can open it while this one, or a clone, exists.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: Arc<File>,
}

impl DataDir {
    /// Opens the directory and sets its mode to 0700; creates it if it does not exist.
    ///
    /// # Errors
    /// The directory cannot be written, or another process uses it.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let folder = |source| DataDirError::Folder { path: path.display().to_string(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(folder)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(folder)?;
        let mut options = File::options();
        let lock = options.write(true).create(true).truncate(false).mode(0o600).open(path.join("lock"));
        let lock = lock.map_err(folder)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DataDirError::Locked { path: path.display().to_string() },
            TryLockError::Error(source) => folder(source),
        })?;
        Ok(Self { path: path.to_owned(), _lock: Arc::new(lock) })
    }

    /// The id that distinguishes this gateway from others of its cluster: random, and stored when it is first asked for.
    pub(crate) fn instance(&self) -> Result<String, DataDirError> {
        let path = self.path.join("instance");
        let folder = |source| DataDirError::Folder { path: path.display().to_string(), source };
        if let Ok(stored) = identity::read_bounded(&path, INSTANCE_CHARS as u64)
            && let Ok(stored) = String::from_utf8(stored)
            && stored.len() == INSTANCE_CHARS
        {
            return Ok(stored);
        }
        let new = format!("{:032x}", rand::random::<u128>());
        identity::write_private(&path, new.as_bytes()).map_err(folder)?;
        Ok(new)
    }

    /// Checks that the results of a join can be stored, before a token is used.
    pub(crate) fn check_writable(&self) -> Result<(), DataDirError> {
        let path = self.path.join("write-check.tmp");
        let tried = identity::write_private(&path, &[0; STORED_BYTES]);
        // Removed in any case. If that fails, the next check replaces the file.
        let removed = fs::remove_file(&path);
        tried
            .and(removed)
            .map_err(|source| DataDirError::Folder { path: self.path.display().to_string(), source })
    }

    /// The directory's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn credentials(&self) -> PathBuf {
        self.path.join("credentials.pem")
    }

    fn bundle(&self) -> PathBuf {
        self.path.join("bundle.pem")
    }

    fn membership(&self) -> PathBuf {
        self.path.join(MEMBERSHIP_FILE)
    }

    /// The stored credentials and roots, even if they have expired; `None` if none were stored.
    pub(crate) fn load(&self) -> Result<Option<(Credentials, TrustBundle)>, DataDirError> {
        if !self.credentials().exists() {
            return Ok(None);
        }
        let credentials = Credentials::load(&self.credentials())?;
        let domain = credentials.spiffe_id().trust_domain().clone();
        let bundle = TrustBundle::load(domain, &self.bundle()).map_err(CredentialsError::from)?;
        Ok(Some((credentials, bundle)))
    }

    /// Replaces the stored credentials and roots.
    pub(crate) fn store(&self, credentials: &Credentials, bundle: &TrustBundle) -> Result<(), DataDirError> {
        let path = self.bundle();
        identity::write_public(&path, bundle.to_pem().as_bytes())
            .map_err(|source| DataDirError::Folder { path: path.display().to_string(), source })?;
        Ok(credentials.store(&self.credentials())?)
    }

    /// The stored results of the join.
    pub(crate) fn load_membership(&self) -> Result<Membership, DataDirError> {
        stored_membership(&self.path)
    }

    /// Replaces the results of the join. Call it before [`store`](Self::store).
    pub(crate) fn store_membership(&self, membership: &Membership) -> Result<(), DataDirError> {
        let raw = RawMembership {
            issuer: membership.issuer.to_string(),
            environment: membership.environment.clone(),
            addresses: membership.addresses.iter().map(ToString::to_string).collect(),
        };
        let path = self.membership();
        let failed = |source| DataDirError::Folder { path: path.display().to_string(), source };
        let text = serde_json::to_vec_pretty(&raw).map_err(|error| failed(error.into()))?;
        identity::write_private(&path, &text).map_err(failed)
    }
}

/// The results of the join that are stored in a data directory, which another process may use.
pub(crate) fn stored_membership(data_dir: &Path) -> Result<Membership, DataDirError> {
    let path = data_dir.join(MEMBERSHIP_FILE);
    let wrong = |reason: String| DataDirError::Membership { path: path.display().to_string(), reason };
    let text = identity::read_bounded(&path, MAX_MEMBERSHIP_BYTES).map_err(|error| match error.kind() {
        ErrorKind::NotFound => wrong("the file is missing".to_owned()),
        _ => wrong(error.to_string()),
    })?;
    let raw: RawMembership = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let issuer = raw.issuer.parse().map_err(|error: identity::NameError| wrong(error.to_string()))?;
    let addresses =
        raw.addresses.iter().map(|address| address.parse().map_err(wrong)).collect::<Result<_, _>>()?;
    Ok(Membership { issuer, environment: raw.environment, addresses })
}

/// Requests the next leaf, and returns it with the roots to trust.
pub(crate) type IssueLeaf<'f, 'a> =
    &'f mut (dyn FnMut() -> BoxFuture<'a, Result<(Credentials, TrustBundle), String>> + Send);

/// Gets credentials in place of expired ones.
pub(crate) trait ComeBack: Send {
    /// One attempt. Its error is one line.
    fn attempt<'f>(
        &'f mut self,
        held: &'f ActiveCredentials,
    ) -> BoxFuture<'f, Result<(Credentials, TrustBundle), String>>;
}

/// Resolves when a leaf must be renewed before its time.
pub(crate) type RenewSooner<'f> = &'f (dyn Fn(PeerIdentity) -> BoxFuture<'static, ()> + Send + Sync);

/// For leaves that are renewed at their time.
pub(crate) fn at_its_time(_: PeerIdentity) -> BoxFuture<'static, ()> {
    Box::pin(std::future::pending())
}

/// The credentials in use, which are also the ones in the data directory.
pub(crate) struct CredentialKeeper {
    data_dir: DataDir,
    store: Arc<CredentialStore>,
    metrics: Arc<GatewayMetrics>,
    /// Held while credentials or roots are replaced.
    changing: tokio::sync::Mutex<()>,
    replacements: tokio::sync::watch::Sender<u64>,
}

impl CredentialKeeper {
    pub(crate) fn new(data_dir: DataDir, store: Arc<CredentialStore>, metrics: Arc<GatewayMetrics>) -> Self {
        metrics.credentials(&store.current().credentials);
        let (changing, replacements) = (tokio::sync::Mutex::default(), tokio::sync::watch::Sender::new(0));
        Self { data_dir, store, metrics, changing, replacements }
    }

    /// The store that handshakes read.
    pub(crate) fn store(&self) -> &Arc<CredentialStore> {
        &self.store
    }

    /// Renews the leaf each time half of its lifetime is over, and when `sooner` resolves for it. `issue` requests the next
    /// leaf, which is verified before it replaces the old one. Open connections are not affected. Never returns.
    ///
    /// A clock that is wrong by half a lifetime finds that each new leaf is due at once, so renewals have a least distance.
    ///
    /// # Cancel safety
    /// When the future is dropped, either the old leaf or the new one is in use, never a mixture.
    pub(crate) async fn keep_renewed<'a>(
        &self,
        issue: IssueLeaf<'_, 'a>,
        sooner: RenewSooner<'_>,
        mut recovery: Option<Box<dyn ComeBack>>,
    ) {
        let mut least = Duration::ZERO;
        loop {
            let leaf = self.store.current().credentials.identity().clone();
            let due = renewal::renew_at(&leaf, &mut rand::rng());
            let not_before = tokio::time::sleep(least);
            tokio::select! {
                () = sleep_until(due) => {}
                () = sooner(leaf.clone()) => {}
            }
            not_before.await;
            let mut failures = 0;
            while let Err(error) = self.renew(issue).await {
                failures += 1;
                self.metrics.renewal(false);
                let left = leaf.refused_from().duration_since(SystemTime::now()).unwrap_or_default();
                if left.is_zero()
                    && let Some(recovery) = &mut recovery
                {
                    self.come_back(&leaf, &error, recovery).await;
                    break;
                }
                let pause = renewal::pause_after(failures, left, &mut rand::rng());
                tracing::warn!(error, expires_in = ?left, retry_after = ?pause, "renewing the certificate failed, retrying");
                tokio::time::sleep(pause).await;
            }
            self.metrics.renewal(true);
            let new = self.store.current().credentials.identity().clone();
            least = renewal::least_distance(&new);
            if let Some(ahead) = renewal::clock_is_ahead(&new, SystemTime::now()) {
                let seconds = ahead.as_secs();
                tracing::error!(
                    seconds,
                    "the clock of this machine is ahead of the issuer's: a certificate that was just issued is due for renewal; set the clock"
                );
            }
        }
    }

    /// A number that changes when credentials or roots were replaced.
    pub(crate) fn replacements(&self) -> tokio::sync::watch::Receiver<u64> {
        self.replacements.subscribe()
    }

    /// Uses the offered roots if a root in use has signed them.
    ///
    /// # Errors
    /// Why they are refused, in one line. The roots in use stay.
    pub(crate) async fn adopt_bundle(&self, offered: &TrustBundle) -> Result<(), String> {
        let _changing = self.changing.lock().await;
        let (old, now) = (self.store.current(), SystemTime::now());
        let bundle = match self.bundle_to_use(&old.bundle, offered, now) {
            Ok(bundle) if bundle.sequence() == old.bundle.sequence() => return Ok(()),
            other => other?,
        };
        let credentials = old.credentials.clone();
        credentials.check(&bundle, now).map_err(|error| error.to_string())?;
        self.replace(credentials, bundle, now).await
    }

    /// Replaces credentials and roots, on disk first, so that after a crash the gateway starts with them.
    async fn replace(
        &self,
        credentials: Credentials,
        bundle: TrustBundle,
        now: SystemTime,
    ) -> Result<(), String> {
        let (data_dir, stored) = (self.data_dir.clone(), (credentials.clone(), bundle.clone()));
        let written = tokio::task::spawn_blocking(move || data_dir.store(&stored.0, &stored.1)).await;
        written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.store.replace(credentials, bundle, now).map_err(|error| error.to_string())?;
        self.replacements.send_modify(|number| *number += 1);
        Ok(())
    }

    /// The roots to use: the offered ones if a root in use has signed them, otherwise the ones in use. A refused offer is
    /// reported, because an issuer that plants roots is no longer that of its owners.
    fn bundle_to_use(
        &self,
        held: &TrustBundle,
        offered: &TrustBundle,
        now: SystemTime,
    ) -> Result<TrustBundle, String> {
        match held.successor(offered, now) {
            Ok(None) => Ok(held.clone()),
            Ok(Some(new)) => {
                tracing::info!(sequence = new.sequence(), roots = ?new, "the roots to trust have changed");
                Ok(new)
            }
            Err(refusal) => {
                self.metrics.bundle_refused();
                tracing::error!(error = %refusal, offered = ?offered, "the offered trust bundle is refused, the one in use stays; ask the security team");
                Err(format!("the offered trust bundle is refused: {refusal}"))
            }
        }
    }

    /// Gets another leaf after the present one has expired. Tries again until that succeeds.
    async fn come_back(&self, leaf: &PeerIdentity, error: &str, recovery: &mut Box<dyn ComeBack>) {
        let expired_at = humantime(leaf.not_after);
        tracing::warn!(
            expired_at,
            error,
            "the certificate has expired and nothing is served, exchanging it with its key"
        );
        let (mut failures, mut said) = (0, String::new());
        loop {
            let held = self.store.current();
            let recovered = match recovery.attempt(&held).await {
                Ok((credentials, bundle)) => {
                    let _changing = self.changing.lock().await;
                    self.replace(credentials, bundle, SystemTime::now()).await
                }
                Err(error) => Err(error),
            };
            let Err(error) = recovered else { break };
            failures += 1;
            let pause = renewal::pause_after_expiry(failures, &mut rand::rng());
            // Said once: reasons that differ only in times are one.
            let reason: String = error.chars().filter(|character| !character.is_ascii_digit()).collect();
            if reason != said {
                said = reason;
                tracing::error!(
                    expired_at,
                    error,
                    "the certificate has expired and cannot be exchanged, trying again; set the clock if it is wrong, or write a new token to the file of --join-file"
                );
            }
            tracing::debug!(error, retry_after = ?pause, "the expired certificate cannot be exchanged yet");
            self.metrics.renewal(false);
            tokio::time::sleep(pause).await;
        }
        self.metrics.credentials(&self.store.current().credentials);
        let not_after = self.store.current().credentials.not_after();
        tracing::info!(expires_at = humantime(not_after), "the certificate is valid again");
    }

    async fn renew<'a>(&self, issue: IssueLeaf<'_, 'a>) -> Result<(), String> {
        let issued = tokio::time::timeout(RENEWAL_TIMEOUT, issue()).await;
        let (credentials, bundle) =
            issued.unwrap_or_else(|_| Err(format!("no answer within {} s", RENEWAL_TIMEOUT.as_secs())))?;
        let _changing = self.changing.lock().await;
        let old = self.store.current();
        if credentials.spiffe_id() != old.credentials.spiffe_id() {
            let (new, old) = (credentials.spiffe_id(), old.credentials.spiffe_id());
            return Err(format!("the issuer returned a certificate of {new}, expected {old}"));
        }
        let now = SystemTime::now();
        // New roots are distributed before they issue certificates, so a valid leaf is valid under the old roots too.
        credentials.check(&old.bundle, now).map_err(|error| error.to_string())?;
        let bundle = self.bundle_to_use(&old.bundle, &bundle, now).unwrap_or_else(|_| old.bundle.clone());
        credentials.check(&bundle, now).map_err(|error| error.to_string())?;
        let valid_for = credentials.not_after().duration_since(now).unwrap_or_default();
        self.replace(credentials, bundle, now).await?;
        self.metrics.credentials(&self.store.current().credentials);
        tracing::info!(valid_for_seconds = valid_for.as_secs(), "certificate renewed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_of_an_existing_directory_is_restricted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let data_dir = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(data_dir.load().unwrap().is_none());

        fs::write(dir.path().join("file"), "").unwrap();
        let error = DataDir::open(&dir.path().join("file")).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }

    #[test]
    fn the_write_check_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(&dir.path().join("data")).unwrap();
        data_dir.check_writable().unwrap();
        let names = fs::read_dir(data_dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["lock"]);
        fs::remove_dir_all(data_dir.path()).unwrap();
        let error = data_dir.check_writable().unwrap_err().to_string();
        assert!(error.starts_with("data_dir ") && error.contains("data: "), "{error}");
    }

    #[test]
    fn a_directory_is_used_once_and_keeps_its_instance() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        let instance = data_dir.instance().unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another process uses it"), "{error}");
        drop(data_dir);
        let data_dir = DataDir::open(dir.path()).unwrap();
        assert_eq!(data_dir.instance().unwrap(), instance);
        fs::write(dir.path().join("instance"), "damaged").unwrap();
        let another = data_dir.instance().unwrap();
        assert!(another != instance && another == data_dir.instance().unwrap());
    }

    #[test]
    fn a_membership_is_loaded_as_stored_and_a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(dir.path()).unwrap();
        let membership = Membership {
            issuer: "spiffe://prod.example/cluster/obs/gateway".parse().unwrap(),
            environment: "production".to_owned(),
            addresses: vec!["gateway.obs.example:10943".parse().unwrap()],
        };
        data_dir.store_membership(&membership).unwrap();
        assert_eq!(data_dir.load_membership().unwrap(), membership);
        for damaged in
            ["", "{}", "{\"issuer\": 1}", "[]", "{\"issuer\":\"x\",\"environment\":\"\",\"addresses\":[]}"]
        {
            fs::write(dir.path().join("membership.json"), damaged).unwrap();
            let error = data_dir.load_membership().unwrap_err().to_string();
            assert!(error.contains("membership.json") && error.contains("join again"), "{error}");
        }
        fs::remove_file(dir.path().join("membership.json")).unwrap();
        assert!(data_dir.load_membership().unwrap_err().to_string().contains("file is missing"));
    }
}
