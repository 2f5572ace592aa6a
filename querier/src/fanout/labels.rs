//! Label names, label values and metric metadata of all stores.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use model::ExternalMatch;
use storeapi::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataAnswer, MetadataRequest, MetadataStore,
    MetricMetadata, PartialResponse, StoreError,
};

use crate::endpoints::{Candidate, with_store_name};
use crate::fanout::filter::StoreFilter;
use crate::fanout::input::{late, unavailable};
use crate::fanout::proxy::ProxyStore;

impl ProxyStore {
    /// Label names of all stores that `filter` allows and that may have matching series.
    ///
    /// # Errors
    /// If the request rejects partial answers: the error of the first store that failed.
    pub async fn names(
        &self,
        mut request: LabelNamesRequest,
        filter: &StoreFilter,
    ) -> Result<LabelsAnswer, StoreError> {
        let ExternalMatch::Rest(rest) =
            ExternalMatch::split(&request.matchers, &self.options.selector_labels)
        else {
            return Ok(LabelsAnswer::default());
        };
        request.matchers = rest;
        let limit = request.limit.take();
        let (partial, range) = (request.partial_response, request.range);
        let (chosen, no_store) = self.choose(filter, |c| c.may_hold(&request.matchers, range));
        let answers = self.ask(chosen, |candidate| {
            let mut request = request.clone();
            request.matchers = candidate.accepted_matchers(&request.matchers, true);
            async move { candidate.store.label_names(request).await }
        });
        joined(answers.await, no_store, partial, limit)
    }

    /// Values of one label; stores are chosen as for [`names`](Self::names).
    ///
    /// # Errors
    /// `InvalidArgument` if the label name is empty; otherwise as for `names`.
    pub async fn values(
        &self,
        mut request: LabelValuesRequest,
        filter: &StoreFilter,
    ) -> Result<LabelsAnswer, StoreError> {
        if request.label.is_empty() {
            return Err(StoreError::invalid("label values: the label name must not be empty"));
        }
        let ExternalMatch::Rest(rest) =
            ExternalMatch::split(&request.matchers, &self.options.selector_labels)
        else {
            return Ok(LabelsAnswer::default());
        };
        request.matchers = rest;
        let (partial, range, limit) = (request.partial_response, request.range, request.limit);
        let (chosen, no_store) = self.choose(filter, |c| c.may_hold(&request.matchers, range));
        let answers = self.ask(chosen, |candidate| {
            let mut request = request.clone();
            request.matchers = candidate.accepted_matchers(&request.matchers, true);
            async move { candidate.store.label_values(request).await }
        });
        joined(answers.await, no_store, partial, limit)
    }

    /// Asks all candidates concurrently and returns their answers in the same order.
    async fn ask<T, F>(
        &self,
        chosen: Vec<Candidate>,
        ask: impl Fn(Candidate) -> F,
    ) -> Vec<(Arc<str>, Result<T, StoreError>)>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let one = |candidate: Candidate| {
            let name = Arc::clone(&candidate.name);
            let missing = unavailable(&candidate);
            let answer = ask(candidate);
            async move {
                if let Some((_, reason)) = missing {
                    return (name, Err(StoreError::unavailable(reason)));
                }
                let answer = match self.options.response_timeout {
                    None => answer.await,
                    Some(limit) => {
                        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(late(limit)))
                    }
                };
                (name, answer)
            }
        };
        join_all(chosen.into_iter().map(one)).await
    }
}

/// Merges the answers. Failures become warnings, or the error.
fn joined(
    answers: Vec<(Arc<str>, Result<LabelsAnswer, StoreError>)>,
    no_store: Option<String>,
    partial: PartialResponse,
    limit: Option<usize>,
) -> Result<LabelsAnswer, StoreError> {
    let (mut values, mut warnings) = (BTreeSet::new(), Vec::from_iter(no_store));
    for (name, answer) in answers {
        match answer {
            Ok(answer) => {
                values.extend(answer.values);
                warnings.extend(answer.warnings.into_iter().map(|text| with_store_name(&name, &text)));
            }
            Err(error) => warnings.push(with_store_name(&name, error.message())),
        }
    }
    fail_if_partial(partial, &warnings)?;
    Ok(LabelsAnswer { values: values.into_iter().take(limit.unwrap_or(usize::MAX)).collect(), warnings })
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
        if request.limit == Some(0) {
            return Ok(MetadataAnswer::default());
        }
        let has_some = |c: &Candidate| c.info.as_ref().is_none_or(|info| info.apis.metadata);
        let (chosen, no_store) = self.choose(&StoreFilter::default(), has_some);
        let answers = self.ask(chosen, |candidate| {
            let request = request.clone();
            async move {
                match &candidate.metadata {
                    Some(store) => store.metric_metadata(request).await,
                    None => Ok(MetadataAnswer::default()),
                }
            }
        });
        let mut all = MetadataAnswer { warnings: Vec::from_iter(no_store), ..MetadataAnswer::default() };
        for (name, answer) in answers.await {
            match answer {
                Ok(answer) => {
                    for (metric, entries) in answer.metadata {
                        let known: &mut Vec<MetricMetadata> = all.metadata.entry(metric).or_default();
                        known.extend(entries);
                        known.sort();
                        known.dedup();
                    }
                    all.warnings
                        .extend(answer.warnings.into_iter().map(|text| with_store_name(&name, &text)));
                }
                Err(error) => all.warnings.push(with_store_name(&name, error.message())),
            }
        }
        fail_if_partial(request.partial_response, &all.warnings)?;
        if let Some(limit) = request.limit {
            all.metadata = all.metadata.into_iter().take(limit).collect();
        }
        Ok(all)
    }
}
