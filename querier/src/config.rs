//! The flags of the querier, with the names of Thanos, and their validation.

mod discovery;
mod labels;
mod tenancy;
mod web;

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ArgAction;
use mesh::ChannelOptions;
use model::Labels;
use promql::ParseOptions;
use runtime::{CommonArgs, ConfigMistakes, UnneededArgs, format_duration, parse_duration};
use storeapi::{PartialResponse, RequestLimits};

use crate::endpoints::{ConfiguredEndpoints, EndpointAddress, StoreSelector};
use crate::grpc_client::GrpcClientArgs;
use crate::memory;
use crate::unneeded::UnneededByQuerier;
use discovery::DiscoveryArgs;
pub(crate) use labels::LabelArgs;
pub(crate) use tenancy::Tenancy;
use tenancy::TenancyArgs;
use web::WebArgs;
pub use web::{WebPath, WebPathError, WebPaths};

/// Flags of `isthmus query`.
#[derive(Clone, Debug, clap::Args)]
pub struct QueryArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// Read this StoreAPI: HOST:PORT, dns+HOST:PORT for each address of the name (dnsdualstack+ for IPv4 and
    /// IPv6), or dnssrv+NAME for each host of the service (dnssrvnoa+ to resolve the hosts when connecting);
    /// repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) endpoint: Vec<EndpointAddress>,

    /// Like --endpoint, but /api/v1/stores always lists it, however long it has been unreachable; repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) endpoint_strict: Vec<EndpointAddress>,

    /// Read each store that this gateway announces, through the gateway; give its local gRPC address;
    /// repeatable
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) gateway: Vec<EndpointAddress>,

    #[command(flatten)]
    pub(crate) grpc_client: GrpcClientArgs,

    /// Treat series that differ only in this label as replicas; deduplication drops the label; repeatable, and
    /// takes several labels separated by commas
    #[arg(long = "query.replica-label", value_name = "LABEL", value_delimiter = ',')]
    pub(crate) replica_label: Vec<String>,

    /// Select how replicas are merged into one series: penalty uses one replica while it misses nothing and
    /// fills gaps from the others, chain uses all samples of all replicas
    #[arg(long = "deduplication.func", value_name = "FUNC", default_value = "penalty", value_enum)]
    pub(crate) deduplication: DedupFunction,

    /// Cancel queries that take longer, including the time that they wait for a free slot; requests may ask
    /// for less
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,

    /// Ignore samples older than this in instant selectors; 5m if not set
    #[arg(long = "query.lookback-delta", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) lookback_delta: Option<Duration>,

    /// Widen the lookback when downsampled data may be read, whose samples are further apart
    #[arg(long = "query.dynamic-lookback-delta", num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub(crate) dynamic_lookback_delta: bool,

    /// Run at most this many queries at the same time; further queries wait
    #[arg(long = "query.max-concurrent", value_name = "N", default_value_t = 20)]
    pub(crate) max_concurrent: usize,

    /// Read at most this many selectors of one query ahead, besides the one being evaluated
    #[arg(long = "query.max-concurrent-select", value_name = "N", default_value_t = 4)]
    pub(crate) max_concurrent_select: usize,

    /// Reject queries that decode more samples than this
    #[arg(long = "query.max-samples", value_name = "N", default_value_t = 200_000_000)]
    pub(crate) max_samples: u64,

    /// Reject a query when all running queries together would have decoded more samples than this; 5 times
    /// --query.max-samples if not set
    #[arg(long = "query.max-total-samples", value_name = "N")]
    pub(crate) max_total_samples: Option<u64>,

    /// Drop the rest of a store's answer after this many series for one selector, with a warning
    #[arg(long = "query.max-series-per-store", value_name = "N", default_value_t = 10_000_000)]
    pub(crate) max_series_per_store: u64,

    /// Reject queries that need more memory than this, including series that are read ahead; for example
    /// 512MiB; a quarter of --query.max-total-memory if not set
    #[arg(long = "query.max-memory", value_name = "BYTES", value_parser = runtime::parse_bytes)]
    pub(crate) max_memory: Option<u64>,

    /// Drop a store from an answer if one message with series, or its whole answer with labels or metadata,
    /// would need more memory than this; a quarter of --query.max-memory, at least 16MiB, if not set
    #[arg(long = "query.max-memory-per-store", value_name = "BYTES", value_parser = runtime::parse_bytes)]
    pub(crate) max_store_memory: Option<u64>,

    /// Reject a query when all queries together would need more memory than this; half of the memory of the
    /// machine or container if not set
    #[arg(long = "query.max-total-memory", value_name = "BYTES", value_parser = runtime::parse_bytes)]
    pub(crate) max_total_memory: Option<u64>,

    /// Apply matchers of one side of a binary operator to the other side too, so that less data is fetched
    #[arg(long = "query.propagate-matchers", value_enum, value_name = "WHEN", num_args = 0..=1, default_missing_value = "always", default_value = "auto")]
    pub(crate) propagate_matchers: Propagate,

    /// Return a partial answer with a warning if a store is missing; this is the default;
    /// --no-query.partial-response returns an error
    #[arg(long = "query.partial-response", overrides_with = "no_partial_response")]
    pub(crate) partial_response: bool,

    /// Return an error if a store is missing
    #[arg(long = "no-query.partial-response")]
    pub(crate) no_partial_response: bool,

    /// Let range queries read downsampled data with a resolution of up to a fifth of their step
    #[arg(long = "query.auto-downsampling")]
    pub(crate) auto_downsampling: bool,

    /// Let instant queries read downsampled data up to this resolution; used with --query.auto-downsampling
    #[arg(long = "query.instant.default.max_source_resolution", value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) instant_max_resolution: Duration,

    /// Use at least this step for range queries without a step
    #[arg(long = "query.default-step", value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) default_step: Duration,

    /// Use this step for subqueries without a step
    #[arg(long = "query.default-evaluation-interval", value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub(crate) evaluation_interval: Duration,

    /// Limit requests for series and labels without a time range to this long before now; 0s for no limit
    #[arg(long = "query.metadata.default-time-range", value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) metadata_range: Duration,

    /// Enable a language feature that is not stable yet, such as promql-experimental-functions; repeatable
    #[arg(long = "enable-feature", value_name = "FEATURE", value_enum, value_delimiter = ',')]
    pub(crate) features: Vec<Feature>,

    /// Enable the functions xrate, xincrease and xdelta; the same as --enable-feature=promql-x-functions
    #[arg(long = "query.enable-x-functions")]
    pub(crate) enable_x_functions: bool,

    /// Add this label, NAME="VALUE", to each label set that this querier announces; repeatable
    #[arg(long, value_name = "LABEL", value_parser = parse_label)]
    pub(crate) selector_label: Vec<(String, String)>,

    /// Drop a store from an answer if it sends nothing for this long; 0s for no limit except --query.timeout
    #[arg(long = "store.response-timeout", value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) response_timeout: Duration,

    /// Stop listing an endpoint in /api/v1/stores after it has been unreachable for this long; also stop
    /// expecting an address this long after DNS stopped returning it; answers warn about all other
    /// unreachable endpoints
    #[arg(long = "store.unhealthy-timeout", value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(crate) unhealthy_timeout: Duration,

    /// Ask endpoints for their labels and time range this often; each must answer within the same time
    #[arg(long = "endpoint.info-timeout", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub(crate) info_timeout: Duration,

    #[command(flatten)]
    pub(crate) labels: LabelArgs,

    /// Limit the series in one answer over gRPC; 0 for no limit
    #[arg(long = "store.limits.request-series", value_name = "N", default_value_t = 0)]
    pub(crate) limit_series: u64,

    /// Limit the samples in one answer over gRPC, counting 120 per chunk; 0 for no limit
    #[arg(long = "store.limits.request-samples", value_name = "N", default_value_t = 0)]
    pub(crate) limit_samples: u64,

    /// Send no CORS headers, so that web pages of other origins cannot read answers
    #[arg(long = "web.disable-cors")]
    pub(crate) disable_cors: bool,

    /// Keep a file with the running queries in this directory; after a crash, the next start logs them
    #[arg(
        long = "query.active-query-path",
        value_name = "DIR",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) active_query_path: String,

    #[command(flatten)]
    pub(crate) discovery: DiscoveryArgs,

    #[command(flatten)]
    pub(crate) web: WebArgs,

    #[command(flatten)]
    pub(crate) tenancy: TenancyArgs,

    #[command(flatten)]
    pub(crate) unneeded: UnneededArgs<UnneededByQuerier>,
}

/// How replicas are merged into one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DedupFunction {
    /// Use one replica while it misses nothing, and fill gaps from the others.
    Penalty,
    /// Use all samples of all replicas.
    Chain,
}

/// When matchers are applied across binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Propagate {
    /// Unless a store is a querier, because its selector labels are not on its series.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Language features that are disabled by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Feature {
    /// Experimental functions and aggregations.
    #[value(name = "promql-experimental-functions")]
    ExperimentalFunctions,
    /// No effect: arithmetic in ranges and offsets is always enabled.
    #[value(name = "promql-duration-expr")]
    DurationExpr,
    /// No effect: Thanos still accepts these names.
    #[value(name = "promql-at-modifier", aliases = ["promql-negative-offset", "query-pushdown"], hide = true)]
    Settled,
    /// The modifiers anchored and smoothed.
    #[value(name = "promql-extended-range-selectors")]
    ExtendedRangeSelectors,
    /// The modifiers fill, fill_left and fill_right.
    #[value(name = "promql-binop-fill-modifiers")]
    BinopFillModifiers,
    /// Remove metric names at the end of the query instead of in each operator.
    #[value(name = "promql-delayed-name-removal")]
    DelayedNameRemoval,
    /// The functions xrate, xincrease and xdelta.
    #[value(name = "promql-x-functions")]
    XFunctions,
    /// Use the start timestamps of samples in rates and resets, and enable start_timestamp.
    #[value(name = "use-start-timestamps")]
    StartTimestamps,
}

/// The validated flags.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) args: QueryArgs,
    pub(crate) selector_labels: Labels,
    /// How stores and gateways are reached.
    pub(crate) channel: ChannelOptions,
    /// The endpoints of `--endpoint.sd-config`; `None` if it is not given.
    pub(crate) configured: Option<ConfiguredEndpoints>,
    /// Which stores are read; `None` for all.
    pub(crate) selector: Option<StoreSelector>,
    pub(crate) web: WebPaths,
    pub(crate) tenancy: Tenancy,
    /// Memory limit of one query, in bytes.
    pub(crate) max_memory: u64,
    /// Memory limit of all queries together, in bytes.
    pub(crate) max_total_memory: u64,
    /// Memory limit of one message or answer of one store, in bytes.
    pub(crate) max_store_memory: u64,
    /// Limit of the samples that all running queries together have decoded.
    pub(crate) max_total_samples: u64,
}

/// What the parser accepts with these features.
pub fn parse_options(features: &[Feature]) -> ParseOptions {
    ParseOptions {
        experimental_functions: features.contains(&Feature::ExperimentalFunctions),
        extended_range_selectors: features.contains(&Feature::ExtendedRangeSelectors),
        fill_modifiers: features.contains(&Feature::BinopFillModifiers),
        extended_functions: features.contains(&Feature::XFunctions),
        ..ParseOptions::default()
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let refuse = || format!("label {text:?} is not of the form NAME=\"VALUE\"");
    let (name, value) = text.split_once('=').ok_or_else(refuse)?;
    let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).ok_or_else(refuse)?;
    if name.is_empty() || value.is_empty() {
        return Err(refuse());
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl QueryArgs {
    /// The labels that tell replicas apart.
    pub(crate) fn replica_labels(&self) -> Vec<String> {
        self.replica_label.iter().filter(|label| !label.is_empty()).cloned().collect()
    }

    /// Checks the flags together, and reports all mistakes together.
    ///
    /// # Errors
    /// One line for each flag whose value cannot be used.
    pub fn check(self) -> Result<Config, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        for address in self.endpoint_strict.iter().filter(|address| address.is_resolved()) {
            mistakes.push(format!(
                "--endpoint-strict={address}: dns+ names are not supported here, use --endpoint"
            ));
        }
        for address in self.gateway.iter().filter(|address| address.is_resolved()) {
            mistakes.push(format!("--gateway={address}: dns+ names are not supported here, use HOST:PORT"));
        }
        let intervals = self.discovery.intervals();
        for (flag, length) in intervals.into_iter().chain([
            ("--query.timeout", self.timeout),
            ("--endpoint.info-timeout", self.info_timeout),
            ("--query.default-step", self.default_step),
            ("--query.default-evaluation-interval", self.evaluation_interval),
        ]) {
            if length.is_zero() {
                mistakes.push(format!("{flag}=0s: must be greater than zero"));
            }
        }
        if self.max_concurrent == 0 {
            mistakes.push("--query.max-concurrent=0: must be at least 1");
        }
        let selector_labels = Labels::from_pairs(self.selector_label.iter().map(|(n, v)| (n, v)));
        let selector_labels = selector_labels.unwrap_or_else(|cause| {
            mistakes.push(format!("--selector-label: {cause}"));
            Labels::empty()
        });
        let selector = mistakes.note(self.discovery.selector()).flatten();
        let web = mistakes.note(self.web.check());
        let tenancy = mistakes.note(self.tenancy.check());
        let (Some(web), Some(tenancy)) = (web, tenancy) else { return Err(mistakes) };
        let max_total_memory = self.max_total_memory.unwrap_or_else(memory::for_all_queries);
        let max_memory = self.max_memory.unwrap_or_else(|| memory::for_one_query(max_total_memory));
        let max_store_memory = self.max_store_memory.unwrap_or_else(|| memory::for_one_store(max_memory));
        let max_total_samples = self.max_total_samples.unwrap_or_else(|| self.max_samples.saturating_mul(5));
        let grpc_client = mistakes.note(self.grpc_client.check());
        let configured = grpc_client
            .as_ref()
            .and_then(|client| mistakes.note(self.discovery.configured(client)).flatten());
        let channel = grpc_client.and_then(|config| {
            let loaded = config.load("--grpc-client-tls-ca and --grpc-client-tls-cert");
            mistakes.note(loaded.map_err(|mistake| format!("--grpc-client-tls-secure: {mistake}")))
        });
        let channel = channel.unwrap_or_default();
        mistakes.or_ok(Config {
            selector_labels,
            channel,
            configured,
            selector,
            web,
            tenancy,
            max_memory,
            max_total_memory,
            max_store_memory,
            max_total_samples,
            args: self,
        })
    }
}

impl Config {
    pub(crate) fn partial_response(&self) -> PartialResponse {
        match self.args.no_partial_response {
            true => PartialResponse::Abort,
            false => PartialResponse::Warn,
        }
    }

    pub(crate) fn limits(&self) -> RequestLimits {
        let some = |limit: u64| Some(limit).filter(|n| *n > 0);
        RequestLimits { series: some(self.args.limit_series), samples: some(self.args.limit_samples) }
    }

    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.args.features.contains(&feature)
            || (feature == Feature::XFunctions && self.args.enable_x_functions)
    }

    /// The effective settings by flag, as `/api/v1/status/flags` shows them.
    pub(crate) fn flags(&self) -> BTreeMap<String, String> {
        let args = &self.args;
        let list = |items: Vec<String>| items.join(",");
        let shown = [
            ("http-address", args.common.http_address.to_string()),
            ("grpc-address", args.common.grpc_address.to_string()),
            ("endpoint", list(args.endpoint.iter().map(EndpointAddress::to_string).collect())),
            ("endpoint-strict", list(args.endpoint_strict.iter().map(EndpointAddress::to_string).collect())),
            ("gateway", list(args.gateway.iter().map(EndpointAddress::to_string).collect())),
            ("grpc-compression", value_name(&args.grpc_client.compression)),
            ("query.replica-label", list(args.replica_labels())),
            ("deduplication.func", value_name(&args.deduplication)),
            ("query.timeout", format_duration(args.timeout)),
            (
                "query.lookback-delta",
                format_duration(args.lookback_delta.unwrap_or(Duration::from_secs(300))),
            ),
            ("query.dynamic-lookback-delta", args.dynamic_lookback_delta.to_string()),
            ("query.max-concurrent", args.max_concurrent.to_string()),
            ("query.max-concurrent-select", args.max_concurrent_select.to_string()),
            ("query.max-samples", args.max_samples.to_string()),
            ("query.max-total-samples", self.max_total_samples.to_string()),
            ("query.max-series-per-store", args.max_series_per_store.to_string()),
            ("query.max-memory", self.max_memory.to_string()),
            ("query.max-memory-per-store", self.max_store_memory.to_string()),
            ("query.max-total-memory", self.max_total_memory.to_string()),
            ("query.propagate-matchers", value_name(&args.propagate_matchers)),
            ("query.partial-response", (!args.no_partial_response).to_string()),
            ("query.auto-downsampling", args.auto_downsampling.to_string()),
            ("query.default-step", format_duration(args.default_step)),
            ("query.default-evaluation-interval", format_duration(args.evaluation_interval)),
            ("query.metadata.default-time-range", format_duration(args.metadata_range)),
            ("query.active-query-path", args.active_query_path.clone()),
            ("enable-feature", list(args.features.iter().map(value_name).collect())),
            ("query.enable-x-functions", args.enable_x_functions.to_string()),
            ("selector-label", self.selector_labels.to_string()),
            ("store.response-timeout", format_duration(args.response_timeout)),
            ("store.unhealthy-timeout", format_duration(args.unhealthy_timeout)),
            ("endpoint.info-timeout", format_duration(args.info_timeout)),
            ("store.limits.request-series", args.limit_series.to_string()),
            ("store.limits.request-samples", args.limit_samples.to_string()),
            ("web.disable-cors", args.disable_cors.to_string()),
        ];
        let shown = shown.into_iter().chain(args.labels.shown());
        let shown = shown.map(|(flag, value)| (flag.to_owned(), value));
        shown.chain(args.discovery.flags()).chain(args.web.flags()).chain(args.tenancy.flags()).collect()
    }
}

fn value_name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests;
