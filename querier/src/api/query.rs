//! `query`, `query_range`, their explain variants, `format_query`, `parse_query`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use budget::{Budget, Interrupt, TotalBudget};
use model::{TimeRange, Timestamp};
use promapi::{ApiError, Envelope, ErrorType, ParamError, Params};
use promql::QueryError;
use promql::syntax::ast::Expr;

use crate::api::body::AnswerText;
use crate::api::exchange::{ApiReply, params, respond};
use crate::api::tree::tree;
use crate::api::{Api, bad_data, resolution, result, shard, store_error};
use crate::memory;
use crate::query::{AskError, DynamicLookback, QueryAnswer, Question};

pub(super) async fn instant(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.answer(&params, api.instant_question(&params).await?).await
    };
    respond(answer.await)
}

pub(super) async fn explain_instant(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.explanation(&api.instant_question(&params).await?).await
    };
    respond(answer.await)
}

pub(super) async fn range(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.answer(&params, api.range_question(&params).await?).await
    };
    respond(answer.await)
}

pub(super) async fn explain_range(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.explanation(&api.range_question(&params).await?).await
    };
    respond(answer.await)
}

/// The step of a range query without one: a 250th of the range in whole seconds.
fn default_step(range: TimeRange, least: Duration) -> Duration {
    let seconds = u64::try_from(range.max.millis_since(range.min) / 250_000).unwrap_or(0);
    least.max(Duration::from_secs(seconds))
}

pub(super) async fn format(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        ApiReply::of(&api.parsed(&params, |expr| expr.pretty()).await?, &[])
    };
    respond(answer.await)
}

pub(super) async fn parse(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        let tree = api.parsed(&params, tree).await?;
        let mut body = Vec::new();
        Envelope::begin(&mut body);
        body.extend_from_slice(tree.as_bytes());
        Envelope::end(&mut body, &[], &[]);
        Ok(ApiReply { body: vec![body.into()], partial: false })
    };
    respond(answer.await)
}

fn query_text(params: &Params) -> Result<&str, ApiError> {
    Ok(params.get("query").unwrap_or(""))
}

impl Api {
    /// Parses the expression of a request and formats it with `write`.
    async fn parsed(
        &self,
        params: &Params,
        write: impl FnOnce(&Expr) -> String + Send + 'static,
    ) -> Result<String, ApiError> {
        let (text, options) = (query_text(params)?.to_owned(), self.driver.engine().parse);
        let work = move || promql::parse(&text, &options).map(|expr| write(&expr));
        self.off_thread(work).await?.map_err(|cause| ParamError::invalid("query", cause.to_string()).into())
    }

    /// The coarsest resolution allowed. `auto` is the value for this kind of request with auto-downsampling.
    fn max_resolution(&self, params: &Params, auto: Duration) -> Result<Duration, ApiError> {
        match params.get("max_source_resolution") {
            Some("auto") => Ok(auto),
            None | Some("") if self.defaults.auto_downsampling => Ok(auto),
            None | Some("") => Ok(Duration::ZERO),
            Some(_) => Ok(params.duration("max_source_resolution")?.unwrap_or_default()),
        }
    }

    /// The lookback, and whether it depends on the resolution of the data.
    fn lookback(
        &self,
        params: &Params,
        max_resolution: Duration,
    ) -> Result<(Duration, Option<DynamicLookback>), ApiError> {
        let lookback = DynamicLookback { configured: self.defaults.lookback };
        Ok(match params.duration("lookback_delta")? {
            Some(length) if !length.is_zero() => (length, None),
            _ if self.defaults.dynamic_lookback => (lookback.at(max_resolution), Some(lookback)),
            _ => (lookback.at(Duration::ZERO), None),
        })
    }

    async fn instant_question(&self, params: &Params) -> Result<Question, ApiError> {
        let at = params.time("time")?.unwrap_or_else(crate::api::now);
        let resolution = self.max_resolution(params, self.defaults.instant_max_resolution)?;
        self.question(params, (at, at), None, resolution).await
    }

    async fn range_question(&self, params: &Params) -> Result<Question, ApiError> {
        let query = params.range_query(|range| Some(default_step(range, self.defaults.step)))?;
        let resolution = self.max_resolution(params, query.step / 5)?;
        self.question(params, (query.start, query.end), Some(query.step), resolution).await
    }

    async fn question(
        &self,
        params: &Params,
        (start, end): (Timestamp, Timestamp),
        step: Option<Duration>,
        max_resolution: Duration,
    ) -> Result<Question, ApiError> {
        let replica_labels = self.replica_labels(params)?;
        let (lookback, dynamic_lookback) = self.lookback(params, max_resolution)?;
        Ok(Question {
            text: query_text(params)?.to_owned(),
            start,
            end,
            step,
            lookback,
            dynamic_lookback,
            dedup: if replica_labels.is_empty() { series::Dedup::Off } else { self.defaults.dedup },
            replica_labels,
            partial_response: self.partial_response(params)?,
            stores: self.store_filter(params).await?,
            shard: shard::requested(params)?,
            max_resolution,
            timeout: params
                .duration("timeout")?
                .map_or(self.defaults.timeout, |t| t.min(self.defaults.timeout)),
            // As in Thanos, no other value enables it.
            analyze: matches!(params.get("analyze"), Some("true" | "1")),
            allows_shared: params.get("share_selects") == Some("true"),
        })
    }

    /// The plan of a question, without its execution.
    async fn explanation(&self, question: &Question) -> Result<ApiReply, ApiError> {
        let (plan, selects) = self.driver.explain(question).await.map_err(|error| ask_error(&error))?;
        ApiReply::of(&result::explanation(&plan, &selects), &[])
    }

    async fn answer(&self, params: &Params, question: Question) -> Result<ApiReply, ApiError> {
        let limit = params.limit("limit")?;
        let stats = params.get("stats").filter(|text| !text.is_empty());
        let (with_stats, odd_stats) = (stats.is_some(), stats.and_then(odd_stats));
        let total = self.driver.engine().total.clone();
        let odd_labels = self.driver.odd_replica_labels(&question);
        let write = move |mut answer: QueryAnswer, budget: &Budget, interrupt: Interrupt| {
            let cut = limit.is_some_and(|limit| result::truncate(&mut answer.output.value, limit));
            answer.output.annotations.warnings.extend(odd_stats);
            answer.output.annotations.infos.extend(odd_labels);
            answer.output.annotations.infos.extend(resolution::info(&answer));
            write_answer(answer, cut, with_stats, AnswerText::new(budget, interrupt), &total)
        };
        self.driver.ask(question, write).await.map_err(|error| ask_error(&error))
    }
}

/// The deprecation warning of Prometheus for unusual values of `stats`.
fn odd_stats(value: &str) -> Option<String> {
    let warning = || {
        format!(
            "value {} for parameter \"stats\" is deprecated and will be rejected in the next major release, use \
             \"true\" or \"all\"",
            promql::go_quoted(value)
        )
    };
    (!matches!(value, "true" | "all")).then(warning)
}

/// Maximum annotations of each kind in an answer, as in Prometheus. Warnings about stores are not limited.
const MAX_ANNOTATIONS: usize = 10;

/// Writes an answer and frees it.
fn write_answer(
    answer: QueryAnswer,
    cut: bool,
    with_stats: bool,
    mut text: AnswerText,
    total: &TotalBudget,
) -> Result<ApiReply, QueryError> {
    let QueryAnswer { mut output, mut warnings, stores, timings, .. } = answer;
    let partial = !warnings.is_empty();
    let body = text.room(0)?;
    Envelope::begin(body);
    body.push(b'{');
    result::write(&mut text, &output.value)?;
    let body = text.room(0)?;
    if with_stats {
        body.extend_from_slice(b",\"stats\":");
        body.extend_from_slice(result::stats(&output.stats, &timings, &stores).to_string().as_bytes());
    }
    if let Some(plan) = &output.analysis {
        body.extend_from_slice(b",\"analysis\":");
        let mut analysis = result::analysis(plan, &stores);
        analysis["text"] = plan.to_string().into();
        body.extend_from_slice(analysis.to_string().as_bytes());
    }
    body.push(b'}');
    let annotations = std::mem::take(&mut output.annotations).limited(MAX_ANNOTATIONS);
    warnings.extend(annotations.warnings);
    if cut {
        warnings.push("results truncated due to limit".to_owned());
    }
    Envelope::end(body, &warnings, &annotations.infos);
    drop(output);
    Ok(ApiReply { body: text.finish(total)?, partial })
}

fn ask_error(error: &AskError) -> ApiError {
    let kind = match error {
        AskError::Stores(error) => return store_error(error),
        AskError::Query(QueryError::Parse(cause)) => {
            return ParamError::invalid("query", cause.to_string()).into();
        }
        AskError::Query(QueryError::BadParameter(cause)) => return bad_data(cause.clone()),
        AskError::Query(QueryError::Timeout) | AskError::Late { .. } | AskError::Queue => ErrorType::Timeout,
        AskError::Query(QueryError::Canceled) => ErrorType::Canceled,
        AskError::Query(QueryError::Limit(limit)) => {
            return ApiError::new(ErrorType::Execution, memory::limit_with_flag(limit));
        }
        AskError::Query(QueryError::Execution(_) | QueryError::Decode(_)) => ErrorType::Execution,
        AskError::Lost => ErrorType::Internal,
    };
    ApiError::new(kind, error.to_string())
}
