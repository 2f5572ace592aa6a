//! The cluster's side: heads of the issuer's audit log that are received, verified and stored.
//!
//! The data directory has them in `audit-heads.json`.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use identity::{HeldDenylists, SignedAuditHead, TrustBundle};
use proto::isthmus::mesh::v1::AuditHead;

use crate::{
    metrics::GatewayMetrics,
    peer_text::bounded,
    trust::audit_heads::{KeptHead, KeptHeads, Outcome},
};

/// Largest file of heads, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The heads that are kept, and where they are stored.
pub(super) struct HeldAudit {
    kept: Mutex<KeptHeads>,
    path: PathBuf,
    metrics: Arc<GatewayMetrics>,
}

impl HeldAudit {
    /// Loads the stored heads. A damaged file is reported, and replaced with the next head.
    pub(super) fn load(path: PathBuf, metrics: Arc<GatewayMetrics>) -> Self {
        let loaded = match identity::read_bounded(&path, MAX_FILE_BYTES) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| error.to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(KeptHeads::default()),
            Err(error) => Err(error.to_string()),
        };
        let kept = loaded.unwrap_or_else(|error| {
            tracing::error!(path = %path.display(), error, "the stored heads of the audit log cannot be read, starting without them");
            KeptHeads::default()
        });
        metrics.audit_log_altered(usize::from(kept.contradiction().is_some()));
        Self { kept: Mutex::new(kept), path, metrics }
    }

    /// The number and the hash of the newest head that is kept; 0 without one.
    pub(super) fn newest(&self) -> (u64, String) {
        self.lock().newest().map(|head| (head.number, head.hash.clone())).unwrap_or_default()
    }

    /// What is kept, in one line; `None` without a head.
    pub(super) fn text(&self) -> Option<String> {
        self.lock().text()
    }

    /// Takes a head that was received. Returns whether the newest kept one must be reported.
    ///
    /// # Errors
    /// Why it is refused, in one line.
    pub(super) async fn take(
        &self,
        received: AuditHead,
        bundle: &TrustBundle,
        lists: &HeldDenylists,
    ) -> Result<bool, String> {
        let head = SignedAuditHead::parse(&received.head, bundle, Some(SystemTime::now()));
        let head = head.map_err(|error| error.to_string())?;
        if lists.denies_issuer(&head.signer()) {
            return Err("the audit head is signed by an issuing CA that is denied".to_owned());
        }
        let (outcome, kept) = {
            let mut kept = self.lock();
            let since_hash = bounded(&received.since_hash);
            let sequence = bundle.sequence();
            let outcome = kept.offer(KeptHead::of(&head), received.since, &since_hash, sequence);
            (outcome, kept.clone())
        };
        match outcome {
            Outcome::Nothing => return Ok(false),
            Outcome::Unproven => return Ok(true),
            Outcome::Kept => tracing::debug!(number = head.number(), "a head of the audit log is kept"),
            Outcome::Contradicts => {
                let why = kept.contradiction().map(|found| found.why.as_str()).unwrap_or_default();
                tracing::error!(
                    why,
                    "the audit log of the issuer was altered; report it to the security team, the file with its signed heads is the evidence"
                );
            }
            Outcome::Agrees => tracing::warn!("the audit log of the issuer contains the kept head again"),
            Outcome::Accepted => {
                tracing::warn!(
                    bundle = bundle.sequence(),
                    number = head.number(),
                    "a root has signed a later trust bundle: the audit log of the issuer is accepted as it is now"
                );
            }
        }
        self.metrics.audit_log_altered(usize::from(kept.contradiction().is_some()));
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec_pretty(&kept).map_err(std::io::Error::other)?;
            identity::write_private(&path, &text)
        });
        let written = written.await.map_err(|error| error.to_string())?;
        written.map_err(|error| format!("the heads of the audit log cannot be stored: {error}"))?;
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, KeptHeads> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
