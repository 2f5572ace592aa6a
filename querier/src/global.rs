//! Queries over all stores that flags name, for other components: the endpoints, the fan-out and the engine of the querier.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh::ChannelOptions;
use model::Timestamp;
use promql::{AnswerMemory, QueryValue};
use runtime::{ConfigMistakes, Registry, Shutdown, format_duration, parse_duration};
use series::Dedup;
use storeapi::PartialResponse;

use crate::config::{DedupFunction, LabelArgs};
use crate::endpoints::{DnsMetrics, EndpointAddress, EndpointOptions, EndpointSet, EndpointSpec};
use crate::fanout::StoreFilter;
use crate::grpc_client::GrpcClientArgs;
use crate::local::QueryEngine;
use crate::query::{Driver, Question, SHARED_BYTES};

/// The flags that name stores.
#[derive(Clone, Debug, clap::Args)]
pub struct GlobalQueryArgs {
    /// Evaluate rules over this StoreAPI: HOST:PORT, dns+HOST:PORT for each address of the name (dnsdualstack+ for
    /// IPv4 and IPv6), or dnssrv+NAME for each host of the service (dnssrvnoa+ to resolve the hosts when
    /// connecting); repeatable
    #[arg(long, value_name = "ADDRESS")]
    endpoint: Vec<EndpointAddress>,

    /// Evaluate rules over each store that this gateway announces, through the gateway; give its local gRPC
    /// address; repeatable
    #[arg(long, value_name = "HOST:PORT")]
    gateway: Vec<EndpointAddress>,

    #[command(flatten)]
    grpc_client: GrpcClientArgs,

    #[command(flatten)]
    labels: LabelArgs,

    /// Treat series of --endpoint and --gateway that differ only in this label as replicas; deduplication drops
    /// the label; repeatable, and takes several labels separated by commas
    #[arg(long = "query.replica-label", value_name = "LABEL", value_delimiter = ',')]
    replica_label: Vec<String>,

    /// Select how replicas are merged into one series: penalty uses one replica while it misses nothing and
    /// fills gaps from the others, chain uses all samples of all replicas
    #[arg(long = "deduplication.func", value_name = "FUNC", default_value = "penalty", value_enum)]
    deduplication: DedupFunction,

    /// Ask endpoints for their labels and time range this often; each must answer within the same time
    #[arg(long = "endpoint.info-timeout", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    info_timeout: Duration,
}

/// The checked flags.
#[derive(Clone, Debug)]
pub struct CheckedGlobalQueryArgs {
    args: GlobalQueryArgs,
    channel: ChannelOptions,
}

impl GlobalQueryArgs {
    /// Whether no store is named.
    pub fn is_empty(&self) -> bool {
        self.endpoint.is_empty() && self.gateway.is_empty()
    }

    /// Checks the flags together.
    ///
    /// # Errors
    /// One line for each flag whose value cannot be used.
    pub fn check(&self) -> Result<CheckedGlobalQueryArgs, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        for address in self.gateway.iter().filter(|address| address.is_resolved()) {
            mistakes.push(format!("--gateway={address}: dns+ names are not supported here, use HOST:PORT"));
        }
        if self.info_timeout.is_zero() {
            mistakes.push("--endpoint.info-timeout=0s: must be greater than zero");
        }
        let channel = mistakes.note(self.grpc_client.check()).and_then(|config| {
            let loaded = config.load("--grpc-client-tls-ca and --grpc-client-tls-cert");
            mistakes.note(loaded.map_err(|mistake| format!("--grpc-client-tls-secure: {mistake}")))
        });
        mistakes.or_ok(CheckedGlobalQueryArgs { args: self.clone(), channel: channel.unwrap_or_default() })
    }
}

impl CheckedGlobalQueryArgs {
    fn replica_labels(&self) -> Vec<String> {
        self.args.replica_label.iter().filter(|label| !label.is_empty()).cloned().collect()
    }

    /// The effective settings by flag.
    pub fn flags(&self) -> BTreeMap<String, String> {
        let list = |addresses: &[EndpointAddress]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let shown = [
            ("endpoint", list(&self.args.endpoint)),
            ("gateway", list(&self.args.gateway)),
            ("query.replica-label", self.replica_labels().join(",")),
            ("endpoint.info-timeout", format_duration(self.args.info_timeout)),
        ];
        let shown = shown.into_iter().chain(self.args.labels.shown());
        shown.map(|(flag, value)| (flag.to_owned(), value)).collect()
    }
}

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct GlobalAnswer {
    /// The answer.
    pub value: QueryValue,
    /// Which data is missing, and why.
    pub warnings: Vec<String>,
    /// The memory of the value. Keep it as long as the value.
    pub memory: AnswerMemory,
}

/// Queries over all stores that flags name. Clones share the stores and the engine. Queries of one instant that select the same series for
/// the same function ask the stores once, if they follow one another.
#[derive(Clone)]
pub struct GlobalQueries {
    endpoints: EndpointSet,
    driver: Driver,
    replica_labels: Vec<String>,
    dedup: Dedup,
    lookback: Duration,
}

impl GlobalQueries {
    /// Queries that are evaluated by `engine`, and that do not wait for other queries of the process.
    pub fn new(config: &CheckedGlobalQueryArgs, engine: &QueryEngine, registry: &mut Registry) -> Self {
        config.args.grpc_client.warn();
        let spec = |address: &EndpointAddress| EndpointSpec {
            address: address.clone(),
            strict: false,
            replicas: false,
        };
        let endpoints = EndpointSet::new(EndpointOptions {
            endpoints: config.args.endpoint.iter().map(spec).collect(),
            gateways: config.args.gateway.iter().map(ToString::to_string).collect(),
            channel: config.channel.clone(),
            endpoint_labels: config.args.labels.endpoint(),
            gateway_labels: config.args.labels.gateway(),
            info_interval: config.args.info_timeout,
            dns_metrics: DnsMetrics::new(registry),
            ..EndpointOptions::default()
        });
        let stores = engine.stores(Arc::new(endpoints.clone()));
        let replica_labels = config.replica_labels();
        let dedup = match config.args.deduplication {
            _ if replica_labels.is_empty() => Dedup::Off,
            DedupFunction::Penalty => Dedup::Penalty,
            DedupFunction::Chain => Dedup::Chain,
        };
        Self {
            driver: engine.clone().with_own_gate().driver(&stores, false).sharing_selects(SHARED_BYTES),
            lookback: engine.args.lookback_delta,
            endpoints,
            replica_labels,
            dedup,
        }
    }

    /// Keeps the list of stores up to date until shutdown. Queries fail until it is known which stores there are.
    pub async fn run(self, shutdown: Shutdown) {
        self.endpoints.run(|_| {}, shutdown).await;
    }

    /// Evaluates an expression at one instant, with the lookback of the flags or another one.
    ///
    /// # Errors
    /// The expression is wrong, a limit is exceeded, or the time is over. With [`PartialResponse::Abort`] also if a store that may have
    /// matching series is missing; the text names it.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the query and all its requests to stores.
    pub async fn instant(
        &self,
        text: &str,
        at: Timestamp,
        partial_response: PartialResponse,
        lookback: Option<Duration>,
        timeout: Duration,
    ) -> Result<GlobalAnswer, String> {
        let question = Question {
            text: text.to_owned(),
            start: at,
            end: at,
            step: None,
            lookback: lookback.unwrap_or(self.lookback),
            dynamic_lookback: None,
            dedup: self.dedup,
            replica_labels: self.replica_labels.clone(),
            partial_response,
            stores: StoreFilter::default(),
            shard: None,
            max_resolution: Duration::ZERO,
            timeout,
            analyze: false,
            allows_shared: true,
        };
        let answer = self.driver.ask(question, |answer, _, _| {
            let output = answer.output;
            Ok(GlobalAnswer { value: output.value, warnings: answer.warnings, memory: output.memory })
        });
        answer.await.map_err(|error| error.to_string())
    }
}

impl std::fmt::Debug for GlobalQueries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GlobalQueries").field("replica_labels", &self.replica_labels).finish_non_exhaustive()
    }
}
