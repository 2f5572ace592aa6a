//! Divides the work of one operator among threads.
//!
//! The [`pool`](crate::eval::pool) evaluates series that come from a selector. Work that an operator can only do after it has
//! received all series would remain for the thread that drives the query. If it consists of independent parts, it is divided
//! too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use crate::error::QueryError;
use crate::eval::operator::OperatorContext;

/// Number of values from which on another thread is worth its cost.
const WORTH_A_THREAD: usize = 1 << 16;

/// The results of `work` for each of `parts`, in their order. `values` is the number of values that all parts read.
///
/// # Errors
/// An error of `work`. After the first error, no further part is begun.
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
        // If no more threads can be started, the existing ones do all of the work.
        let others: Vec<_> =
            (1..threads).map_while(|_| Builder::new().spawn_scoped(scope, take).ok()).collect();
        let mut all = vec![take()];
        let lost =
            |_| Err(QueryError::execution("internal error: a worker thread of the query terminated early"));
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
    fn no_thread_begins_a_part_after_one_has_failed() {
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
