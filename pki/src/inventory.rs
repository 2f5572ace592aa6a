//! The durable record of registrations, tokens, certificates, and of everything done (the audit log).
//!
//! One SQLite database in write-ahead mode with `synchronous=FULL`: when a call returns, its change has reached
//! the disk. Every change and its audit entry are one transaction. Several processes may have it open.

mod audit;
mod certificates;
mod schema;
mod tokens;

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use identity::{Name, TrustDomain};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

pub(crate) use self::{audit::AuditHead, certificates::IssuedCertificate, tokens::NewTokenRecord};
use crate::error::PkiError;

/// How long a change waits for another process's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The files of a state directory.
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Certificate and key of the issuing CA.
    pub(crate) fn issuer(&self) -> PathBuf {
        self.0.join("issuer.pem")
    }

    /// The roots.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.0.join("bundle.pem")
    }

    pub(crate) fn inventory(&self) -> PathBuf {
        self.0.join("inventory.db")
    }

    /// Makes the directory with mode 0700.
    pub(crate) fn create(&self) -> Result<(), PkiError> {
        create_private_dir(&self.0)
    }
}

/// Makes a directory (and those above it) with mode 0700; one that is there is left as it is.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(PkiError::io("create", path))
}

/// An open inventory.
pub(crate) struct Inventory {
    db: Connection,
}

impl Inventory {
    /// Makes the database, or completes one whose making was interrupted.
    pub(crate) fn create(dir: &StateDir, domain: &TrustDomain, cluster: &Name) -> Result<Self, PkiError> {
        let path = dir.inventory();
        // Made by us and not by SQLite, for the mode; the files that SQLite adds beside it take over this one's.
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true).mode(0o600).open(&path).map_err(PkiError::io("create", &path))?;
        let mut inventory = Self::connect(&path)?;
        inventory.change(|tx| schema::create(tx, domain, cluster))?;
        Ok(inventory)
    }

    /// Opens what [`Inventory::create`] made.
    pub(crate) fn open(dir: &StateDir) -> Result<Self, PkiError> {
        if !dir.inventory().exists() {
            let state = dir.path().display();
            return Err(PkiError::NotFound(format!(
                "{state} is no state directory; make one with `pki init`"
            )));
        }
        Self::open_if_made(dir)?.ok_or_else(|| {
            PkiError::Integrity(format!(
                "{} is not complete; run `pki init` again with the same arguments",
                dir.path().display()
            ))
        })
    }

    /// Opens the database; `None` when there is none, or when making it was interrupted before it had tables.
    pub(crate) fn open_if_made(dir: &StateDir) -> Result<Option<Self>, PkiError> {
        let path = dir.inventory();
        if !path.exists() {
            return Ok(None);
        }
        let inventory = Self::connect(&path)?;
        let made = schema::is_made(&inventory.db).map_err(|e| match e {
            // Anything wrong while reading the very first page means that this is no database of ours.
            PkiError::Inventory(e) => PkiError::Integrity(format!("{}: {e}", path.display())),
            other => other,
        })?;
        Ok(made.then_some(inventory))
    }

    fn connect(path: &Path) -> Result<Self, PkiError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let damaged = |e: rusqlite::Error| PkiError::Integrity(format!("{}: {e}", path.display()));
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_TIMEOUT)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(damaged)?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "trusted_schema", false)?;
        Ok(Self { db })
    }

    /// The trust domain and the issuer's own cluster, as initialised.
    pub(crate) fn identity(&self) -> Result<(TrustDomain, Name), PkiError> {
        let setting = |key: &str| {
            let found = self
                .db
                .query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get::<_, String>(0));
            found
                .optional()?
                .ok_or_else(|| PkiError::Integrity(format!("the inventory has no setting {key:?}")))
        };
        let bad = |e: identity::NameError| PkiError::Integrity(format!("the inventory: {e}"));
        Ok((setting("trust_domain")?.parse().map_err(bad)?, setting("cluster")?.parse().map_err(bad)?))
    }

    /// Runs a change alone, from its first read on: nothing else is written between its reads and its writes.
    fn change<T>(
        &mut self,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, PkiError>,
    ) -> Result<T, PkiError> {
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = change(&tx)?;
        tx.commit()?;
        Ok(result)
    }
}

#[cfg(test)]
mod tests;
