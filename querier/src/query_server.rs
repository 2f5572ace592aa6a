//! Queries over gRPC (`thanos.Query`): a querier of Thanos in distributed mode and `thanos rule --grpc-query-endpoint`
//! send them.
//!
//! Behaviour: `pkg/api/query/grpc.go` of Thanos, except that a query that fails is always an error. A request also has
//! the plan of Thanos' engine, which says the same as its text and is ignored.

mod result;

use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryFutureExt};
use model::{MatchOp, Matcher, Timestamp};
use promapi::MAX_STEPS;
use promql::QueryError;
use proto::thanos as wire;
use series::Dedup;
use storeapi::{PartialResponse, Shard};
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status};

use crate::fanout::StoreFilter;
use crate::memory;
use crate::query::{AskError, Driver, DynamicLookback, Question};
use result::{Answer, Part};

/// Defaults for what a request does not say.
#[derive(Clone, Debug)]
pub(crate) struct QueryDefaults {
    pub(crate) replica_labels: Vec<String>,
    pub(crate) dedup: Dedup,
    /// The longest timeout, and the default.
    pub(crate) timeout: Duration,
    pub(crate) lookback: Option<Duration>,
    pub(crate) dynamic_lookback: bool,
    pub(crate) max_resolution: Duration,
}

/// The gRPC service `thanos.Query`.
pub(crate) struct QueryServer {
    driver: Driver,
    defaults: QueryDefaults,
}

impl QueryServer {
    /// Adds the service to what a gRPC server serves.
    pub(crate) fn register(driver: Driver, defaults: QueryDefaults, routes: &mut RoutesBuilder) {
        routes.add_service(wire::query_server::QueryServer::new(Self { driver, defaults }));
    }

    async fn answer(&self, request: QueryRequest) -> Result<Answer, Status> {
        let batch = request.batch;
        let question = self.question(request).await?;
        let total = self.driver.engine().total.clone();
        self.driver
            .ask(question, move |answer, budget, interrupt| {
                Answer::of(answer, batch, budget, &interrupt, &total)
            })
            .map_err(|error| status(&error))
            .await
    }

    async fn question(&self, request: QueryRequest) -> Result<Question, Status> {
        let seconds = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let some = |length: Duration| Some(length).filter(|length| !length.is_zero());
        let defaults = &self.defaults;
        let max_resolution = some(seconds(request.max_resolution)).unwrap_or(defaults.max_resolution);
        let resolution = if defaults.dynamic_lookback { max_resolution } else { Duration::ZERO };
        let dynamic = DynamicLookback { configured: defaults.lookback };
        let lookback = some(seconds(request.lookback));
        let replica_labels = match (request.dedup, request.replica_labels.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => defaults.replica_labels.clone(),
            (true, false) => request.replica_labels,
        };
        let timeout = some(seconds(request.timeout)).unwrap_or(defaults.timeout);
        let compile = self.driver.planner().run(move || store_filter(&request.stores)).await;
        Ok(Question {
            text: request.text,
            start: request.start,
            end: request.end,
            step: request.step,
            lookback: lookback.unwrap_or_else(|| dynamic.at(resolution)),
            dynamic_lookback: Some(dynamic).filter(|_| defaults.dynamic_lookback && lookback.is_none()),
            dedup: if replica_labels.is_empty() { Dedup::Off } else { defaults.dedup },
            replica_labels,
            partial_response: if request.partial { PartialResponse::Warn } else { PartialResponse::Abort },
            stores: compile.ok_or_else(|| status(&AskError::Lost))??,
            shard: request.shard.map(shard).transpose()?.flatten(),
            max_resolution,
            timeout: timeout.min(defaults.timeout),
            analyze: false,
            allows_shared: false,
        })
    }
}

/// A request of either kind.
struct QueryRequest {
    text: String,
    start: Timestamp,
    end: Timestamp,
    /// `None` for an instant query.
    step: Option<Duration>,
    /// Seconds; 0 for the default.
    timeout: i64,
    max_resolution: i64,
    lookback: i64,
    replica_labels: Vec<String>,
    stores: Vec<wire::StoreMatchers>,
    dedup: bool,
    partial: bool,
    shard: Option<wire::ShardInfo>,
    /// Series in one message.
    batch: usize,
}

fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds.saturating_mul(1000))
}

/// Series in one message, at least 1.
fn batch(size: i64) -> usize {
    usize::try_from(size).unwrap_or(0).max(1)
}

impl From<wire::QueryRequest> for QueryRequest {
    fn from(request: wire::QueryRequest) -> Self {
        let now = || Timestamp::EPOCH + std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let at = if request.time_seconds == 0 { now() } else { instant(request.time_seconds) };
        Self {
            text: request.query,
            start: at,
            end: at,
            step: None,
            timeout: request.timeout_seconds,
            max_resolution: request.max_resolution_seconds,
            lookback: request.lookback_delta_seconds,
            replica_labels: request.replica_labels,
            stores: request.store_matchers,
            dedup: request.enable_dedup,
            partial: request.enable_partial_response,
            shard: request.shard_info,
            batch: batch(request.response_batch_size),
        }
    }
}

impl TryFrom<wire::QueryRangeRequest> for QueryRequest {
    type Error = Status;

    fn try_from(request: wire::QueryRangeRequest) -> Result<Self, Status> {
        let (start, end) = (request.start_time_seconds, request.end_time_seconds);
        let step = u64::try_from(request.interval_seconds).ok().filter(|step| *step > 0);
        let Some(step) = step else {
            let message =
                format!("range query: interval of {} s, must be at least 1 s", request.interval_seconds);
            return Err(Status::invalid_argument(message));
        };
        let length = end.saturating_sub(start);
        if length < 0 {
            let message = format!("range query: end {end} must not be before start {start}");
            return Err(Status::invalid_argument(message));
        }
        if length.unsigned_abs() / step > MAX_STEPS.unsigned_abs() {
            let message = format!("range query: more than {MAX_STEPS} steps; use a longer interval");
            return Err(Status::invalid_argument(message));
        }
        Ok(Self {
            text: request.query,
            start: instant(start),
            end: instant(end),
            step: Some(Duration::from_secs(step)),
            timeout: request.timeout_seconds,
            max_resolution: request.max_resolution_seconds,
            lookback: request.lookback_delta_seconds,
            replica_labels: request.replica_labels,
            stores: request.store_matchers,
            dedup: request.enable_dedup,
            partial: request.enable_partial_response,
            shard: request.shard_info,
            batch: batch(request.response_batch_size),
        })
    }
}

/// The part of the series that a request asks for; `None` for all.
fn shard(shard: wire::ShardInfo) -> Result<Option<Shard>, Status> {
    match (u64::try_from(shard.shard_index), u64::try_from(shard.total_shards)) {
        (_, Err(_) | Ok(0)) => Ok(None),
        (Ok(index), Ok(total)) if index < total => {
            Ok(Some(Shard { index, total, by: shard.by, labels: shard.labels }))
        }
        _ => Err(Status::invalid_argument(format!(
            "shard_info: index is {}, expected 0 to {}",
            shard.shard_index,
            shard.total_shards - 1
        ))),
    }
}

/// The stores that a request selects. Expressions are compiled, so this runs outside the threads that serve
/// connections.
fn store_filter(selectors: &[wire::StoreMatchers]) -> Result<StoreFilter, Status> {
    let mut bytes = 0;
    let mut matcher = |matcher: &wire::LabelMatcher| {
        use wire::label_matcher::Type;
        let op = match Type::try_from(matcher.r#type) {
            Ok(Type::Eq) => MatchOp::Equal,
            Ok(Type::Neq) => MatchOp::NotEqual,
            Ok(Type::Re) => MatchOp::Regex,
            Ok(Type::Nre) => MatchOp::NotRegex,
            Err(_) => return Err(Status::invalid_argument("store matcher: unknown type")),
        };
        let matcher = Matcher::new(op, &matcher.name, &matcher.value)
            .map_err(|cause| Status::invalid_argument(format!("store {cause}")))?;
        bytes += matcher.regex_bytes();
        if bytes > promql::MAX_REGEX_BYTES {
            return Err(Status::invalid_argument("store matchers: regular expressions are too large"));
        }
        Ok(matcher)
    };
    let selectors = selectors.iter().map(|set| set.label_matchers.iter().map(&mut matcher).collect());
    Ok(StoreFilter::new(selectors.collect::<Result<_, Status>>()?))
}

fn status(error: &AskError) -> Status {
    let code = match error {
        AskError::Stores(error) => error.code(),
        AskError::Query(QueryError::Parse(_) | QueryError::BadParameter(_)) => tonic::Code::InvalidArgument,
        AskError::Query(QueryError::Timeout) | AskError::Late { .. } | AskError::Queue => {
            tonic::Code::DeadlineExceeded
        }
        AskError::Query(QueryError::Canceled) => tonic::Code::Cancelled,
        AskError::Query(QueryError::Limit(limit)) => {
            return Status::resource_exhausted(memory::limit_with_flag(limit));
        }
        AskError::Query(QueryError::Execution(_)) => tonic::Code::Aborted,
        AskError::Query(QueryError::Decode(_)) => tonic::Code::DataLoss,
        AskError::Lost => tonic::Code::Internal,
    };
    Status::new(code, error.to_string())
}

#[tonic::async_trait]
impl wire::query_server::Query for QueryServer {
    type QueryStream = BoxStream<'static, Result<wire::QueryResponse, Status>>;
    type QueryRangeStream = BoxStream<'static, Result<wire::QueryRangeResponse, Status>>;

    async fn query(
        &self,
        request: Request<wire::QueryRequest>,
    ) -> Result<Response<Self::QueryStream>, Status> {
        use wire::query_response::Result as Kind;
        let answer = self.answer(request.into_inner().into()).await?;
        let message = |part| {
            let kind = match part {
                Part::Warning(text) => Kind::Warnings(text),
                Part::Series(series) => Kind::Timeseries(series),
                Part::Batch(series) => Kind::TimeseriesBatch(wire::TimeSeriesBatch { series }),
                Part::Stats(stats) => Kind::Stats(stats),
            };
            Ok(wire::QueryResponse { result: Some(kind) })
        };
        Ok(Response::new(stream::iter(answer).map(message).boxed()))
    }

    async fn query_range(
        &self,
        request: Request<wire::QueryRangeRequest>,
    ) -> Result<Response<Self::QueryRangeStream>, Status> {
        use wire::query_range_response::Result as Kind;
        let answer = self.answer(request.into_inner().try_into()?).await?;
        let message = |part| {
            let kind = match part {
                Part::Warning(text) => Kind::Warnings(text),
                Part::Series(series) => Kind::Timeseries(series),
                Part::Batch(series) => Kind::TimeseriesBatch(wire::TimeSeriesBatch { series }),
                Part::Stats(stats) => Kind::Stats(stats),
            };
            Ok(wire::QueryRangeResponse { result: Some(kind) })
        };
        Ok(Response::new(stream::iter(answer).map(message).boxed()))
    }
}
