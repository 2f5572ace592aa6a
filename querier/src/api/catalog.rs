//! `series`, `labels`, `label/<name>/values`, `metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::response::Response;
use budget::{Budget, BudgetLimits, Interrupt, Reservation, Stop};
use model::{Labels, Matcher};
use promapi::{ApiError, Envelope, ErrorType, Params, write_labels};
use series::Aggregate;
use storeapi::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataRequest, MetadataStore, SeriesRequest,
    StoreError,
};

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
        tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn series(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let (range, limit) = (self.metadata_range(params)?, params.limit("limit")?);
        let filter = self.store_filter(params).await?;
        let mut sets: BTreeSet<Labels> = BTreeSet::new();
        let mut warnings = Vec::new();
        let total = &self.driver.engine().total;
        let budget = Budget::new(total, BudgetLimits::bytes(self.defaults.max_bytes), Interrupt::new());
        let mut reserved = Reservation::new(&budget);
        for matchers in self.selectors(params, "match[]").await? {
            let mut request = SeriesRequest::new(range, matchers);
            request.skip_chunks = true;
            request.max_resolution = Duration::from_millis(i64::MAX as u64);
            request.aggregates = vec![Aggregate::Raw];
            request.partial_response = self.partial_response(params)?;
            request.without_replica_labels = self.replica_labels(params)?;
            request.limit = limit.map(|limit| limit.saturating_add(1));
            let fanout = self.stores.select_within(request, &filter, Some(&budget));
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
        Ok(ApiReply { body: text.finish(total).map_err(over_budget)?, partial })
    }

    async fn names(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let (range, partial) = (self.metadata_range(params)?, self.partial_response(params)?);
        let filter = self.store_filter(params).await?;
        self.union(params, |matchers| {
            let mut request = LabelNamesRequest::new(range, matchers);
            request.partial_response = partial;
            let (stores, filter) = (&self.stores, &filter);
            async move { stores.names(request, filter).await }
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
        self.union(params, |matchers| {
            let mut request = LabelValuesRequest::new(&label, range, matchers);
            request.partial_response = partial;
            request.limit = limit;
            let (stores, filter) = (&self.stores, &filter);
            async move { stores.values(request, filter).await }
        })
        .await
    }

    /// The union of the answers for all `match[]`; without one, a request without matchers.
    async fn union<F>(&self, params: &Params, ask: impl Fn(Vec<Matcher>) -> F) -> Result<ApiReply, ApiError>
    where
        F: Future<Output = Result<LabelsAnswer, StoreError>>,
    {
        let mut selectors = self.selectors(params, "match[]").await?;
        if selectors.is_empty() {
            selectors.push(Vec::new());
        }
        let (mut values, mut warnings) = (BTreeSet::new(), BTreeSet::new());
        for matchers in selectors {
            let answer = ask(matchers).await.map_err(|error| store_error(&error))?;
            values.extend(answer.values);
            warnings.extend(answer.warnings);
        }
        let partial = !warnings.is_empty();
        let mut warnings: Vec<String> = warnings.into_iter().collect();
        let shown = params.limit("limit")?.unwrap_or(usize::MAX);
        if values.len() > shown {
            warnings.push(TRUNCATED.to_owned());
        }
        let values: Vec<&String> = values.iter().take(shown).collect();
        Ok(ApiReply { partial, ..ApiReply::of(&values, &warnings)? })
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
        let answer = self.stores.metric_metadata(request).await.map_err(|error| store_error(&error))?;
        let entries = |metas: Vec<storeapi::MetricMetadata>| -> Vec<serde_json::Value> {
            let shown = metas.into_iter().take(per_metric);
            shown.map(|m| serde_json::json!({"type": m.kind, "help": m.help, "unit": m.unit})).collect()
        };
        let data: BTreeMap<String, Vec<serde_json::Value>> =
            answer.metadata.into_iter().map(|(metric, metas)| (metric, entries(metas))).collect();
        ApiReply::of(&data, &answer.warnings)
    }
}
