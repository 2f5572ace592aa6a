//! Registrations and the join tokens made for them.

use std::time::SystemTime;

use aws_lc_rs::digest;
use identity::Name;
use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::json;

use crate::{
    authority::utc,
    error::{PkiError, TokenRefusal},
    inventory::{Inventory, audit},
};

/// How many refused uses of one token get an audit entry each; further ones are only counted, so that whoever
/// holds a used token cannot fill the disk with it.
const AUDITED_REFUSALS: i64 = 10;

/// A token to be recorded.
pub(crate) struct NewTokenRecord<'a> {
    pub(crate) secret: &'a [u8],
    pub(crate) cluster: &'a Name,
    pub(crate) environment: &'a str,
    pub(crate) expires_at: SystemTime,
}

/// A cluster that may have certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegisteredCluster {
    pub(crate) cluster: Name,
    pub(crate) environment: String,
    pub(crate) registered_at: String,
}

/// A token as listed: everything but the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRecord {
    /// The first 16 digits of the secret's SHA-256: names the token and opens nothing.
    pub(crate) id: String,
    pub(crate) cluster: String,
    pub(crate) created_at: String,
    pub(crate) expires_at: String,
    pub(crate) used_at: Option<String>,
    pub(crate) revoked_at: Option<String>,
    pub(crate) refusals: i64,
}

const ID_DIGITS: usize = 16;

impl TokenRecord {
    /// One word: `revoked`, `used`, `expired` or `open`.
    pub(crate) fn state(&self, now: SystemTime) -> &'static str {
        match self {
            Self { revoked_at: Some(_), .. } => "revoked",
            Self { used_at: Some(_), .. } => "used",
            _ if self.expires_at <= utc(now) => "expired",
            _ => "open",
        }
    }
}

impl Inventory {
    /// The environment of a registered cluster.
    pub(crate) fn environment(&self, cluster: &Name) -> Result<Option<String>, PkiError> {
        Ok(registered_environment(&self.db, cluster)?)
    }

    /// All registered clusters, by name.
    pub(crate) fn registrations(&self) -> Result<Vec<RegisteredCluster>, PkiError> {
        let mut statement = self
            .db
            .prepare("SELECT cluster, environment, registered_at FROM registrations ORDER BY cluster")?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (environment, registered_at) = (row.get(1)?, row.get(2)?);
            found.push(RegisteredCluster {
                cluster: parse_cluster(&row.get::<_, String>(0)?)?,
                environment,
                registered_at,
            });
        }
        Ok(found)
    }

    /// Records a token, and the cluster if it is new.
    pub(crate) fn add_token(&mut self, new: &NewTokenRecord<'_>, now: SystemTime) -> Result<(), PkiError> {
        let (hash, cluster) = (sha256_hex(new.secret), new.cluster.as_str());
        let (at, expires_at) = (utc(now), utc(new.expires_at));
        self.change(|tx| {
            match registered_environment(tx, new.cluster)? {
                None => {
                    tx.execute(
                        "INSERT INTO registrations (cluster, environment, registered_at) VALUES (?1, ?2, ?3)",
                        params![cluster, new.environment, at],
                    )?;
                    let detail = json!({"cluster": cluster, "environment": new.environment});
                    audit::append(tx, now, "cluster registered", &detail)?;
                }
                Some(environment) if environment != new.environment => {
                    return Err(PkiError::Conflict(format!(
                        "cluster {cluster} is registered with environment {environment:?}, not {:?}",
                        new.environment
                    )));
                }
                Some(_) => {}
            }
            tx.execute(
                "INSERT INTO tokens (secret_sha256, cluster, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
                params![hash, cluster, at, expires_at],
            )?;
            let detail = json!({"token": &hash[..ID_DIGITS], "cluster": cluster, "expires_at": expires_at});
            audit::append(tx, now, "token created", &detail)
        })
    }

    /// Uses a token up and says whom it registers.
    pub(crate) fn redeem(&mut self, secret: &[u8], now: SystemTime) -> Result<RegisteredCluster, PkiError> {
        let hash = sha256_hex(secret);
        let at = utc(now);
        // The refusal is a result of the transaction and not its failure: its audit entry must be kept.
        let outcome = self.change(|tx| {
            let won = tx.execute(
                "UPDATE tokens SET used_at = ?2
                 WHERE secret_sha256 = ?1 AND used_at IS NULL AND revoked_at IS NULL AND expires_at > ?2",
                params![hash, at],
            )?;
            if won == 0 {
                return Ok(Err(explain_refusal(tx, &hash, now)?));
            }
            let (cluster, environment, registered_at) = tx.query_row(
                "SELECT cluster, environment, registered_at FROM tokens JOIN registrations USING (cluster)
                 WHERE secret_sha256 = ?1",
                [&hash],
                |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?)),
            )?;
            audit::append(tx, now, "token used", &json!({"token": &hash[..ID_DIGITS], "cluster": cluster}))?;
            Ok(Ok(RegisteredCluster { cluster: parse_cluster(&cluster)?, environment, registered_at }))
        })?;
        Ok(outcome?)
    }

    /// All tokens, newest last.
    pub(crate) fn tokens(&self) -> Result<Vec<TokenRecord>, PkiError> {
        let mut statement = self.db.prepare(
            "SELECT secret_sha256, cluster, created_at, expires_at, used_at, revoked_at, refusals
             FROM tokens ORDER BY created_at, rowid",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(TokenRecord {
                id: row.get::<_, String>(0)?.chars().take(ID_DIGITS).collect(),
                cluster: row.get(1)?,
                created_at: row.get(2)?,
                expires_at: row.get(3)?,
                used_at: row.get(4)?,
                revoked_at: row.get(5)?,
                refusals: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Makes an unused token worthless. Revoking it again changes nothing; answers whether anything changed.
    pub(crate) fn revoke_token(&mut self, id: &str, now: SystemTime) -> Result<bool, PkiError> {
        let found = self.tokens()?.into_iter().find(|token| token.id == id);
        match found {
            None => {
                return Err(PkiError::NotFound(format!("there is no token {id:?}; see `pki token list`")));
            }
            Some(TokenRecord { revoked_at: Some(_), .. }) => return Ok(false),
            Some(_) => {}
        }
        self.change(|tx| {
            let changed = tx.execute(
                "UPDATE tokens SET revoked_at = ?2
                 WHERE substr(secret_sha256, 1, 16) = ?1 AND used_at IS NULL AND revoked_at IS NULL",
                params![id, utc(now)],
            )?;
            if changed == 0 {
                return Err(PkiError::Conflict(format!(
                    "token {id} has been used; there is nothing left to revoke"
                )));
            }
            audit::append(tx, now, "token revoked", &json!({"token": id}))?;
            Ok(true)
        })
    }
}

/// Finds out why the compare-and-swap did not happen, and puts it on record.
fn explain_refusal(tx: &Transaction<'_>, hash: &str, now: SystemTime) -> Result<TokenRefusal, PkiError> {
    let found = tx
        .query_row(
            "UPDATE tokens SET refusals = refusals + 1 WHERE secret_sha256 = ?1
             RETURNING cluster, expires_at, used_at, revoked_at, refusals",
            [hash],
            |row| {
                let (used_at, revoked_at) =
                    (row.get::<_, Option<String>>(2)?, row.get::<_, Option<String>>(3)?);
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    used_at,
                    revoked_at,
                    row.get::<_, i64>(4)?,
                ))
            },
        )
        .optional()?;
    let Some((cluster, expires_at, used_at, revoked_at, refusals)) = found else {
        // Anybody can send unknown tokens, so they leave no trace here; the gateway counts them.
        return Ok(TokenRefusal::Unknown);
    };
    let (refusal, why) = match (used_at, revoked_at) {
        (Some(at), _) => (TokenRefusal::Used(at), "used"),
        (None, Some(_)) => (TokenRefusal::Revoked, "revoked"),
        (None, None) => (TokenRefusal::Expired(expires_at), "expired"),
    };
    if refusals <= AUDITED_REFUSALS {
        let detail =
            json!({"token": &hash[..ID_DIGITS], "cluster": cluster, "because": why, "refusals": refusals});
        audit::append(tx, now, "token refused", &detail)?;
    }
    Ok(refusal)
}

fn registered_environment(db: &rusqlite::Connection, cluster: &Name) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT environment FROM registrations WHERE cluster = ?1", [cluster.as_str()], |row| {
        row.get(0)
    })
    .optional()
}

fn parse_cluster(text: &str) -> Result<Name, PkiError> {
    text.parse().map_err(|e| PkiError::Integrity(format!("the inventory: cluster {e}")))
}

fn sha256_hex(secret: &[u8]) -> String {
    digest::digest(&digest::SHA256, secret).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
