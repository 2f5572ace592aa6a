//! Requests to a data folder.

use std::sync::Arc;

use futures::{StreamExt, stream};
use head::DatabaseView;
use model::{ExternalMatch, Labels, Matcher, TimeRange, Timestamp};
use series::Producer;
use storeapi::{
    Apis, LabelNamesRequest, LabelValuesRequest, LabelsAnswer, PartialResponse, SeriesRequest, SeriesStream,
    Store, StoreError, StoreInfo,
};
use tokio::sync::{Semaphore, watch};

use crate::answer::Answer;
use crate::data::LocalData;
use crate::labels;
use crate::lists::LocalLists;
use crate::question::{Narrowed, Question};
use crate::thread::off_thread;

/// Label requests and lists that are answered at the same time. Further ones wait.
const CONCURRENT_LISTS: usize = 4;

/// How a data folder is served.
#[derive(Clone)]
pub struct LocalStoreOptions {
    /// What Info announces as the component.
    pub component: &'static str,
    /// The external labels now.
    pub external: watch::Receiver<Labels>,
    /// Earlier samples are not served now.
    pub serve_from: watch::Receiver<Timestamp>,
    /// What Info announces besides the StoreAPI, metadata, exemplars and statistics.
    pub apis: Apis,
}

/// Serves a data folder. Clones share it.
#[derive(Clone)]
pub struct LocalStore {
    data: LocalData,
    options: LocalStoreOptions,
    /// The samples of one folder have one producer, also without external labels.
    is_alone: bool,
    pub(crate) lists: Arc<dyn LocalLists>,
    pub(crate) permits: Arc<Semaphore>,
}

impl LocalStore {
    /// Serves `data`.
    pub fn new(data: LocalData, options: LocalStoreOptions, lists: Arc<dyn LocalLists>) -> Self {
        let permits = Arc::new(Semaphore::new(CONCURRENT_LISTS));
        Self { data, options, is_alone: false, lists, permits }
    }

    /// The same data without external labels, and all of it, for queries over nothing else, as those of a Prometheus.
    #[must_use]
    pub fn for_queries(&self) -> Self {
        let options = LocalStoreOptions {
            external: watch::channel(Labels::empty()).1,
            serve_from: watch::channel(Timestamp::MIN).1,
            ..self.options.clone()
        };
        Self { options, is_alone: true, ..self.clone() }
    }

    /// The data folder.
    pub fn data(&self) -> &LocalData {
        &self.data
    }

    pub(crate) fn external(&self) -> Labels {
        self.options.external.borrow().clone()
    }

    fn producer(&self, external: &Labels) -> Option<Producer> {
        if self.is_alone { Producer::from_number(1) } else { Producer::of(external) }
    }

    /// Restricts a request to what the folder must answer; `None` if nothing can match.
    pub(crate) fn narrow(&self, matchers: &[Matcher], range: TimeRange) -> Option<Narrowed> {
        let external = self.external();
        let floor = *self.options.serve_from.borrow();
        let range = TimeRange::new(range.min.max(floor), range.max);
        let ExternalMatch::Rest(matchers) = ExternalMatch::split(matchers, &external) else { return None };
        (!range.is_empty()).then_some(Narrowed { external, matchers, range })
    }

    /// Answers with label names or values, on a thread of its own.
    async fn listed(
        &self,
        narrowed: Narrowed,
        partial_response: PartialResponse,
        read: impl FnOnce(&Narrowed, &DatabaseView) -> Result<labels::Found, StoreError> + Send + 'static,
    ) -> Result<labels::Found, StoreError> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let data = self.data.clone();
        let work = move || {
            let _permit = permit;
            let (view, warnings) = data.view(narrowed.range)?;
            let mut found = read(&narrowed, &view)?;
            found.warnings.splice(0..0, warnings);
            match found.warnings.first() {
                Some(warning) if partial_response == PartialResponse::Abort => {
                    Err(StoreError::aborted(warning.clone()))
                }
                _ => Ok(found),
            }
        };
        off_thread(work).await
    }
}

#[tonic::async_trait]
impl Store for LocalStore {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        let database = Arc::clone(self.data.database()?);
        let first = off_thread(move || {
            let blocks = database.blocks(TimeRange::ALL);
            let blocks = blocks.iter().map(|block| block.block.meta().min_time);
            Ok(blocks.chain(database.head().stats().times.map(|times| times.min)).min())
        });
        let first = first.await?.unwrap_or(Timestamp::MAX).max(*self.options.serve_from.borrow());
        let external = self.external();
        let sets = if external.is_empty() { Vec::new() } else { vec![external] };
        // The end is open: there will be samples at any time.
        let mut info = StoreInfo::new(self.options.component, sets, TimeRange::new(first, Timestamp::MAX));
        info.apis = Apis { store: true, metadata: true, exemplars: true, status: true, ..self.options.apis };
        Ok(info)
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        if request.matchers.is_empty() {
            return Err(StoreError::invalid("no matchers specified"));
        }
        self.data.database()?;
        let Some(narrowed) = self.narrow(&request.matchers, request.range) else {
            return Ok(stream::empty().boxed());
        };
        let (view, warnings) = self.data.view(narrowed.range)?;
        let producer = self.producer(&narrowed.external);
        let question = Question { narrowed, request, producer };
        let answer = Answer::new(question, view, warnings);
        let step = |answer: Option<Answer>| async move {
            let Some(mut answer) = answer else { return Ok(None) };
            let (frame, answer) = off_thread(move || Ok((answer.next_frame()?, answer))).await?;
            Ok(frame.map(|frame| (frame, Some(answer))))
        };
        Ok(stream::try_unfold(Some(answer), step).boxed())
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        self.data.database()?;
        let Some(narrowed) = self.narrow(&request.matchers, request.range) else {
            return Ok(LabelsAnswer::default());
        };
        let external = narrowed.external.clone();
        let found = self.listed(narrowed, request.partial_response, labels::names);
        let mut found = found.await?;
        if !found.values.is_empty() {
            found.values.extend(external.iter().map(|label| label.name.to_owned()));
        }
        found.values.retain(|name| !request.without_replica_labels.contains(name));
        Ok(found.answer(request.limit))
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        if request.label.is_empty() {
            return Err(StoreError::invalid("label name parameter cannot be empty"));
        }
        self.data.database()?;
        let Some(narrowed) = self.narrow(&request.matchers, request.range) else {
            return Ok(LabelsAnswer::default());
        };
        if request.without_replica_labels.contains(&request.label) {
            return Ok(LabelsAnswer::default());
        }
        let external = narrowed.external.get(&request.label).map(str::to_owned);
        let label = request.label;
        let Some(value) = external else {
            let read = move |narrowed: &Narrowed, view: &DatabaseView| labels::values(narrowed, view, &label);
            return Ok(self.listed(narrowed, request.partial_response, read).await?.answer(request.limit));
        };
        // An external label has the same value in each series. It is returned if at least one series matches.
        let mut found = self.listed(narrowed, request.partial_response, labels::any).await?;
        if !found.values.is_empty() {
            found.values = [value].into();
        }
        Ok(found.answer(request.limit))
    }
}
