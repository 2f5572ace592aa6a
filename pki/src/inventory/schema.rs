//! The tables. All times are RFC 3339 text in UTC with whole seconds, so that they sort as text.

use identity::{Name, TrustDomain};
use rusqlite::{Connection, Transaction, params};

use crate::error::PkiError;

/// The format of the tables. Programs of earlier releases refuse a greater one, and a rollback must be possible: only a change that
/// would mislead them raises it. Columns and tables that they do not know do not.
pub(super) const VERSION: i64 = 2;

/// The number that programs between two releases wrote for tables with [`ADDED`].
const WITH_ADDED: i64 = 3;

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

/// What format 2 adds to format 1.
const SECOND: &str = "
ALTER TABLE registrations ADD COLUMN joined_at TEXT;      -- of the first certificate
ALTER TABLE registrations ADD COLUMN paused_at TEXT;
ALTER TABLE registrations ADD COLUMN removed_at TEXT;

ALTER TABLE certificates ADD COLUMN parent TEXT;          -- serial number of the certificate that it renews
ALTER TABLE certificates ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
ALTER TABLE certificates ADD COLUMN first_seen_at TEXT;   -- of the first connection with it
CREATE INDEX certificates_by_parent ON certificates (parent);

UPDATE registrations SET joined_at =
    (SELECT min(issued_at) FROM certificates WHERE spiffe_id GLOB 'spiffe://*/cluster/' || cluster || '/*');

CREATE TABLE denials (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,                     -- id or cluster
    value TEXT NOT NULL,
    issued_until TEXT,                      -- later certificates are spared; NULL spares none
    reason TEXT NOT NULL,
    at TEXT NOT NULL,
    lifted_at TEXT
) STRICT;

CREATE TABLE denylists (
    kind TEXT PRIMARY KEY,                  -- issuer or root: who signed it
    number INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE gateways (
    id TEXT NOT NULL,
    instance TEXT NOT NULL,
    remote TEXT NOT NULL,
    serial TEXT NOT NULL,
    denylist INTEGER NOT NULL,
    root_denylist INTEGER NOT NULL,
    bundle INTEGER NOT NULL,
    refused TEXT NOT NULL,
    reported_at TEXT NOT NULL,
    disconnected_at TEXT,
    PRIMARY KEY (id, instance)
) STRICT;
";

/// What was added to format 2. A program that does not know it neither reads nor writes it.
const ADDED: &str = "
ALTER TABLE gateways ADD COLUMN audit_number INTEGER NOT NULL DEFAULT 0;    -- the newest head that it keeps
ALTER TABLE gateways ADD COLUMN audit_hash TEXT NOT NULL DEFAULT '';
";

/// Creates the tables unless they exist.
pub(super) fn create(tx: &Transaction<'_>, domain: &TrustDomain, cluster: &Name) -> Result<(), PkiError> {
    if format_of(tx)? == 0 {
        tx.execute_batch(TABLES)?;
        tx.execute_batch(SECOND)?;
        tx.execute_batch(ADDED)?;
        let mut insert = tx.prepare("INSERT INTO settings (key, value) VALUES (?1, ?2)")?;
        insert.execute(params!["trust_domain", domain.as_str()])?;
        insert.execute(params!["cluster", cluster.as_str()])?;
        tx.pragma_update(None, "user_version", VERSION)?;
    }
    Ok(())
}

/// Whether the tables are those of another program, and [`upgrade`] must convert them.
pub(super) fn is_of_another_program(db: &Connection) -> Result<bool, PkiError> {
    let format = format_of(db)?;
    Ok(format != 0 && (format != VERSION || !has_added(db)?))
}

/// Converts the tables of an earlier program.
pub(super) fn upgrade(tx: &Transaction<'_>) -> Result<(), PkiError> {
    if format_of(tx)? == 1 {
        tx.execute_batch(SECOND)?;
    }
    if !has_added(tx)? {
        tx.execute_batch(ADDED)?;
    }
    tx.pragma_update(None, "user_version", VERSION)?;
    Ok(())
}

/// Whether the tables have what was [`ADDED`].
fn has_added(db: &Connection) -> Result<bool, PkiError> {
    let column = "SELECT count(*) FROM pragma_table_info('gateways') WHERE name = 'audit_hash'";
    Ok(db.query_row(column, [], |row| row.get::<_, i64>(0))? > 0)
}

/// The format of the tables; 0 if there are none. Rejects a database of a newer program.
pub(super) fn format_of(db: &Connection) -> Result<i64, PkiError> {
    match db.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))? {
        known @ (0..=VERSION | WITH_ADDED) => Ok(known),
        newer => Err(PkiError::Integrity(format!(
            "inventory: its format is {newer}, this program supports format {VERSION}; upgrade the program"
        ))),
    }
}
