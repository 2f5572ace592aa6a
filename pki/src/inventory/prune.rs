//! Removal of certificates that expired long ago from the table. The audit log keeps all its entries: it is the evidence, and one
//! entry says up to which time the table was pruned, so that both can still be compared.

use std::time::{Duration, SystemTime};

use rusqlite::{Transaction, params};
use serde_json::json;

use crate::{
    authority::utc,
    error::PkiError,
    inventory::{Inventory, audit},
};

/// The least time since the end of a certificate. Denials are forgotten after this time, and expired certificates cannot be
/// exchanged any more.
pub(crate) const LEAST_AGE: Duration = Duration::from_secs(45 * 86_400);

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pruned {
    /// Certificates whose validity ended before this time.
    pub(crate) expired_before: String,
    pub(crate) certificates: usize,
}

impl Inventory {
    /// Removes the certificates whose validity ended more than `age` ago; with `dry_run`, only counts them.
    ///
    /// # Errors
    /// [`PkiError::Usage`] when `age` is less than [`LEAST_AGE`].
    pub(crate) fn prune(
        &mut self,
        age: Duration,
        dry_run: bool,
        now: SystemTime,
    ) -> Result<Pruned, PkiError> {
        if age < LEAST_AGE {
            let days = LEAST_AGE.as_secs() / 86_400;
            return Err(PkiError::Usage(format!("--expired-for must be at least {days} days")));
        }
        let expired_before = utc(now - age);
        if dry_run {
            let count = "SELECT count(*) FROM certificates WHERE not_after < ?1";
            let certificates: i64 = self.db.query_row(count, [&expired_before], |row| row.get(0))?;
            return Ok(Pruned { expired_before, certificates: usize::try_from(certificates).unwrap_or(0) });
        }
        self.transaction(|tx| {
            let certificates = remove(tx, &expired_before)?;
            if certificates > 0 {
                let detail = json!({"expired_before": expired_before, "certificates": certificates});
                audit::append(tx, now, audit::PRUNED, &detail)?;
            }
            Ok(Pruned { expired_before, certificates })
        })
    }
}

fn remove(tx: &Transaction<'_>, expired_before: &str) -> Result<usize, PkiError> {
    Ok(tx.execute("DELETE FROM certificates WHERE not_after < ?1", params![expired_before])?)
}
