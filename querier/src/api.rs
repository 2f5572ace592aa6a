//! The HTTP API of Prometheus, with the parameters of Thanos.
//!
//! Reading order: [`exchange`] (requests and responses), `query`, `result`, `tree`, `catalog`, `lists`, `stores`,
//! `status`, `facts`, `tenant`, `start`.

mod body;
mod catalog;
mod exchange;
mod facts;
mod lists;
mod name;
mod query;
mod resolution;
mod result;
mod shard;
mod start;
mod status;
mod stores;
mod tenant;
mod tree;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::handler::Handler;
use axum::routing::{MethodRouter, get};
use model::{Matcher, TimeRange, Timestamp};
use promapi::{ApiError, ErrorType, ParamError, Params};
use runtime::HttpMetrics;
use series::Dedup;
use storeapi::{PartialResponse, StoreError};

pub use facts::ApiFacts;
pub use start::StartPage;

use crate::config::{Tenancy, WebPaths};
use crate::endpoints::EndpointSet;
use crate::fanout::{ProxyStore, StoreFilter};
use crate::lists::Lists;
use crate::query::Driver;

/// Defaults for parameters that a request does not have.
#[derive(Clone, Debug)]
pub(crate) struct ApiDefaults {
    pub(crate) replica_labels: Vec<String>,
    pub(crate) dedup: Dedup,
    pub(crate) partial_response: PartialResponse,
    pub(crate) timeout: Duration,
    /// The value of the flag, if set.
    pub(crate) lookback: Option<Duration>,
    pub(crate) dynamic_lookback: bool,
    pub(crate) auto_downsampling: bool,
    pub(crate) instant_max_resolution: Duration,
    pub(crate) step: Duration,
    /// Zero for no limit.
    pub(crate) metadata_range: Duration,
    /// Maximum bytes of label sets in one answer.
    pub(crate) max_bytes: u64,
    pub(crate) cors: bool,
}

/// State of the handlers.
pub(crate) struct Api {
    pub(crate) driver: Driver,
    pub(crate) stores: ProxyStore,
    pub(crate) lists: Lists,
    /// The stores to list; `None` if there is only one in this process.
    pub(crate) endpoints: Option<EndpointSet>,
    pub(crate) defaults: ApiDefaults,
    pub(crate) facts: Arc<dyn ApiFacts>,
    pub(crate) started: SystemTime,
    pub(crate) paths: WebPaths,
    /// How the tenant of a request is found; `None` without tenants.
    pub(crate) tenancy: Option<Tenancy>,
}

/// The routes of the API and of the start page. `more` are routes below `/api/v1` that only one program has.
pub(crate) fn routes(api: Api, more: Router<Arc<Api>>, metrics: &HttpMetrics, page: StartPage) -> Router {
    let api = Arc::new(api);
    let cors = api.defaults.cors;
    let paths = api.paths.clone();
    let at = format!("{}/api/v1", paths.route.as_str());
    let both = |name, handler: MethodRouter<Arc<Api>>| handler.layer(metrics.layer(name));
    let listed_stores = Router::new().route("/stores", both("stores", get(stores::stores)));
    let v1 = Router::new()
        .route("/query", both("query", get_and_post(query::instant)))
        .route("/query_range", both("query_range", get_and_post(query::range)))
        .route("/query_explain", both("query_explain", get_and_post(query::explain_instant)))
        .route("/query_range_explain", both("query_range_explain", get_and_post(query::explain_range)))
        .route("/format_query", both("format_query", get_and_post(query::format)))
        .route("/parse_query", both("parse_query", get_and_post(query::parse)))
        .route("/series", both("series", get_and_post(catalog::series)))
        .route("/labels", both("label_names", get_and_post(catalog::label_names)))
        .route("/label/{name}/values", both("label_values", get(catalog::label_values)))
        .route("/metadata", both("metadata", get(catalog::metadata)))
        .route("/rules", both("rules", get(lists::rules)))
        .route("/alerts", both("alerts", get(lists::alerts)))
        .route("/targets", both("targets", get(lists::targets)))
        .route("/targets/metadata", both("targets_metadata", get(lists::target_metadata)))
        .route("/scrape_pools", both("scrape_pools", get(lists::scrape_pools)))
        .route("/query_exemplars", both("exemplars", get_and_post(lists::exemplars)))
        .route("/alertmanagers", both("alertmanagers", get(lists::alertmanagers)))
        .route("/status/buildinfo", both("status_build", get(status::buildinfo)))
        .route("/status/config", both("status_config", get(status::config)))
        .route("/status/tsdb", both("status_tsdb", get(lists::tsdb_status)))
        .route("/status/flags", both("status_flags", get(status::flags)))
        .route("/status/runtimeinfo", both("status_runtime", get(status::runtimeinfo)))
        .merge(more)
        .fallback(exchange::not_found)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), facts::when_ready))
        // It shows what the program waits for.
        .merge(if api.endpoints.is_some() { listed_stores } else { Router::new() })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), tenant::in_tenant))
        .layer(axum::middleware::from_fn(move |request, next| exchange::cors(cors, request, next)))
        .with_state(api);
    Router::new().nest(&at, v1).merge(start::routes(paths, page))
}

fn get_and_post<H, T>(handler: H) -> MethodRouter<Arc<Api>>
where
    H: Handler<T, Arc<Api>>,
    T: 'static,
{
    get(handler.clone()).post(handler)
}

/// The current time.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH + since
}

fn bad_data(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorType::BadData, message)
}

/// The API error for the error of a store. As in Thanos, a store that is missing is an error of the execution: clients do not
/// repeat such a request, as they do after an internal error.
fn store_error(error: &StoreError) -> ApiError {
    let kind = match error.code() {
        storeapi::Code::InvalidArgument => ErrorType::BadData,
        storeapi::Code::Internal => ErrorType::Internal,
        _ => ErrorType::Execution,
    };
    ApiError::new(kind, error.message())
}

/// The names in lists that are separated by commas, as in Thanos.
pub(crate) fn split_labels<'a>(lists: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names = lists.flat_map(|list| list.split(',')).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

impl Api {
    /// The replica labels; empty if deduplication is off.
    fn replica_labels(&self, params: &Params) -> Result<Vec<String>, ApiError> {
        if !params.bool("dedup")?.unwrap_or(true) {
            return Ok(Vec::new());
        }
        match params.contains("replicaLabels[]") {
            true => Ok(split_labels(params.all("replicaLabels[]"))),
            false => Ok(self.defaults.replica_labels.clone()),
        }
    }

    fn partial_response(&self, params: &Params) -> Result<PartialResponse, ApiError> {
        Ok(match params.bool("partial_response")? {
            None => self.defaults.partial_response,
            Some(true) => PartialResponse::Warn,
            Some(false) => PartialResponse::Abort,
        })
    }

    /// The time range of a metadata request: as given, else up to the configured duration before now, else
    /// everything.
    fn metadata_range(&self, params: &Params) -> Result<TimeRange, ApiError> {
        let mut range = params.metadata_range()?;
        if !self.defaults.metadata_range.is_zero() {
            let now = now();
            if !params.contains("end") {
                range.max = now;
            }
            if !params.contains("start") {
                range.min = range.max - self.defaults.metadata_range;
            }
        }
        Ok(range)
    }

    /// The stores that `storeMatch[]` selects.
    async fn store_filter(&self, params: &Params) -> Result<StoreFilter, ApiError> {
        Ok(StoreFilter::new(self.selectors(params, "storeMatch[]").await?))
    }

    /// All selectors in a parameter; may be empty.
    async fn selectors(&self, params: &Params, name: &str) -> Result<Vec<Vec<Matcher>>, ApiError> {
        let texts: Vec<String> = params.all(name).map(str::to_owned).collect();
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let name = name.to_owned();
        self.off_thread(move || parse_selectors(&texts).map_err(|why| ParamError::invalid(&name, why).into()))
            .await?
    }

    /// Runs work whose duration depends on the text of a request. It runs outside the threads that serve
    /// connections.
    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let lost = || {
            ApiError::new(
                ErrorType::Internal,
                "the request could not be parsed, the parser panicked; see the log".to_owned(),
            )
        };
        self.driver.planner().run(work).await.ok_or_else(lost)
    }
}

/// Parses selectors. Their regular expressions together have the same limit as those of a query.
fn parse_selectors(texts: &[String]) -> Result<Vec<Vec<Matcher>>, String> {
    let mut regex_bytes = 0;
    let parse = |text: &String| {
        let matchers = promql::parse_selector(text).map_err(|cause| cause.to_string())?;
        regex_bytes += matchers.iter().map(Matcher::regex_bytes).sum::<usize>();
        if regex_bytes > promql::MAX_REGEX_BYTES {
            let limit = promql::MAX_REGEX_BYTES >> 20;
            return Err(format!(
                "regular expressions together need more than {limit} MiB; use fewer or simpler ones"
            ));
        }
        Ok(matchers)
    };
    texts.iter().map(parse).collect()
}
