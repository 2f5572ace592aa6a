//! The tables. All times are RFC 3339 text in UTC with whole seconds, so that they sort as text.

use identity::{Name, TrustDomain};
use rusqlite::{Connection, Transaction, params};

use crate::error::PkiError;

const VERSION: i64 = 1;

const TABLES: &str = "
CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE registrations (
    cluster TEXT PRIMARY KEY,
    environment TEXT NOT NULL,
    registered_at TEXT NOT NULL
) STRICT;

CREATE TABLE tokens (
    secret_sha256 TEXT PRIMARY KEY,         -- the secret itself is not stored
    cluster TEXT NOT NULL REFERENCES registrations,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    used_at TEXT,
    revoked_at TEXT,
    refusals INTEGER NOT NULL DEFAULT 0     -- how often it was presented and refused
) STRICT;

CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    spiffe_id TEXT NOT NULL,
    spki TEXT NOT NULL UNIQUE,              -- a key is certified once
    not_before TEXT NOT NULL,
    not_after TEXT NOT NULL,
    issued_at TEXT NOT NULL,
    revoked_at TEXT
) STRICT;
CREATE INDEX certificates_by_id ON certificates (spiffe_id, issued_at);

CREATE TABLE audit (
    number INTEGER PRIMARY KEY,             -- 1, 2, 3 ... without gaps
    at TEXT NOT NULL,
    event TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash TEXT NOT NULL                      -- of this row and the hash before it
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
";

/// Creates the tables unless they exist.
pub(super) fn create(tx: &Transaction<'_>, domain: &TrustDomain, cluster: &Name) -> Result<(), PkiError> {
    if !is_created(tx)? {
        tx.execute_batch(TABLES)?;
        let mut insert = tx.prepare("INSERT INTO settings (key, value) VALUES (?1, ?2)")?;
        insert.execute(params!["trust_domain", domain.as_str()])?;
        insert.execute(params!["cluster", cluster.as_str()])?;
        tx.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(())
}

/// Whether the tables exist. Rejects a database of a newer program.
pub(super) fn is_created(db: &Connection) -> Result<bool, PkiError> {
    match db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        0 => Ok(false),
        VERSION => Ok(true),
        newer => Err(PkiError::Integrity(format!(
            "inventory: its format is {newer}, this program supports format {VERSION}; upgrade the program"
        ))),
    }
}
