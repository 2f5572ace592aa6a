//! The issued certificates.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use identity::{CLOCK_SKEW, PeerIdentity, SpiffeId, SpkiPin};
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

/// Certificates that an identity may get within an eighth of a lifetime. A cluster with dozens of gateways needs dozens.
const MAX_RECENT: i64 = 64;

/// How long recoveries are counted.
const RECOVERIES_COUNT: Duration = Duration::from_secs(7 * 86_400);

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

    /// Refuses a renewal if the cluster has got too many certificates within `window`: its clock is wrong, or it has been
    /// taken over.
    pub(crate) fn check_rate(
        &self,
        id: &SpiffeId,
        window: Duration,
        now: SystemTime,
    ) -> Result<(), PkiError> {
        let recent: i64 = self
            .db
            .prepare_cached("SELECT count(*) FROM certificates WHERE spiffe_id = ?1 AND issued_at > ?2")?
            .query_row([id.to_string(), utc(now - window)], |row| row.get(0))?;
        if recent < MAX_RECENT {
            return Ok(());
        }
        Err(PkiError::Refused(format!(
            "{id} got {recent} certificates within {} s, and this renewal is refused; check the clock of its gateway",
            window.as_secs()
        )))
    }

    /// Records that a peer uses a certificate: it has connected with it, or reported that it has stored it.
    pub(crate) fn certificate_seen(
        &mut self,
        serial: &str,
        id: &SpiffeId,
        now: SystemTime,
    ) -> Result<(), PkiError> {
        self.db
            .prepare_cached(
                "UPDATE certificates SET first_seen_at = ?2
                 WHERE serial = ?1 AND spiffe_id = ?3 AND first_seen_at IS NULL",
            )?
            .execute(params![serial, utc(now), id.to_string()])?;
        Ok(())
    }

    /// The serial numbers of a certificate and of those that it was renewed from.
    pub(crate) fn line_of(&self, serial: &str) -> Result<BTreeSet<String>, PkiError> {
        let mut statement = self.db.prepare_cached(
            "WITH RECURSIVE line (serial) AS (VALUES (?1) UNION
             SELECT parent FROM certificates JOIN line USING (serial) WHERE parent IS NOT NULL)
             SELECT serial FROM line",
        )?;
        let line = statement.query_map([serial], |row| row.get(0))?;
        Ok(line.collect::<Result<_, _>>()?)
    }

    /// Looks for a copy before a certificate is renewed a second time.
    ///
    /// If the first renewal is in use, two machines have the same key: one of them is a copy, and it is not known which.
    /// Both are locked, with all that was issued to either. If the first renewal was never used, its answer was lost, and it
    /// is revoked.
    pub(crate) fn check_for_clone(&mut self, peer: &PeerIdentity, now: SystemTime) -> Result<(), PkiError> {
        // A refusal must not roll the transaction back, because what is locked must stay locked.
        self.transaction(|tx| {
            let mut statement = tx.prepare_cached(
                "SELECT serial, first_seen_at IS NOT NULL FROM certificates WHERE parent = ?1 AND revoked_at IS NULL",
            )?;
            let children = statement.query_map([&peer.serial], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let children: Vec<(String, bool)> = children.collect::<Result<_, _>>()?;
            let id = peer.spiffe_id.to_string();
            if children.iter().any(|(_, in_use)| *in_use) {
                let locked = tx.execute(
                    "WITH RECURSIVE line (serial) AS (VALUES (?1) UNION
                     SELECT certificates.serial FROM certificates JOIN line ON certificates.parent = line.serial)
                     UPDATE certificates SET revoked_at = ?2
                     WHERE revoked_at IS NULL AND serial IN (SELECT serial FROM line)",
                    params![peer.serial, utc(now)],
                )?;
                let detail = json!({"id": id, "serial": peer.serial, "certificates": locked});
                audit::append(tx, now, "clone locked", &detail)?;
                return Ok(Err(PkiError::Clone(id)));
            }
            for (serial, _) in children {
                tx.execute(
                    "UPDATE certificates SET revoked_at = ?2 WHERE serial = ?1",
                    params![serial, utc(now)],
                )?;
                let detail = json!({"id": id, "serial": serial});
                audit::append(tx, now, "unused renewal revoked", &detail)?;
            }
            Ok(Ok(()))
        })?
    }

    /// Refuses a certificate that was renewed or revoked, or that is not in the inventory.
    pub(crate) fn check_last_of_its_line(&self, peer: &PeerIdentity) -> Result<(), PkiError> {
        let refuse =
            |why: &str| Err(PkiError::Refused(format!("recovery of {} refused: {why}", peer.spiffe_id)));
        if !self.has_issued(peer)? {
            return refuse("its certificate was not issued by this issuer");
        }
        let (revoked, renewed) = self.db.query_row(
            "SELECT revoked_at IS NOT NULL,
             EXISTS (SELECT 1 FROM certificates WHERE parent = ?1 AND first_seen_at IS NOT NULL)
             FROM certificates WHERE serial = ?1",
            [&peer.serial],
            |row| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?)),
        )?;
        match (revoked, renewed) {
            (true, _) => refuse("its certificate was revoked; join again with a token"),
            (false, true) => {
                refuse("its certificate was renewed, and the next one is in use; this is a copy")
            }
            (false, false) => Ok(()),
        }
    }

    /// Records that an expired certificate is exchanged. Refuses it when the cluster has done that too often.
    pub(crate) fn count_recovery(
        &mut self,
        peer: &PeerIdentity,
        max: usize,
        now: SystemTime,
    ) -> Result<(), PkiError> {
        const EVENT: &str = "expired certificate exchanged";
        let since = utc(now - RECOVERIES_COUNT);
        self.transaction(|tx| {
            let recent: i64 = tx
                .prepare_cached("SELECT count(*) FROM audit WHERE event = ?1 AND at > ?2 AND detail LIKE ?3")?
                .query_row(params![EVENT, since, format!("%{}%", peer.spiffe_id)], |row| row.get(0))?;
            if usize::try_from(recent).is_ok_and(|recent| recent >= max) {
                return Err(PkiError::Refused(format!(
                    "{} has exchanged {recent} expired certificates; join again with a token",
                    peer.spiffe_id
                )));
            }
            let detail = json!({"serial": peer.serial, "id": peer.spiffe_id.to_string()});
            audit::append(tx, now, EVENT, &detail)
        })
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
            let generation: i64 = match &new.parent {
                Some(parent) => tx.query_row(
                    "SELECT generation + 1 FROM certificates WHERE serial = ?1",
                    [parent],
                    |row| row.get(0),
                )?,
                None => 0,
            };
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
                    generation,
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
                "generation": generation,
            });
            audit::append(tx, now, "certificate issued", &detail)
        })
    }

    /// How many certificates are valid, and how many tokens can be used.
    pub(crate) fn figures(&self, now: SystemTime) -> Result<(u64, u64), PkiError> {
        let now = utc(now);
        let count = |sql: &str| -> Result<u64, PkiError> {
            let count: i64 = self.db.prepare_cached(sql)?.query_row([&now], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        };
        let leaves = "SELECT count(*) FROM certificates WHERE revoked_at IS NULL AND not_after > ?1";
        let tokens =
            "SELECT count(*) FROM tokens WHERE used_at IS NULL AND revoked_at IS NULL AND expires_at > ?1";
        Ok((count(leaves)?, count(tokens)?))
    }

    /// All certificates, oldest first.
    pub(crate) fn certificates(&self) -> Result<Vec<IssuedCertificate>, PkiError> {
        let sql = format!("SELECT {COLUMNS} FROM certificates ORDER BY issued_at, rowid");
        let mut statement = self.db.prepare(&sql)?;
        let rows = statement.query_map([], IssuedCertificate::from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
