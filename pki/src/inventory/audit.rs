//! The audit log: each entry's hash covers the entry and the hash before it.
//!
//! ```text
//! hash(0) = SHA-256("isthmus audit log, version 1")
//! hash(n) = SHA-256(hash(n-1) ‖ n ‖ len(at) ‖ at ‖ len(event) ‖ event ‖ len(detail) ‖ detail)
//! ```
//!
//! with `n` and the lengths as 8 bytes, big endian. An entry that is altered, added or removed in the middle
//! breaks the chain. The chain alone cannot detect that the end was truncated or that the whole log was
//! rewritten. To detect this, the gateways of the clusters keep signed heads (`issuer/audit.rs`); and a head that was noted in
//! another place can be passed to `pki audit verify --head`.

use std::{fmt, str::FromStr, time::SystemTime};

use aws_lc_rs::digest;
use identity::SpkiPin;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde_json::Value;

use crate::{authority::utc, error::PkiError, inventory::Inventory};

/// The entry about the removal of certificates from the table.
pub(super) const PRUNED: &str = "certificates pruned";

/// The head of the log at some time: the number of entries and the hash of the last one. Its text form is
/// `NUMBER:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditHead {
    pub(crate) number: u64,
    pub(crate) hash: String,
}

impl AuditHead {
    fn start() -> Self {
        Self {
            number: 0,
            hash: hex(digest::digest(&digest::SHA256, b"isthmus audit log, version 1").as_ref()),
        }
    }

    fn next(&self, at: &str, event: &str, detail: &str) -> Self {
        let number = self.number + 1;
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.hash.as_bytes());
        context.update(&number.to_be_bytes());
        for text in [at, event, detail] {
            context.update(&(text.len() as u64).to_be_bytes());
            context.update(text.as_bytes());
        }
        Self { number, hash: hex(context.finish().as_ref()) }
    }
}

impl fmt::Display for AuditHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.number, self.hash)
    }
}

impl FromStr for AuditHead {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, hash) =
            text.split_once(':').ok_or("must be NUMBER:HASH, as `pki audit verify` prints it")?;
        let number = number.parse().map_err(|_| format!("{number:?} is not a number of entries"))?;
        // A hash has the same text form as a pin: 64 lower-case hexadecimal digits.
        hash.parse::<SpkiPin>()
            .map_err(|_| "the hash must be 64 lower-case hexadecimal digits".to_owned())?;
        Ok(Self { number, hash: hash.to_owned() })
    }
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditEntry {
    pub(crate) number: i64,
    pub(crate) at: String,
    pub(crate) event: String,
    /// A JSON object.
    pub(crate) detail: String,
}

/// Appends an entry in the transaction of the change that it describes.
pub(super) fn append(
    tx: &Transaction<'_>,
    now: SystemTime,
    event: &str,
    detail: &Value,
) -> Result<(), PkiError> {
    let last = last_head(tx)?;
    let by: String = tx.prepare_cached("SELECT name FROM temp.actor")?.query_row([], |row| row.get(0))?;
    let mut detail = detail.clone();
    detail["by"] = Value::from(by);
    let (at, detail) = (utc(now), detail.to_string());
    let head = last.unwrap_or_else(AuditHead::start).next(&at, event, &detail);
    tx.prepare_cached("INSERT INTO audit (number, at, event, detail, hash) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![head.number as i64, at, event, detail, head.hash])?;
    Ok(())
}

fn last_head(db: &Connection) -> Result<Option<AuditHead>, PkiError> {
    let mut statement = db.prepare_cached("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")?;
    let head = statement.query_row([], |row| {
        Ok(AuditHead { number: row.get::<_, i64>(0)?.unsigned_abs(), hash: row.get(1)? })
    });
    Ok(head.optional()?)
}

impl Inventory {
    /// Appends an entry in a transaction of its own.
    pub(crate) fn record(&mut self, now: SystemTime, event: &str, detail: &Value) -> Result<(), PkiError> {
        self.transaction(|tx| append(tx, now, event, detail))
    }

    /// The head of the log, which is not verified.
    pub(crate) fn audit_head(&self) -> Result<AuditHead, PkiError> {
        Ok(last_head(&self.db)?.unwrap_or_else(AuditHead::start))
    }

    /// The hash of an entry; `None` if the log has no such entry.
    pub(crate) fn audit_hash_at(&self, number: u64) -> Result<Option<String>, PkiError> {
        let Ok(number) = i64::try_from(number) else { return Ok(None) };
        let mut statement = self.db.prepare_cached("SELECT hash FROM audit WHERE number = ?1")?;
        Ok(statement.query_row([number], |row| row.get(0)).optional()?)
    }

    /// The event of the first entry.
    pub(crate) fn first_audit_event(&self) -> Result<Option<String>, PkiError> {
        Ok(self.db.query_row("SELECT event FROM audit WHERE number = 1", [], |row| row.get(0)).optional()?)
    }

    /// Verifies the whole chain. With an earlier head, also checks that the log still contains it. Returns
    /// the head.
    pub(crate) fn verify_audit(&self, earlier: Option<&AuditHead>) -> Result<AuditHead, PkiError> {
        let mut head = AuditHead::start();
        let mut earlier_found = earlier.is_none_or(|earlier| *earlier == head);
        let mut statement =
            self.db.prepare("SELECT number, at, event, detail, hash FROM audit ORDER BY number")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (number, hash): (i64, String) = (row.get(0)?, row.get(4)?);
            let (at, event, detail): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
            head = head.next(&at, &event, &detail);
            if number != head.number as i64 || hash != head.hash {
                let expected = head.number;
                return Err(PkiError::Integrity(format!(
                    "audit log: the hash chain breaks at entry {expected}; \
                     an entry was altered, added or removed"
                )));
            }
            earlier_found |= earlier == Some(&head);
        }
        match earlier {
            Some(earlier) if !earlier_found => Err(PkiError::Integrity(format!(
                "audit log: head {earlier} is not in it; the log was truncated or rewritten since then"
            ))),
            _ => Ok(head),
        }
    }

    /// The last `count` entries, oldest first.
    pub(crate) fn audit_tail(&self, count: u32) -> Result<Vec<AuditEntry>, PkiError> {
        let mut statement =
            self.db.prepare("SELECT number, at, event, detail FROM audit ORDER BY number DESC LIMIT ?1")?;
        let rows = statement.query_map([count], |row| {
            Ok(AuditEntry { number: row.get(0)?, at: row.get(1)?, event: row.get(2)?, detail: row.get(3)? })
        })?;
        let mut entries = rows.collect::<Result<Vec<_>, _>>()?;
        entries.reverse();
        Ok(entries)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
