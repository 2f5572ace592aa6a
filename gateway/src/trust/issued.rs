//! The observability side: what the inventory says about peers, read again as soon as it changes.
//!
//! A certificate is accepted only if the inventory has it: the thief of an issuing CA's key can sign certificates, but not
//! enter them there.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use identity::{Denylist, HeldDenylists, PeerIdentity, SignedDenylist, SpkiPin, TrustBundle};
use pki::{ClusterRecord, GatewayReport, Issuer, IssuerFigures};
use tokio::sync::{Notify, watch};

use crate::{
    membership::registrations::Registrations,
    metrics::GatewayMetrics,
    transport::PeerGuard,
    trust::{issued_audit::IssuedAudit, issuer_end::IssuerEnd},
};

/// How often it is looked whether another process has changed the inventory.
const LOOK: Duration = Duration::from_millis(100);
/// How often the inventory is read without a change: the denylist is signed again in time.
const READ_AGAIN: Duration = Duration::from_secs(60);
/// Certificates that are remembered as issued; beyond, all are looked up again.
const MAX_REMEMBERED: usize = 100_000;

/// What is sent to the clusters.
#[derive(Clone)]
pub(crate) struct TrustNews {
    /// The signed denylists: that of a root first, because it decides whether the other one counts.
    pub(crate) denylists: Vec<Bytes>,
    /// The roots to trust.
    pub(crate) bundle: TrustBundle,
}

/// The denylists and the issued certificates.
pub(crate) struct IssuedTrust {
    issuer: Arc<Issuer>,
    peers: Arc<IssuedPeers>,
    guard: PeerGuard,
    news: watch::Sender<Option<TrustNews>>,
    /// Sessions of each gateway.
    sessions: Mutex<HashMap<(String, String), usize>>,
    end: IssuerEnd,
    audit: Arc<IssuedAudit>,
}

struct IssuedPeers {
    issuer: Arc<Issuer>,
    metrics: Arc<GatewayMetrics>,
    lists: RwLock<HeldDenylists>,
    /// Serial numbers and keys that were found in the inventory. Entries of it are never removed.
    issued: Mutex<HashSet<(String, SpkiPin)>>,
}

impl IssuedPeers {
    /// Whether the inventory has a certificate. If it cannot be read, nothing that is new is accepted.
    fn is_issued(&self, peer: &PeerIdentity) -> Result<bool, String> {
        let key = (peer.serial.clone(), peer.spki);
        if self.issued.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
            return Ok(true);
        }
        let found = self.issuer.has_issued(peer).map_err(|error| error.to_string())?;
        if found {
            let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
            if issued.len() >= MAX_REMEMBERED {
                issued.clear();
            }
            issued.insert(key);
        }
        Ok(found)
    }
}

impl Denylist for IssuedPeers {
    fn denies(&self, peer: &PeerIdentity) -> Option<String> {
        {
            let lists = self.lists.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(why) = lists.denies(peer) {
                return Some(why);
            }
            if lists.stale_at().is_none_or(|stale_at| SystemTime::now() >= stale_at) {
                return Some(
                    "the denylist is older than 24 h; the issuing CA cannot sign a new one".to_owned(),
                );
            }
        }
        match self.is_issued(peer) {
            Ok(true) => None,
            Ok(false) => {
                self.metrics.unknown_certificate();
                tracing::error!(id = %peer.spiffe_id, serial = peer.serial, "a certificate of the issuing CA is not in the inventory; the CA's key is stolen, deny it with `pki cert revoke --issuer`");
                Some("it is not in the inventory of the issuer".to_owned())
            }
            Err(error) => Some(format!("the inventory cannot be read: {error}")),
        }
    }
}

impl IssuedTrust {
    /// Reads the inventory for the first time.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn load(issuer: Arc<Issuer>, metrics: Arc<GatewayMetrics>) -> Result<Arc<Self>, String> {
        let peers = Arc::new(IssuedPeers {
            issuer: issuer.clone(),
            metrics: metrics.clone(),
            lists: RwLock::default(),
            issued: Mutex::default(),
        });
        let guard = PeerGuard::new(peers.clone());
        let (news, sessions) = (watch::Sender::new(None), Mutex::default());
        let audit = Arc::new(IssuedAudit::new(issuer.clone(), metrics));
        let end = IssuerEnd::default();
        let trust = Arc::new(Self { issuer, peers, guard, news, sessions, end, audit });
        let (issuer, audit) = (trust.issuer.clone(), trust.audit.clone());
        let read = blocking(move || {
            let now = SystemTime::now();
            issuer.gateway_left(None, now)?;
            read(&issuer, &audit, now)
        });
        trust.apply(&read.await?);
        Ok(trust)
    }

    /// Refuses the peers that are denied, and those whose certificate is not in the inventory.
    pub(crate) fn guard(&self) -> &PeerGuard {
        &self.guard
    }

    /// The heads of the audit log.
    pub(crate) fn audit(&self) -> &Arc<IssuedAudit> {
        &self.audit
    }

    /// What is sent to the clusters, and every change.
    pub(crate) fn news(&self) -> watch::Receiver<Option<TrustNews>> {
        self.news.subscribe()
    }

    /// Reads the inventory again when it has changed, and at once when `sooner` is notified. While it cannot be read, what
    /// was read last stays in use, until the denylist is too old. Never returns.
    pub(crate) async fn run(&self, registrations: &Registrations, sooner: &Notify) {
        let (mut seen, mut failing, mut last_read) = (None, false, Instant::now());
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = sooner.notified() => {}
            }
            let (issuer, audit) = (self.issuer.clone(), self.audit.clone());
            let overdue = last_read.elapsed() >= READ_AGAIN;
            let sequence = self.news.borrow().as_ref().map(|news| news.bundle.sequence());
            let looked = blocking(move || {
                let changes = issuer.changes()?;
                let same = seen == Some(changes) && sequence == Some(issuer.bundle().sequence());
                if same && !overdue {
                    return Ok((changes, None));
                }
                Ok((changes, Some(read(&issuer, &audit, SystemTime::now())?)))
            });
            let looked = looked.await;
            match &looked {
                Err(error) if !failing => {
                    tracing::error!(
                        error,
                        "reading the inventory failed, registrations and denylists are not updated"
                    );
                }
                Ok(_) if failing => tracing::info!("reading the inventory works again"),
                _ => {}
            }
            failing = looked.is_err();
            if let Ok((changes, found)) = looked {
                seen = Some(changes);
                if let Some(found) = found {
                    last_read = Instant::now();
                    registrations.set(&found.clusters);
                    self.apply(&found);
                }
            }
        }
    }

    /// Uses what was read.
    fn apply(&self, found: &InventoryState) {
        let signed_at = found.lists.issuer().map(SignedDenylist::signed_at);
        self.peers.metrics.issuer(&found.figures, signed_at);
        self.end.warn(&found.figures, SystemTime::now());
        let same = |a: Option<&SignedDenylist>, b: Option<&SignedDenylist>| {
            a.map(SignedDenylist::as_bytes) == b.map(SignedDenylist::as_bytes)
        };
        let changed = {
            let mut lists = self.peers.lists.write().unwrap_or_else(PoisonError::into_inner);
            let same = same(lists.issuer(), found.lists.issuer()) && same(lists.root(), found.lists.root());
            *lists = found.lists.clone();
            !same
        };
        if changed {
            // Before the clusters: the connections of those that are denied are closed here.
            self.guard.changed();
        }
        let lists = [found.lists.root(), found.lists.issuer()];
        let denylists: Vec<_> =
            lists.into_iter().flatten().map(|list| Bytes::copy_from_slice(list.as_bytes())).collect();
        self.news.send_if_modified(|news| {
            let same = news.as_ref().is_some_and(|news| {
                news.denylists == denylists && news.bundle.sequence() == found.bundle.sequence()
            });
            if !same {
                *news = Some(TrustNews { denylists, bundle: found.bundle.clone() });
            }
            !same
        });
    }

    /// Counts a session of a gateway until the guard is dropped; then the inventory records that it left.
    pub(crate) fn session(self: &Arc<Self>, id: String, instance: String) -> GatewaySession {
        let gateway = (id, instance);
        *self.sessions().entry(gateway.clone()).or_default() += 1;
        GatewaySession { trust: self.clone(), gateway }
    }

    /// Records that a peer uses a certificate of its own. A peer can report only its own, because the identity of a
    /// certificate that is recorded as used is that of the peer.
    pub(crate) async fn certificate_seen(&self, serial: String, peer: &PeerIdentity) {
        let (issuer, id) = (self.issuer.clone(), peer.spiffe_id.clone());
        let written = blocking(move || issuer.certificate_seen(&serial, &id, SystemTime::now()));
        if let Err(error) = written.await {
            tracing::error!(error, "the use of a certificate cannot be recorded");
        }
    }

    /// The serial numbers of a certificate and of those that it was renewed from. If the inventory cannot be read, its own.
    pub(crate) async fn line_of(&self, serial: String) -> BTreeSet<String> {
        let (issuer, asked) = (self.issuer.clone(), serial.clone());
        blocking(move || issuer.line_of(&asked)).await.unwrap_or_else(|error| {
            tracing::error!(error, "the line of a certificate cannot be read");
            BTreeSet::from([serial])
        })
    }

    /// Records what a gateway has in use.
    pub(crate) async fn reported(&self, report: GatewayReport) {
        if !report.refused.is_empty() {
            tracing::error!(
                peer = report.id,
                error = report.refused,
                "a gateway refuses a denylist or a trust bundle"
            );
        }
        let issuer = self.issuer.clone();
        let written = blocking(move || issuer.gateway_reported(&report, SystemTime::now()));
        if let Err(error) = written.await {
            tracing::error!(error, "the report of a gateway cannot be recorded");
        }
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), usize>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session of a gateway.
pub(crate) struct GatewaySession {
    trust: Arc<IssuedTrust>,
    gateway: (String, String),
}

impl Drop for GatewaySession {
    fn drop(&mut self) {
        let is_last = {
            let mut sessions = self.trust.sessions();
            let count = sessions.entry(self.gateway.clone()).or_default();
            *count = count.saturating_sub(1);
            let is_last = *count == 0;
            if is_last {
                sessions.remove(&self.gateway);
            }
            is_last
        };
        if is_last {
            self.trust.audit.left(&self.gateway);
            let (issuer, (id, instance)) = (self.trust.issuer.clone(), self.gateway.clone());
            // A failed write is repaired by the next start, which records that no gateway is connected.
            drop(tokio::task::spawn_blocking(move || {
                let _ = issuer.gateway_left(Some((&id, &instance)), SystemTime::now());
            }));
        }
    }
}

/// What was read from the inventory.
struct InventoryState {
    clusters: Vec<ClusterRecord>,
    lists: HeldDenylists,
    bundle: TrustBundle,
    figures: IssuerFigures,
}

fn read(issuer: &Issuer, audit: &IssuedAudit, now: SystemTime) -> Result<InventoryState, pki::PkiError> {
    if let Err(error) = audit.sign_if_due(now) {
        tracing::error!(error = %error, "the head of the audit log cannot be signed");
    }
    Ok(InventoryState {
        clusters: issuer.clusters()?,
        lists: issuer.denylists(now)?,
        bundle: issuer.bundle(),
        figures: issuer.figures(now)?,
    })
}

/// Runs a call of the issuer on a thread that may block.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, pki::PkiError> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(call).await;
    done.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
