//! `series`, `labels`, `label/<name>/values`, `metadata`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use budget::{Budget, BudgetLimits, Interrupt, Reservation, Stop};
use model::{Labels, Matcher};
use promapi::{ApiError, Envelope, ErrorType, Params, write_labels, write_string};
use runtime::CallContext;
use series::Aggregate;
use storeapi::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataRequest, MetricMetadata, SeriesRequest,
    StoreError,
};
use tokio::time::Instant;

use crate::api::body::AnswerText;
use crate::api::exchange::{ApiReply, params, respond};
use crate::api::result::labels_room;
use crate::api::{Api, bad_data, name, store_error};
use crate::fanout::FanoutEvent;
use crate::memory;

const TRUNCATED: &str = "results truncated due to limit";

pub(super) async fn series(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        params.matchers()?;
        api.in_time(&params, api.series(&params)).await
    };
    respond(answer.await)
}

pub(super) async fn label_names(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.names(&params)).await
    };
    respond(answer.await)
}

pub(super) async fn label_values(
    State(api): State<Arc<Api>>,
    Path(label): Path<String>,
    request: Request,
) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.values(&params, &label)).await
    };
    respond(answer.await)
}

pub(super) async fn metadata(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.metadata(&params)).await
    };
    respond(answer.await)
}

/// The API error of a request whose answer exceeds a memory limit.
pub(super) fn over_budget(stop: impl Into<Stop>) -> ApiError {
    let message = match stop.into() {
        Stop::Limit(limit) => memory::limit_with_flag(&limit),
        stop => stop.to_string(),
    };
    ApiError::new(ErrorType::Execution, message)
}

impl Api {
    /// Cancels work that takes longer than the query timeout.
    pub(super) async fn in_time(
        &self,
        params: &Params,
        work: impl Future<Output = Result<ApiReply, ApiError>>,
    ) -> Result<ApiReply, ApiError> {
        let limit =
            params.duration("timeout")?.map_or(self.defaults.timeout, |t| t.min(self.defaults.timeout));
        let late = || ApiError::new(ErrorType::Timeout, format!("stores did not answer within {limit:?}"));
        let work = CallContext::current().with_deadline(Instant::now() + limit).scope(work);
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn series(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let (range, limit) = (self.metadata_range(params)?, params.limit("limit")?);
        let filter = self.store_filter(params).await?;
        let mut sets: BTreeSet<Labels> = BTreeSet::new();
        let mut warnings = Vec::new();
        let budget = self.budget();
        let mut reserved = Reservation::new(&budget);
        for matchers in self.selectors(params, "match[]").await? {
            let mut request = SeriesRequest::new(range, matchers);
            request.skip_chunks = true;
            request.max_resolution = Duration::from_millis(i64::MAX as u64);
            request.aggregates = vec![Aggregate::Raw];
            request.partial_response = self.partial_response(params)?;
            request.without_replica_labels = self.replica_labels(params)?;
            request.limit = limit.map(|limit| limit.saturating_add(1));
            let fanout = self.stores.select_within(request, &filter, &budget);
            let mut fanout = fanout.map_err(|e| store_error(&e))?;
            while let Some(event) = fanout.next().await {
                match event.map_err(|error| store_error(&error))? {
                    // Two selectors that miss the same store cause one warning.
                    FanoutEvent::Warning(text) if warnings.contains(&text) => {}
                    FanoutEvent::Warning(text) => warnings.push(text),
                    FanoutEvent::Series(batch) => {
                        for series in batch {
                            reserved.add(series.labels.size_bytes() as u64).map_err(over_budget)?;
                            sets.insert(series.labels);
                        }
                    }
                }
            }
        }
        let partial = !warnings.is_empty();
        let shown = limit.unwrap_or(usize::MAX);
        if sets.len() > shown {
            warnings.push(TRUNCATED.to_owned());
        }
        let mut text = AnswerText::new(&budget, Interrupt::new());
        let body = text.room(0).map_err(over_budget)?;
        Envelope::begin(body);
        body.push(b'[');
        for (i, labels) in sets.iter().take(shown).enumerate() {
            let body = text.room(labels_room(labels)).map_err(over_budget)?;
            if i > 0 {
                body.push(b',');
            }
            write_labels(body, labels);
        }
        let body = text.room(0).map_err(over_budget)?;
        body.push(b']');
        Envelope::end(body, &warnings, &[]);
        drop((sets, reserved));
        let total = &self.driver.engine().total;
        Ok(ApiReply { body: text.finish(total).map_err(over_budget)?, partial })
    }

    /// A budget for one request.
    fn budget(&self) -> Budget {
        let total = &self.driver.engine().total;
        Budget::new(total, BudgetLimits::bytes(self.defaults.max_bytes), Interrupt::new())
    }

    async fn names(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let (range, partial) = (self.metadata_range(params)?, self.partial_response(params)?);
        let filter = self.store_filter(params).await?;
        let budget = self.budget();
        self.union(params, &budget, |matchers| {
            let mut request = LabelNamesRequest::new(range, matchers);
            request.partial_response = partial;
            let (stores, filter, budget) = (&self.stores, &filter, &budget);
            async move { stores.names(request, filter, budget).await }
        })
        .await
    }

    async fn values(&self, params: &Params, label: &str) -> Result<ApiReply, ApiError> {
        let label = name::unescape(label);
        if label.is_empty() {
            return Err(bad_data("invalid label name: \"\""));
        }
        let (range, partial) = (self.metadata_range(params)?, self.partial_response(params)?);
        let limit = params.limit("limit")?.map(|limit| limit.saturating_add(1));
        let filter = self.store_filter(params).await?;
        let budget = self.budget();
        self.union(params, &budget, |matchers| {
            let mut request = LabelValuesRequest::new(&label, range, matchers);
            request.partial_response = partial;
            request.limit = limit;
            let (stores, filter, budget) = (&self.stores, &filter, &budget);
            async move { stores.values(request, filter, budget).await }
        })
        .await
    }

    /// The union of the answers for all `match[]`; without one, a request without matchers.
    async fn union<F>(
        &self,
        params: &Params,
        budget: &Budget,
        ask: impl Fn(Vec<Matcher>) -> F,
    ) -> Result<ApiReply, ApiError>
    where
        F: Future<Output = Result<(LabelsAnswer, Reservation), StoreError>>,
    {
        let mut selectors = self.selectors(params, "match[]").await?;
        if selectors.is_empty() {
            selectors.push(Vec::new());
        }
        let (mut values, mut warnings, mut reservations) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for matchers in selectors {
            let (answer, reserved) = ask(matchers).await.map_err(|error| store_error(&error))?;
            values.extend(answer.values);
            warnings.extend(answer.warnings);
            reservations.push(reserved);
        }
        let partial = !warnings.is_empty();
        let mut warnings: Vec<String> = warnings.into_iter().collect();
        let shown = params.limit("limit")?.unwrap_or(usize::MAX);
        if values.len() > shown {
            warnings.push(TRUNCATED.to_owned());
        }
        let mut text = AnswerText::new(budget, Interrupt::new());
        let body = text.room(0).map_err(over_budget)?;
        Envelope::begin(body);
        body.push(b'[');
        for (i, value) in values.iter().take(shown).enumerate() {
            let body = text.room(value.len() + 3).map_err(over_budget)?;
            if i > 0 {
                body.push(b',');
            }
            write_string(body, value);
        }
        let body = text.room(0).map_err(over_budget)?;
        body.push(b']');
        Envelope::end(body, &warnings, &[]);
        drop((values, reservations));
        let total = &self.driver.engine().total;
        Ok(ApiReply { body: text.finish(total).map_err(over_budget)?, partial })
    }

    async fn metadata(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let number = |name: &str| match params.get(name).map(str::parse::<i64>) {
            None => Ok(None),
            Some(Ok(n)) => Ok(usize::try_from(n).ok()),
            Some(Err(_)) => Err(bad_data(format!("invalid parameter {name:?}: must be a whole number"))),
        };
        let per_metric = number("limit_per_metric")?.filter(|n| *n > 0).unwrap_or(usize::MAX);
        let request = MetadataRequest {
            metric: params.get("metric").filter(|m| !m.is_empty()).map(str::to_owned),
            limit: number("limit")?,
            partial_response: self.partial_response(params)?,
        };
        let budget = self.budget();
        let (answer, reserved) =
            self.stores.metadata(request, &budget).await.map_err(|error| store_error(&error))?;
        let mut text = AnswerText::new(&budget, Interrupt::new());
        let body = text.room(0).map_err(over_budget)?;
        Envelope::begin(body);
        body.push(b'{');
        for (i, (metric, entries)) in answer.metadata.iter().enumerate() {
            let shown = &entries[..per_metric.min(entries.len())];
            let room = shown.iter().map(|m| m.kind.len() + m.help.len() + m.unit.len() + 32).sum::<usize>();
            let body = text.room(metric.len() + room + 6).map_err(over_budget)?;
            if i > 0 {
                body.push(b',');
            }
            write_string(body, metric);
            body.push(b':');
            write_metadata(body, shown);
        }
        let body = text.room(0).map_err(over_budget)?;
        body.push(b'}');
        Envelope::end(body, &answer.warnings, &[]);
        let partial = !answer.warnings.is_empty();
        drop((answer, reserved));
        let total = &self.driver.engine().total;
        Ok(ApiReply { body: text.finish(total).map_err(over_budget)?, partial })
    }
}

/// Writes the entries of one metric as Prometheus does.
fn write_metadata(body: &mut Vec<u8>, entries: &[MetricMetadata]) {
    body.push(b'[');
    for (i, entry) in entries.iter().enumerate() {
        if i > 0 {
            body.push(b',');
        }
        for (before, text) in
            [("{\"type\":", &entry.kind), (",\"help\":", &entry.help), (",\"unit\":", &entry.unit)]
        {
            body.extend_from_slice(before.as_bytes());
            write_string(body, text);
        }
        body.push(b'}');
    }
    body.push(b']');
}
