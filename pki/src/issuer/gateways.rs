//! What the clusters' gateways have in use.

use std::time::SystemTime;

use identity::SignedDenylist;

use crate::{
    error::PkiError,
    inventory::{GatewayRecord, GatewayReport},
    issuer::Issuer,
};

/// What a gateway has in use.
pub(crate) struct GatewayStatus {
    pub(crate) report: GatewayReport,
    pub(crate) reported_at: String,
    /// `None` while it is connected.
    pub(crate) disconnected_at: Option<String>,
    /// Whether it has the current denylists and the current bundle.
    pub(crate) is_current: bool,
    /// Whether the audit log contains the head that it keeps.
    pub(crate) log_is_whole: bool,
}

impl GatewayStatus {
    /// Whether nothing more is to be waited for.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_current || self.disconnected_at.is_some()
    }
}

impl Issuer {
    /// Records what a connected gateway has in use.
    ///
    /// # Errors
    /// When the inventory cannot be written.
    pub fn gateway_reported(&self, report: &GatewayReport, now: SystemTime) -> Result<(), PkiError> {
        self.inventory().gateway_reported(report, now)
    }

    /// Records that a gateway is not connected any more; with `None`, that none is.
    ///
    /// # Errors
    /// When the inventory cannot be written.
    pub fn gateway_left(&self, gateway: Option<(&str, &str)>, now: SystemTime) -> Result<(), PkiError> {
        self.inventory().gateway_left(gateway, now)
    }

    /// How many gateways are connected.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub(crate) fn connected_gateways(&self) -> Result<usize, PkiError> {
        let gateways = self.inventory().gateways()?;
        Ok(gateways.iter().filter(|gateway| gateway.disconnected_at.is_none()).count())
    }

    /// What each gateway has in use, compared with what it should have.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub(crate) fn gateway_status(&self, now: SystemTime) -> Result<Vec<GatewayStatus>, PkiError> {
        let held = self.denylists(now)?;
        let number = |list: Option<&SignedDenylist>| list.map_or(0, SignedDenylist::number);
        let (issuer, root) = (number(held.issuer()), number(held.root()));
        let bundle = self.bundle().sequence();
        let inventory = self.inventory();
        let status = inventory.gateways()?.into_iter().map(|gateway| -> Result<GatewayStatus, PkiError> {
            let report = &gateway.report;
            let kept = inventory.audit_hash_at(report.audit_number)?;
            let log_is_whole =
                report.audit_number == 0 || kept.as_deref() == Some(report.audit_hash.as_str());
            let is_current =
                report.denylist >= issuer && report.root_denylist >= root && report.bundle >= bundle;
            let GatewayRecord { report, reported_at, disconnected_at } = gateway;
            Ok(GatewayStatus { report, reported_at, disconnected_at, is_current, log_is_whole })
        });
        status.collect()
    }
}
