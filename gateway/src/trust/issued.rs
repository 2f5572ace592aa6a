//! The observability side: what the inventory says about peers, read again as soon as it changes.
//!
//! A certificate is accepted only if the inventory has it: the thief of an issuing CA's key can sign certificates, but not
//! enter them there.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use identity::{Denylist, HeldDenylists, PeerIdentity, SignedDenylist, SpkiPin, TrustBundle};
use pki::{ClusterRecord, GatewayReport, Issuer, IssuerFigures};
use tokio::sync::{Notify, watch};

use crate::{membership::registrations::Registrations, metrics::GatewayMetrics, transport::PeerGuard};

const DAY: Duration = Duration::from_secs(86_400);
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
    /// When the end of the issuing CA was last logged.
    warned: Mutex<Option<Instant>>,
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
            metrics,
            lists: RwLock::default(),
            issued: Mutex::default(),
        });
        let guard = PeerGuard::new(peers.clone());
        let (news, sessions, warned) = (watch::Sender::new(None), Mutex::default(), Mutex::default());
        let trust = Arc::new(Self { issuer, peers, guard, news, sessions, warned });
        let issuer = trust.issuer.clone();
        let read = blocking(move || {
            let now = SystemTime::now();
            issuer.gateway_left(None, now)?;
            read(&issuer, now)
        });
        trust.apply(&read.await?);
        Ok(trust)
    }

    /// Refuses the peers that are denied, and those whose certificate is not in the inventory.
    pub(crate) fn guard(&self) -> &PeerGuard {
        &self.guard
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
            let (issuer, overdue) = (self.issuer.clone(), last_read.elapsed() >= READ_AGAIN);
            let sequence = self.news.borrow().as_ref().map(|news| news.bundle.sequence());
            let looked = blocking(move || {
                let changes = issuer.changes()?;
                let same = seen == Some(changes) && sequence == Some(issuer.bundle().sequence());
                if same && !overdue {
                    return Ok((changes, None));
                }
                Ok((changes, Some(read(&issuer, SystemTime::now())?)))
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
        self.warn_of_end(&found.figures, SystemTime::now());
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

    /// Warns once a day when a third of the issuing CA's lifetime is left.
    fn warn_of_end(&self, figures: &IssuerFigures, now: SystemTime) {
        let Some(left) = time_to_warn(figures, now) else { return };
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|warned| warned.elapsed() < DAY) {
            return;
        }
        *warned = Some(Instant::now());
        let hours = left.as_secs() / 3600;
        match hours {
            0..48 => tracing::error!(
                hours,
                "the issuing CA expires soon, and nothing can be renewed then; renew it with `pki issuer renew`, or with `pki issuer request` and `pki issuer install`"
            ),
            _ => tracing::warn!(
                hours,
                "less than a third of the lifetime of the issuing CA is left; renew it with `pki issuer renew`, or with `pki issuer request` and `pki issuer install`"
            ),
        }
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
            let (issuer, (id, instance)) = (self.trust.issuer.clone(), self.gateway.clone());
            // A failed write is repaired by the next start, which records that no gateway is connected.
            drop(tokio::task::spawn_blocking(move || {
                let _ = issuer.gateway_left(Some((&id, &instance)), SystemTime::now());
            }));
        }
    }
}

/// The time that is left, if it is less than a third of the issuing CA's lifetime.
fn time_to_warn(figures: &IssuerFigures, now: SystemTime) -> Option<Duration> {
    let life = figures.not_after.duration_since(figures.not_before).unwrap_or_default();
    let left = figures.not_after.duration_since(now).unwrap_or_default();
    (left < life / 3).then_some(left)
}

/// What was read from the inventory.
struct InventoryState {
    clusters: Vec<ClusterRecord>,
    lists: HeldDenylists,
    bundle: TrustBundle,
    figures: IssuerFigures,
}

fn read(issuer: &Issuer, now: SystemTime) -> Result<InventoryState, pki::PkiError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_issuing_ca_is_announced_when_a_third_of_its_life_is_left() {
        let start = SystemTime::UNIX_EPOCH + 100 * DAY;
        let figures =
            IssuerFigures { not_before: start, not_after: start + 30 * DAY, leaves: 0, open_tokens: 0 };
        assert_eq!(time_to_warn(&figures, start + 20 * DAY), None);
        assert_eq!(time_to_warn(&figures, start + 21 * DAY), Some(9 * DAY));
        assert_eq!(time_to_warn(&figures, start + 31 * DAY), Some(Duration::ZERO));
    }
}
