//! What the inventory of an issuer says about certificates.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::SystemTime};

use identity::{PeerIdentity, SpiffeId};

use crate::{
    error::PkiError,
    issuer::{Issuer, IssuerFigures},
};

impl Issuer {
    /// Two numbers that differ from earlier ones if the inventory has changed since then, here or in another process.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub fn changes(&self) -> Result<(i64, u64), PkiError> {
        // The own ones first: a change in between shows the next time.
        let own = self.own_changes.load(Ordering::Acquire);
        Ok((self.inventory().foreign_changes()?, own))
    }

    /// Records that a peer uses a certificate.
    ///
    /// # Errors
    /// When the inventory cannot be written.
    pub fn certificate_seen(&self, serial: &str, id: &SpiffeId, now: SystemTime) -> Result<(), PkiError> {
        self.inventory().certificate_seen(serial, id, now)
    }

    /// The serial numbers of a certificate and of those that it was renewed from, back to the one of the join.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub fn line_of(&self, serial: &str) -> Result<BTreeSet<String>, PkiError> {
        self.inventory().line_of(serial)
    }

    /// What can be counted about the issuer.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub fn figures(&self, now: SystemTime) -> Result<IssuerFigures, PkiError> {
        let authority = self.authority.get();
        let (leaves, open_tokens) = self.inventory().figures(now)?;
        let (not_before, not_after) = (authority.not_before(), authority.not_after());
        Ok(IssuerFigures { not_before, not_after, leaves, open_tokens })
    }

    /// Whether a peer's certificate is in the inventory. Changes nothing, even after a restore.
    pub(crate) fn is_in_inventory(&self, peer: &PeerIdentity) -> Result<bool, PkiError> {
        self.inventory().has_issued(peer)
    }

    /// Whether this issuer has issued a peer's certificate.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub fn has_issued(&self, peer: &PeerIdentity) -> Result<bool, PkiError> {
        let mut inventory = self.inventory();
        Ok(inventory.has_issued(peer)? || inventory.adopt(peer, SystemTime::now())?)
    }
}
