//! The Prometheus of the sidecar as a store.

mod listing;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use model::{ExternalMatch, Labels, Matcher, TimeRange, Timestamp, is_legacy_label_name};
use promapi::{ClientError, PrometheusClient, ReadQuery, SeriesSelection};
use runtime::TimeArg;
use storeapi::{
    Apis, Code, LabelNamesRequest, LabelValuesRequest, LabelsAnswer, MetadataAnswer, MetadataRequest,
    MetadataStore, MetricMetadata, SeriesFrame, SeriesRequest, SeriesStream, Store, StoreError, StoreInfo,
};
use tokio::sync::{Semaphore, watch};

use crate::metrics::SidecarMetrics;
use crate::series_answer::{LabelRewriter, SeriesAnswer};
use crate::upstream::{PrometheusFacts, PrometheusState, StateReporter};

/// Series in one frame of an answer without chunks.
const LABEL_SETS_A_FRAME: usize = 256;
/// Requests for rules, targets, exemplars and statistics that are answered at the same time. Each keeps the answer of
/// Prometheus in memory, at most 64 MiB of JSON. Further requests wait.
const CONCURRENT_LISTS: usize = 4;

/// Serves one Prometheus through its HTTP API and remote read.
#[derive(Clone)]
pub(crate) struct PrometheusStore {
    client: PrometheusClient,
    state: watch::Receiver<PrometheusState>,
    reporter: StateReporter,
    /// Older data is not served.
    min_time: TimeArg,
    /// The sidecar must serve data from this time on; older data is in the bucket.
    serve_from: watch::Receiver<Timestamp>,
    metrics: SidecarMetrics,
    lists: Arc<Semaphore>,
}

/// A request after its matchers for external labels were evaluated.
struct NarrowedRequest {
    facts: PrometheusFacts,
    matchers: Vec<Matcher>,
    range: TimeRange,
}

impl PrometheusStore {
    pub(crate) fn new(
        client: PrometheusClient,
        state: watch::Receiver<PrometheusState>,
        reporter: StateReporter,
        min_time: TimeArg,
        serve_from: watch::Receiver<Timestamp>,
        metrics: SidecarMetrics,
    ) -> Self {
        let lists = Arc::new(Semaphore::new(CONCURRENT_LISTS));
        Self { client, state, reporter, min_time, serve_from, metrics, lists }
    }

    /// The error of a failed request to Prometheus. If Prometheus does not answer at all, the sidecar is not ready before the
    /// caller receives the error.
    async fn failed(&self, error: ClientError) -> StoreError {
        let error = upstream_error(error);
        if error.code() == Code::Unavailable {
            self.reporter.probe().await;
        }
        error
    }

    fn facts(&self) -> Result<PrometheusFacts, StoreError> {
        let state = self.state.borrow();
        state.clone().map_err(|reason| StoreError::unavailable(format!("not ready: {reason}")))
    }

    async fn answered<T>(&self, answer: Result<T, ClientError>) -> Result<T, StoreError> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(error).await),
        }
    }

    /// The time range that this store serves: that of Prometheus, without data that is older than
    /// `--min-time` or served from the bucket.
    fn served(&self, facts: &PrometheusFacts) -> TimeRange {
        let floor = self.min_time.at(crate::now()).max(*self.serve_from.borrow());
        TimeRange::new(facts.min_time.max(floor), TimeRange::ALL.max)
    }

    /// Restricts a request to the part that Prometheus must answer; `None` if nothing can match.
    fn narrow(&self, matchers: &[Matcher], range: TimeRange) -> Result<Option<NarrowedRequest>, StoreError> {
        let facts = self.facts()?;
        let range = range.intersect(&self.served(&facts));
        let ExternalMatch::Rest(mut rest) = ExternalMatch::split(matchers, &facts.external) else {
            return Ok(None);
        };
        if !facts.utf8_names {
            let Some(known) = without_utf8_names(rest) else { return Ok(None) };
            rest = known;
        }
        Ok((!range.is_empty()).then_some(NarrowedRequest { facts, matchers: rest, range }))
    }

    /// Like [`narrow`](Self::narrow), with matchers that Prometheus accepts in a request for labels: none, or at least one
    /// that does not match the empty string.
    fn narrow_labels(
        &self,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<Option<NarrowedRequest>, StoreError> {
        let mut narrowed = self.narrow(matchers, range)?;
        if let Some(narrowed) = narrowed.as_mut().filter(|narrowed| !narrowed.matchers.is_empty()) {
            Matcher::require_name(&mut narrowed.matchers);
        }
        Ok(narrowed)
    }

    /// Answers with label sets without chunks, from the index of Prometheus.
    async fn label_sets(
        &self,
        narrowed: &NarrowedRequest,
        request: &SeriesRequest,
    ) -> Result<SeriesStream, StoreError> {
        let selection = SeriesSelection { matchers: &narrowed.matchers, range: narrowed.range, limit: None };
        let answer = self.answered(self.client.series(selection).await).await?;
        let rewriter = LabelRewriter::new(&narrowed.facts.external, &request.without_replica_labels);
        let kept = answer.data.iter().map(|labels| rewriter.rewrite(labels));
        let sets: BTreeSet<Labels> =
            kept.filter(|labels| request.shard.as_ref().is_none_or(|shard| shard.keeps(labels))).collect();
        let limit = request.limit.unwrap_or(usize::MAX);
        let series: Vec<series::Series> = sets
            .into_iter()
            .take(limit)
            .map(|labels| series::Series { labels, chunks: Vec::new() })
            .collect();
        let warnings = answer.warnings.into_iter().map(SeriesFrame::Warning);
        let frames = series.chunks(LABEL_SETS_A_FRAME).map(|part| SeriesFrame::Series(part.to_vec()));
        let frames: Vec<_> = warnings.chain(frames).map(Ok).collect();
        Ok(stream::iter(frames).boxed())
    }
}

#[tonic::async_trait]
impl Store for PrometheusStore {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let facts = self.facts()?;
        let mut info = StoreInfo::new("sidecar", vec![facts.external.clone()], self.served(&facts));
        info.apis = Apis {
            store: true,
            rules: true,
            metadata: true,
            targets: true,
            exemplars: true,
            query: false,
            status: true,
        };
        info.warnings = facts.warnings;
        Ok(info)
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        if request.matchers.is_empty() {
            return Err(StoreError::invalid("no matchers specified"));
        }
        let Some(mut narrowed) = self.narrow(&request.matchers, request.range)? else {
            return Ok(stream::empty().boxed());
        };
        Matcher::require_name(&mut narrowed.matchers);
        if request.skip_chunks {
            return self.label_sets(&narrowed, &request).await;
        }
        let NarrowedRequest { facts, matchers, range } = narrowed;
        let read = self.client.read(&ReadQuery { matchers, range }).await;
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                self.metrics.failed_read();
                return Err(self.failed(error).await);
            }
        };
        let reporter = self.reporter.clone();
        let answer_stream =
            SeriesAnswer::new(read, &facts, &request, self.client.url(), reporter, self.metrics.clone());
        let frames: BoxStream<'static, _> =
            stream::try_unfold(answer_stream, |mut answer_stream| async move {
                let frame = answer_stream.next().await?;
                Ok(frame.map(|frame| (frame, answer_stream)))
            })
            .boxed();
        Ok(frames)
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        let Some(narrowed) = self.narrow_labels(&request.matchers, request.range)? else {
            return Ok(LabelsAnswer::default());
        };
        let selection = SeriesSelection { matchers: &narrowed.matchers, range: narrowed.range, limit: None };
        let answer = self.answered(self.client.label_names(selection).await).await?;
        let mut names: BTreeSet<String> = answer.data.into_iter().collect();
        if !names.is_empty() {
            names.extend(narrowed.facts.external.iter().map(|label| label.name.to_owned()));
        }
        names.retain(|name| !request.without_replica_labels.contains(name));
        Ok(labels_answer(names, answer.warnings, request.limit))
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        if request.label.is_empty() {
            return Err(StoreError::invalid("label name parameter cannot be empty"));
        }
        let Some(narrowed) = self.narrow_labels(&request.matchers, request.range)? else {
            return Ok(LabelsAnswer::default());
        };
        if request.without_replica_labels.contains(&request.label) {
            return Ok(LabelsAnswer::default());
        }
        if !narrowed.facts.utf8_names && !is_legacy_label_name(&request.label) {
            return Ok(LabelsAnswer::default());
        }
        let mut selection =
            SeriesSelection { matchers: &narrowed.matchers, range: narrowed.range, limit: None };
        let Some(external) = narrowed.facts.external.get(&request.label) else {
            let answer = self.answered(self.client.label_values(&request.label, selection).await).await?;
            return Ok(labels_answer(answer.data.into_iter().collect(), answer.warnings, request.limit));
        };
        // An external label has the same value in each series. It is returned if at least one series matches.
        selection.limit = Some(1);
        let (found, warnings) = if narrowed.matchers.is_empty() {
            (true, Vec::new())
        } else {
            let names = self.answered(self.client.label_names(selection).await).await?;
            (!names.data.is_empty(), names.warnings)
        };
        let values = found.then(|| external.to_owned()).into_iter().collect();
        Ok(labels_answer(values, warnings, request.limit))
    }
}

#[tonic::async_trait]
impl MetadataStore for PrometheusStore {
    async fn metric_metadata(&self, request: MetadataRequest) -> Result<MetadataAnswer, StoreError> {
        if request.limit == Some(0) {
            return Ok(MetadataAnswer::default());
        }
        let answer = self.client.metadata(request.metric.as_deref(), request.limit).await;
        let answer = self.answered(answer).await?;
        let entry = |e: promapi::MetadataEntry| MetricMetadata { kind: e.kind, help: e.help, unit: e.unit };
        let metadata =
            answer.data.into_iter().map(|(name, all)| (name, all.into_iter().map(entry).collect())).collect();
        Ok(MetadataAnswer { metadata, warnings: answer.warnings, ..MetadataAnswer::default() })
    }
}

/// The matchers for a Prometheus that rejects UTF-8 names of labels, without those for such labels, which are empty there.
/// `None` if nothing can match.
fn without_utf8_names(mut matchers: Vec<Matcher>) -> Option<Vec<Matcher>> {
    let is_unknown = |matcher: &Matcher| !is_legacy_label_name(matcher.name());
    if matchers.iter().any(|matcher| is_unknown(matcher) && !matcher.matches_empty()) {
        return None;
    }
    matchers.retain(|matcher| !is_unknown(matcher));
    Some(matchers)
}

fn labels_answer(values: BTreeSet<String>, warnings: Vec<String>, limit: Option<usize>) -> LabelsAnswer {
    let values = values.into_iter().take(limit.unwrap_or(usize::MAX)).collect();
    LabelsAnswer { values, warnings, ..LabelsAnswer::default() }
}

/// Converts an error of Prometheus to the corresponding gRPC code; see the table in `promclient` of Thanos.
fn upstream_error(error: ClientError) -> StoreError {
    let code = match error.status().map(|status| status.as_u16()) {
        Some(400) => Code::InvalidArgument,
        Some(404) => Code::NotFound,
        Some(503) | None => Code::Unavailable,
        Some(_) => Code::Internal,
    };
    // The error may reach another team. The log of the sidecar has the URL.
    StoreError::new(code, error.without_address())
}
