//! Rules, targets, exemplars and TSDB statistics of all stores: gathers them, for HTTP and gRPC, and merges those of
//! replicas.
//!
//! Over gRPC the lists are passed on as they are: the client merges them, with its own replica labels.

mod enforced;
pub(crate) mod exemplars;
pub(crate) mod rules;
pub(crate) mod statistics;
pub(crate) mod targets;

use budget::{Budget, BudgetLimits, Interrupt};
use model::ExternalMatch;
use promapi::{ExemplarSeries, RuleGroup, TargetDiscovery};
use storeapi::{
    AnswerMemory, ExemplarsRequest, Listed, ListingStore, RulesRequest, StoreError, TargetsRequest,
    TenantTsdbStatus, TsdbStatusRequest,
};

use crate::fanout::{ProxyStore, StoreFilter};
use crate::query::Driver;
use enforced::Permitted;

/// The lists of all stores. Clones share all state.
#[derive(Clone)]
pub(crate) struct Lists {
    stores: ProxyStore,
    driver: Driver,
}

impl Lists {
    pub(crate) fn new(stores: ProxyStore, driver: Driver) -> Self {
        Self { stores, driver }
    }

    /// A budget for one list, with the limits of a query.
    pub(crate) fn budget(&self) -> Budget {
        let engine = self.driver.engine();
        Budget::new(&engine.total, BudgetLimits::bytes(engine.max_bytes), Interrupt::new())
    }

    /// The groups of rules of all stores.
    ///
    /// # Errors
    /// The memory is exhausted. If the request rejects partial answers: the error of the first store that failed.
    pub(crate) async fn rules(
        &self,
        request: &RulesRequest,
        filter: &StoreFilter,
        memory: &AnswerMemory,
    ) -> Result<Listed<RuleGroup>, StoreError> {
        let all = self.stores.gather(filter, request.partial_response, memory, |_| Some(request.clone()));
        let mut all = all.await?;
        Permitted::now().keep_rules(&mut all.items);
        Ok(all)
    }

    /// The targets of all stores.
    ///
    /// # Errors
    /// As for [`rules`](Self::rules).
    pub(crate) async fn targets(
        &self,
        request: &TargetsRequest,
        filter: &StoreFilter,
        memory: &AnswerMemory,
    ) -> Result<Listed<TargetDiscovery>, StoreError> {
        let permitted = Permitted::now();
        let request_of =
            |store: &_| (!request.alertmanagers || permitted.admits_store(store)).then(|| request.clone());
        let mut all = self.stores.gather(filter, request.partial_response, memory, request_of).await?;
        permitted.keep_targets(&mut all.items);
        if request.alertmanagers {
            // A store may have sent its targets, too.
            for part in &mut all.items {
                *part = TargetDiscovery { alertmanagers: part.alertmanagers.take(), ..Default::default() };
            }
        }
        Ok(all)
    }

    /// The exemplars of all stores that may have series that the query selects.
    ///
    /// # Errors
    /// `InvalidArgument` if the query cannot be parsed; otherwise as for [`rules`](Self::rules).
    pub(crate) async fn exemplars(
        &self,
        request: &ExemplarsRequest,
        filter: &StoreFilter,
        memory: &AnswerMemory,
    ) -> Result<Listed<ExemplarSeries>, StoreError> {
        let (text, parse) = (request.query.clone(), self.driver.engine().parse);
        let work = move || promql::parse(&text, &parse).map(|expr| promql::selectors(&expr));
        let parsed = self.driver.planner().run(work).await;
        let parsed = parsed.ok_or_else(|| StoreError::internal("the parser panicked; see the log"))?;
        let mut selectors = parsed.map_err(|cause| StoreError::invalid(cause.to_string()))?;
        let permitted = Permitted::now();
        permitted.narrow(&mut selectors);
        let selectors = exemplars::within(&selectors, self.stores.selector_labels());
        if selectors.is_empty() {
            return Ok(Listed::default());
        }
        let request_of = |store: &_| {
            let query = exemplars::narrowed(&selectors, store)?;
            Some(ExemplarsRequest { query, ..request.clone() })
        };
        let mut all = self.stores.gather(filter, request.partial_response, memory, request_of).await?;
        permitted.keep_exemplars(&mut all.items);
        Ok(all)
    }

    /// The statistics of all stores whose external labels may match.
    ///
    /// # Errors
    /// As for [`rules`](Self::rules).
    pub(crate) async fn statistics(
        &self,
        request: &TsdbStatusRequest,
        filter: &StoreFilter,
        memory: &AnswerMemory,
    ) -> Result<Listed<TenantTsdbStatus>, StoreError> {
        let matchers = match ExternalMatch::split(&request.matchers, self.stores.selector_labels()) {
            ExternalMatch::Nothing => return Ok(Listed::default()),
            ExternalMatch::Rest(matchers) => matchers,
        };
        let request = TsdbStatusRequest { matchers, ..request.clone() };
        let permitted = Permitted::now();
        let admits =
            |store: &crate::Candidate| permitted.admits_store(store) && store.labels_admit(&request.matchers);
        let request_of = |store: &crate::Candidate| admits(store).then(|| request.clone());
        self.stores.gather(filter, request.partial_response, memory, request_of).await
    }
}

#[tonic::async_trait]
impl ListingStore<RuleGroup> for Lists {
    async fn list(
        &self,
        request: RulesRequest,
        memory: AnswerMemory,
    ) -> Result<Listed<RuleGroup>, StoreError> {
        self.rules(&request, &StoreFilter::default(), &memory).await
    }
}

#[tonic::async_trait]
impl ListingStore<TargetDiscovery> for Lists {
    async fn list(
        &self,
        request: TargetsRequest,
        memory: AnswerMemory,
    ) -> Result<Listed<TargetDiscovery>, StoreError> {
        self.targets(&request, &StoreFilter::default(), &memory).await
    }
}

#[tonic::async_trait]
impl ListingStore<ExemplarSeries> for Lists {
    async fn list(
        &self,
        request: ExemplarsRequest,
        memory: AnswerMemory,
    ) -> Result<Listed<ExemplarSeries>, StoreError> {
        self.exemplars(&request, &StoreFilter::default(), &memory).await
    }
}

#[tonic::async_trait]
impl ListingStore<TenantTsdbStatus> for Lists {
    async fn list(
        &self,
        request: TsdbStatusRequest,
        memory: AnswerMemory,
    ) -> Result<Listed<TenantTsdbStatus>, StoreError> {
        self.statistics(&request, &StoreFilter::default(), &memory).await
    }
}
