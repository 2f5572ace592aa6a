//! `rules`, `alerts`, `targets`, `targets/metadata`, `scrape_pools`, `alertmanagers`, `query_exemplars`,
//! `status/tsdb`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use budget::{Budget, Interrupt};
use promapi::{ApiError, Envelope, ErrorType, ParamError, Params, Rule};
use serde::Serialize;
use serde_json::json;
use storeapi::{
    AnswerMemory, ExemplarsRequest, RuleKind, RulesRequest, TargetState, TargetsRequest, TsdbStatusRequest,
};

use crate::api::body::AnswerText;
use crate::api::catalog::over_budget;
use crate::api::exchange::{ApiReply, params, respond};
use crate::api::{Api, bad_data, store_error};
use crate::lists::rules::RuleConditions;
use crate::lists::{exemplars, rules, statistics, targets};

/// Entries of each list of `status/tsdb`, and the most that a request may ask for; as in Prometheus.
const STATISTICS: (usize, usize) = (10, 10_000);

pub(super) async fn rules(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.rules(&params)).await
    };
    respond(answer.await)
}

pub(super) async fn alerts(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.alerts(&params)).await
    };
    respond(answer.await)
}

pub(super) async fn targets(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.targets(&params)).await
    };
    respond(answer.await)
}

pub(super) async fn scrape_pools(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.scrape_pools(&params)).await
    };
    respond(answer.await)
}

pub(super) async fn exemplars(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.exemplars(&params)).await
    };
    respond(answer.await)
}

pub(super) async fn tsdb_status(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.tsdb_status(&params)).await
    };
    respond(answer.await)
}

pub(super) async fn alertmanagers(State(api): State<Arc<Api>>, request: Request) -> Response {
    let answer = async {
        let params = params(request).await?;
        api.in_time(&params, api.alertmanagers(&params)).await
    };
    respond(answer.await)
}

/// Metadata of single targets is not gathered from stores. Clients expect this list.
pub(super) async fn target_metadata() -> Response {
    let info = "metadata of single targets is not gathered from stores, use /api/v1/metadata".to_owned();
    let body = Envelope::of(&json!([]), &[], &[info]).map_err(unserializable);
    respond(body.map(|body| ApiReply { body: vec![body.into()], partial: false }))
}

/// A list as text, written item by item.
struct ListText {
    text: AnswerText,
    empty: bool,
}

impl ListText {
    /// Begins an answer whose data begins with `start`.
    fn begin(budget: &Budget, start: &str) -> Result<Self, ApiError> {
        let mut text = AnswerText::new(budget, Interrupt::new());
        let body = text.room(start.len()).map_err(over_budget)?;
        Envelope::begin(body);
        body.extend_from_slice(start.as_bytes());
        Ok(Self { text, empty: true })
    }

    fn items<T: Serialize>(&mut self, items: impl IntoIterator<Item = T>) -> Result<(), ApiError> {
        for item in items {
            let mut json = Vec::new();
            Envelope::write(&mut json, &item).map_err(unserializable)?;
            let body = self.text.room(json.len() + 1).map_err(over_budget)?;
            if !std::mem::replace(&mut self.empty, false) {
                body.push(b',');
            }
            body.extend_from_slice(&json);
        }
        Ok(())
    }

    /// Writes text between two lists.
    fn separate(&mut self, text: &str) -> Result<(), ApiError> {
        self.empty = true;
        self.text.room(text.len()).map_err(over_budget)?.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// Ends the answer with `end` after the last list.
    fn finish(mut self, end: &str, warnings: &[String], api: &Api) -> Result<ApiReply, ApiError> {
        self.separate(end)?;
        Envelope::end(self.text.room(0).map_err(over_budget)?, warnings, &[]);
        let body = self.text.finish(&api.driver.engine().total).map_err(over_budget)?;
        Ok(ApiReply { body, partial: !warnings.is_empty() })
    }
}

impl Api {
    async fn rules(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let kind = match params.get("type").map(str::to_ascii_lowercase).as_deref() {
            None | Some("all") => None,
            Some("alert") => Some(RuleKind::Alerting),
            Some("record") => Some(RuleKind::Recording),
            Some(other) => return Err(not_supported("type", other)),
        };
        let named = |name: &str| params.all(name).map(str::to_owned).collect();
        let conditions = RuleConditions {
            selectors: self.selectors(params, "match[]").await?,
            names: named("rule_name[]"),
            groups: named("rule_group[]"),
            files: named("file[]"),
        };
        let without_alerts = params.bool("exclude_alerts")?.unwrap_or(false);
        let limit = page_limit(params)?;
        let (budget, replica_labels) = (self.lists.budget(), self.replica_labels(params)?);
        let memory = AnswerMemory::new(&budget);
        let request = RulesRequest { kind, partial_response: self.partial_response(params)? };
        let listed = self.lists.rules(&request, &self.store_filter(params).await?, &memory).await;
        let listed = listed.map_err(|error| store_error(&error))?;
        let mut groups = rules::merged(listed.items, &conditions, &replica_labels);
        let mut next = None;
        if let Some(limit) = limit {
            let page = rules::page(groups, limit, params.get("group_next_token"));
            (groups, next) = page.map_err(|cause| ParamError::invalid("group_next_token", cause))?;
        }
        if without_alerts {
            for rule in groups.iter_mut().flat_map(|group| &mut group.rules) {
                if let Rule::Alerting(rule) = rule {
                    rule.alerts.clear();
                }
            }
        }
        let mut text = ListText::begin(&budget, "{\"groups\":[")?;
        text.items(groups)?;
        let end = next.map_or("]}".to_owned(), |token| format!("],\"groupNextToken\":\"{token}\"}}"));
        text.finish(&end, &listed.warnings, self)
    }

    async fn alerts(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let (budget, replica_labels) = (self.lists.budget(), self.replica_labels(params)?);
        let memory = AnswerMemory::new(&budget);
        let request =
            RulesRequest { kind: Some(RuleKind::Alerting), partial_response: self.partial_response(params)? };
        let listed = self.lists.rules(&request, &self.store_filter(params).await?, &memory).await;
        let listed = listed.map_err(|error| store_error(&error))?;
        let groups = rules::merged(listed.items, &RuleConditions::default(), &replica_labels);
        let mut text = ListText::begin(&budget, "{\"alerts\":[")?;
        text.items(groups.iter().flat_map(|group| &group.rules).flat_map(Rule::alerts))?;
        text.finish("]}", &listed.warnings, self)
    }

    async fn targets(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let state = match params.get("state").map(str::to_ascii_lowercase).as_deref() {
            None | Some("any") => None,
            Some("active") => Some(TargetState::Active),
            Some("dropped") => Some(TargetState::Dropped),
            Some(other) => return Err(not_supported("state", other)),
        };
        let (budget, replica_labels) = (self.lists.budget(), self.replica_labels(params)?);
        let memory = AnswerMemory::new(&budget);
        let partial_response = self.partial_response(params)?;
        let request = TargetsRequest { state, alertmanagers: false, partial_response };
        let listed = self.lists.targets(&request, &self.store_filter(params).await?, &memory).await;
        let listed = listed.map_err(|error| store_error(&error))?;
        let mut all = targets::merged(listed.items, &replica_labels);
        if let Some(pool) = params.get("scrapePool") {
            all.active_targets.retain(|target| target.scrape_pool == pool);
            all.dropped_targets.retain(|target| target.scrape_pool == pool);
        }
        let mut text = ListText::begin(&budget, "{\"activeTargets\":[")?;
        text.items(all.active_targets)?;
        text.separate("],\"droppedTargets\":[")?;
        text.items(all.dropped_targets)?;
        text.finish("]}", &listed.warnings, self)
    }

    async fn scrape_pools(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let budget = self.lists.budget();
        let memory = AnswerMemory::new(&budget);
        let partial_response = self.partial_response(params)?;
        let request = TargetsRequest { state: None, alertmanagers: false, partial_response };
        let listed = self.lists.targets(&request, &self.store_filter(params).await?, &memory).await;
        let listed = listed.map_err(|error| store_error(&error))?;
        let active = listed.items.iter().flat_map(|part| &part.active_targets).map(|t| &t.scrape_pool);
        let dropped = listed.items.iter().flat_map(|part| &part.dropped_targets).map(|t| &t.scrape_pool);
        let pools: BTreeSet<&String> = active.chain(dropped).filter(|pool| !pool.is_empty()).collect();
        let mut text = ListText::begin(&budget, "{\"scrapePools\":[")?;
        text.items(pools)?;
        text.finish("]}", &listed.warnings, self)
    }

    async fn alertmanagers(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let budget = self.lists.budget();
        let memory = AnswerMemory::new(&budget);
        let partial_response = self.partial_response(params)?;
        let request = TargetsRequest { state: None, alertmanagers: true, partial_response };
        let listed = self.lists.targets(&request, &self.store_filter(params).await?, &memory).await;
        let listed = listed.map_err(|error| store_error(&error))?;
        let (mut active, mut dropped) = (BTreeSet::new(), BTreeSet::new());
        for found in listed.items.into_iter().filter_map(|part| part.alertmanagers) {
            active.extend(found.active_alertmanagers);
            dropped.extend(found.dropped_alertmanagers);
        }
        let mut text = ListText::begin(&budget, "{\"activeAlertmanagers\":[")?;
        text.items(active)?;
        text.separate("],\"droppedAlertmanagers\":[")?;
        text.items(dropped)?;
        text.finish("]}", &listed.warnings, self)
    }

    async fn exemplars(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let (budget, replica_labels) = (self.lists.budget(), self.replica_labels(params)?);
        let memory = AnswerMemory::new(&budget);
        let request = ExemplarsRequest {
            query: params.get("query").unwrap_or("").to_owned(),
            range: params.metadata_range()?,
            partial_response: self.partial_response(params)?,
        };
        let listed = self.lists.exemplars(&request, &self.store_filter(params).await?, &memory).await;
        let listed = listed.map_err(|error| store_error(&error))?;
        let mut text = ListText::begin(&budget, "[")?;
        text.items(exemplars::merged(listed.items, &replica_labels))?;
        text.finish("]", &listed.warnings, self)
    }

    async fn tsdb_status(&self, params: &Params) -> Result<ApiReply, ApiError> {
        let (default, most) = STATISTICS;
        let limit = match params.get("limit").map(str::parse::<usize>) {
            None => default,
            Some(Ok(limit)) if limit > most => {
                return Err(bad_data(format!("limit must not exceed {most}")));
            }
            Some(Ok(limit)) if limit > 0 => limit,
            Some(_) => return Err(bad_data("limit must be a positive number")),
        };
        let budget = self.lists.budget();
        let memory = AnswerMemory::new(&budget);
        let request = TsdbStatusRequest {
            tenant: String::new(),
            limit: Some(limit),
            matchers: self.selectors(params, "match[]").await?.concat(),
            partial_response: self.partial_response(params)?,
        };
        let listed = self.lists.statistics(&request, &self.store_filter(params).await?, &memory).await;
        let listed = listed.map_err(|error| store_error(&error))?;
        let sum = statistics::merged(listed.items.into_iter().map(|item| item.status), limit);
        ApiReply::of(&sum, &listed.warnings)
    }
}

fn unserializable(error: serde_json::Error) -> ApiError {
    ApiError::new(ErrorType::Internal, format!("answer cannot be serialized: {error}"))
}

/// The number of groups of a page; `None` if the answer has no pages.
fn page_limit(params: &Params) -> Result<Option<usize>, ApiError> {
    match params.get("group_limit").map(str::parse::<usize>) {
        None if params.get("group_next_token").is_some() => {
            let cause = "group_limit needs to be present in order to paginate over the groups";
            Err(ParamError::invalid("group_next_token", cause).into())
        }
        None => Ok(None),
        Some(Ok(limit)) if limit > 0 => Ok(Some(limit)),
        Some(_) => {
            Err(ParamError::invalid("group_limit", "group_limit needs to be a number greater than 0").into())
        }
    }
}

fn not_supported(name: &str, value: &str) -> ApiError {
    ParamError::invalid(name, format!("not supported value {}", promql::go_quoted(value))).into()
}
