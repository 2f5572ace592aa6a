//! Work on what an operator has gathered, shared out among threads.
//!
//! Series on their way from a selector are evaluated by the [`pool`](super::pool). What an operator can only do once it has
//! all of them would be left to the thread that drives the query; where the parts of it do not depend on each other, it is
//! shared out too.

use std::sync::{Mutex, PoisonError};

use super::operator::Context;
use crate::QueryError;

/// Values that are worth a thread.
const WORTH_A_THREAD: usize = 1 << 16;

/// What `work` makes of each of `parts`, in their order; `values` is how many values they all look at.
///
/// # Errors
/// One of those of `work`.
pub(crate) fn share<P: Send, R: Send>(
    cx: &Context<'_>,
    values: usize,
    parts: Vec<P>,
    work: impl Fn(P) -> Result<R, QueryError> + Sync,
) -> Result<Vec<R>, QueryError> {
    let threads = cx.workers.min(parts.len()).min(1 + values / WORTH_A_THREAD);
    if threads <= 1 {
        return parts.into_iter().map(work).collect();
    }
    let queue = Mutex::new(parts.into_iter().enumerate());
    let take = || -> Result<Vec<(usize, R)>, QueryError> {
        let mut done = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            match next {
                Some((number, part)) => done.push((number, work(part)?)),
                None => return Ok(done),
            }
        }
    };
    let all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
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
