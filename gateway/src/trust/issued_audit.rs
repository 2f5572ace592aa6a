//! The observability side: signs the head of the audit log, and compares the log with the heads that the clusters keep.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use identity::SignedAuditHead;
use pki::{Issuer, PkiError};
use proto::isthmus::mesh::v1::{AuditHead, TrustReport};
use tokio::sync::watch;

use crate::metrics::GatewayMetrics;

/// Least time between two heads that are sent to all clusters. Entries that are removed before the next head are not missed.
const SIGN_AGAIN: Duration = Duration::from_secs(30);

/// The heads of the audit log.
pub(crate) struct IssuedAudit {
    issuer: Arc<Issuer>,
    metrics: Arc<GatewayMetrics>,
    signed: Mutex<Option<SignedHead>>,
    /// Grows with each head that is sent to all clusters.
    version: watch::Sender<u64>,
    /// Gateways whose head is not in the log: SPIFFE id and instance.
    contradicted: Mutex<BTreeSet<(String, String)>>,
}

struct SignedHead {
    head: SignedAuditHead,
    at: Instant,
}

/// What a session knows about heads.
#[derive(Default)]
pub(crate) struct SessionHeads {
    /// The newest head that the cluster keeps.
    reported: (u64, String),
    /// The sequence of the trust bundle that the cluster uses: with a later one it looks at the same head again.
    bundle: u64,
    /// The number of the head that was sent last, and what was reported then.
    sent: Option<(u64, u64, u64)>,
}

impl SessionHeads {
    /// Records what a cluster keeps.
    pub(crate) fn reported(&mut self, report: &TrustReport) {
        self.reported = (report.audit_number, report.audit_hash.chars().take(64).collect());
        self.bundle = report.bundle;
    }
}

impl IssuedAudit {
    pub(crate) fn new(issuer: Arc<Issuer>, metrics: Arc<GatewayMetrics>) -> Self {
        let version = watch::Sender::new(0);
        Self { issuer, metrics, signed: Mutex::default(), version, contradicted: Mutex::default() }
    }

    /// A number that grows when all clusters should get a new head. It counts as changed at first.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        let mut versions = self.version.subscribe();
        versions.mark_changed();
        versions
    }

    /// Signs the head of the log if it has changed and the last one is not too recent. Blocks on disk I/O.
    pub(super) fn sign_if_due(&self, now: SystemTime) -> Result<(), PkiError> {
        let entries = self.issuer.audit_entries()?;
        let is_due =
            |signed: &SignedHead| signed.head.number() != entries && signed.at.elapsed() >= SIGN_AGAIN;
        if self.signed().as_ref().is_none_or(is_due) {
            self.sign(now)?;
            self.version.send_modify(|version| *version += 1);
        }
        Ok(())
    }

    fn sign(&self, now: SystemTime) -> Result<Option<SignedAuditHead>, PkiError> {
        let Some(head) = self.issuer.sign_audit_head(now)? else { return Ok(None) };
        *self.signed() = Some(SignedHead { head: head.clone(), at: Instant::now() });
        Ok(Some(head))
    }

    /// What a session should get now; `None` if there is nothing new.
    pub(crate) async fn message(
        self: &Arc<Self>,
        heads: &mut SessionHeads,
        gateway: (&str, &str),
    ) -> Option<AuditHead> {
        let (audit, (since, hash)) = (self.clone(), heads.reported.clone());
        let asked = tokio::task::spawn_blocking(move || audit.compared(since));
        let found = match asked.await {
            Ok(found) => found.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let (head, since_hash) = match found {
            Ok((Some(head), since_hash)) => (head, since_hash),
            // The issuing CA has expired, which is reported elsewhere.
            Ok((None, _)) => return None,
            Err(error) => {
                tracing::error!(error, "the head of the audit log cannot be read");
                return None;
            }
        };
        self.note(gateway, since == 0 || since_hash == hash, since);
        let knows_it = (since, hash.as_str()) == (head.number(), head.hash());
        let sending = Some((head.number(), since, heads.bundle));
        if knows_it || heads.sent == sending {
            return None;
        }
        heads.sent = sending;
        Some(AuditHead { head: head.as_bytes().to_vec().into(), since, since_hash })
    }

    /// The head to send, and the hash that the log has at `since`; empty if it has no such entry.
    fn compared(&self, since: u64) -> Result<(Option<SignedAuditHead>, String), PkiError> {
        let signed = self.signed().as_ref().map(|signed| signed.head.clone());
        // A cluster may have got a newer head from another gateway of the issuer.
        let head = match signed {
            Some(head) if head.number() >= since => Some(head),
            _ => self.sign(SystemTime::now())?,
        };
        let since_hash = match since {
            0 => None,
            since => self.issuer.audit_hash_at(since)?,
        };
        Ok((head, since_hash.unwrap_or_default()))
    }

    /// Records whether the log contains the head that a gateway keeps.
    fn note(&self, (id, instance): (&str, &str), agrees: bool, number: u64) {
        let mut contradicted = self.contradicted();
        let gateway = (id.to_owned(), instance.to_owned());
        let changed = match agrees {
            true => contradicted.remove(&gateway),
            false => contradicted.insert(gateway),
        };
        if changed && !agrees {
            tracing::error!(
                peer = id,
                number,
                "a gateway keeps a signed head of the audit log that the log does not contain: entries were removed or rewritten"
            );
        }
        self.metrics.audit_log_altered(contradicted.len());
    }

    /// Forgets a gateway that is not connected any more.
    pub(super) fn left(&self, gateway: &(String, String)) {
        let mut contradicted = self.contradicted();
        contradicted.remove(gateway);
        self.metrics.audit_log_altered(contradicted.len());
    }

    /// What is known about the log, in one line.
    pub(crate) fn text(&self) -> Option<String> {
        let contradicted = self.contradicted().len();
        let head = self.signed().as_ref().map(|signed| signed.head.clone())?;
        Some(match contradicted {
            0 => format!("head {}:{}", head.number(), head.hash()),
            _ => format!(
                "ALTERED: {contradicted} connected gateways keep a head that the log does not contain"
            ),
        })
    }

    fn signed(&self) -> MutexGuard<'_, Option<SignedHead>> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn contradicted(&self) -> MutexGuard<'_, BTreeSet<(String, String)>> {
        self.contradicted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
