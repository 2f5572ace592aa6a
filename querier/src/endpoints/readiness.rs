//! Whether the querier knows its stores. Until then it refuses requests: an answer would lack stores that it does not know.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Sources that the reason names. Further ones are counted.
const NAMED: usize = 3;

/// What is known about the stores of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Knowledge {
    /// Which stores it has, and what at least one of them has.
    Known,
    /// Which stores it has. None of them can be read, for the reason of the first one. Answers name each of them.
    Unreadable(String),
    /// Nothing, for this reason: it may have any store.
    Awaited(String),
}

/// The readiness of a querier. It is ready once, and then for ever: stores that are lost later are named in answers.
pub(super) struct Readiness {
    created: Instant,
    patience: Duration,
    is_ready: AtomicBool,
}

impl Readiness {
    /// Sources about which nothing is known are waited for until `patience` has passed, and longer while no source is known.
    pub(super) fn new(patience: Duration) -> Self {
        Self { created: Instant::now(), patience, is_ready: AtomicBool::new(false) }
    }

    /// Whether it was ready once.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Why requests cannot be answered yet; `None` if they can. `sources` returns all sources with their names.
    pub(super) fn unready(&self, sources: impl FnOnce() -> Vec<(String, Knowledge)>) -> Option<String> {
        if self.is_ready() {
            return None;
        }
        let sources = sources();
        let is_known = sources.is_empty() || sources.iter().any(|(_, known)| *known == Knowledge::Known);
        let is_awaited = sources.iter().any(|(_, known)| matches!(known, Knowledge::Awaited(_)));
        if is_known && (!is_awaited || self.created.elapsed() >= self.patience) {
            self.is_ready.store(true, Ordering::Release);
            return None;
        }
        Some(reason(&sources))
    }
}

/// The sources that are waited for, each with what is wrong.
fn reason(sources: &[(String, Knowledge)]) -> String {
    let waiting = sources.iter().filter_map(|(name, known)| match known {
        Knowledge::Known => None,
        Knowledge::Unreadable(why) | Knowledge::Awaited(why) => Some(format!("{name} ({why})")),
    });
    let mut waiting: Vec<String> = waiting.collect();
    let further = waiting.len().saturating_sub(NAMED);
    waiting.truncate(NAMED);
    let further = if further > 0 { format!(", and {further} more") } else { String::new() };
    format!("the stores are not known yet, waiting for {}{further}; repeat the request", waiting.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn source(name: &str, known: Knowledge) -> (String, Knowledge) {
        (name.to_owned(), known)
    }

    fn awaited(name: &str) -> (String, Knowledge) {
        source(name, Knowledge::Awaited("connection refused".to_owned()))
    }

    fn unreadable(name: &str) -> (String, Knowledge) {
        source(name, Knowledge::Unreadable("not found".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_of_unknown_stores_is_waited_for_until_the_patience_is_over() {
        let readiness = Readiness::new(PATIENCE);
        let sources = || vec![source("a", Knowledge::Known), awaited("b"), unreadable("c")];
        let expected = "the stores are not known yet, waiting for b (connection refused), c (not found); \
                        repeat the request";
        assert_eq!(readiness.unready(sources).as_deref(), Some(expected));
        tokio::time::advance(PATIENCE).await;
        assert_eq!(readiness.unready(sources), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_querier_that_knows_no_store_is_never_ready() {
        let readiness = Readiness::new(PATIENCE);
        tokio::time::advance(PATIENCE * 100).await;
        let all = ["a", "b", "c", "d", "e"];
        let reason = readiness.unready(|| all.map(awaited).to_vec()).unwrap();
        assert!(reason.ends_with("c (connection refused), and 2 more; repeat the request"), "{reason}");
        assert!(readiness.unready(|| all.map(unreadable).to_vec()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_querier_that_was_ready_once_stays_ready() {
        // A store that cannot be read is in the list of stores, so it is not waited for.
        for first in [vec![source("a", Knowledge::Known), unreadable("b")], vec![]] {
            let readiness = Readiness::new(PATIENCE);
            assert_eq!(readiness.unready(|| first), None);
            assert_eq!(readiness.unready(|| vec![awaited("a")]), None);
        }
    }
}
