//! Replays the audit log, and compares the tables with what it says: a table that was emptied or changed by hand is found.
//!
//! Where a table denies more than the log, such as after a restore, nothing is wrong. The reports of gateways are not in the log; they
//! come again.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use serde_json::Value;

use crate::{
    error::PkiError,
    inventory::{Inventory, audit::PRUNED},
};

/// A serial number, a SPIFFE id and the pin of a key.
type CertificateKey = (String, String, String);
/// The kind and the value of a denial, and until when certificates were issued that it denies.
type Denial = (String, String, Option<String>);

/// A token, as the log has it.
#[derive(Default)]
struct LoggedToken {
    cluster: String,
    used: bool,
    revoked: bool,
}

/// A cluster that was registered.
#[derive(Debug, Default, PartialEq, Eq)]
struct LoggedCluster {
    environment: String,
    joined: bool,
    paused: bool,
    removed: bool,
}

/// What the tables should have.
#[derive(Default)]
struct Replayed {
    /// Certificates, and when they expire.
    issued: BTreeMap<CertificateKey, String>,
    /// Serial numbers of certificates that were revoked.
    revoked: BTreeSet<String>,
    tokens: BTreeMap<String, LoggedToken>,
    clusters: BTreeMap<String, LoggedCluster>,
    denials: BTreeSet<Denial>,
    /// The number of the denylist that a root has signed.
    root_denylist: Option<i64>,
    /// Of the last restore: when its backup was made, and when it was restored.
    restored: Option<(String, String)>,
}

impl Inventory {
    /// Replays the log, and compares the result with the tables. Returns how many rows were compared: certificates, tokens and
    /// clusters.
    ///
    /// # Errors
    /// [`PkiError::Integrity`] with the first row that does not agree.
    pub(crate) fn replay(&self) -> Result<usize, PkiError> {
        // All of it is read as it is now: another process may issue a certificate meanwhile.
        let snapshot = self.db.unchecked_transaction()?;
        let mut replayed = Replayed::default();
        let mut statement = snapshot.prepare("SELECT event, detail, at FROM audit ORDER BY number")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (event, detail, at): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            // Details that cannot be read name nothing that a table has: the comparison fails.
            replayed.take(&event, &serde_json::from_str(&detail).unwrap_or_default(), &at);
        }
        replayed.compare_certificates(&snapshot)?;
        replayed.compare_tokens(&snapshot)?;
        replayed.compare_clusters(&snapshot)?;
        replayed.compare_denials(&snapshot)?;
        replayed.compare_restore(&snapshot)?;
        Ok(replayed.issued.len() + replayed.tokens.len() + replayed.clusters.len())
    }
}

impl Replayed {
    /// Takes the next entry of the log.
    fn take(&mut self, event: &str, detail: &Value, at: &str) {
        let field = |name: &str| detail[name].as_str().unwrap_or_default().to_owned();
        match event {
            "certificate issued" | "certificate adopted" => {
                let id = field("id");
                if let Some(cluster) = cluster_of(&id).and_then(|name| self.clusters.get_mut(name)) {
                    cluster.joined = true;
                }
                self.issued.insert((field("serial"), id, field("key")), field("until"));
            }
            "certificates revoked" => {
                if let Some(serial) = detail["serial"].as_str() {
                    self.revoked.insert(serial.to_owned());
                }
                if let Some(id) = detail["id"].as_str() {
                    self.deny("id", id, Some(at));
                    self.revoke_where(|known| known == id);
                }
                if let Some(cluster) = detail["cluster"].as_str() {
                    self.revoke_cluster(cluster, at);
                }
            }
            "clone locked" | "unused renewal revoked" => {
                self.revoked.insert(field("serial"));
            }
            PRUNED => {
                let before = field("expired_before");
                self.issued.retain(|_, until| *until >= before);
            }
            "token created" => {
                let token = LoggedToken { cluster: field("cluster"), ..LoggedToken::default() };
                self.tokens.insert(field("token"), token);
            }
            "token used" => self.tokens.entry(field("token")).or_default().used = true,
            "token revoked" => self.tokens.entry(field("token")).or_default().revoked = true,
            "cluster registered" => {
                let cluster = LoggedCluster { environment: field("environment"), ..LoggedCluster::default() };
                self.clusters.insert(field("cluster"), cluster);
            }
            "cluster paused" | "cluster resumed" => self.pause(&field("cluster"), event == "cluster paused"),
            "cluster removed" => self.remove(&field("cluster"), at),
            "root denylist installed" => self.root_denylist = detail["number"].as_i64(),
            "restored from a backup" => self.restored = Some((field("backup_at"), at.to_owned())),
            _ => {}
        }
    }

    fn deny(&mut self, kind: &str, value: &str, issued_until: Option<&str>) {
        self.denials.insert((kind.to_owned(), value.to_owned(), issued_until.map(str::to_owned)));
    }

    /// Revokes the certificates that were issued until now to the SPIFFE ids that are `wanted`.
    fn revoke_where(&mut self, wanted: impl Fn(&str) -> bool) {
        let serials = self.issued.keys().filter(|(_, id, _)| wanted(id)).map(|(serial, ..)| serial.clone());
        self.revoked.extend(serials);
    }

    fn revoke_cluster(&mut self, cluster: &str, at: &str) {
        self.deny("cluster", cluster, Some(at));
        self.revoke_where(|id| cluster_of(id) == Some(cluster));
    }

    fn pause(&mut self, cluster: &str, pause: bool) {
        self.clusters.entry(cluster.to_owned()).or_default().paused = pause;
        match pause {
            true => self.deny("cluster", cluster, None),
            false => drop(self.denials.remove(&("cluster".to_owned(), cluster.to_owned(), None))),
        }
    }

    fn remove(&mut self, cluster: &str, at: &str) {
        self.pause(cluster, false);
        self.clusters.entry(cluster.to_owned()).or_default().removed = true;
        self.revoke_cluster(cluster, at);
        for token in self.tokens.values_mut().filter(|token| token.cluster == cluster) {
            token.revoked |= !token.used;
        }
    }

    fn compare_certificates(&self, db: &Connection) -> Result<(), PkiError> {
        let mut statement =
            db.prepare("SELECT serial, spiffe_id, spki, revoked_at IS NOT NULL FROM certificates")?;
        let rows = statement
            .query_map([], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get::<_, bool>(3)?)))?;
        let table: BTreeMap<CertificateKey, bool> = rows.collect::<Result<_, _>>()?;
        let odd = table.keys().find(|key| !self.issued.contains_key(*key));
        if let Some((serial, id, _)) =
            odd.or_else(|| self.issued.keys().find(|key| !table.contains_key(*key)))
        {
            return Err(altered(&format!(
                "certificate {serial} of {id} is in the table or in the log, but not in both"
            )));
        }
        let lifted = table.iter().find(|((serial, ..), revoked)| !**revoked && self.revoked.contains(serial));
        match lifted {
            Some(((serial, id, _), _)) => Err(altered(&format!(
                "certificate {serial} of {id} is revoked in the log, but not in the table"
            ))),
            None => Ok(()),
        }
    }

    fn compare_tokens(&self, db: &Connection) -> Result<(), PkiError> {
        let mut statement = db.prepare(
            "SELECT substr(secret_sha256, 1, 16), used_at IS NOT NULL, revoked_at IS NOT NULL FROM tokens",
        )?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
        let table: BTreeMap<String, (bool, bool)> = rows.collect::<Result<_, _>>()?;
        let ids: BTreeSet<&String> = table.keys().chain(self.tokens.keys()).collect();
        for id in ids {
            let wrong = match (table.get(id), self.tokens.get(id)) {
                (Some((used, _)), Some(logged)) if *used != logged.used => {
                    "is used in the table or in the log, but not in both"
                }
                (Some((_, false)), Some(logged)) if logged.revoked => {
                    "is revoked in the log, but not in the table"
                }
                (Some(_), Some(_)) => continue,
                _ => "is in the table or in the log, but not in both",
            };
            return Err(altered(&format!("token {id} {wrong}")));
        }
        Ok(())
    }

    fn compare_clusters(&self, db: &Connection) -> Result<(), PkiError> {
        let mut statement = db.prepare(
            "SELECT cluster, environment, joined_at IS NOT NULL, paused_at IS NOT NULL, removed_at IS NOT NULL
             FROM registrations",
        )?;
        let rows = statement.query_map([], |row| {
            let (environment, joined) = (row.get(1)?, row.get(2)?);
            Ok((
                row.get(0)?,
                LoggedCluster { environment, joined, paused: row.get(3)?, removed: row.get(4)? },
            ))
        })?;
        let table: BTreeMap<String, LoggedCluster> = rows.collect::<Result<_, _>>()?;
        let names: BTreeSet<&String> = table.keys().chain(self.clusters.keys()).collect();
        match names.into_iter().find(|name| table.get(*name) != self.clusters.get(*name)) {
            Some(name) => {
                Err(altered(&format!("cluster {name} has another state in the table than in the log")))
            }
            None => Ok(()),
        }
    }

    fn compare_denials(&self, db: &Connection) -> Result<(), PkiError> {
        let mut statement =
            db.prepare("SELECT kind, value, issued_until FROM denials WHERE lifted_at IS NULL")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let table: BTreeSet<Denial> = rows.collect::<Result<_, _>>()?;
        if let Some((kind, value, _)) = self.denials.difference(&table).next() {
            return Err(altered(&format!(
                "the denial of {kind} {value} is in the log, but not in the table"
            )));
        }
        let mut statement = db.prepare("SELECT number FROM denylists WHERE kind = 'root'")?;
        let number = statement.query_map([], |row| row.get::<_, i64>(0))?.next().transpose()?;
        match number == self.root_denylist {
            true => Ok(()),
            false => Err(altered(
                "the number of the denylist of a root is not the same in the table and in the log",
            )),
        }
    }

    /// The times between which certificates are adopted: with others, the thief of an issuing CA's key could have his own adopted.
    fn compare_restore(&self, db: &Connection) -> Result<(), PkiError> {
        let mut statement = db.prepare("SELECT value FROM settings WHERE key = ?1")?;
        let mut setting = |key: &str| -> Result<Option<String>, PkiError> {
            Ok(statement.query_map([key], |row| row.get(0))?.next().transpose()?)
        };
        let found = (setting("adopt_since")?, setting("adopt_until")?);
        match found == self.restored.clone().unzip() {
            true => Ok(()),
            false => {
                Err(altered("the time of the last restore is not the same in the settings and in the log"))
            }
        }
    }
}

/// The cluster of a SPIFFE id, `spiffe://DOMAIN/cluster/NAME/COMPONENT`.
fn cluster_of(id: &str) -> Option<&str> {
    id.split('/').nth(4)
}

/// The error about a table and a log that do not agree.
fn altered(what: &str) -> PkiError {
    PkiError::Integrity(format!("inventory: {what}; one of them was altered"))
}
