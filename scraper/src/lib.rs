//! Scrapes: what becomes of an exposition.
//!
//! A [`TargetSeries`] turns the expositions of one target into samples of a [`head::Head`]: it attaches the labels of the target,
//! applies relabelling and limits, marks series that vanish as stale, and writes `up` and the other series about the scrape, as
//! Prometheus does. It has no network and no clock.

mod config;
mod failure;
mod limits;
mod report;
mod rules;
mod series;
mod target_labels;

pub use config::{
    DiscoveryConfig, DnsDiscoveryConfig, DnsRecordKind, FileDiscoveryConfig, GlobalConfig,
    HttpDiscoveryConfig, NameEscaping, NameValidation, PrometheusConfig, RemoteWriteConfig,
    RemoteWriteMessage, RemoteWriteQueue, ScrapeConfig, ScrapeLimits, ScrapeProtocol, StorageConfig,
    TargetGroup,
};
pub use failure::ScrapeFailure;
pub use report::ScrapeReport;
pub use rules::ScrapeRules;
pub use series::{Exposition, ExpositionFormat, TargetSeries};

#[cfg(test)]
mod tests;
