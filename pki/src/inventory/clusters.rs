//! The registered clusters: who may join, who is paused, who was removed.

use std::time::SystemTime;

use identity::Name;
use rusqlite::{Row, Transaction, params};
use serde_json::json;

use crate::{
    authority::utc,
    error::PkiError,
    inventory::{Inventory, ListSigner, audit, denials},
};

/// A cluster that may get certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterRecord {
    /// Its name.
    pub cluster: Name,
    /// Its environment, such as `production`.
    pub environment: String,
    /// When it was registered, in RFC 3339.
    pub registered_at: String,
    /// When it got its first certificate; until then no answer misses it.
    pub joined_at: Option<String>,
    /// Since when it is paused.
    pub paused_at: Option<String>,
    /// When it was removed.
    pub removed_at: Option<String>,
}

const COLUMNS: &str = "cluster, environment, registered_at, joined_at, paused_at, removed_at";

impl ClusterRecord {
    /// The state in one word: `removed`, `paused`, `joined` or `expected`.
    pub fn state(&self) -> &'static str {
        match self {
            Self { removed_at: Some(_), .. } => "removed",
            Self { paused_at: Some(_), .. } => "paused",
            Self { joined_at: Some(_), .. } => "joined",
            _ => "expected",
        }
    }

    fn from_row(row: &Row<'_>) -> Result<Self, PkiError> {
        let text: String = row.get(0)?;
        let cluster =
            text.parse().map_err(|e| PkiError::Integrity(format!("inventory: cluster {text:?}: {e}")))?;
        Ok(Self {
            cluster,
            environment: row.get(1)?,
            registered_at: row.get(2)?,
            joined_at: row.get(3)?,
            paused_at: row.get(4)?,
            removed_at: row.get(5)?,
        })
    }
}

impl Inventory {
    /// A cluster that is registered and was not removed.
    pub(crate) fn cluster(&self, cluster: &Name) -> Result<Option<ClusterRecord>, PkiError> {
        Ok(find(&self.db, cluster)?.filter(|found| found.removed_at.is_none()))
    }

    /// All clusters, sorted by name; those that were removed, too.
    pub(crate) fn clusters(&self) -> Result<Vec<ClusterRecord>, PkiError> {
        let mut statement =
            self.db.prepare_cached(&format!("SELECT {COLUMNS} FROM registrations ORDER BY cluster"))?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(ClusterRecord::from_row(row)?);
        }
        Ok(found)
    }

    /// Registers a cluster. Returns whether it was new; a cluster that was removed is new again.
    pub(crate) fn add_cluster(
        &mut self,
        cluster: &Name,
        environment: &str,
        now: SystemTime,
    ) -> Result<bool, PkiError> {
        self.transaction(|tx| register(tx, cluster, environment, now))
    }

    /// Removes a cluster: revokes its certificates and tokens, and replaces the issuing CA's list. Returns whether it was there.
    pub(crate) fn remove_cluster(
        &mut self,
        cluster: &Name,
        now: SystemTime,
        sign: ListSigner<'_>,
    ) -> Result<bool, PkiError> {
        self.transaction(|tx| {
            let known = must_exist(tx, cluster)?;
            if known.removed_at.is_some() {
                return Ok(false);
            }
            let (name, at) = (cluster.as_str(), utc(now));
            tx.execute("UPDATE registrations SET removed_at = ?2, paused_at = NULL WHERE cluster = ?1", [name, &at])?;
            lift_pause(tx, name, &at)?;
            let certificates = denials::revoke_cluster(tx, name, "its cluster was removed", now)?;
            let tokens = tx.execute(
                "UPDATE tokens SET revoked_at = ?2 WHERE cluster = ?1 AND used_at IS NULL AND revoked_at IS NULL",
                [name, &at],
            )?;
            let detail = json!({"cluster": name, "certificates": certificates, "tokens": tokens});
            audit::append(tx, now, "cluster removed", &detail)?;
            denials::sign_next(tx, now, sign)?;
            Ok(true)
        })
    }

    /// Pauses a cluster, or resumes it, and replaces the issuing CA's list. Returns whether this changes something.
    pub(crate) fn pause_cluster(
        &mut self,
        cluster: &Name,
        pause: bool,
        now: SystemTime,
        sign: ListSigner<'_>,
    ) -> Result<bool, PkiError> {
        self.transaction(|tx| {
            let known = must_exist(tx, cluster)?;
            if known.removed_at.is_some() {
                return Err(PkiError::Conflict(format!("cluster {cluster} was removed; add it again first")));
            }
            if known.paused_at.is_some() == pause {
                return Ok(false);
            }
            let (name, at) = (cluster.as_str(), utc(now));
            tx.execute(
                "UPDATE registrations SET paused_at = ?2 WHERE cluster = ?1",
                params![name, pause.then_some(&at)],
            )?;
            match pause {
                true => denials::deny(tx, "cluster", name, None, PAUSED, now)?,
                false => lift_pause(tx, name, &at)?,
            }
            let event = if pause { "cluster paused" } else { "cluster resumed" };
            audit::append(tx, now, event, &json!({"cluster": name}))?;
            denials::sign_next(tx, now, sign)?;
            Ok(true)
        })
    }
}

/// The reason of the denial of a paused cluster.
const PAUSED: &str = "its cluster is paused";

fn lift_pause(tx: &Transaction<'_>, cluster: &str, at: &str) -> Result<(), PkiError> {
    tx.execute(
        "UPDATE denials SET lifted_at = ?2
         WHERE kind = 'cluster' AND value = ?1 AND issued_until IS NULL AND lifted_at IS NULL",
        [cluster, at],
    )?;
    Ok(())
}

/// Registers a cluster in the transaction of another change. Returns whether it was new.
pub(super) fn register(
    tx: &Transaction<'_>,
    cluster: &Name,
    environment: &str,
    now: SystemTime,
) -> Result<bool, PkiError> {
    match find(tx, cluster)? {
        Some(known) if known.removed_at.is_none() && known.environment != environment => {
            Err(PkiError::Conflict(format!(
                "cluster {cluster} is registered with environment {:?}, not {environment:?}; \
                 use the registered one",
                known.environment
            )))
        }
        Some(known) if known.removed_at.is_none() => Ok(false),
        _ => {
            tx.execute(
                "INSERT INTO registrations (cluster, environment, registered_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (cluster) DO UPDATE SET environment = ?2, registered_at = ?3, joined_at = NULL,
                 paused_at = NULL, removed_at = NULL",
                params![cluster.as_str(), environment, utc(now)],
            )?;
            let detail = json!({"cluster": cluster.as_str(), "environment": environment});
            audit::append(tx, now, "cluster registered", &detail)?;
            Ok(true)
        }
    }
}

fn must_exist(tx: &Transaction<'_>, cluster: &Name) -> Result<ClusterRecord, PkiError> {
    find(tx, cluster)?.ok_or_else(|| {
        PkiError::NotFound(format!(
            "cluster {cluster} is not registered; `pki cluster list` prints the clusters"
        ))
    })
}

fn find(db: &rusqlite::Connection, cluster: &Name) -> Result<Option<ClusterRecord>, PkiError> {
    let mut statement =
        db.prepare_cached(&format!("SELECT {COLUMNS} FROM registrations WHERE cluster = ?1"))?;
    let mut rows = statement.query([cluster.as_str()])?;
    rows.next()?.map(ClusterRecord::from_row).transpose()
}
