//! Label names, label values and metadata of all stores.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use model::ExternalMatch;
use storeapi::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataAnswer, MetadataRequest, MetadataStore,
    MetricMetadata, PartialResponse, StoreError,
};

use crate::endpoints::Candidate;
use crate::fanout::input::{late, unavailable, under_name};
use crate::fanout::{ProxyStore, StoreFilter};

impl ProxyStore {
    /// Label names of all stores that can hold series of this request, of those that `filter` allows.
    ///
    /// # Errors
    /// Where the request does not take a partial answer: the first store that failed.
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
        let (chosen, nobody) = self.choose(filter, |c| c.may_hold(&request.matchers, range));
        let answers = self.ask(chosen, |candidate| {
            let request = request.clone();
            async move { candidate.store.label_names(request).await }
        });
        joined(answers.await, nobody, partial, limit)
    }

    /// Values of one label, as [`names`](Self::names).
    ///
    /// # Errors
    /// `InvalidArgument` when the label has no name; otherwise as `names`.
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
        let (chosen, nobody) = self.choose(filter, |c| c.may_hold(&request.matchers, range));
        let answers = self.ask(chosen, |candidate| {
            let request = request.clone();
            async move { candidate.store.label_values(request).await }
        });
        joined(answers.await, nobody, partial, limit)
    }

    /// Asks all at once and gives what each said, in their order.
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

/// One answer of many; what failed becomes a warning or the error.
fn joined(
    answers: Vec<(Arc<str>, Result<LabelsAnswer, StoreError>)>,
    nobody: Option<String>,
    partial: PartialResponse,
    limit: Option<usize>,
) -> Result<LabelsAnswer, StoreError> {
    let (mut values, mut warnings) = (BTreeSet::new(), Vec::from_iter(nobody));
    for (name, answer) in answers {
        match answer {
            Ok(answer) => {
                values.extend(answer.values);
                warnings.extend(answer.warnings.into_iter().map(|text| under_name(&name, &text)));
            }
            Err(error) => warnings.push(under_name(&name, error.message())),
        }
    }
    give_up(partial, &warnings)?;
    Ok(LabelsAnswer { values: values.into_iter().take(limit.unwrap_or(usize::MAX)).collect(), warnings })
}

fn give_up(partial: PartialResponse, warnings: &[String]) -> Result<(), StoreError> {
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
        let (chosen, nobody) = self.choose(&StoreFilter::default(), has_some);
        let answers = self.ask(chosen, |candidate| {
            let request = request.clone();
            async move {
                match &candidate.metadata {
                    Some(store) => store.metric_metadata(request).await,
                    None => Ok(MetadataAnswer::default()),
                }
            }
        });
        let mut all = MetadataAnswer { warnings: Vec::from_iter(nobody), ..MetadataAnswer::default() };
        for (name, answer) in answers.await {
            match answer {
                Ok(answer) => {
                    for (metric, entries) in answer.metadata {
                        let known: &mut Vec<MetricMetadata> = all.metadata.entry(metric).or_default();
                        known.extend(entries);
                        known.sort();
                        known.dedup();
                    }
                    all.warnings.extend(answer.warnings.into_iter().map(|text| under_name(&name, &text)));
                }
                Err(error) => all.warnings.push(under_name(&name, error.message())),
            }
        }
        give_up(request.partial_response, &all.warnings)?;
        if let Some(limit) = request.limit {
            all.metadata = all.metadata.into_iter().take(limit).collect();
        }
        Ok(all)
    }
}
