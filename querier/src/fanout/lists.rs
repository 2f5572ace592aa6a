//! Lists of all stores: rules, targets, exemplars and statistics of TSDBs.

use futures::{StreamExt, stream};
use model::Labels;
use promapi::{ExemplarSeries, RuleGroup, TargetDiscovery};
use storeapi::{
    AnswerMemory, Code, ExemplarsRequest, Listed, Listing, ListingStore, PartialResponse, RulesRequest,
    StoreError, TargetsRequest, TenantTsdbStatus, TsdbStatusRequest,
};

use crate::endpoints::{Candidate, StoreLists, with_store_name};
use crate::fanout::filter::StoreFilter;
use crate::fanout::input::{Standing, WARNINGS, late, shortened, standing};
use crate::fanout::labels::fail_if_partial;
use crate::fanout::proxy::ProxyStore;
use crate::memory;

/// Stores that are asked at the same time. What they send is counted when a message is complete, so this also
/// limits what is not counted yet.
const AT_ONCE: usize = 16;
/// Most bytes of a list of one store of the mesh, whatever the flag allows.
const MESH_STORE_BYTES: u64 = 32 << 20;

/// An item of a list as a store sends it.
pub(crate) trait StoreItem: Listing {
    /// Checks the labels of the item, and adds those that the store has left out.
    ///
    /// # Errors
    /// A label that the certificate of the store is bound to has another value or is missing, or the item is not what
    /// was requested.
    fn verify(&mut self, request: &Self::Request, store: &Candidate) -> Result<(), StoreError>;
}

impl ProxyStore {
    /// The items of all stores that `filter` allows and for which `request_of` returns a request. They are in the
    /// order of the stores.
    ///
    /// # Errors
    /// The memory is exhausted. If the request rejects partial answers: the error of the first store that failed.
    pub(crate) async fn gather<L>(
        &self,
        filter: &StoreFilter,
        partial: PartialResponse,
        memory: &AnswerMemory,
        request_of: impl Fn(&Candidate) -> Option<L::Request>,
    ) -> Result<Listed<L>, StoreError>
    where
        L: StoreItem,
        dyn StoreLists: ListingStore<L>,
    {
        let is_served = |c: &Candidate| c.info.as_ref().is_none_or(|info| L::is_served(&info.apis));
        let (chosen, no_store) = self.choose(filter, is_served)?;
        let asked = chosen.into_iter().filter_map(|store| Some((request_of(&store)?, store)));
        let asked: Vec<(L::Request, Candidate)> = asked.collect();
        let mut all = Listed { warnings: Vec::from_iter(no_store), ..Listed::default() };
        let mut answers = stream::iter(asked)
            .map(|(request, store)| self.list_of::<L>(request, store, memory))
            .buffered(AT_ONCE);
        while let Some((store, answer)) = answers.next().await {
            if let Some(limit) = memory.exhausted() {
                return Err(memory::limit_error(&limit));
            }
            match answer {
                Ok(listed) => {
                    all.items.extend(listed.items);
                    let warnings =
                        listed.warnings.into_iter().map(|text| with_store_name(&store.name, &text));
                    all.warnings.extend(warnings.map(shortened));
                }
                Err(error) => all.warnings.push(shortened(with_store_name(&store.name, error.message()))),
            }
            fail_if_partial(partial, &all.warnings)?;
        }
        fail_if_partial(partial, &all.warnings)?;
        Ok(all)
    }

    /// The verified list of one store.
    async fn list_of<L>(
        &self,
        request: L::Request,
        store: Candidate,
        memory: &AnswerMemory,
    ) -> (Candidate, Result<Listed<L>, StoreError>)
    where
        L: StoreItem,
        dyn StoreLists: ListingStore<L>,
    {
        let answer = async {
            if let Standing::Missing(reason) = standing(&store, None) {
                return Err(StoreError::unavailable(reason));
            }
            let Some(lists) = &store.lists else { return Ok(Listed::default()) };
            let limit = self.options.store_bytes as u64;
            let memory = match !store.bound.is_empty() && limit > MESH_STORE_BYTES {
                true => memory
                    .for_store(MESH_STORE_BYTES, "for a list of a store that is reached through a gateway"),
                false => memory.for_store(limit, "of --query.max-memory-per-store"),
            };
            let answer = lists.list(request.clone(), memory);
            let mut listed = match self.options.response_timeout {
                None => answer.await?,
                Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| late(limit))??,
            };
            if listed.warnings.len() > WARNINGS {
                return Err(StoreError::violation(format!("it sent more than {WARNINGS} warnings")));
            }
            for item in &mut listed.items {
                item.verify(&request, &store)?;
            }
            Ok(listed)
        };
        let answer = answer.await;
        (store, answer)
    }
}

/// Checks that `labels`, which belong to `what`, have the labels that the certificate is bound to.
fn must_carry(what: &str, labels: &Labels, bound: &Labels) -> Result<(), StoreError> {
    match bound.iter().find(|label| labels.value(label.name) != label.value) {
        None => Ok(()),
        Some(label) => Err(StoreError::violation(format!(
            "{what} {labels} must carry {}={:?}, the value that its certificate is bound to",
            label.name, label.value
        ))),
    }
}

/// Sidecars of Thanos leave the external labels out of alerts.
impl StoreItem for RuleGroup {
    fn verify(&mut self, _: &RulesRequest, store: &Candidate) -> Result<(), StoreError> {
        let of_sidecar = store.info.as_ref().filter(|info| info.component == "sidecar");
        let external = match of_sidecar.map(|info| info.label_sets.as_slice()) {
            Some([one]) => one.extended(&store.bound),
            _ => store.bound.clone(),
        };
        for rule in &mut self.rules {
            must_carry("rule", rule.labels(), &store.bound)?;
            for alert in rule.alerts_mut() {
                // A label of the alert must not hide of which cluster it is.
                alert.labels = external.extended(&alert.labels).extended(&store.bound);
            }
        }
        Ok(())
    }
}

impl StoreItem for TargetDiscovery {
    fn verify(&mut self, request: &TargetsRequest, store: &Candidate) -> Result<(), StoreError> {
        if request.alertmanagers && self.alertmanagers.is_none() {
            return Err(StoreError::new(
                Code::Unimplemented,
                "it does not send its Alertmanagers; use a sidecar of Isthmus",
            ));
        }
        let active =
            self.active_targets.iter().flat_map(|target| [&target.labels, &target.discovered_labels]);
        let dropped = self.dropped_targets.iter().map(|target| &target.discovered_labels);
        active.chain(dropped).try_for_each(|labels| must_carry("target", labels, &store.bound))
    }
}

impl StoreItem for ExemplarSeries {
    fn verify(&mut self, _: &ExemplarsRequest, store: &Candidate) -> Result<(), StoreError> {
        must_carry("series", &self.series_labels, &store.bound)
    }
}

/// Statistics have no labels.
impl StoreItem for TenantTsdbStatus {
    fn verify(&mut self, _: &TsdbStatusRequest, _: &Candidate) -> Result<(), StoreError> {
        Ok(())
    }
}
