//! Answers to selects that later queries use again: the rules of a group often read the same series at the same instant.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use budget::{Budget, BudgetLimits, Interrupt, Reservation, TotalBudget};
use model::Matcher;
use promql::SharedSeries;
use runtime::CallContext;
use storeapi::SeriesRequest;
use tokio::time::Instant;

use crate::fanout::StoreReport;

/// An answer is used again for this time. A select of another instant is another request, so this only bounds memory, and how long
/// a sample that comes late is not seen by the rest of its group.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// Bytes of all answers that are kept. They count towards the memory of all queries.
pub(crate) const SHARED_BYTES: u64 = 64 << 20;

/// A select of all stores, and for which tenant.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SharedKey {
    request: SeriesRequest,
    tenant: Option<String>,
    enforced: Option<Matcher>,
}

impl SharedKey {
    /// The key of a request that is sent in this context.
    pub(crate) fn new(request: &SeriesRequest, context: &CallContext) -> Self {
        Self {
            request: request.clone(),
            tenant: context.tenant().map(str::to_owned),
            enforced: context.enforced().cloned(),
        }
    }
}

/// Complete answers, the newest last. Their memory counts towards that of all queries.
#[derive(Debug)]
pub(crate) struct SharedSelects {
    total: TotalBudget,
    /// Bytes of all answers together; one answer has a quarter at most.
    most_bytes: u64,
    kept: Mutex<VecDeque<Kept>>,
}

#[derive(Debug)]
struct Kept {
    key: SharedKey,
    answer: Arc<SharedAnswer>,
    since: Instant,
}

/// A complete answer without warnings.
#[derive(Debug)]
pub(crate) struct SharedAnswer {
    pub(crate) batches: Vec<Vec<SharedSeries>>,
    pub(crate) reports: Vec<StoreReport>,
    memory: Reservation,
}

/// An answer that is being read.
pub(crate) struct Recording {
    shared: Arc<SharedSelects>,
    key: SharedKey,
    answer: SharedAnswer,
}

impl SharedSelects {
    /// Keeps answers of up to `most_bytes` together, within `total`.
    pub(crate) fn new(total: TotalBudget, most_bytes: u64) -> Self {
        Self { total, most_bytes, kept: Mutex::default() }
    }

    /// The answer to an equal select a short time ago.
    pub(crate) fn find(&self, key: &SharedKey) -> Option<Arc<SharedAnswer>> {
        self.forget_old();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|one| one.key == *key).map(|one| Arc::clone(&one.answer))
    }

    /// Frees the memory of answers that are too old to be used again.
    pub(crate) fn forget_old(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.front().is_some_and(|oldest| oldest.since.elapsed() > KEPT_FOR) {
            kept.pop_front();
        }
    }

    /// Begins to record the answer to a select.
    pub(crate) fn record(self: &Arc<Self>, key: SharedKey) -> Recording {
        // A budget of its own: one that was exceeded does not serve others.
        let budget = Budget::new(&self.total, BudgetLimits::bytes(self.most_bytes / 4), Interrupt::new());
        let memory = Reservation::new(&budget);
        let answer = SharedAnswer { batches: Vec::new(), reports: Vec::new(), memory };
        Recording { shared: Arc::clone(self), key, answer }
    }
}

impl Recording {
    /// Adds series; `None` if the answer is too large to be kept.
    pub(crate) fn add(mut self, batch: &[SharedSeries]) -> Option<Self> {
        let bytes = batch.iter().map(SharedSeries::most_bytes).sum::<usize>() as u64;
        self.answer.memory.add(bytes).ok()?;
        self.answer.batches.push(batch.to_vec());
        Some(self)
    }

    /// Keeps the answer, which is complete. Older ones make room.
    pub(crate) fn finish(mut self, reports: &[StoreReport]) {
        self.answer.reports = reports.to_vec();
        let mut kept = self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = self.answer.memory.bytes();
        bytes += kept.iter().map(|one| one.answer.memory.bytes()).sum::<u64>();
        while bytes > self.shared.most_bytes
            && let Some(oldest) = kept.pop_front()
        {
            bytes -= oldest.answer.memory.bytes();
        }
        kept.push_back(Kept { key: self.key, answer: Arc::new(self.answer), since: Instant::now() });
    }
}

#[cfg(test)]
mod tests {
    use budget::Consumers;
    use promql::QUERIES;
    use series::SelectedSeries;

    use super::*;
    use crate::tests::{labels, up};

    fn series(job: &str) -> Vec<SharedSeries> {
        vec![SelectedSeries { labels: labels(&[("job", job)]), replicas: Vec::new() }.into()]
    }

    fn of(request: &SeriesRequest) -> SharedKey {
        SharedKey::new(request, &CallContext::default())
    }

    fn of_metric(name: &str) -> SharedKey {
        of(&SeriesRequest { matchers: vec![Matcher::equal("__name__", name)], ..up() })
    }

    fn keep(shared: &Arc<SharedSelects>, key: SharedKey, job: &str) {
        shared.record(key).add(&series(job)).expect("a small answer").finish(&[]);
    }

    fn total() -> TotalBudget {
        let consumers: &'static Consumers = &QUERIES;
        TotalBudget::unlimited(consumers)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_found_for_an_equal_request_until_it_is_old() {
        let shared = Arc::new(SharedSelects::new(total(), 1 << 20));
        keep(&shared, of(&up()), "a");
        assert_eq!(shared.find(&of(&up())).unwrap().batches, [series("a")]);
        let other = SeriesRequest { without_replica_labels: vec!["r".to_owned()], ..up() };
        assert!(shared.find(&of(&other)).is_none());
        tokio::time::advance(KEPT_FOR + Duration::from_millis(1)).await;
        shared.forget_old();
        assert_eq!(shared.total.reserved_bytes(), 0);
    }

    #[tokio::test]
    async fn an_answer_is_only_for_its_tenant() {
        let shared = Arc::new(SharedSelects::new(total(), 1 << 20));
        let of_tenant = |tenant: &str, enforced: Option<&str>| {
            let enforced = enforced.map(|value| Matcher::equal("tenant_id", value));
            SharedKey::new(&up(), &CallContext::default().with_tenant(tenant.into(), enforced))
        };
        keep(&shared, of_tenant("a", Some("a")), "a");
        assert!(shared.find(&of_tenant("a", Some("a"))).is_some());
        for other in [of_tenant("b", Some("b")), of_tenant("a", Some("b")), of_tenant("a", None), of(&up())] {
            assert!(shared.find(&other).is_none(), "{other:?}");
        }
    }

    #[tokio::test]
    async fn answers_stay_within_their_memory() {
        let bytes = series("a")[0].most_bytes() as u64;
        let shared = Arc::new(SharedSelects::new(total(), 4 * bytes));
        for number in 0..6 {
            keep(&shared, of_metric(&number.to_string()), "a");
            assert!(shared.total.reserved_bytes() <= 4 * bytes);
        }
        assert!(shared.find(&of_metric("1")).is_none());
        assert!(shared.find(&of_metric("2")).is_some());
        assert!(shared.record(of(&up())).add(&series("a job with a long name")).is_none());
    }
}
