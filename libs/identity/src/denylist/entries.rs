//! What a denylist denies.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{
    pin::SpkiPin,
    spiffe::{Name, SpiffeId},
    verify::PeerIdentity,
};

/// The certificates that an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DenySubject {
    /// The certificate with this serial number, in lower-case hexadecimal digits.
    Serial(String),
    /// All certificates of this key.
    Key(SpkiPin),
    /// All certificates of this identity.
    Id(SpiffeId),
    /// All certificates of this cluster.
    Cluster(Name),
    /// All certificates below the issuing CA with this key.
    Issuer(SpkiPin),
}

/// One entry of a denylist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyEntry {
    /// The certificates that are denied.
    pub subject: DenySubject,
    /// Denies only certificates that were issued at this time or earlier, in whole seconds; `None` denies later ones,
    /// too.
    pub issued_until: Option<SystemTime>,
    /// Why, in a few words such as `revoked`. At most 200 bytes are kept.
    pub reason: String,
}

/// The entries of a list, by subject.
#[derive(Debug, Clone, Default)]
pub(crate) struct DenyIndex {
    by_subject: HashMap<DenySubject, (Option<SystemTime>, String)>,
}

impl DenyIndex {
    /// Of several entries with one subject, the one that denies most certificates counts.
    pub(crate) fn new(entries: &[DenyEntry]) -> Self {
        let mut index = Self::default();
        for entry in entries {
            let new = (entry.issued_until, entry.reason.clone());
            let known = index.by_subject.entry(entry.subject.clone()).or_insert_with(|| new.clone());
            if known.0.is_some_and(|known| entry.issued_until.is_none_or(|until| until > known)) {
                *known = new;
            }
        }
        index
    }

    /// The reason for denying a peer.
    pub(crate) fn denies(&self, peer: &PeerIdentity) -> Option<&str> {
        if self.by_subject.is_empty() {
            return None;
        }
        let subjects = [
            DenySubject::Serial(peer.serial.clone()),
            DenySubject::Key(peer.spki),
            DenySubject::Id(peer.spiffe_id.clone()),
            DenySubject::Cluster(peer.spiffe_id.cluster().clone()),
        ];
        let issuers = peer.issuers.iter().map(|issuer| DenySubject::Issuer(*issuer));
        subjects.into_iter().chain(issuers).find_map(|subject| {
            let (until, reason) = self.by_subject.get(&subject)?;
            let applies = until.is_none_or(|until| whole_seconds(peer.issued_at()) <= whole_seconds(until));
            applies.then_some(reason.as_str())
        })
    }

    /// Whether an issuing CA is denied.
    pub(crate) fn denies_issuer(&self, issuer: &SpkiPin) -> bool {
        self.by_subject.contains_key(&DenySubject::Issuer(*issuer))
    }
}

/// Seconds since the epoch; 0 for anything earlier.
pub(crate) fn whole_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
