//! All stores as one store.

use std::collections::BTreeSet;
use std::sync::Arc;

use budget::Budget;
use futures::{StreamExt, stream};
use model::{ExternalMatch, Labels, Matcher, TimeRange, Timestamp};
use storeapi::{
    Apis, Kept, LabelNamesRequest, LabelValuesRequest, LabelsAnswer, PartialResponse, SeriesFrame,
    SeriesRequest, SeriesStream, Store, StoreError, StoreInfo, TsdbInfo,
};

use crate::endpoints::{Candidate, StoreSource, believed_range, with_store_name};
use crate::fanout::enforced::enforce;
use crate::fanout::filter::StoreFilter;
use crate::fanout::input::{SharedRead, Standing, StoreInput, standing};
use crate::fanout::merged::{Fanout, FanoutEvent};
use crate::fanout::options::ProxyOptions;
use crate::fanout::read_ahead::{ReadAhead, batch_size};
use crate::fanout::report::FanoutMetrics;
use crate::memory;

/// The warning of an answer for which no store could be asked.
const NO_STORES: &str =
    "no stores are known: no --endpoint was found, and no cluster has joined the mesh of a --gateway yet";

/// All stores of a source as one store. Clones share all state.
#[derive(Clone)]
pub struct ProxyStore {
    pub(super) source: Arc<dyn StoreSource>,
    pub(super) options: Arc<ProxyOptions>,
    metrics: FanoutMetrics,
}

impl ProxyStore {
    /// Creates a store of all stores of `source`.
    pub fn new(source: Arc<dyn StoreSource>, options: ProxyOptions, metrics: FanoutMetrics) -> Self {
        Self { source, options: Arc::new(options), metrics }
    }

    /// The same stores, whose damaged chunks are dropped with a warning.
    pub(crate) fn verifying_chunks(&self) -> Self {
        let options = ProxyOptions { verify_chunks: true, ..ProxyOptions::clone(&self.options) };
        Self { options: Arc::new(options), ..self.clone() }
    }

    /// Whether series are certain to have all labels that they are matched by. Selector labels, which only
    /// queriers have, answer matchers but are on no series.
    pub(crate) fn series_carry_labels(&self) -> bool {
        let carries = |candidate: &Candidate| {
            let component = candidate.info.as_ref().map(|info| info.component.as_str());
            matches!(component, Some("sidecar" | "store" | "rule" | "receive"))
        };
        self.options.selector_labels.is_empty() && self.source.candidates().iter().all(carries)
    }

    /// Those of these labels that no store has as an external label; none of them while a store has not said its labels.
    pub(crate) fn labels_of_no_store(&self, names: &[String]) -> Vec<String> {
        let candidates = self.source.candidates();
        let sets: Vec<&[Labels]> = candidates.iter().map(Candidate::label_sets).collect();
        if sets.is_empty() || sets.iter().any(|sets| sets.is_empty()) {
            return Vec::new();
        }
        let has = |name: &str| sets.iter().copied().flatten().any(|set| set.get(name).is_some());
        names.iter().filter(|name| !has(name)).cloned().collect()
    }

    /// Labels that this querier adds to each label set it announces.
    pub(crate) fn selector_labels(&self) -> &Labels {
        &self.options.selector_labels
    }

    /// The candidates that a request must ask, of those that `filter` allows. Also returns a warning if it
    /// allows none, because such an answer would look like an empty one.
    ///
    /// # Errors
    /// `Unavailable` while it is not known which stores there are.
    pub(super) fn choose(
        &self,
        filter: &StoreFilter,
        may_hold: impl Fn(&Candidate) -> bool,
    ) -> Result<(Vec<Candidate>, Option<String>), StoreError> {
        self.check_ready()?;
        let mut candidates = self.source.candidates();
        let known = candidates.len();
        candidates.retain(|candidate| filter.allows(&candidate.name));
        let no_store = match (candidates.len(), known) {
            (0, 0) => Some(NO_STORES.to_owned()),
            (0, _) => Some(format!("storeMatch[] matches none of the {known} known stores")),
            _ => None,
        };
        candidates.retain(may_hold);
        Ok((candidates, no_store))
    }

    fn check_ready(&self) -> Result<(), StoreError> {
        self.source.unready().map_or(Ok(()), |reason| Err(StoreError::unavailable(reason)))
    }

    /// Asks all stores that `filter` allows and that may have matching series.
    ///
    /// # Errors
    /// `InvalidArgument` if the request has no matchers; `Unavailable` while it is not known which stores there are.
    pub fn select(&self, request: SeriesRequest, filter: &StoreFilter) -> Result<Fanout, StoreError> {
        self.select_within(request, filter, &self.options.budget())
    }

    /// Like [`select`](Self::select); series that wait in queues count towards `budget`.
    ///
    /// # Errors
    /// As for [`select`](Self::select).
    pub fn select_within(
        &self,
        request: SeriesRequest,
        filter: &StoreFilter,
        budget: &Budget,
    ) -> Result<Fanout, StoreError> {
        self.select_ahead(request, filter, budget, &self.read_ahead())
    }

    /// A window for all selects of a query.
    pub(crate) fn read_ahead(&self) -> ReadAhead {
        ReadAhead::new(self.options.window_bytes)
    }

    /// Like [`select_within`](Self::select_within), with a window that other selects use too.
    ///
    /// # Errors
    /// As for [`select`](Self::select), and if the budget has no memory for the streams.
    pub(crate) fn select_ahead(
        &self,
        mut request: SeriesRequest,
        filter: &StoreFilter,
        budget: &Budget,
        read_ahead: &ReadAhead,
    ) -> Result<Fanout, StoreError> {
        let (partial, limit, range) = (request.partial_response, request.limit, request.range);
        let empty = || Fanout::new(Vec::new(), range, partial, limit, self.metrics.clone());
        if request.matchers.is_empty() {
            return Err(StoreError::invalid("no matchers specified"));
        }
        enforce(&mut request.matchers);
        request.matchers = match ExternalMatch::split(&request.matchers, &self.options.selector_labels) {
            ExternalMatch::Nothing => return Ok(empty()),
            ExternalMatch::Rest(rest) => rest,
        };
        if request.matchers.is_empty() {
            // The selector labels satisfy all matchers. A store needs at least one.
            Matcher::require_name(&mut request.matchers);
        }
        let (chosen, no_store) = self.choose(filter, |c| c.may_hold(&request.matchers, request.range))?;
        request.batch_size = batch_size(chosen.len());
        let mut streams =
            read_ahead.streams(chosen.len(), budget).map_err(|limit| memory::limit_error(&limit))?;
        let shared = SharedRead { options: &self.options, budget, read_ahead, window: streams.window };
        let (mut inputs, mut missing, mut outdated_stores) = (Vec::new(), Vec::new(), Vec::new());
        for candidate in &chosen {
            let outdated = match standing(candidate, Some(request.range)) {
                Standing::Missing(reason) => {
                    missing.push((Arc::clone(&candidate.name), reason));
                    continue;
                }
                Standing::Outdated(reason) => Some(reason),
                Standing::Good => None,
            };
            outdated_stores.extend(outdated.map(|reason| with_store_name(&candidate.name, &reason)));
            // The answer will be an error, so no further store is asked.
            if partial == PartialResponse::Abort && !(missing.is_empty() && outdated_stores.is_empty()) {
                continue;
            }
            let input = StoreInput::open(candidate, &request, &shared, streams.take());
            inputs.push((Arc::clone(&candidate.name), input));
        }
        let mut fanout = Fanout::new(inputs, range, partial, limit, self.metrics.clone());
        for (name, reason) in missing {
            fanout.missing(&name, reason);
        }
        outdated_stores.into_iter().chain(no_store).for_each(|text| fanout.warn(text));
        Ok(fanout)
    }
}

#[tonic::async_trait]
impl Store for ProxyStore {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        self.check_ready()?;
        let selector = &self.options.selector_labels;
        let mut label_sets = BTreeSet::new();
        let mut tsdbs = Vec::new();
        let candidates = self.source.candidates();
        // A caller skips this querier if no announced label set or time matches. That must not happen for
        // stores that have not answered Info, or that may have any series.
        let mut anything = candidates.is_empty();
        let mut range =
            if anything { TimeRange::ALL } else { TimeRange::new(Timestamp::MAX, Timestamp::MIN) };
        for candidate in &candidates {
            let Some(info) = candidate.info.as_deref() else {
                range = TimeRange::ALL;
                anything |= candidate.bound.is_empty();
                let labels = candidate.bound.extended(selector);
                label_sets.insert(labels.clone());
                tsdbs.push(TsdbInfo { labels, range });
                continue;
            };
            if !info.apis.store {
                continue;
            }
            let believed = believed_range(info, info.range);
            range = TimeRange::new(range.min.min(believed.min), range.max.max(believed.max));
            anything |= info.label_sets.is_empty();
            label_sets.extend(info.label_sets.iter().map(|set| set.extended(selector)));
            let extended = |tsdb: &TsdbInfo| TsdbInfo {
                labels: tsdb.labels.extended(selector),
                range: believed_range(info, tsdb.range),
            };
            tsdbs.extend(info.tsdbs.iter().map(extended));
            if info.tsdbs.is_empty() {
                let sets = info.label_sets.iter().map(|set| set.extended(selector));
                tsdbs.extend(sets.map(|labels| TsdbInfo { labels, range: info.range }));
            }
        }
        if anything {
            // A querier of Thanos in distributed mode sends no query to a querier without TSDBs.
            tsdbs = vec![TsdbInfo { labels: selector.clone(), range: TimeRange::ALL }];
            label_sets.clear();
            label_sets.extend((!selector.is_empty()).then(|| selector.clone()));
        }
        Ok(StoreInfo {
            component: "query".to_owned(),
            label_sets: label_sets.into_iter().collect(),
            range,
            supports_sharding: true,
            supports_without_replica_labels: true,
            tsdbs,
            apis: Apis {
                store: true,
                rules: true,
                metadata: true,
                targets: true,
                exemplars: true,
                query: true,
                status: true,
            },
            warnings: Vec::new(),
        })
    }

    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        let skip_chunks = request.skip_chunks;
        let fanout = self.select(request, &StoreFilter::default())?;
        let frames = stream::unfold(fanout, move |mut fanout| async move {
            let frame = match fanout.next().await? {
                Err(error) => Err(error),
                Ok(FanoutEvent::Warning(text)) => Ok(SeriesFrame::Warning(text)),
                Ok(FanoutEvent::Series(batch)) => {
                    let series = batch.into_iter().map(|series| series.into_series());
                    Ok(SeriesFrame::Series(match skip_chunks {
                        true => series.map(|s| series::Series { chunks: Vec::new(), ..s }).collect(),
                        false => series.collect(),
                    }))
                }
            };
            Some((frame, fanout))
        });
        Ok(frames.boxed())
    }

    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        let (answer, reserved) = self.names(request, &StoreFilter::default(), &self.options.budget()).await?;
        Ok(LabelsAnswer { kept: Kept::new(reserved), ..answer })
    }

    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        let (answer, reserved) =
            self.values(request, &StoreFilter::default(), &self.options.budget()).await?;
        Ok(LabelsAnswer { kept: Kept::new(reserved), ..answer })
    }
}
