//! Scrapes: Prometheus without queries and rules.
//!
//! A [`ScrapeManager`] discovers the targets of a [`PrometheusConfig`], scrapes each on its own schedule, and appends what they expose to a
//! [`head::Database`]. A [`TargetSeries`] turns the expositions of one target into samples: it attaches the labels of the target, applies
//! relabelling and limits, marks series that vanish as stale, and writes `up` and the other series about the scrape, as Prometheus does.

mod clock;
mod component;
mod config;
mod current;
mod discovery;
mod exposed;
mod facts;
mod failure;
mod fetch;
mod fixed_labels;
mod flags;
mod job;
mod limits;
mod manager;
mod metrics;
mod report;
mod rules;
mod schedule;
mod scrape_loop;
mod series;
mod setup;
mod shared;
mod target;
mod target_labels;
mod target_state;
mod unneeded;
mod user_agent;

pub use clock::Clock;
pub use component::{ROLE, attach, open, run};
pub use config::{
    DiscoveryConfig, DnsDiscoveryConfig, DnsRecordKind, FileDiscoveryConfig, GlobalConfig,
    HttpDiscoveryConfig, NameEscaping, NameValidation, PrometheusConfig, ScrapeConfig, ScrapeLimits,
    ScrapeProtocol, StorageConfig, TargetGroup,
};
pub use exposed::{Exposition, ExpositionFormat};
pub use failure::ScrapeFailure;
pub use fixed_labels::FixedLabel;
pub use flags::{RoleConfig, ScrapeArgs};
pub use manager::{ScrapeManager, ScrapeOptions};
pub use report::ScrapeReport;
pub use rules::ScrapeRules;
pub use series::{TargetMetadata, TargetSeries};

#[cfg(test)]
mod tests;
