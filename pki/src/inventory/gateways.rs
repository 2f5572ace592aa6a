//! What the clusters' gateways have in use, as they reported it over their control sessions.

use std::time::SystemTime;

use rusqlite::params;

use crate::{authority::utc, error::PkiError, inventory::Inventory};

/// What a gateway has in use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayReport {
    /// SPIFFE id of the gateway.
    pub id: String,
    /// Distinguishes the gateways of a cluster.
    pub instance: String,
    /// Its address.
    pub remote: String,
    /// Serial number of its certificate.
    pub serial: String,
    /// Number of the issuing CA's denylist; 0 without one.
    pub denylist: u64,
    /// Number of the root's denylist; 0 without one.
    pub root_denylist: u64,
    /// Sequence of the trust bundle.
    pub bundle: u64,
    /// Why it refused the last list or bundle; empty if it did not.
    pub refused: String,
    /// Number of the newest head of the audit log that it keeps; 0 without one.
    pub audit_number: u64,
    /// Hash of this head.
    pub audit_hash: String,
}

/// A gateway in the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayRecord {
    pub(crate) report: GatewayReport,
    pub(crate) reported_at: String,
    /// `None` while it is connected.
    pub(crate) disconnected_at: Option<String>,
}

impl Inventory {
    /// Records what a connected gateway has in use.
    pub(crate) fn gateway_reported(
        &mut self,
        report: &GatewayReport,
        now: SystemTime,
    ) -> Result<(), PkiError> {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.db
            .prepare_cached(
                "INSERT INTO gateways (id, instance, remote, serial, denylist, root_denylist, bundle, refused, reported_at,
                 audit_number, audit_hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT (id, instance) DO UPDATE SET remote = ?3, serial = ?4, denylist = ?5, root_denylist = ?6,
                 bundle = ?7, refused = ?8, reported_at = ?9, audit_number = ?10, audit_hash = ?11, disconnected_at = NULL",
            )?
            .execute(params![
                report.id,
                report.instance,
                report.remote,
                report.serial,
                signed(report.denylist),
                signed(report.root_denylist),
                signed(report.bundle),
                report.refused,
                utc(now),
                signed(report.audit_number),
                report.audit_hash
            ])?;
        Ok(())
    }

    /// Records that a gateway is not connected any more; with `None`, that none is.
    pub(crate) fn gateway_left(
        &mut self,
        gateway: Option<(&str, &str)>,
        now: SystemTime,
    ) -> Result<(), PkiError> {
        match gateway {
            Some((id, instance)) => self.db.execute(
                "UPDATE gateways SET disconnected_at = ?3 WHERE id = ?1 AND instance = ?2",
                params![id, instance, utc(now)],
            )?,
            None => self.db.execute(
                "UPDATE gateways SET disconnected_at = ?1 WHERE disconnected_at IS NULL",
                [utc(now)],
            )?,
        };
        Ok(())
    }

    /// All gateways that have ever reported, by id.
    pub(crate) fn gateways(&self) -> Result<Vec<GatewayRecord>, PkiError> {
        let mut statement = self.db.prepare_cached(
            "SELECT id, instance, remote, serial, denylist, root_denylist, bundle, refused, reported_at, disconnected_at,
             audit_number, audit_hash FROM gateways ORDER BY id, instance",
        )?;
        let number = |number: i64| number.unsigned_abs();
        let rows = statement.query_map([], |row| {
            let report = GatewayReport {
                id: row.get(0)?,
                instance: row.get(1)?,
                remote: row.get(2)?,
                serial: row.get(3)?,
                denylist: number(row.get(4)?),
                root_denylist: number(row.get(5)?),
                bundle: number(row.get(6)?),
                refused: row.get(7)?,
                audit_number: number(row.get(10)?),
                audit_hash: row.get(11)?,
            };
            Ok(GatewayRecord { report, reported_at: row.get(8)?, disconnected_at: row.get(9)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}
