//! The querier's flags, with Thanos' names, and what they mean once checked.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::ArgAction;
use model::Labels;
use runtime::{CommonArgs, ConfigMistakes, format_duration, parse_duration};
use storeapi::{PartialResponse, RequestLimits};

use crate::endpoints::Address;
use crate::memory;

/// Flags of `isthmus query`.
#[derive(Clone, Debug, clap::Args)]
pub struct QueryArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// StoreAPI to read: HOST:PORT, or dns+HOST:PORT for every address of the name; repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) endpoint: Vec<Address>,

    /// As --endpoint, but listed by /api/v1/stores however long it is away
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) endpoint_strict: Vec<Address>,

    /// Local gRPC address of a gateway; every store that it announces is read through it; repeatable
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) gateway: Vec<Address>,

    /// Label that tells replicas apart and is dropped by deduplication; repeatable
    #[arg(long = "query.replica-label", value_name = "LABEL")]
    pub(crate) replica_label: Vec<String>,

    /// How replicas become one series: penalty stays with one until it misses samples, chain takes every sample
    #[arg(long = "deduplication.func", value_name = "FUNC", default_value = "penalty", value_enum)]
    pub(crate) deduplication: DedupFunction,

    /// Longest time a query may take, its wait for a turn included
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,

    /// How old a sample an instant selector still takes; 5m unless given
    #[arg(long = "query.lookback-delta", value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) lookback_delta: Option<Duration>,

    /// Widens the lookback where coarser data is allowed
    #[arg(long = "query.dynamic-lookback-delta", num_args = 0..=1, default_missing_value = "true", default_value_t = true, action = ArgAction::Set)]
    pub(crate) dynamic_lookback_delta: bool,

    /// Most queries that run at once; more wait
    #[arg(long = "query.max-concurrent", value_name = "N", default_value_t = 20)]
    pub(crate) max_concurrent: usize,

    /// Most selectors of one query that are read at once
    #[arg(long = "query.max-concurrent-select", value_name = "N", default_value_t = 4)]
    pub(crate) max_concurrent_select: usize,

    /// Most samples that one query may decode
    #[arg(long = "query.max-samples", value_name = "N", default_value_t = 200_000_000)]
    pub(crate) max_samples: u64,

    /// Most samples that all queries which run at one time may have decoded; unless given, five times
    /// --query.max-samples
    #[arg(long = "query.max-total-samples", value_name = "N")]
    pub(crate) max_total_samples: Option<u64>,

    /// Most series that one store may send for one selector; a store that sends more is left out from there on
    #[arg(long = "query.max-series-per-store", value_name = "N", default_value_t = 10_000_000)]
    pub(crate) max_series_per_store: u64,

    /// Most memory that one query may hold, the series that it reads ahead included, such as 512MiB; unless given, a
    /// quarter of --query.max-total-memory
    #[arg(long = "query.max-memory", value_name = "BYTES", value_parser = memory::parse_bytes)]
    pub(crate) max_memory: Option<u64>,

    /// Most memory that all queries together may hold; unless given, half of the machine's (or the container's)
    #[arg(long = "query.max-total-memory", value_name = "BYTES", value_parser = memory::parse_bytes)]
    pub(crate) max_total_memory: Option<u64>,

    /// Whether matchers of one side of a binary operator narrow the other side too, so that less is fetched
    #[arg(long = "query.propagate-matchers", value_enum, value_name = "WHEN", num_args = 0..=1, default_missing_value = "always", default_value = "auto")]
    pub(crate) propagate_matchers: Propagate,

    /// Answers with a warning where a store is missing; --no-query.partial-response answers with an error instead
    #[arg(long = "query.partial-response", overrides_with = "no_partial_response")]
    pub(crate) partial_response: bool,

    /// Answers with an error where a store is missing
    #[arg(long = "no-query.partial-response")]
    pub(crate) no_partial_response: bool,

    /// Lets a range query read data as coarse as a fifth of its step
    #[arg(long = "query.auto-downsampling")]
    pub(crate) auto_downsampling: bool,

    /// Coarsest data that an instant query reads with auto-downsampling
    #[arg(long = "query.instant.default.max_source_resolution", value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) instant_max_resolution: Duration,

    /// Least step of a range query that gives none
    #[arg(long = "query.default-step", value_name = "DURATION", default_value = "1s", value_parser = parse_duration)]
    pub(crate) default_step: Duration,

    /// Step of subqueries that give none
    #[arg(long = "query.default-evaluation-interval", value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub(crate) evaluation_interval: Duration,

    /// Time before now that requests for series and labels cover when they give none; 0s for all times
    #[arg(long = "query.metadata.default-time-range", value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) metadata_range: Duration,

    /// Parts of the language that are not stable yet, such as promql-experimental-functions; repeatable
    #[arg(long = "enable-feature", value_name = "FEATURE", value_enum, value_delimiter = ',')]
    pub(crate) features: Vec<Feature>,

    /// The functions xrate, xincrease and xdelta; the same as --enable-feature=promql-x-functions
    #[arg(long = "query.enable-x-functions")]
    pub(crate) enable_x_functions: bool,

    /// Label that this querier adds to the label sets it announces, as NAME="VALUE"; repeatable
    #[arg(long, value_name = "LABEL", value_parser = parse_label)]
    pub(crate) selector_label: Vec<(String, String)>,

    /// How long a store may say nothing before it counts as failed; 0s leaves it to --query.timeout
    #[arg(long = "store.response-timeout", value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub(crate) response_timeout: Duration,

    /// How long an endpoint may be away before /api/v1/stores leaves it out; answers without it say so however long, or,
    /// for an address that left its dns+ name, for as long
    #[arg(long = "store.unhealthy-timeout", value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(crate) unhealthy_timeout: Duration,

    /// How often endpoints are asked what they hold, and how long each may take
    #[arg(long = "endpoint.info-timeout", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub(crate) info_timeout: Duration,

    /// Most series in one answer over gRPC; 0 for no limit
    #[arg(long = "store.limits.request-series", value_name = "N", default_value_t = 0)]
    pub(crate) limit_series: u64,

    /// Most samples in one answer over gRPC, counted as 120 a chunk; 0 for no limit
    #[arg(long = "store.limits.request-samples", value_name = "N", default_value_t = 0)]
    pub(crate) limit_samples: u64,

    /// Keeps pages of other origins from reading answers
    #[arg(long = "web.disable-cors")]
    pub(crate) disable_cors: bool,
}

/// How replicas become one series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DedupFunction {
    /// Stays with one replica until it misses samples.
    Penalty,
    /// Takes every sample of every replica.
    Chain,
}

/// When matchers are carried over binary operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Propagate {
    /// While no store is a querier: one with selector labels answers for labels that its series lack.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Parts of the language that are off by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Feature {
    /// Experimental functions and aggregations.
    #[value(name = "promql-experimental-functions")]
    ExperimentalFunctions,
    /// Changes nothing: arithmetic in ranges and offsets is always on.
    #[value(name = "promql-duration-expr")]
    DurationExpr,
    /// The modifiers anchored and smoothed.
    #[value(name = "promql-extended-range-selectors")]
    ExtendedRangeSelectors,
    /// The modifiers fill, fill_left and fill_right.
    #[value(name = "promql-binop-fill-modifiers")]
    BinopFillModifiers,
    /// Names of metrics go at the end of a query, not where a value is no longer theirs.
    #[value(name = "promql-delayed-name-removal")]
    DelayedNameRemoval,
    /// The functions xrate, xincrease and xdelta.
    #[value(name = "promql-x-functions")]
    XFunctions,
    /// Rates and resets learn from start timestamps, where samples have them; start_timestamp gives them.
    #[value(name = "use-start-timestamps")]
    StartTimestamps,
}

/// The flags, checked.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) args: QueryArgs,
    pub(crate) selector_labels: Labels,
    /// Bytes that one query may hold.
    pub(crate) max_memory: u64,
    /// Bytes that all queries together may hold.
    pub(crate) max_total_memory: u64,
    /// Samples that all queries which run at one time may have decoded.
    pub(crate) max_total_samples: u64,
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let refuse = || format!("label {text:?}: write NAME=\"VALUE\"");
    let (name, value) = text.split_once('=').ok_or_else(refuse)?;
    let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).ok_or_else(refuse)?;
    if name.is_empty() || value.is_empty() {
        return Err(refuse());
    }
    Ok((name.to_owned(), value.to_owned()))
}

impl QueryArgs {
    /// Checks the flags together, and reports all mistakes together.
    ///
    /// # Errors
    /// One line for each flag whose value cannot be used.
    pub fn check(self) -> Result<Config, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        for address in self.endpoint_strict.iter().filter(|address| address.is_resolved()) {
            mistakes.push(format!(
                "--endpoint-strict={address}: a name with many addresses cannot be strict, use --endpoint"
            ));
        }
        for address in self.gateway.iter().filter(|address| address.is_resolved()) {
            mistakes.push(format!("--gateway={address}: give one HOST:PORT without dns+"));
        }
        for (flag, length) in [
            ("--query.timeout", self.timeout),
            ("--endpoint.info-timeout", self.info_timeout),
            ("--query.default-step", self.default_step),
            ("--query.default-evaluation-interval", self.evaluation_interval),
        ] {
            if length.is_zero() {
                mistakes.push(format!("{flag}=0s: must be longer than zero"));
            }
        }
        if self.max_concurrent == 0 {
            mistakes.push("--query.max-concurrent=0: no query could ever run; give at least 1");
        }
        let selector_labels = Labels::from_pairs(self.selector_label.iter().map(|(n, v)| (n, v)));
        let selector_labels = selector_labels.unwrap_or_else(|cause| {
            mistakes.push(format!("--selector-label: {cause}"));
            Labels::empty()
        });
        let max_total_memory = self.max_total_memory.unwrap_or_else(memory::for_all_queries);
        let max_memory = self.max_memory.unwrap_or_else(|| memory::for_one_query(max_total_memory));
        let max_total_samples = self.max_total_samples.unwrap_or_else(|| self.max_samples.saturating_mul(5));
        mistakes.or_ok(Config {
            selector_labels,
            max_memory,
            max_total_memory,
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

    /// The settings in force by flag, as `/api/v1/status/flags` shows them.
    pub(crate) fn flags(&self) -> BTreeMap<String, String> {
        let args = &self.args;
        let list = |items: Vec<String>| items.join(",");
        let shown = [
            ("http-address", args.common.http_address.to_string()),
            ("grpc-address", args.common.grpc_address.to_string()),
            ("endpoint", list(args.endpoint.iter().map(Address::to_string).collect())),
            ("endpoint-strict", list(args.endpoint_strict.iter().map(Address::to_string).collect())),
            ("gateway", list(args.gateway.iter().map(Address::to_string).collect())),
            ("query.replica-label", list(args.replica_label.clone())),
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
            ("query.max-total-memory", self.max_total_memory.to_string()),
            ("query.propagate-matchers", value_name(&args.propagate_matchers)),
            ("query.partial-response", (!args.no_partial_response).to_string()),
            ("query.auto-downsampling", args.auto_downsampling.to_string()),
            ("query.default-step", format_duration(args.default_step)),
            ("query.default-evaluation-interval", format_duration(args.evaluation_interval)),
            ("query.metadata.default-time-range", format_duration(args.metadata_range)),
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
        shown.into_iter().map(|(flag, value)| (flag.to_owned(), value)).collect()
    }
}

fn value_name(value: &impl clap::ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: QueryArgs,
    }

    fn check(args: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("query").chain(args.iter().copied());
        let command = Command::try_parse_from(args).map_err(|e| e.to_string())?;
        command.args.check().map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_those_of_thanos() {
        let config = check(&[]).unwrap();
        assert_eq!(config.args.timeout, Duration::from_secs(120));
        assert_eq!(config.args.max_concurrent, 20);
        assert_eq!(config.partial_response(), PartialResponse::Warn);
        assert!(config.max_memory >= 64 << 20 && config.max_memory <= config.max_total_memory);
        assert_eq!(config.max_total_samples, 1_000_000_000);
    }

    #[test]
    fn flags_mean_what_they_say() {
        let config = check(&[
            "--endpoint=a:1",
            "--endpoint=dns+b:2",
            "--gateway=127.0.0.1:10941",
            "--no-query.partial-response",
            "--selector-label=tier=\"x\"",
            "--query.max-memory=1.5GiB",
            "--query.max-total-memory=2GiB",
            "--enable-feature=promql-experimental-functions",
        ])
        .unwrap();
        assert_eq!(config.args.endpoint.len(), 2);
        assert_eq!(config.partial_response(), PartialResponse::Abort);
        assert_eq!(config.selector_labels.get("tier"), Some("x"));
        assert_eq!((config.max_memory, config.max_total_memory), (3 << 29, 2 << 30));
        assert_eq!(config.flags()["endpoint"], "a:1,dns+b:2");
        assert!(config.has(Feature::ExperimentalFunctions) && !config.has(Feature::XFunctions));
    }

    #[test]
    fn x_functions_are_enabled_by_the_flag_of_thanos_or_as_a_feature() {
        for flag in ["--query.enable-x-functions", "--enable-feature=promql-x-functions"] {
            assert!(check(&[flag]).unwrap().has(Feature::XFunctions), "{flag}");
        }
    }

    #[test]
    fn mistakes_are_named_and_told_together() {
        for (args, parts) in [
            (&["--endpoint=nowhere"][..], &["\"nowhere\"", "HOST:PORT"][..]),
            (&["--query.timeout=soon"], &["is not a duration"]),
            (&["--selector-label=x"], &["NAME=\"VALUE\""]),
            (&["--query.max-memory=lots"], &["\"lots\"", "512MiB"]),
            (
                &["--endpoint-strict=dns+a:1", "--query.max-concurrent=0", "--query.timeout=0s"],
                &["--endpoint-strict=dns+a:1", "--query.max-concurrent=0", "--query.timeout=0s"],
            ),
        ] {
            let error = check(args).err().unwrap();
            for part in parts {
                assert!(error.contains(part), "{args:?}: {error}");
            }
        }
    }
}
