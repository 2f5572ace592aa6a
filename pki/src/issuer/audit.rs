//! The signed head of the audit log, which the clusters keep.

use std::time::SystemTime;

use identity::{AuditHeadError, SignedAuditHead};

use crate::{error::PkiError, issuer::Issuer};

impl Issuer {
    /// Signs the head that the audit log has now; `None` while the issuing CA is not valid, because no cluster would accept it.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub fn sign_audit_head(&self, now: SystemTime) -> Result<Option<SignedAuditHead>, PkiError> {
        let authority = self.authority.get();
        if now < authority.not_before() || now >= authority.not_after() {
            return Ok(None);
        }
        let head = self.inventory().audit_head()?;
        let failed = |e: AuditHeadError| PkiError::Failed(e.to_string());
        let bundle = self.bundle();
        let domain = bundle.trust_domain();
        let content = SignedAuditHead::content(domain, head.number, &head.hash, now, authority.cert());
        let content = content.map_err(failed)?;
        let signature = authority.sign(&SignedAuditHead::statement(&content))?;
        let bytes = SignedAuditHead::join(content, &signature).map_err(failed)?;
        SignedAuditHead::parse(&bytes, &bundle, Some(now)).map(Some).map_err(failed)
    }

    /// The number of entries of the audit log.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub fn audit_entries(&self) -> Result<u64, PkiError> {
        Ok(self.inventory().audit_head()?.number)
    }

    /// The hash of an entry of the audit log; `None` if it has no such entry.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub fn audit_hash_at(&self, number: u64) -> Result<Option<String>, PkiError> {
        self.inventory().audit_hash_at(number)
    }

    /// Checks that the issuing CA and the bundle are those that the audit log knows.
    ///
    /// # Errors
    /// [`PkiError::Integrity`] with what does not agree.
    pub fn check_agreement(&self) -> Result<(), PkiError> {
        self.inventory().check_agreement(self.authority.get().pin(), &self.bundle())
    }
}
