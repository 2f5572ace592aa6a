//! `prometheus.yml`: what is known of it, and every mistake.

mod discovery;
mod environment;
mod global;
mod job;
mod limits;
mod prometheus;
mod protocol;
mod shown;
mod storage;
mod values;

pub(crate) use discovery::read_group;
pub use discovery::{
    DiscoveryConfig, DnsDiscoveryConfig, DnsRecordKind, FileDiscoveryConfig, HttpDiscoveryConfig, TargetGroup,
};
pub use global::GlobalConfig;
pub use job::ScrapeConfig;
pub use limits::ScrapeLimits;
pub use prometheus::PrometheusConfig;
pub use protocol::{NameEscaping, NameValidation, ScrapeProtocol};
pub use storage::StorageConfig;
