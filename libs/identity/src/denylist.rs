//! Denylists: certificates that are refused although they are valid.
//!
//! There are two lists. The issuing CA signs one again and again; without news of it for a day nothing may be served
//! any more. A root signs the other, which has no age and is the only one that can deny an issuing CA. A list is replaced
//! only by one with a higher number.
//!
//! Reading order: `entries`, `signed`, then [`HeldDenylists`].

mod entries;
mod signed;

use std::time::{Duration, SystemTime};

pub(crate) use self::entries::whole_seconds;
pub use self::{
    entries::{DenyEntry, DenySubject},
    signed::{DenylistError, DenylistSigner, MAX_DENYLIST_BYTES, SignedDenylist},
};
use crate::{pin::SpkiPin, verify::PeerIdentity};

/// The age of the issuer's list from which on nothing may be served.
pub const MAX_DENYLIST_AGE: Duration = Duration::from_secs(86_400);

/// The denylists in use: one of the issuing CA, one of a root.
#[derive(Debug, Clone, Default)]
pub struct HeldDenylists {
    issuer: Option<SignedDenylist>,
    root: Option<SignedDenylist>,
}

impl HeldDenylists {
    /// The list of the issuing CA.
    pub fn issuer(&self) -> Option<&SignedDenylist> {
        self.issuer.as_ref()
    }

    /// The list of a root.
    pub fn root(&self) -> Option<&SignedDenylist> {
        self.root.as_ref()
    }

    /// Uses a list instead of the one of the same kind. Returns whether something has changed.
    ///
    /// # Errors
    /// When the list in use has the same number or a higher one, or when the signer is denied.
    pub fn offer(&mut self, new: SignedDenylist) -> Result<bool, DenylistError> {
        let is_denied = |list: &SignedDenylist, root: &Option<SignedDenylist>| match list.signer {
            DenylistSigner::Issuer(pin) => root.as_ref().is_some_and(|root| root.index.denies_issuer(&pin)),
            DenylistSigner::Root(_) => false,
        };
        if is_denied(&new, &self.root) {
            return Err(DenylistError::DeniedSigner);
        }
        let held = match new.signer {
            DenylistSigner::Root(_) => &self.root,
            DenylistSigner::Issuer(_) => &self.issuer,
        };
        if let Some(held) = held {
            if held.as_bytes() == new.as_bytes() {
                return Ok(false);
            }
            // The thief of an issuing CA can sign a list with the highest number. After the CA was denied, this list
            // does not keep out those of the next CA.
            let counts = match new.signer {
                DenylistSigner::Root(_) => true,
                DenylistSigner::Issuer(_) => !is_denied(held, &self.root),
            };
            if counts && new.number() <= held.number() {
                return Err(DenylistError::Old { held: held.number(), offered: new.number() });
            }
        }
        match new.signer {
            DenylistSigner::Root(_) => self.root = Some(new),
            DenylistSigner::Issuer(_) => self.issuer = Some(new),
        }
        Ok(true)
    }

    /// Whether a root has denied an issuing CA.
    pub fn denies_issuer(&self, issuer: &SpkiPin) -> bool {
        self.root.as_ref().is_some_and(|root| root.index.denies_issuer(issuer))
    }

    /// The reason for denying a peer.
    pub fn denies(&self, peer: &PeerIdentity) -> Option<String> {
        let lists = [&self.root, &self.issuer];
        lists.into_iter().flatten().find_map(|list| list.index.denies(peer)).map(str::to_owned)
    }

    /// When the issuer's list is too old to serve anything; `None` without one.
    pub fn stale_at(&self) -> Option<SystemTime> {
        self.issuer.as_ref().map(|list| list.signed_at() + MAX_DENYLIST_AGE)
    }
}

#[cfg(test)]
mod tests;
