//! The cluster's side: denylists that are received, verified, stored and used.
//!
//! The data directory has two files, `denylist.bin` and `denylist-root.bin`, as they were received, and the heads of the audit log.

use std::{
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use identity::{
    Denylist, DenylistSigner, HeldDenylists, MAX_DENYLIST_BYTES, PeerIdentity, SignedDenylist, TrustBundle,
};
use proto::isthmus::mesh::v1::{AuditHead, Bundle, TrustReport};
use tokio::sync::watch;

use crate::{
    clock::sleep_until,
    membership::{
        credentials::{CredentialKeeper, DataDir},
        received::bundle_of,
    },
    metrics::GatewayMetrics,
    transport::{CloseReason, MeshLinks, PeerGuard},
    trust::held_audit::HeldAudit,
};

/// The denylists in use, and where they are stored.
pub(crate) struct HeldTrust {
    peers: Arc<HeldPeers>,
    guard: PeerGuard,
    keeper: Arc<CredentialKeeper>,
    data_dir: DataDir,
    audit: HeldAudit,
}

/// Denies what the lists deny.
struct HeldPeers {
    lists: RwLock<HeldDenylists>,
    /// Whether a list was ever received: from then on nothing is served without a fresh one.
    required: AtomicBool,
}

impl Denylist for HeldPeers {
    fn denies(&self, peer: &PeerIdentity) -> Option<String> {
        self.lists.read().unwrap_or_else(PoisonError::into_inner).denies(peer)
    }
}

impl HeldPeers {
    fn lists(&self) -> HeldDenylists {
        self.lists.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl HeldTrust {
    /// Loads the stored lists. A damaged one is reported; then nothing is served before another one arrives.
    pub(crate) fn load(
        data_dir: DataDir,
        keeper: Arc<CredentialKeeper>,
        metrics: Arc<GatewayMetrics>,
    ) -> Arc<Self> {
        let bundle = keeper.store().current().bundle.clone();
        let (mut lists, mut required) = (HeldDenylists::default(), false);
        // The root's list first: it decides whether that of an issuing CA counts.
        for path in [root_file(&data_dir), issuer_file(&data_dir)] {
            if !path.exists() {
                continue;
            }
            required = true;
            if let Err(error) = load(&path, &bundle, &mut lists) {
                tracing::error!(path = %path.display(), error, "a stored denylist cannot be used, nothing is served before a new one arrives");
            }
        }
        let peers = Arc::new(HeldPeers { lists: RwLock::new(lists), required: required.into() });
        let guard = PeerGuard::new(peers.clone());
        let audit = HeldAudit::load(data_dir.path().join("audit-heads.json"), metrics);
        Arc::new(Self { peers, guard, keeper, data_dir, audit })
    }

    /// Refuses the peers that are denied.
    pub(crate) fn guard(&self) -> &PeerGuard {
        &self.guard
    }

    /// A number that changes when credentials or roots were replaced.
    pub(crate) fn replacements(&self) -> watch::Receiver<u64> {
        self.keeper.replacements()
    }

    /// Why no request is served now: the denylist is too old.
    pub(crate) fn refuses_requests(&self, now: SystemTime) -> Option<&'static str> {
        let stale_at = self.peers.lists().stale_at();
        let is_stale =
            stale_at.map_or(self.peers.required.load(Ordering::Relaxed), |stale_at| now >= stale_at);
        is_stale.then_some(
            "the denylist of this cluster is older than 24 h; it is served again when the observability gateway has sent a new one",
        )
    }

    /// What is in use. `refused` says why the last message was refused.
    pub(crate) fn report(&self, refused: &str) -> TrustReport {
        let lists = self.peers.lists();
        let number = |list: Option<&SignedDenylist>| list.map_or(0, SignedDenylist::number);
        let (audit_number, audit_hash) = self.audit.newest();
        TrustReport {
            denylist: number(lists.issuer()),
            root_denylist: number(lists.root()),
            bundle: self.keeper.store().current().bundle.sequence(),
            refused: refused.to_owned(),
            serial: self.keeper.store().current().credentials.identity().serial.clone(),
            audit_number,
            audit_hash,
        }
    }

    /// Uses a denylist that was received, and stores it.
    ///
    /// # Errors
    /// Why it is refused, in one line. The lists in use stay.
    ///
    /// # Cancel safety
    /// When the future is dropped, the list may be in use and not stored.
    pub(crate) async fn take_denylist(&self, bytes: Vec<u8>) -> Result<(), String> {
        let bundle = self.keeper.store().current().bundle.clone();
        let list = SignedDenylist::parse(&bytes, &bundle, Some(SystemTime::now()));
        let list = list.map_err(|error| error.to_string())?;
        let path = match list.signer() {
            DenylistSigner::Root(_) => root_file(&self.data_dir),
            DenylistSigner::Issuer(_) => issuer_file(&self.data_dir),
        };
        let (number, entries) = (list.number(), list.entries().len());
        let changed = {
            let mut lists = self.peers.lists.write().unwrap_or_else(PoisonError::into_inner);
            lists.offer(list).map_err(|error| error.to_string())?
        };
        if !changed {
            return Ok(());
        }
        // Used before it is stored: what it denies ends now.
        self.peers.required.store(true, Ordering::Relaxed);
        self.guard.changed();
        tracing::debug!(number, entries, "a denylist is in use");
        let written = tokio::task::spawn_blocking(move || identity::write_private(&path, &bytes)).await;
        let written = written.map_err(|error| error.to_string())?;
        written.map_err(|error| format!("the denylist is in use, but cannot be stored: {error}"))
    }

    /// Takes the head of the issuer's audit log. Returns whether [`HeldTrust::report`] must be sent.
    ///
    /// # Errors
    /// Why it is refused, in one line.
    pub(crate) async fn take_audit_head(&self, received: AuditHead) -> Result<bool, String> {
        let (bundle, lists) = (self.keeper.store().current().bundle.clone(), self.peers.lists());
        self.audit.take(received, &bundle, &lists).await
    }

    /// What is known about the issuer's audit log, in one line.
    pub(crate) fn audit_text(&self) -> Option<String> {
        self.audit.text()
    }

    /// Uses a trust bundle that was received, if a root in use has signed it.
    ///
    /// # Errors
    /// Why it is refused, in one line. The bundle in use stays.
    pub(crate) async fn take_bundle(&self, received: Bundle) -> Result<(), String> {
        let domain = self.keeper.store().current().bundle.trust_domain().clone();
        let offered = bundle_of(&domain, received.roots, &received.signature);
        self.keeper.adopt_bundle(&offered.map_err(|error| error.to_string())?).await
    }

    /// Closes all connections when the denylist becomes too old. Those that are opened then carry only the control session,
    /// until a new list arrives. Never returns.
    pub(crate) async fn close_when_stale(&self, links: &MeshLinks) {
        let mut changes = self.guard.changes();
        let mut closed = false;
        loop {
            changes.borrow_and_update();
            let stale_at = self.peers.lists().stale_at();
            let stale = async {
                match stale_at {
                    Some(at) if !closed => sleep_until(at).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stale => {
                    closed = true;
                    tracing::error!("the denylist is older than 24 h, nothing is served before a new one arrives");
                    links.close_where(CloseReason::Denied, |_| true);
                }
                changed = changes.changed() => {
                    closed = false;
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn issuer_file(data_dir: &DataDir) -> PathBuf {
    data_dir.path().join("denylist.bin")
}

fn root_file(data_dir: &DataDir) -> PathBuf {
    data_dir.path().join("denylist-root.bin")
}

fn load(path: &std::path::Path, bundle: &TrustBundle, lists: &mut HeldDenylists) -> Result<(), String> {
    let bytes = identity::read_bounded(path, MAX_DENYLIST_BYTES as u64).map_err(|error| error.to_string())?;
    let list = SignedDenylist::parse(&bytes, bundle, None).map_err(|error| error.to_string())?;
    lists.offer(list).map(drop).map_err(|error| error.to_string())
}
