//! Work on what an operator has gathered, shared out among threads.
//!
//! Series on their way from a selector are evaluated by the [`pool`](super::pool). What an operator can only do once it has
//! all of them would be left to the thread that drives the query; where the parts of it do not depend on each other, it is
//! shared out too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use crate::error::QueryError;
use crate::eval::operator::OperatorContext;

/// Values that are worth a thread.
const WORTH_A_THREAD: usize = 1 << 16;

/// What `work` makes of each of `parts`, in their order; `values` is how many values they all look at.
///
/// # Errors
/// One of those of `work`; no part is begun after the first of them.
pub(crate) fn share<P: Send, R: Send>(
    cx: &OperatorContext<'_>,
    values: usize,
    parts: Vec<P>,
    work: impl Fn(P) -> Result<R, QueryError> + Sync,
) -> Result<Vec<R>, QueryError> {
    let threads = cx.workers.min(parts.len()).min(1 + values / WORTH_A_THREAD);
    if threads <= 1 {
        return parts.into_iter().map(work).collect();
    }
    let queue = Mutex::new(parts.into_iter().enumerate());
    let failed = AtomicBool::new(false);
    let take = || -> Result<Vec<(usize, R)>, QueryError> {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((number, part)) = next else { break };
            let result = work(part).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
            done.push((number, result));
        }
        Ok(done)
    };
    let all = std::thread::scope(|scope| {
        // Where the system has no more threads, those that there are do all of it.
        let others: Vec<_> =
            (1..threads).map_while(|_| Builder::new().spawn_scoped(scope, take).ok()).collect();
        let mut all = vec![take()];
        let lost = |_| Err(QueryError::execution("a worker of the query ended before its time"));
        all.extend(others.into_iter().map(|other| other.join().unwrap_or_else(lost)));
        all
    });
    let mut done = Vec::new();
    for part in all {
        done.extend(part?);
    }
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::QUERIES;
    use crate::eval::map::MapScratch;
    use crate::value::notes::Notes;
    use crate::value::steps::Steps;
    use budget::{Budget, BudgetLimits, Interrupt, TotalBudget};

    #[test]
    fn no_thread_goes_on_after_a_part_has_failed() {
        const PARTS: usize = 100_000;
        let total = TotalBudget::unlimited(&QUERIES);
        let budget = Budget::new(&total, BudgetLimits::UNLIMITED, Interrupt::new());
        let (mut notes, mut scratch) = (Notes::default(), MapScratch::new(&budget));
        let steps = Steps::single(0);
        let cx = OperatorContext {
            steps: &steps,
            notes: &mut notes,
            budget: &budget,
            scratch: &mut scratch,
            workers: 3,
        };
        let (failing, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
        let outcome = share(&cx, PARTS * WORTH_A_THREAD, (0..PARTS).collect(), |part| {
            begun.fetch_add(1, Ordering::SeqCst);
            if part == 0 {
                failing.store(true, Ordering::SeqCst);
                return Err(QueryError::Canceled);
            }
            while !failing.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            Ok(part)
        });
        assert_eq!(outcome, Err(QueryError::Canceled));
        assert!(begun.into_inner() < PARTS);
    }
}
