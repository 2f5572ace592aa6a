//! A store with its series in memory: a small, complete implementation of StoreAPI that other stores are compared with.

use std::collections::BTreeSet;

use futures::{StreamExt, stream};
use model::{ExternalMatch, Labels, Matcher, Sample, TimeRange, Timestamp};
use series::{AggrChunk, Series};
use tsdb::AppendError;

use crate::{
    LabelNamesRequest, LabelValuesRequest, LabelsAnswer, SeriesFrame, SeriesRequest, SeriesStream, Store,
    StoreError, StoreInfo,
};

/// Series in memory, with one set of external labels.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    component: String,
    external: Labels,
    /// Sorted by their own labels.
    series: Vec<Series>,
    range: TimeRange,
}

impl MemoryStore {
    /// A store of these series. Their label sets must differ and must not contain the external labels.
    pub fn new(external: Labels, mut series: Vec<Series>) -> Self {
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        let ranges = series.iter().flat_map(|s| &s.chunks).map(AggrChunk::range);
        let range = ranges.fold(TimeRange::new(Timestamp::MAX, Timestamp::MIN), |all, r| {
            TimeRange::new(all.min.min(r.min), all.max.max(r.max))
        });
        Self { component: "sidecar".to_owned(), external, series, range }
    }

    /// A store of these floats, encoded in chunks of 120 samples.
    ///
    /// # Errors
    /// When the times of a series do not ascend.
    pub fn from_samples(
        external: Labels,
        series: impl IntoIterator<Item = (Labels, Vec<Sample>)>,
    ) -> Result<Self, AppendError> {
        let encode = |(labels, samples): (Labels, Vec<Sample>)| {
            Ok(Series { labels, chunks: AggrChunk::from_floats(&samples)? })
        };
        Ok(Self::new(external, series.into_iter().map(encode).collect::<Result<_, _>>()?))
    }

    /// The same store under another component name (`sidecar` by default).
    pub fn named(mut self, component: &str) -> Self {
        component.clone_into(&mut self.component);
        self
    }

    /// The series whose own labels satisfy `matchers` and that have a chunk in `range`.
    fn select<'a>(&'a self, matchers: &'a [Matcher], range: TimeRange) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |series| {
            matchers.iter().all(|m| m.matches_labels(&series.labels))
                && series.chunks.iter().any(|chunk| chunk.range().overlaps(&range))
        })
    }
}

#[tonic::async_trait]
impl Store for MemoryStore {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let label_sets = if self.external.is_empty() { Vec::new() } else { vec![self.external.clone()] };
        Ok(StoreInfo::new(&self.component, label_sets, self.range))
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        if request.matchers.is_empty() {
            return Err(StoreError::invalid("no matchers specified"));
        }
        let ExternalMatch::Rest(rest) = ExternalMatch::split(&request.matchers, &self.external) else {
            return Ok(stream::empty().boxed());
        };
        let mut answer = Vec::new();
        for series in self.select(&rest, request.range) {
            let labels = series.labels.extended(&self.external);
            let labels = labels.without(|name| request.without_replica_labels.iter().any(|r| r == name));
            if request.shard.as_ref().is_none_or(|shard| shard.keeps(&labels)) {
                let chunks = series.chunks.iter().filter(|c| c.range().overlaps(&request.range));
                let chunks = if request.skip_chunks { Vec::new() } else { chunks.cloned().collect() };
                answer.push(Series { labels, chunks });
            }
        }
        answer.sort_by(|a, b| a.labels.cmp(&b.labels));
        if request.skip_chunks {
            answer.dedup_by(|a, b| a.labels == b.labels);
        }
        answer.truncate(request.limit.unwrap_or(usize::MAX));
        Ok(stream::iter(answer).map(|series| Ok(SeriesFrame::Series(vec![series]))).boxed())
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        let ExternalMatch::Rest(rest) = ExternalMatch::split(&request.matchers, &self.external) else {
            return Ok(LabelsAnswer::default());
        };
        let mut names = BTreeSet::new();
        for series in self.select(&rest, request.range) {
            names.extend(series.labels.iter().map(|label| label.name));
        }
        if !names.is_empty() {
            names.extend(self.external.iter().map(|label| label.name));
        }
        names.retain(|name| !request.without_replica_labels.iter().any(|r| r == name));
        Ok(answer(names, request.limit))
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        if request.label.is_empty() {
            return Err(StoreError::invalid("label values: the label name must not be empty"));
        }
        if request.without_replica_labels.contains(&request.label) {
            return Ok(LabelsAnswer::default());
        }
        let ExternalMatch::Rest(rest) = ExternalMatch::split(&request.matchers, &self.external) else {
            return Ok(LabelsAnswer::default());
        };
        let mut series = self.select(&rest, request.range);
        let values = match self.external.get(&request.label) {
            Some(value) if rest.is_empty() || series.next().is_some() => BTreeSet::from([value]),
            Some(_) => BTreeSet::new(),
            None => series.filter_map(|s| s.labels.get(&request.label)).collect(),
        };
        Ok(answer(values, request.limit))
    }
}

fn answer(values: BTreeSet<&str>, limit: Option<usize>) -> LabelsAnswer {
    let values = values.into_iter().take(limit.unwrap_or(usize::MAX)).map(str::to_owned).collect();
    LabelsAnswer { values, ..LabelsAnswer::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn memory_store_passes_the_acceptance_suite() {
        crate::acceptance::run(|dataset| async move {
            let store = MemoryStore::from_samples(dataset.external, dataset.series).unwrap();
            (Arc::new(store) as Arc<dyn Store>, ())
        })
        .await;
    }
}
