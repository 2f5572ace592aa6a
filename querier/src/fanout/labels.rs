//! Label names, label values and metric metadata of all stores.
//!
//! Answers are added to their union as they arrive, so that the memory of a request is that of its answer and not that of all
//! answers. The union counts towards the budget of the request.

use std::collections::BTreeSet;
use std::sync::Arc;

use budget::{Budget, LimitError, Reservation};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use model::{ExternalMatch, TimeRange};
use runtime::CallContext;
use storeapi::{
    AnswerLimits, Kept, LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataAnswer, MetadataRequest,
    MetadataStore, MetricMetadata, PartialResponse, StoreError, check_values,
};

use crate::endpoints::{Candidate, with_store_name};
use crate::fanout::enforced::enforce;
use crate::fanout::filter::StoreFilter;
use crate::fanout::input::{Standing, late, shortened, standing};
use crate::fanout::proxy::ProxyStore;
use crate::memory;

/// Memory of a string besides its text, in a sorted set or map.
const STRING_BYTES: usize = size_of::<String>() + 24;
/// Maximum number of warnings that one store may add to an answer.
const WARNINGS: usize = 100;

/// The suffixes of the series of one metric.
const SUFFIXES: [&str; 6] = ["", "_bucket", "_count", "_sum", "_total", "_info"];

impl ProxyStore {
    /// Label names of all stores that `filter` allows and that may have matching series, with the reservation of their memory.
    ///
    /// # Errors
    /// If the request rejects partial answers: the error of the first store that failed. If the answer exceeds `budget`.
    pub async fn names(
        &self,
        mut request: LabelNamesRequest,
        filter: &StoreFilter,
        budget: &Budget,
    ) -> Result<(LabelsAnswer, Reservation), StoreError> {
        let mut union = LabelsUnion::new(budget);
        enforce(&mut request.matchers);
        let ExternalMatch::Rest(rest) =
            ExternalMatch::split(&request.matchers, &self.options.selector_labels)
        else {
            return Ok(union.finish(None));
        };
        request.matchers = rest;
        let limit = request.limit.take();
        let (partial, range) = (request.partial_response, request.range);
        let (chosen, no_store) = self.choose(filter, |c| c.may_hold(&request.matchers, range))?;
        let removed = request.without_replica_labels.clone();
        let ask = |candidate: Candidate, limits: AnswerLimits| {
            let mut request = request.clone();
            request.matchers = candidate.accepted_matchers(&request.matchers, true);
            async move { candidate.limited(&limits).label_names(request).await }
        };
        let add = |mut answer: LabelsAnswer| {
            // Older stores do not remove them.
            answer.values.retain(|name| !removed.contains(name));
            union.add(answer.values).map(|()| answer.warnings)
        };
        let warnings = self.ask(chosen, Some(range), budget, ask, add).await?;
        union.warnings = no_store.into_iter().chain(warnings).collect();
        fail_if_partial(partial, &union.warnings)?;
        Ok(union.finish(limit))
    }

    /// Values of one label; stores are chosen as for [`names`](Self::names).
    ///
    /// # Errors
    /// `InvalidArgument` if the label name is empty; otherwise as for `names`.
    pub async fn values(
        &self,
        mut request: LabelValuesRequest,
        filter: &StoreFilter,
        budget: &Budget,
    ) -> Result<(LabelsAnswer, Reservation), StoreError> {
        if request.label.is_empty() {
            return Err(StoreError::invalid("label values: the label name must not be empty"));
        }
        let mut union = LabelsUnion::new(budget);
        enforce(&mut request.matchers);
        let ExternalMatch::Rest(rest) =
            ExternalMatch::split(&request.matchers, &self.options.selector_labels)
        else {
            return Ok(union.finish(None));
        };
        if request.without_replica_labels.contains(&request.label) {
            return Ok(union.finish(None));
        }
        request.matchers = rest;
        let (partial, range, limit) = (request.partial_response, request.range, request.limit);
        let (chosen, no_store) = self.choose(filter, |c| c.may_hold(&request.matchers, range))?;
        let ask = |candidate: Candidate, limits: AnswerLimits| {
            let mut request = request.clone();
            request.matchers = candidate.accepted_matchers(&request.matchers, true);
            async move {
                let answer = candidate.limited(&limits).label_values(request.clone()).await?;
                check_values(&request, candidate.label_sets(), &candidate.bound, &answer.values)?;
                Ok(answer)
            }
        };
        let add = |answer: LabelsAnswer| union.add(answer.values).map(|()| answer.warnings);
        let warnings = self.ask(chosen, Some(range), budget, ask, add).await?;
        union.warnings = no_store.into_iter().chain(warnings).collect();
        fail_if_partial(partial, &union.warnings)?;
        Ok(union.finish(limit))
    }

    /// Metadata of all stores, with the reservation of its memory.
    ///
    /// # Errors
    /// As for [`names`](Self::names).
    pub async fn metadata(
        &self,
        request: MetadataRequest,
        budget: &Budget,
    ) -> Result<(MetadataAnswer, Reservation), StoreError> {
        let mut reserved = Reservation::new(budget);
        if request.limit == Some(0) {
            return Ok((MetadataAnswer::default(), reserved));
        }
        let is_enforced = CallContext::current().enforced().is_some();
        // A limit applied by the stores could cut the metrics of the tenant.
        let asked = MetadataRequest { limit: request.limit.filter(|_| !is_enforced), ..request.clone() };
        let has_some = |c: &Candidate| c.info.as_ref().is_none_or(|info| info.apis.metadata);
        let (chosen, no_store) = self.choose(&StoreFilter::default(), has_some)?;
        let ask = |candidate: Candidate, limits: AnswerLimits| {
            let request = asked.clone();
            async move {
                match candidate.limited_metadata(&limits) {
                    Some(store) => store.metric_metadata(request).await,
                    None => Ok(MetadataAnswer::default()),
                }
            }
        };
        let mut all = MetadataAnswer::default();
        let add = |answer: MetadataAnswer| {
            for (metric, entries) in answer.metadata {
                let text = |entry: &MetricMetadata| entry.kind.len() + entry.help.len() + entry.unit.len();
                let bytes: usize =
                    entries.iter().map(|entry| size_of::<MetricMetadata>() + text(entry)).sum();
                reserved.add((STRING_BYTES + metric.len() + bytes) as u64)?;
                let known = all.metadata.entry(metric).or_default();
                known.extend(entries);
                known.sort_unstable();
                known.dedup();
            }
            Ok(answer.warnings)
        };
        let warnings = self.ask(chosen, None, budget, ask, add).await?;
        all.warnings = no_store.into_iter().chain(warnings).collect();
        if is_enforced {
            self.keep_own(&mut all, request.partial_response, budget).await?;
        }
        fail_if_partial(request.partial_response, &all.warnings)?;
        if let Some(limit) = request.limit {
            all.metadata = all.metadata.into_iter().take(limit).collect();
        }
        Ok((all, reserved))
    }

    /// Removes the metrics of which the tenant has no series. Metadata has no labels, so the names of its
    /// series decide.
    async fn keep_own(
        &self,
        answer: &mut MetadataAnswer,
        partial_response: PartialResponse,
        budget: &Budget,
    ) -> Result<(), StoreError> {
        let mut names = LabelValuesRequest::new("__name__", TimeRange::ALL, Vec::new());
        names.partial_response = partial_response;
        let (names, _reserved) = self.values(names, &StoreFilter::default(), budget).await?;
        let own: BTreeSet<String> = names.values.into_iter().collect();
        let has_series =
            |metric: &str| SUFFIXES.iter().any(|suffix| own.contains(&format!("{metric}{suffix}")));
        answer.metadata.retain(|metric, _| has_series(metric));
        for warning in names.warnings {
            if !answer.warnings.contains(&warning) {
                answer.warnings.push(warning);
            }
        }
        Ok(())
    }

    /// Asks all candidates concurrently. `add` adds an answer to the result and returns its warnings. Returns all warnings in
    /// the order of the candidates.
    ///
    /// # Errors
    /// A memory limit is reached.
    async fn ask<T, F>(
        &self,
        chosen: Vec<Candidate>,
        range: Option<TimeRange>,
        budget: &Budget,
        ask: impl Fn(Candidate, AnswerLimits) -> F,
        mut add: impl FnMut(T) -> Result<Vec<String>, LimitError>,
    ) -> Result<Vec<String>, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let over = |limit: &LimitError| memory::limit_error(limit);
        let mut streams = self.read_ahead().streams(chosen.len(), budget).map_err(|limit| over(&limit))?;
        let mut warnings: Vec<(usize, String)> = Vec::new();
        let mut answers = FuturesUnordered::new();
        for (at, candidate) in chosen.into_iter().enumerate() {
            let name = Arc::clone(&candidate.name);
            match standing(&candidate, range) {
                Standing::Good => {}
                Standing::Outdated(reason) => warnings.push((at, with_store_name(&name, &reason))),
                Standing::Missing(reason) => {
                    warnings.push((at, with_store_name(&name, &reason)));
                    continue;
                }
            }
            let (limits, stream) = (self.options.answer_limits(streams.window, budget), streams.take());
            let answer = self.in_time(ask(candidate, limits.clone()));
            answers.push(async move {
                let _stream = stream;
                (at, name, limits, answer.await)
            });
        }
        while let Some((at, name, limits, answer)) = answers.next().await {
            match answer {
                Ok(answer) => {
                    let texts = add(answer).map_err(|limit| over(&limit))?.into_iter().take(WARNINGS);
                    warnings.extend(texts.map(|text| (at, with_store_name(&name, &shortened(text)))));
                }
                Err(error) => match limits.refusal() {
                    Some(limit) => return Err(over(limit)),
                    None => {
                        warnings.push((at, with_store_name(&name, &shortened(error.message().to_owned()))))
                    }
                },
            }
        }
        warnings.sort_by_key(|(at, _)| *at);
        Ok(warnings.into_iter().map(|(_, text)| text).collect())
    }

    async fn in_time<T>(&self, answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        match self.options.response_timeout {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late(limit))),
        }
    }
}

/// Names or values of all stores.
struct LabelsUnion {
    values: BTreeSet<String>,
    warnings: Vec<String>,
    reserved: Reservation,
}

impl LabelsUnion {
    fn new(budget: &Budget) -> Self {
        Self { values: BTreeSet::new(), warnings: Vec::new(), reserved: Reservation::new(budget) }
    }

    fn add(&mut self, values: Vec<String>) -> Result<(), LimitError> {
        let mut bytes = 0;
        for value in values {
            let more = STRING_BYTES + value.len();
            if self.values.insert(value) {
                bytes += more;
            }
        }
        self.reserved.add(bytes as u64)
    }

    fn finish(self, limit: Option<usize>) -> (LabelsAnswer, Reservation) {
        let values = self.values.into_iter().take(limit.unwrap_or(usize::MAX)).collect();
        (LabelsAnswer { values, warnings: self.warnings, ..LabelsAnswer::default() }, self.reserved)
    }
}

pub(super) fn fail_if_partial(partial: PartialResponse, warnings: &[String]) -> Result<(), StoreError> {
    match warnings.first().filter(|_| partial == PartialResponse::Abort) {
        Some(text) => Err(StoreError::aborted(text.clone())),
        None => Ok(()),
    }
}

#[tonic::async_trait]
impl MetadataStore for ProxyStore {
    async fn metric_metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        let (answer, reserved) = self.metadata(request, &self.options.budget()).await?;
        Ok(MetadataAnswer { kept: Kept::new(reserved), ..answer })
    }
}
