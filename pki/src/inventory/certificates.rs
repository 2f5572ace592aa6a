//! The issued certificates.

use std::time::SystemTime;

use identity::{CLOCK_SKEW, PeerIdentity, SpkiPin};
use rusqlite::{ErrorCode, OptionalExtension, Row, params};
use serde_json::json;

use crate::{
    authority::utc,
    error::{CsrRefusal, PkiError},
    inventory::{Inventory, audit},
};

/// A certificate in the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IssuedCertificate {
    /// 32 hexadecimal digits.
    pub(crate) serial: String,
    pub(crate) spiffe_id: String,
    /// The pin of its key.
    pub(crate) spki: String,
    pub(crate) not_before: String,
    pub(crate) not_after: String,
    pub(crate) issued_at: String,
    pub(crate) revoked_at: Option<String>,
    /// The serial number of the certificate that it renews.
    pub(crate) parent: Option<String>,
    /// How many renewals there were since the join.
    pub(crate) generation: i64,
    /// When a peer first connected with it.
    pub(crate) first_seen_at: Option<String>,
}

impl IssuedCertificate {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            serial: row.get(0)?,
            spiffe_id: row.get(1)?,
            spki: row.get(2)?,
            not_before: row.get(3)?,
            not_after: row.get(4)?,
            issued_at: row.get(5)?,
            revoked_at: row.get(6)?,
            parent: row.get(7)?,
            generation: row.get(8)?,
            first_seen_at: row.get(9)?,
        })
    }
}

const COLUMNS: &str = "serial, spiffe_id, spki, not_before, not_after, issued_at, revoked_at, parent, generation, \
                       first_seen_at";

impl Inventory {
    /// Refuses a key that was certified before.
    pub(crate) fn check_new_key(&self, key: &SpkiPin) -> Result<(), PkiError> {
        let known =
            self.db.query_row("SELECT 1 FROM certificates WHERE spki = ?1", [key.to_string()], |_| Ok(()));
        match known.optional()? {
            Some(()) => Err(CsrRefusal::KeyReused.into()),
            None => Ok(()),
        }
    }

    /// Refuses a renewal unless the peer's current certificate is in the inventory, valid and not revoked.
    pub(crate) fn check_may_renew(&self, peer: &PeerIdentity, now: SystemTime) -> Result<(), PkiError> {
        let refuse =
            |why: &str| Err(PkiError::Refused(format!("renewal of {} refused: {why}", peer.spiffe_id)));
        let found = self.db.query_row(
            &format!("SELECT {COLUMNS} FROM certificates WHERE serial = ?1"),
            [&peer.serial],
            IssuedCertificate::from_row,
        );
        let Some(record) = found.optional()? else {
            return refuse("its current certificate was not issued by this issuer");
        };
        if record.spiffe_id != peer.spiffe_id.to_string() || record.spki != peer.spki.to_string() {
            return refuse("its current certificate is not the one that was issued with this serial number");
        }
        if record.revoked_at.is_some() {
            return refuse("its current certificate was revoked; it must join again with a token");
        }
        if record.not_after < utc(now - CLOCK_SKEW) {
            return refuse("its current certificate has expired; it must join again with a token");
        }
        Ok(())
    }

    /// Whether a certificate was issued here for this key and this identity.
    pub(crate) fn has_issued(&self, peer: &PeerIdentity) -> Result<bool, PkiError> {
        let found = self
            .db
            .prepare_cached("SELECT 1 FROM certificates WHERE serial = ?1 AND spki = ?2 AND spiffe_id = ?3")?
            .exists(params![peer.serial, peer.spki.to_string(), peer.spiffe_id.to_string()])?;
        Ok(found)
    }

    /// Records a certificate. Call it before the certificate is sent to the peer.
    pub(crate) fn add_certificate(
        &mut self,
        new: &IssuedCertificate,
        now: SystemTime,
    ) -> Result<(), PkiError> {
        self.transaction(|tx| {
            let inserted = tx.execute(
                &format!(
                    "INSERT INTO certificates ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
                ),
                params![
                    new.serial,
                    new.spiffe_id,
                    new.spki,
                    new.not_before,
                    new.not_after,
                    new.issued_at,
                    new.revoked_at,
                    new.parent,
                    new.generation,
                    new.first_seen_at
                ],
            );
            match inserted {
                Ok(_) => {}
                // Serial numbers are random and do not collide. Two simultaneous requests with one key do.
                Err(e) if e.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    return Err(CsrRefusal::KeyReused.into());
                }
                Err(e) => return Err(e.into()),
            }
            // A cluster has joined with its first certificate.
            tx.execute(
                "UPDATE registrations SET joined_at = ?2
                 WHERE joined_at IS NULL AND ?1 GLOB 'spiffe://*/cluster/' || cluster || '/*'",
                [&new.spiffe_id, &new.issued_at],
            )?;
            let detail = json!({
                "serial": new.serial, "id": new.spiffe_id, "key": new.spki, "until": new.not_after,
                "generation": new.generation,
            });
            audit::append(tx, now, "certificate issued", &detail)
        })
    }

    /// All certificates, oldest first.
    pub(crate) fn certificates(&self) -> Result<Vec<IssuedCertificate>, PkiError> {
        let sql = format!("SELECT {COLUMNS} FROM certificates ORDER BY issued_at, rowid");
        let mut statement = self.db.prepare(&sql)?;
        let rows = statement.query_map([], IssuedCertificate::from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
