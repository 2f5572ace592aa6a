//! The flags of Thanos' querier and query-frontend that the querier accepts without effect.

use runtime::{UNNEEDED_BY_ALL, UnneededFlag, UnneededFlags};

/// The list of the querier. `docs/thanos-flags.md` shows it.
#[derive(Clone, Debug)]
pub(crate) struct UnneededByQuerier;

impl UnneededFlags for UnneededByQuerier {
    const FLAGS: &'static [&'static [UnneededFlag]] = &[UNNEEDED_BY_ALL, QUERY, QUERY_FRONTEND];
}

const ONE_ENGINE: &str = "there is one engine, which evaluates the whole language itself";
const NOT_DISTRIBUTED: &str = "stores send series, no store evaluates a part of a query";
const PARTIAL_RESPONSE: &str =
    "`--query.partial-response` and the parameter `partial_response` decide for every endpoint";
const EAGER: &str = "all stores are read at the same time, through queues with a fixed bound";
const TELEMETRY: &str = "the buckets of the metrics are fixed";

/// Flags of `thanos query`.
const QUERY: &[UnneededFlag] = &[
    UnneededFlag::value("query.promql-engine", ONE_ENGINE),
    UnneededFlag::switch("query.disable-fallback", ONE_ENGINE),
    UnneededFlag::value("query.mode", NOT_DISTRIBUTED),
    UnneededFlag::value("query.partition-label", NOT_DISTRIBUTED),
    UnneededFlag::switch("query.distributed-with-overlapping-interval", NOT_DISTRIBUTED),
    UnneededFlag::value(
        "query.conn-metric.label",
        "`thanos_store_nodes_grpc_connections` has the labels `external_labels` and `store_type`",
    ),
    UnneededFlag::switch("rule.partial-response", PARTIAL_RESPONSE),
    UnneededFlag::switch("target.partial-response", PARTIAL_RESPONSE),
    UnneededFlag::switch("metric-metadata.partial-response", PARTIAL_RESPONSE),
    UnneededFlag::switch("exemplar.partial-response", PARTIAL_RESPONSE),
    UnneededFlag::switch("status.partial-response", PARTIAL_RESPONSE),
    UnneededFlag::value("grpc.proxy-strategy", EAGER),
    UnneededFlag::value("query.lazy-retrieval-max-buffered-responses", EAGER),
    UnneededFlag::value("query.telemetry.request-duration-seconds-quantiles", TELEMETRY),
    UnneededFlag::value("query.telemetry.request-samples-quantiles", TELEMETRY),
    UnneededFlag::value("query.telemetry.request-series-seconds-quantiles", TELEMETRY),
    UnneededFlag::value("endpoint.sd-config-reload-interval", "the file is read again when it has changed"),
    UnneededFlag::value(
        "store.sd-dns-resolver",
        "the servers of `/etc/resolv.conf` are asked, and `/etc/hosts` is read",
    ),
    UnneededFlag::value("inject-test-addresses", "only tests of Thanos use it"),
];

const NO_SPLIT: &str = "one evaluation uses all cores, so queries are not split by time";
const NO_SHARDS: &str = "one evaluation uses all cores, so queries are not split by series";
const NO_RETRY: &str = "a request that a store did not answer is repeated inside the query";
const NO_CACHE: &str = "answers are not cached; put Thanos' query-frontend in front to cache them";
const NO_DOWNSTREAM: &str = "the querier answers itself";
const NO_QUERY_LOG: &str =
    "`--request.logging-config` logs requests, the parameter `stats` returns statistics";

/// Flags of `thanos query-frontend`, for one command line that replaces both.
const QUERY_FRONTEND: &[UnneededFlag] = &[
    UnneededFlag::switch(
        "query-range.align-range-with-step",
        "answers are exact for the steps of the request",
    ),
    UnneededFlag::switch("query-range.request-downsampled", "the resolution is chosen for each store's data"),
    UnneededFlag::value("query-range.split-interval", NO_SPLIT),
    UnneededFlag::value("query-range.min-split-interval", NO_SPLIT),
    UnneededFlag::value("query-range.max-split-interval", NO_SPLIT),
    UnneededFlag::value("query-range.horizontal-shards", NO_SPLIT),
    UnneededFlag::value("query-range.max-retries-per-request", NO_RETRY),
    UnneededFlag::value("query.max-retries-per-request", NO_RETRY),
    UnneededFlag::switch("query-frontend.enable-x-functions", "use `--query.enable-x-functions`"),
    UnneededFlag::value(
        "query-range.max-query-length",
        "use `--query.max-samples` and `--query.timeout`, which limit the work of a query",
    ),
    UnneededFlag::value("query-range.max-query-parallelism", "use `--query.max-concurrent`"),
    UnneededFlag::value("query-range.response-cache-max-freshness", NO_CACHE),
    UnneededFlag::switch("query-range.partial-response", "use `--query.partial-response`"),
    UnneededFlag::value("query-range.response-cache-config", NO_CACHE),
    UnneededFlag::value("query-range.response-cache-config-file", NO_CACHE),
    UnneededFlag::value("labels.split-interval", NO_SPLIT),
    UnneededFlag::value("labels.max-retries-per-request", NO_RETRY),
    UnneededFlag::value("labels.max-query-parallelism", NO_SPLIT),
    UnneededFlag::value("labels.response-cache-max-freshness", NO_CACHE),
    UnneededFlag::switch("labels.partial-response", "use `--query.partial-response`"),
    UnneededFlag::value("labels.default-time-range", "use `--query.metadata.default-time-range`"),
    UnneededFlag::value("labels.response-cache-config", NO_CACHE),
    UnneededFlag::value("labels.response-cache-config-file", NO_CACHE),
    UnneededFlag::value("cache-compression-type", NO_CACHE),
    UnneededFlag::value("query-frontend.downstream-url", NO_DOWNSTREAM),
    UnneededFlag::value("query-frontend.downstream-tripper-config", NO_DOWNSTREAM),
    UnneededFlag::value("query-frontend.downstream-tripper-config-file", NO_DOWNSTREAM),
    UnneededFlag::switch(
        "query-frontend.compress-responses",
        "answers are compressed for clients that accept gzip",
    ),
    UnneededFlag::value("query-frontend.log-queries-longer-than", NO_QUERY_LOG),
    UnneededFlag::switch("query-frontend.force-query-stats", NO_QUERY_LOG),
    UnneededFlag::value("query-frontend.org-id-header", NO_QUERY_LOG),
    UnneededFlag::value("query-frontend.slow-query-logs-user-header", NO_QUERY_LOG),
    UnneededFlag::value("query-frontend.forward-header", NO_DOWNSTREAM),
    UnneededFlag::value("query-frontend.vertical-shards", NO_SHARDS),
    UnneededFlag::value("query-frontend.tenant-header", "use `--query.tenant-header`"),
    UnneededFlag::value("query-frontend.default-tenant-id", "use `--query.default-tenant-id`"),
    UnneededFlag::value("query-frontend.tenant-certificate-field", "use `--query.tenant-certificate-field`"),
];
