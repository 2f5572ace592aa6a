//! The join tokens of clusters.

use std::time::SystemTime;

use aws_lc_rs::digest;
use identity::Name;
use rusqlite::{OptionalExtension, Transaction, params};
use serde_json::json;

use crate::{
    authority::utc,
    error::{PkiError, TokenRefusal},
    inventory::{Inventory, audit, clusters},
};

/// How many refused uses of one token are written to the audit log. Further ones are only counted, so that
/// the owner of a used token cannot fill the disk.
const AUDITED_REFUSALS: i64 = 10;

/// A token to record.
pub(crate) struct NewTokenRecord<'a> {
    pub(crate) secret: &'a [u8],
    pub(crate) cluster: &'a Name,
    pub(crate) environment: &'a str,
    pub(crate) expires_at: SystemTime,
}

/// What a redeemed token was created for.
pub(crate) struct Redeemed {
    pub(crate) cluster: Name,
    pub(crate) environment: String,
}

/// A token in the inventory, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRecord {
    /// The first 16 hexadecimal digits of the secret's SHA-256. It identifies the token and is not secret.
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
    /// The state in one word: `revoked`, `used`, `expired` or `open`.
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
    /// Records a token, and the cluster if it is new.
    pub(crate) fn add_token(&mut self, new: &NewTokenRecord<'_>, now: SystemTime) -> Result<(), PkiError> {
        let (hash, cluster) = (sha256_hex(new.secret), new.cluster.as_str());
        let (at, expires_at) = (utc(now), utc(new.expires_at));
        self.transaction(|tx| {
            clusters::register(tx, new.cluster, new.environment, now)?;
            tx.execute(
                "INSERT INTO tokens (secret_sha256, cluster, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)",
                params![hash, cluster, at, expires_at],
            )?;
            let detail = json!({"token": &hash[..ID_DIGITS], "cluster": cluster, "expires_at": expires_at});
            audit::append(tx, now, "token created", &detail)
        })
    }

    /// Marks a token as used and returns the cluster for which it was created.
    pub(crate) fn redeem(&mut self, secret: &[u8], now: SystemTime) -> Result<Redeemed, PkiError> {
        let hash = sha256_hex(secret);
        let at = utc(now);
        // A refusal must not roll the transaction back, because its audit entry must be kept.
        let outcome = self.transaction(|tx| {
            let won = tx.execute(
                "UPDATE tokens SET used_at = ?2
                 WHERE secret_sha256 = ?1 AND used_at IS NULL AND revoked_at IS NULL AND expires_at > ?2
                 AND cluster IN (SELECT cluster FROM registrations WHERE paused_at IS NULL AND removed_at IS NULL)",
                params![hash, at],
            )?;
            if won == 0 {
                return Ok(Err(explain_refusal(tx, &hash, now)?));
            }
            let (cluster, environment) = tx.query_row(
                "SELECT cluster, environment FROM tokens JOIN registrations USING (cluster)
                 WHERE secret_sha256 = ?1",
                [&hash],
                |row| Ok((row.get::<_, String>(0)?, row.get(1)?)),
            )?;
            audit::append(tx, now, "token used", &json!({"token": &hash[..ID_DIGITS], "cluster": cluster}))?;
            Ok(Ok(Redeemed { cluster: parse_cluster(&cluster)?, environment }))
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

    /// Whether a token can be revoked; `false` if it was revoked before.
    ///
    /// # Errors
    /// [`PkiError::NotFound`] for an unknown token, [`PkiError::Conflict`] for one that was used.
    pub(crate) fn check_revocable(&self, id: &str) -> Result<bool, PkiError> {
        match self.tokens()?.into_iter().find(|token| token.id == id) {
            None => {
                let why = format!("token {id:?} does not exist; `pki token list` prints the ids");
                Err(PkiError::NotFound(why))
            }
            Some(TokenRecord { revoked_at: Some(_), .. }) => Ok(false),
            Some(TokenRecord { used_at: Some(_), .. }) => Err(used(id)),
            Some(_) => Ok(true),
        }
    }

    /// Revokes an unused token. Returns whether the token was changed; revoking it again changes nothing.
    ///
    /// # Errors
    /// Those of [`Inventory::check_revocable`].
    pub(crate) fn revoke_token(&mut self, id: &str, now: SystemTime) -> Result<bool, PkiError> {
        if !self.check_revocable(id)? {
            return Ok(false);
        }
        self.transaction(|tx| {
            let changed = tx.execute(
                "UPDATE tokens SET revoked_at = ?2
                 WHERE substr(secret_sha256, 1, 16) = ?1 AND used_at IS NULL AND revoked_at IS NULL",
                params![id, utc(now)],
            )?;
            // It was used between the two.
            if changed == 0 {
                return Err(used(id));
            }
            audit::append(tx, now, "token revoked", &json!({"token": id}))?;
            Ok(true)
        })
    }
}

fn used(id: &str) -> PkiError {
    PkiError::Conflict(format!("token {id} was already used and cannot be revoked"))
}

/// Finds out why the compare-and-swap failed, and records it.
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
        // Unknown tokens are not recorded, because any client can send them. The gateway counts them.
        return Ok(TokenRefusal::Unknown);
    };
    let (refusal, why) = match (used_at, revoked_at) {
        (Some(at), _) => (TokenRefusal::Used(at), "used"),
        (None, Some(_)) => (TokenRefusal::Revoked, "revoked"),
        (None, None) if expires_at <= utc(now) => (TokenRefusal::Expired(expires_at), "expired"),
        (None, None) => (TokenRefusal::Paused, "paused"),
    };
    if refusals <= AUDITED_REFUSALS {
        let detail =
            json!({"token": &hash[..ID_DIGITS], "cluster": cluster, "because": why, "refusals": refusals});
        audit::append(tx, now, "token refused", &detail)?;
    }
    Ok(refusal)
}

fn parse_cluster(text: &str) -> Result<Name, PkiError> {
    text.parse().map_err(|e| PkiError::Integrity(format!("inventory: cluster {e}")))
}

fn sha256_hex(secret: &[u8]) -> String {
    digest::digest(&digest::SHA256, secret).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
