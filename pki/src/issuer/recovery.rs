//! Certificates for gateways whose own has expired while it could not be renewed.
//!
//! Such a gateway has no connection, but it still has its key, and the inventory has its certificate. For a few days this is
//! as good as a token.

use std::time::{Duration, SystemTime};

use identity::{Expectations, KeyType, verify_peer};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    authority::{unix_seconds, utc},
    csr::{ProvenKey, recovery_statement},
    error::PkiError,
    issuer::{Enrolment, Issuer},
};

/// Certificates that a cluster may get in this way within a week.
const MAX_RECOVERIES: usize = 50;

impl Issuer {
    /// Sets how long after its end a certificate can be exchanged for another one; zero switches that off.
    pub fn with_recovery(mut self, recovery: Duration) -> Self {
        self.recovery = recovery;
        self
    }

    /// Certifies a new key for a peer whose certificate has expired. `signature` is that of the expired certificate's key
    /// over [`recovery_statement`]. The address `from` is recorded.
    ///
    /// # Errors
    /// [`PkiError::Refused`] when the certificate is not one of this issuer, was revoked or renewed, has expired too long
    /// ago, or when the signature is wrong.
    pub fn recover(
        &self,
        chain: &[CertificateDer<'_>],
        csr_der: &[u8],
        signature: &[u8],
        from: &str,
        now: SystemTime,
    ) -> Result<Enrolment, PkiError> {
        self.check_can_issue(now)?;
        let key = ProvenKey::from_csr(csr_der)?;
        let leaf = chain.first().and_then(|der| X509Certificate::from_der(der).ok());
        let (_, leaf) = leaf.ok_or_else(|| PkiError::Refused("not an X.509 certificate".into()))?;
        let end = leaf.validity().not_after.timestamp().max(0).unsigned_abs();
        let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(end);
        // Valid at its own end: its chain, its names and its usage are as those of a peer.
        let peer = verify_peer(chain, &self.bundle(), not_after, &Expectations::default())?;
        let refuse =
            |why: String| PkiError::Refused(format!("recovery of {} refused: {why}", peer.spiffe_id));
        let spki = leaf.public_key().raw;
        let statement = recovery_statement(csr_der);
        if !KeyType::of_spki(spki).is_some_and(|key| key.verify(spki, &statement, signature)) {
            return Err(refuse("the signature was not made with the key of the certificate".into()));
        }
        if now <= peer.refused_from() {
            return Err(refuse("its certificate has not expired; it is renewed over its connection".into()));
        }
        if now > not_after + self.recovery {
            return Err(refuse(format!(
                "its certificate expired at {}, too long ago; join again with a token",
                utc(not_after)
            )));
        }
        if let Some(why) = self.denylists(now)?.denies(&peer) {
            return Err(refuse(format!("its certificate is denied: {why}; join again with a token")));
        }
        let cluster = peer.spiffe_id.cluster();
        let registered = {
            let mut inventory = self.changed_for(from);
            inventory.check_new_key(&key.pin)?;
            inventory.check_last_of_its_line(&peer)?;
            let registered = inventory.cluster(cluster)?.filter(|known| known.paused_at.is_none());
            let registered =
                registered.ok_or_else(|| refuse("its cluster is not registered, or is paused".into()))?;
            inventory.count_recovery(&peer, MAX_RECOVERIES, now)?;
            registered
        };
        self.issue(peer.spiffe_id.clone(), registered.environment, &key, Some(&peer), from, now)
    }

    /// Checks that a certificate can be issued, before a token is used for it.
    pub(super) fn check_can_issue(&self, now: SystemTime) -> Result<(), PkiError> {
        let (end, start) = (self.not_after(), self.authority.get().not_before());
        if now < end && now >= start {
            return Ok(());
        }
        Err(PkiError::NotNow(format!(
            "the issuing CA is valid from {} to {}, and the clock of the issuer is at {}; renew the CA with `pki issuer renew`, \
             or set the clock",
            utc(start),
            utc(end),
            utc(now)
        )))
    }

    /// Checks the clock of a joining machine, before its token is used.
    ///
    /// # Errors
    /// [`PkiError::NotNow`] when it differs from ours by more than peers accept.
    pub fn check_clock(&self, theirs: SystemTime, now: SystemTime) -> Result<(), PkiError> {
        let apart = unix_seconds(theirs).abs_diff(unix_seconds(now));
        if apart <= identity::CLOCK_SKEW.as_secs() {
            return Ok(());
        }
        Err(PkiError::NotNow(format!(
            "the clock of the joining machine is at {}, that of the issuer at {}: {apart} s apart, at most {} are allowed; set both clocks",
            utc(theirs),
            utc(now),
            identity::CLOCK_SKEW.as_secs()
        )))
    }
}

#[cfg(test)]
mod tests;
