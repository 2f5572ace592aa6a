//! The durable record of registrations, tokens and certificates, and the audit log of all changes.
//!
//! It is one SQLite database in write-ahead mode with `synchronous=FULL`: when a call returns, its change is
//! on disk. A change and its audit entry are one transaction. Several processes may open the database at the
//! same time.

mod agreement;
mod audit;
mod certificates;
mod clusters;
mod denials;
mod gateways;
mod prune;
mod replay;
mod restore;
mod schema;
mod tokens;

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use identity::{Name, TrustBundle, TrustDomain};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior};

pub(crate) use self::{
    agreement::CREATED,
    audit::AuditHead,
    certificates::IssuedCertificate,
    denials::{ListKind, ListSigner, NextList, NumberedList},
    gateways::GatewayRecord,
    tokens::{NewTokenRecord, TokenRecord},
};
pub use self::{clusters::ClusterRecord, denials::Revocation, gateways::GatewayReport};
use crate::error::PkiError;

/// How long a change waits for a change of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two attempts meanwhile. SQLite's own pauses are up to 100 ms long: a command that revokes something would wait for
/// several changes of a busy gateway.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

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

    /// The key of the next issuing CA, while no root has signed it.
    pub(crate) fn next_issuer_key(&self) -> PathBuf {
        self.0.join("issuer-next.key")
    }

    /// The roots.
    pub(crate) fn bundle(&self) -> PathBuf {
        self.0.join("bundle.pem")
    }

    /// Loads the roots.
    pub(crate) fn load_bundle(&self) -> Result<TrustBundle, PkiError> {
        let (domain, _) = Inventory::open(self)?.identity()?;
        Ok(TrustBundle::load(domain, &self.bundle())?)
    }

    pub(crate) fn inventory(&self) -> PathBuf {
        self.0.join("inventory.db")
    }

    /// Creates the directory with mode 0700.
    pub(crate) fn create(&self) -> Result<(), PkiError> {
        create_private_dir(&self.0)
    }
}

/// Creates a directory and its missing parents with mode 0700. An existing directory is not changed.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(PkiError::io("create", path))
}

/// Waits before a change is tried again; `attempts` came before. Returns whether it is to be tried again.
fn wait_for_another_change(attempts: i32) -> bool {
    let waited = BUSY_PAUSE.saturating_mul(attempts.unsigned_abs());
    if waited < BUSY_TIMEOUT {
        std::thread::sleep(BUSY_PAUSE);
    }
    waited < BUSY_TIMEOUT
}

/// An open inventory.
pub(crate) struct Inventory {
    db: Connection,
}

impl Inventory {
    /// Creates the database, or completes one whose creation was interrupted.
    pub(crate) fn create(dir: &StateDir, domain: &TrustDomain, cluster: &Name) -> Result<Self, PkiError> {
        let path = dir.inventory();
        // Create the file here and not through SQLite, to set its mode. SQLite gives its additional files the
        // same mode.
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true).mode(0o600).open(&path).map_err(PkiError::io("create", &path))?;
        let mut inventory = Self::connect(&path)?;
        inventory.transaction(|tx| schema::create(tx, domain, cluster))?;
        Ok(inventory)
    }

    /// Opens the database that [`Inventory::create`] created.
    pub(crate) fn open(dir: &StateDir) -> Result<Self, PkiError> {
        if !dir.inventory().exists() {
            let state = dir.path().display();
            return Err(PkiError::NotFound(format!(
                "{state}: not a state directory of a PKI; create one with `pki init`"
            )));
        }
        Self::open_if_created(dir)?.ok_or_else(|| {
            PkiError::Integrity(format!(
                "{}: `pki init` did not complete; run it again with the same arguments",
                dir.path().display()
            ))
        })
    }

    /// Opens the database; `None` when it does not exist, or when its creation was interrupted before it had
    /// tables.
    pub(crate) fn open_if_created(dir: &StateDir) -> Result<Option<Self>, PkiError> {
        let path = dir.inventory();
        if !path.exists() {
            return Ok(None);
        }
        let mut inventory = Self::connect(&path)?;
        let format = schema::format_of(&inventory.db).map_err(|e| match e {
            // An error while reading the first page means that this is not an inventory database.
            PkiError::Inventory(e) => {
                PkiError::Integrity(format!("{}: not a valid inventory: {e}", path.display()))
            }
            other => other,
        })?;
        if schema::is_of_another_program(&inventory.db)? {
            inventory.transaction(schema::upgrade)?;
        }
        Ok((format > 0).then_some(inventory))
    }

    fn connect(path: &Path) -> Result<Self, PkiError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let damaged = |e: rusqlite::Error| {
            PkiError::Integrity(format!("{}: not a valid inventory: {e}", path.display()))
        };
        let mut db = Connection::open_with_flags(path, flags)?;
        db.busy_handler(Some(wait_for_another_change))?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(damaged)?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "trusted_schema", false)?;
        // Who makes the changes of this connection; the audit log gets it with each entry.
        db.execute_batch("CREATE TEMP TABLE actor (name TEXT NOT NULL)")?;
        let user = format!("user {}", rustix::process::getuid().as_raw());
        db.execute("INSERT INTO temp.actor (name) VALUES (?1)", [user])?;
        Ok(Self { db })
    }

    /// The trust domain and the issuer's own cluster, as given to `pki init`.
    pub(crate) fn identity(&self) -> Result<(TrustDomain, Name), PkiError> {
        let setting = |key: &str| {
            let found = self
                .db
                .query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get::<_, String>(0));
            found
                .optional()?
                .ok_or_else(|| PkiError::Integrity(format!("inventory: setting {key:?} is missing")))
        };
        let bad = |e: identity::NameError| PkiError::Integrity(format!("inventory: {e}"));
        Ok((setting("trust_domain")?.parse().map_err(bad)?, setting("cluster")?.parse().map_err(bad)?))
    }

    /// A number that differs from an earlier one if another connection has changed the database since then.
    pub(crate) fn foreign_changes(&self) -> Result<i64, PkiError> {
        Ok(self.db.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }

    /// Sets who makes the next changes of this connection, such as `gateway, for 192.0.2.1`.
    pub(crate) fn act_as(&self, name: &str) -> Result<(), PkiError> {
        self.db.prepare_cached("UPDATE temp.actor SET name = ?1")?.execute([name])?;
        Ok(())
    }

    /// Runs a change in an exclusive transaction: no other process writes between its reads and its writes.
    fn transaction<T>(
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
