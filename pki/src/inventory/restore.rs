//! What a restore changes in the inventory of a backup.

use std::{path::Path, time::SystemTime};

use identity::{DenyEntry, DenySubject, PeerIdentity};
use rusqlite::{OptionalExtension, params};
use serde_json::json;

use crate::{
    authority::{parse_utc, utc},
    error::PkiError,
    inventory::{Inventory, audit, denials},
};

/// What [`Inventory::close_for_restore`] found.
pub(crate) struct RestoreWindow {
    /// When the backup was made.
    pub(crate) since: String,
    /// Tokens that were revoked.
    pub(crate) tokens: usize,
}

impl Inventory {
    /// Opens a database at a path of its own.
    pub(crate) fn connect_to(path: &Path) -> Result<Self, PkiError> {
        Self::connect(path)
    }

    /// Writes a consistent copy of the database.
    pub(crate) fn copy_to(&self, path: &Path) -> Result<(), PkiError> {
        let _ = std::fs::remove_file(path);
        let text =
            path.to_str().ok_or_else(|| PkiError::Usage("the state directory is not valid UTF-8".into()))?;
        self.db.execute("VACUUM INTO ?1", [text])?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(PkiError::io("restrict", path))
    }

    /// Revokes the tokens that a backup has open, because they may have been used since. From now on, certificates that
    /// were issued since the backup are adopted.
    pub(crate) fn close_for_restore(&mut self, now: SystemTime) -> Result<RestoreWindow, PkiError> {
        self.transaction(|tx| {
            let since: String =
                tx.query_row("SELECT value FROM settings WHERE key = 'backup_at'", [], |row| row.get(0))?;
            let tokens = tx.execute(
                "UPDATE tokens SET revoked_at = ?1 WHERE used_at IS NULL AND revoked_at IS NULL",
                [utc(now)],
            )?;
            tx.execute("INSERT OR REPLACE INTO settings (key, value) VALUES ('adopt_since', ?1)", [&since])?;
            tx.execute(
                "INSERT OR REPLACE INTO settings (key, value) VALUES ('adopt_until', ?1)",
                [utc(now)],
            )?;
            Ok(RestoreWindow { since, tokens })
        })
    }

    /// Denies again what a list denies that a gateway has stored. Returns whether that is new.
    pub(crate) fn deny_again(&mut self, entry: &DenyEntry, now: SystemTime) -> Result<bool, PkiError> {
        if self.deny_entries(now)?.contains(entry) {
            return Ok(false);
        }
        self.transaction(|tx| {
            let (kind, value) = match &entry.subject {
                DenySubject::Serial(serial) => {
                    tx.execute(
                        "UPDATE certificates SET revoked_at = ?2 WHERE serial = ?1 AND revoked_at IS NULL",
                        params![serial, utc(now)],
                    )?;
                    ("serial", serial.clone())
                }
                DenySubject::Id(id) => ("id", id.to_string()),
                DenySubject::Cluster(cluster) => ("cluster", cluster.to_string()),
                // Lists of an issuing CA have no other entries.
                DenySubject::Key(_) | DenySubject::Issuer(_) => return Ok(false),
            };
            denials::deny(tx, kind, &value, entry.issued_until, &entry.reason, now)?;
            Ok(true)
        })
    }

    /// After a restore: takes over a certificate that was issued between the backup and the restore, when its owner
    /// connects. Returns whether it was taken over.
    pub(crate) fn adopt(&mut self, peer: &PeerIdentity, now: SystemTime) -> Result<bool, PkiError> {
        let setting = |key: &str| -> Result<Option<SystemTime>, PkiError> {
            let found = self
                .db
                .query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| row.get::<_, String>(0));
            Ok(found.optional()?.and_then(|at| parse_utc(&at)))
        };
        let (Some(since), Some(until)) = (setting("adopt_since")?, setting("adopt_until")?) else {
            return Ok(false);
        };
        let registered =
            self.cluster(peer.spiffe_id.cluster())?.is_some_and(|known| known.joined_at.is_some());
        let issued = peer.issued_at();
        if !registered || issued < since || issued > until {
            return Ok(false);
        }
        let id = peer.spiffe_id.to_string();
        self.transaction(|tx| {
            tx.execute(
                "INSERT OR IGNORE INTO certificates (serial, spiffe_id, spki, not_before, not_after, issued_at, first_seen_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    peer.serial,
                    id,
                    peer.spki.to_string(),
                    utc(peer.not_before),
                    utc(peer.not_after),
                    utc(issued),
                    utc(now)
                ],
            )?;
            let detail = json!({"serial": peer.serial, "id": id, "key": peer.spki.to_string(), "until": utc(peer.not_after)});
            audit::append(tx, now, "certificate adopted", &detail)?;
            Ok(true)
        })
    }
}
