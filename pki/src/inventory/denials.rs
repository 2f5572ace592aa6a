//! Who is denied, and the signed lists of it.

use std::time::{Duration, SystemTime};

use identity::{DenyEntry, DenySubject, Name, SpiffeId};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::json;

use crate::{
    authority::{parse_utc, utc},
    error::PkiError,
    inventory::{Inventory, audit},
};

/// Entries about certificates that were issued long ago are left out: those certificates have expired, and cannot come
/// back either.
const FORGET_AFTER: Duration = Duration::from_secs(45 * 86_400);

/// Which certificates to revoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// The one with this serial number.
    Serial(String),
    /// All that an identity has now.
    Id(SpiffeId),
    /// All that a cluster has now.
    Cluster(Name),
}

/// Which of the two denylists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// Signed by the issuing CA.
    Issuer,
    /// Signed by a root.
    Root,
}

impl ListKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Root => "root",
        }
    }
}

/// The pattern of the SPIFFE ids of a cluster, for GLOB. Names have no characters that are special there.
fn of_cluster(cluster: &str) -> String {
    format!("spiffe://*/cluster/{cluster}/*")
}

/// The number and the bytes of a signed list.
pub(crate) type NumberedList = (u64, Vec<u8>);
/// The list that follows the stored one, or `None` if that stays.
pub(crate) type NextList = Result<Option<NumberedList>, PkiError>;
/// Decides which list of the issuing CA follows the stored one when these are its entries.
pub(crate) type ListSigner<'a> = &'a dyn Fn(&[DenyEntry], Option<NumberedList>) -> NextList;

impl Inventory {
    /// Revokes certificates, and replaces the issuing CA's list. Returns how many there are that were valid until now.
    pub(crate) fn revoke(
        &mut self,
        what: &Revocation,
        reason: &str,
        now: SystemTime,
        sign: ListSigner<'_>,
    ) -> Result<usize, PkiError> {
        self.transaction(|tx| {
            let (kind, value) = match what {
                Revocation::Serial(serial) => ("serial", serial.clone()),
                Revocation::Id(id) => ("id", id.to_string()),
                Revocation::Cluster(cluster) => ("cluster", cluster.to_string()),
            };
            let revoked = match what {
                Revocation::Serial(serial) => {
                    let known = tx.query_row(
                        "SELECT revoked_at IS NULL FROM certificates WHERE serial = ?1",
                        [serial],
                        |row| row.get::<_, bool>(0),
                    );
                    match known.optional()? {
                        None => {
                            return Err(PkiError::NotFound(format!(
                                "certificate {serial:?} was not issued here; `pki cert list` prints the serial numbers"
                            )));
                        }
                        Some(false) => return Ok(0),
                        Some(true) => {}
                    }
                    tx.execute(
                        "UPDATE certificates SET revoked_at = ?2 WHERE serial = ?1",
                        params![serial, utc(now)],
                    )?
                }
                Revocation::Id(id) => {
                    deny(tx, "id", &id.to_string(), Some(now), reason, now)?;
                    tx.execute(
                        "UPDATE certificates SET revoked_at = ?2 WHERE spiffe_id = ?1 AND revoked_at IS NULL",
                        params![id.to_string(), utc(now)],
                    )?
                }
                Revocation::Cluster(cluster) => revoke_cluster(tx, cluster.as_str(), reason, now)?,
            };
            let detail = json!({kind: value, "reason": reason, "certificates": revoked});
            audit::append(tx, now, "certificates revoked", &detail)?;
            sign_next(tx, now, sign)?;
            Ok(revoked)
        })
    }

    /// The entries of the issuing CA's list.
    pub(crate) fn deny_entries(&self, now: SystemTime) -> Result<Vec<DenyEntry>, PkiError> {
        deny_entries(&self.db, now)
    }

    /// Replaces the issuing CA's list with the one that follows it.
    pub(crate) fn sign_next_list(&mut self, now: SystemTime, sign: ListSigner<'_>) -> Result<(), PkiError> {
        self.transaction(|tx| sign_next(tx, now, sign))
    }

    /// The last time of issue that is denied to an identity or its cluster.
    pub(crate) fn denied_until(&self, id: &SpiffeId) -> Result<Option<SystemTime>, PkiError> {
        let found = self.db.query_row(
            "SELECT max(issued_until) FROM denials WHERE lifted_at IS NULL
             AND (kind = 'id' AND value = ?1 OR kind = 'cluster' AND value = ?2)",
            params![id.to_string(), id.cluster().as_str()],
            |row| row.get::<_, Option<String>>(0),
        )?;
        Ok(found.and_then(|at| parse_utc(&at)))
    }

    /// The bytes of a signed list.
    pub(crate) fn signed_denylist(&self, kind: ListKind) -> Result<Option<Vec<u8>>, PkiError> {
        let found =
            self.db
                .query_row("SELECT bytes FROM denylists WHERE kind = ?1", [kind.as_str()], |row| row.get(0));
        Ok(found.optional()?)
    }

    /// Replaces the list that a root has signed.
    pub(crate) fn store_root_list(
        &mut self,
        number: u64,
        bytes: &[u8],
        now: SystemTime,
    ) -> Result<(), PkiError> {
        self.transaction(|tx| {
            store_list(tx, ListKind::Root, number, bytes)?;
            audit::append(tx, now, "root denylist installed", &json!({"number": number}))
        })
    }
}

/// The entries of the issuing CA's list.
fn deny_entries(db: &Connection, now: SystemTime) -> Result<Vec<DenyEntry>, PkiError> {
    let mut entries = Vec::new();
    let mut statement = db.prepare_cached(
        "SELECT kind, value, issued_until, reason FROM denials
             WHERE lifted_at IS NULL AND (issued_until IS NULL OR issued_until > ?1) ORDER BY id",
    )?;
    let mut rows = statement.query([utc(now - FORGET_AFTER)])?;
    while let Some(row) = rows.next()? {
        let (kind, value): (String, String) = (row.get(0)?, row.get(1)?);
        let damaged = || PkiError::Integrity(format!("inventory: a denial of a {kind} is damaged"));
        let subject = match kind.as_str() {
            "id" => DenySubject::Id(value.parse().map_err(|_| damaged())?),
            "cluster" => DenySubject::Cluster(value.parse().map_err(|_| damaged())?),
            "serial" => DenySubject::Serial(value),
            _ => return Err(damaged()),
        };
        let until: Option<String> = row.get(2)?;
        let issued_until = until.map(|at| parse_utc(&at).ok_or_else(damaged)).transpose()?;
        entries.push(DenyEntry { subject, issued_until, reason: row.get(3)? });
    }
    let mut statement = db.prepare_cached(
        "SELECT serial FROM certificates WHERE revoked_at IS NOT NULL AND not_after > ?1 ORDER BY serial",
    )?;
    let serials = statement.query_map([utc(now - Duration::from_secs(3600))], |row| row.get(0))?;
    for serial in serials {
        let subject = DenySubject::Serial(serial?);
        if entries.iter().all(|known| known.subject != subject) {
            entries.push(DenyEntry { subject, issued_until: None, reason: "revoked".into() });
        }
    }
    Ok(entries)
}

/// Replaces the issuing CA's list in the transaction of a change, so that a gateway that sees the change need not sign.
pub(super) fn sign_next(tx: &Transaction<'_>, now: SystemTime, sign: ListSigner<'_>) -> Result<(), PkiError> {
    let kind = ListKind::Issuer.as_str();
    let stored = tx.query_row("SELECT number, bytes FROM denylists WHERE kind = ?1", [kind], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?))
    });
    match sign(&deny_entries(tx, now)?, stored.optional()?)? {
        Some((number, bytes)) => store_list(tx, ListKind::Issuer, number, &bytes),
        None => Ok(()),
    }
}

fn store_list(tx: &Transaction<'_>, kind: ListKind, number: u64, bytes: &[u8]) -> Result<(), PkiError> {
    tx.execute(
        "INSERT INTO denylists (kind, number, bytes) VALUES (?1, ?2, ?3)
         ON CONFLICT (kind) DO UPDATE SET number = ?2, bytes = ?3",
        params![kind.as_str(), number as i64, bytes],
    )?;
    Ok(())
}

/// Adds a denial. With `issued_until`, certificates that are issued later are spared.
pub(super) fn deny(
    tx: &Transaction<'_>,
    kind: &str,
    value: &str,
    issued_until: Option<SystemTime>,
    reason: &str,
    now: SystemTime,
) -> Result<(), PkiError> {
    tx.execute(
        "INSERT INTO denials (kind, value, issued_until, reason, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![kind, value, issued_until.map(utc), reason, utc(now)],
    )?;
    Ok(())
}

/// Denies and revokes all certificates that a cluster has now, and returns how many there are.
pub(super) fn revoke_cluster(
    tx: &Transaction<'_>,
    cluster: &str,
    reason: &str,
    now: SystemTime,
) -> Result<usize, PkiError> {
    deny(tx, "cluster", cluster, Some(now), reason, now)?;
    Ok(tx.execute(
        "UPDATE certificates SET revoked_at = ?2 WHERE spiffe_id GLOB ?1 AND revoked_at IS NULL",
        params![of_cluster(cluster), utc(now)],
    )?)
}
