//! The issuing CA's denylist: signed again when something has changed, and while nothing has, so that its age shows that
//! the issuer lives.

use std::time::{Duration, SystemTime};

use identity::{
    DenyEntry, DenySubject, DenylistSigner, HeldDenylists, SignedDenylist, SpiffeId, SpkiPin, TrustBundle,
};

use crate::{
    authority::{CertificateAuthority, unix_seconds},
    error::PkiError,
    inventory::{ListKind, NextList, NumberedList, Revocation},
    issuer::Issuer,
};

/// Age at which the list is signed again although nothing has changed.
const SIGN_AGAIN: Duration = Duration::from_secs(3600);

impl Issuer {
    /// Revokes certificates, and signs the next denylist. Returns how many certificates were valid until now.
    ///
    /// # Errors
    /// [`PkiError::NotFound`] for an unknown serial number; [`PkiError::Refused`] for the issuer's own cluster.
    pub fn revoke(&self, what: &Revocation, reason: &str, now: SystemTime) -> Result<usize, PkiError> {
        let own = match what {
            Revocation::Cluster(cluster) => cluster == self.cluster(),
            Revocation::Id(id) => id.cluster() == self.cluster(),
            Revocation::Serial(_) => false,
        };
        if own {
            return Err(PkiError::Refused(format!(
                "cluster {} is the issuer's own; revoke single certificates by --serial, or the issuing CA by --issuer",
                self.cluster()
            )));
        }
        let sign = self.list_signer(now, false);
        self.changed().revoke(what, reason, now, &sign)
    }

    /// How many certificates a revocation would revoke.
    pub(crate) fn count_revocable(&self, what: &Revocation) -> Result<usize, PkiError> {
        let certificates = self.inventory().certificates()?;
        let affected = |serial: &str, id: &str| match what {
            Revocation::Serial(wanted) => wanted == serial,
            Revocation::Id(wanted) => wanted.to_string() == id,
            Revocation::Cluster(cluster) => id.parse::<SpiffeId>().is_ok_and(|id| id.cluster() == cluster),
        };
        let valid = certificates.iter().filter(|known| known.revoked_at.is_none());
        Ok(valid.filter(|known| affected(&known.serial, &known.spiffe_id)).count())
    }

    /// The denylists in use now. Signs the issuing CA's list if its entries have changed or it is older than an hour.
    ///
    /// # Errors
    /// When the inventory cannot be used, or a stored list is damaged.
    pub fn denylists(&self, now: SystemTime) -> Result<HeldDenylists, PkiError> {
        self.denylists_after(now, false)
    }

    /// Does the same as [`Issuer::denylists`] after signing the issuing CA's list in any case.
    ///
    /// # Errors
    /// Those of [`Issuer::denylists`].
    pub fn sign_denylist(&self, now: SystemTime) -> Result<HeldDenylists, PkiError> {
        self.denylists_after(now, true)
    }

    /// The denylists as they are stored; signs none.
    pub(crate) fn stored_denylists(&self) -> Result<HeldDenylists, PkiError> {
        let mut held = HeldDenylists::default();
        if let Some(root) = self.stored_denylist(ListKind::Root)? {
            held.offer(root).map_err(damaged)?;
        }
        if let Some(issuer) = self.stored_denylist(ListKind::Issuer)? {
            offer(&mut held, issuer)?;
        }
        Ok(held)
    }

    fn stored_denylist(&self, kind: ListKind) -> Result<Option<SignedDenylist>, PkiError> {
        let bytes = self.inventory().signed_denylist(kind)?;
        let parse = |bytes: Vec<u8>| SignedDenylist::parse(&bytes, &self.bundle(), None).map_err(damaged);
        bytes.map(parse).transpose()
    }

    fn denylists_after(&self, now: SystemTime, always: bool) -> Result<HeldDenylists, PkiError> {
        let mut held = HeldDenylists::default();
        if let Some(root) = self.stored_denylist(ListKind::Root)? {
            held.offer(root).map_err(damaged)?;
        }
        let stored = self.stored_denylist(ListKind::Issuer)?;
        let entries = self.inventory().deny_entries(now)?;
        let issuer = match stored {
            Some(list) if !self.needs_another(&list, &entries, now, always) => list,
            _ => {
                let sign = self.list_signer(now, always);
                self.changed().sign_next_list(now, &sign)?;
                let signed = self.stored_denylist(ListKind::Issuer)?;
                signed.ok_or_else(|| PkiError::Failed("the denylist was not signed".into()))?
            }
        };
        offer(&mut held, issuer)?;
        Ok(held)
    }

    /// Whether the issuing CA's list is to be signed again.
    fn needs_another(
        &self,
        list: &SignedDenylist,
        entries: &[DenyEntry],
        now: SystemTime,
        always: bool,
    ) -> bool {
        let authority = self.authority.get();
        let age = now.duration_since(list.signed_at()).unwrap_or_default();
        let signer = DenylistSigner::Issuer(authority.pin());
        let is_current = list.entries() == entries && age < SIGN_AGAIN && list.signer() == signer;
        // Without a valid issuing CA the stored list grows old, and in the end nothing is served.
        (always || !is_current) && now < authority.not_after()
    }

    /// Signs the list that follows the stored one, if it is to be signed again; in any case if `always`. A stored list that cannot be
    /// read is replaced.
    pub(super) fn list_signer(
        &self,
        now: SystemTime,
        always: bool,
    ) -> impl Fn(&[DenyEntry], Option<NumberedList>) -> NextList {
        let bundle = self.bundle();
        move |entries, stored| {
            let number = stored.as_ref().map_or(0, |(number, _)| *number);
            let list = stored.and_then(|(_, bytes)| SignedDenylist::parse(&bytes, &bundle, None).ok());
            if list.is_some_and(|list| !self.needs_another(&list, entries, now, always)) {
                return Ok(None);
            }
            let number = next_number(number, now);
            let bytes = sign_list(&self.authority.get(), &bundle, number, entries, now)?;
            Ok(Some((number, bytes)))
        }
    }

    /// Stores a denylist that a root has signed; with `dry_run`, only checks it. Returns whether it differs from the one before.
    ///
    /// # Errors
    /// [`PkiError::Refused`] when it is not one, or is not newer than the one in use.
    pub fn install_root_denylist(
        &self,
        bytes: &[u8],
        dry_run: bool,
        now: SystemTime,
    ) -> Result<bool, PkiError> {
        let refused = |e: identity::DenylistError| PkiError::Refused(e.to_string());
        let list = SignedDenylist::parse(bytes, &self.bundle(), Some(now)).map_err(refused)?;
        if !matches!(list.signer(), DenylistSigner::Root(_)) {
            return Err(PkiError::Refused("the denylist is not signed by a root".into()));
        }
        let mut held = self.stored_denylists()?;
        if !held.offer(list.clone()).map_err(refused)? {
            return Ok(false);
        }
        if dry_run {
            return Ok(true);
        }
        self.changed().store_root_list(list.number(), bytes, now)?;
        Ok(true)
    }
}

fn damaged(e: identity::DenylistError) -> PkiError {
    PkiError::Integrity(format!("inventory: a stored denylist: {e}"))
}

/// Adds the list of the issuing CA to that of a root.
fn offer(held: &mut HeldDenylists, issuer: SignedDenylist) -> Result<(), PkiError> {
    match held.offer(issuer) {
        // The issuing CA is denied: its list counts for nothing, and that it is denied counts.
        Ok(_) | Err(identity::DenylistError::DeniedSigner) => Ok(()),
        Err(e) => Err(damaged(e)),
    }
}

/// The number after a stored one. It is at least the time, so that after the restore of a backup the next list is newer
/// than those that were signed since.
fn next_number(stored: u64, now: SystemTime) -> u64 {
    (stored + 1).max(unix_seconds(now).unsigned_abs())
}

fn sign_list(
    authority: &CertificateAuthority,
    bundle: &TrustBundle,
    number: u64,
    entries: &[DenyEntry],
    now: SystemTime,
) -> Result<Vec<u8>, PkiError> {
    let failed = |e: identity::DenylistError| PkiError::Failed(e.to_string());
    let domain = bundle.trust_domain();
    let content = SignedDenylist::content(domain, number, now, entries, authority.cert()).map_err(failed)?;
    let signature = authority.sign(&SignedDenylist::statement(&content))?;
    SignedDenylist::join(content, &signature).map_err(failed)
}

/// Signs with a root the next list of denied issuing CAs: those of the list before, and one more.
pub(crate) fn deny_issuer(
    root: &CertificateAuthority,
    bundle: &TrustBundle,
    before: Option<&SignedDenylist>,
    issuer: SpkiPin,
    reason: &str,
    now: SystemTime,
) -> Result<Vec<u8>, PkiError> {
    let mut entries: Vec<DenyEntry> = before.map(|list| list.entries().to_vec()).unwrap_or_default();
    let subject = DenySubject::Issuer(issuer);
    if entries.iter().all(|entry| entry.subject != subject) {
        entries.push(DenyEntry { subject, issued_until: None, reason: reason.to_owned() });
    }
    let number = next_number(before.map_or(0, SignedDenylist::number), now);
    sign_list(root, bundle, number, &entries, now)
}

#[cfg(test)]
mod tests;
