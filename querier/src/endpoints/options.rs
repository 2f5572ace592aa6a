//! The settings of the endpoints.

use std::time::Duration;

use mesh::ChannelOptions;
use prometheus_client::metrics::counter::Counter;
use runtime::{DnsResolver, GrpcMetrics, Registry};
use storeapi::LabelLimits;

use crate::endpoints::address::EndpointSpec;
use crate::endpoints::config_file::ConfiguredEndpoints;
use crate::endpoints::files::FilePattern;
use crate::endpoints::selector::StoreSelector;

/// Settings of an [`EndpointSet`](crate::endpoints::EndpointSet).
#[derive(Clone, Debug)]
pub(crate) struct EndpointOptions {
    /// Endpoints given by flags.
    pub(crate) endpoints: Vec<EndpointSpec>,
    /// The endpoints of `--endpoint.sd-config`; `None` if it is not given.
    pub(crate) configured: Option<ConfiguredEndpoints>,
    /// Files that list endpoints.
    pub(crate) files: Vec<FilePattern>,
    /// Interval between readings of the files, besides those that follow a change.
    pub(crate) file_interval: Duration,
    /// Local gRPC addresses of the gateways whose directories are watched.
    pub(crate) gateways: Vec<String>,
    /// How long requests wait for the only gateway after it has closed its connections.
    pub(crate) gateway_patience: Duration,
    /// How endpoints and gateways are reached.
    pub(crate) channel: ChannelOptions,
    /// Limits on the labels that endpoints given by flags or files send.
    pub(crate) endpoint_labels: LabelLimits,
    /// Limits on the labels that stores of gateways send.
    pub(crate) gateway_labels: LabelLimits,
    /// Which stores are read; `None` for all.
    pub(crate) selector: Option<StoreSelector>,
    /// Interval between Info requests, and the timeout of each.
    pub(crate) info_interval: Duration,
    /// Interval between lookups in DNS.
    pub(crate) dns_interval: Duration,
    /// Looks names up; `None` for the configuration of the system at the time of each lookup.
    pub(crate) resolver: Option<DnsResolver>,
    pub(crate) dns_metrics: DnsMetrics,
    /// Counts the requests to endpoints; `None` to count none.
    pub(crate) client_metrics: Option<GrpcMetrics>,
    /// Lists omit an endpoint that is not strict after it has been unreachable for this long. An address that
    /// DNS no longer returns is reported as missing for this long.
    pub(crate) unhealthy_timeout: Duration,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            configured: None,
            files: Vec::new(),
            file_interval: Duration::from_secs(300),
            gateways: Vec::new(),
            gateway_patience: Duration::from_secs(5),
            channel: ChannelOptions::default(),
            selector: None,
            endpoint_labels: LabelLimits::OFF,
            gateway_labels: LabelLimits::OFF,
            info_interval: Duration::from_secs(5),
            dns_interval: Duration::from_secs(30),
            resolver: None,
            dns_metrics: DnsMetrics::default(),
            client_metrics: None,
            unhealthy_timeout: Duration::from_secs(300),
        }
    }
}

impl EndpointOptions {
    /// How long requests wait for a gateway that has closed its connections: it may be restarting. With several gateways, another
    /// one is asked at once instead.
    pub(super) fn patience(&self) -> Duration {
        if self.gateways.len() == 1 { self.gateway_patience } else { Duration::ZERO }
    }

    /// How long sources of which nothing is known are waited for after the start: each is asked twice. A gateway that starts
    /// needs some seconds until it says what its clusters have.
    pub(super) fn start_patience(&self) -> Duration {
        2 * self.info_interval
    }

    /// The options with each address once. It is strict if it was given as strict once.
    pub(super) fn without_repetitions(mut self) -> Self {
        let mut once: Vec<EndpointSpec> = Vec::with_capacity(self.endpoints.len());
        for spec in self.endpoints {
            match once.iter_mut().find(|known| known.address == spec.address) {
                Some(known) => known.strict |= spec.strict,
                None => once.push(spec),
            }
        }
        self.endpoints = once;
        self.gateways.sort();
        self.gateways.dedup();
        self
    }
}

/// Lookups in DNS, with the name of Thanos and the one that dashboards still have.
#[derive(Clone, Debug, Default)]
pub(crate) struct DnsMetrics {
    lookups: Counter,
    failures: Counter,
}

impl DnsMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for name in ["thanos_query_endpoints", "thanos_query_store_apis"] {
            let help = "Lookups of endpoint addresses in DNS";
            registry.register(format!("{name}_dns_lookups"), help, metrics.lookups.clone());
            let help = "Lookups of endpoint addresses in DNS that failed or found no address";
            registry.register(format!("{name}_dns_failures"), help, metrics.failures.clone());
        }
        metrics
    }

    pub(super) fn count(&self, found: bool) {
        self.lookups.inc();
        self.failures.inc_by(u64::from(!found));
    }
}
