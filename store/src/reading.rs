//! For whom bytes are read: each read of a bucket counts for one request, stops when it is cancelled, and ends with an error
//! where its limit is reached.
//!
//! The block reader of `tsdb` does not know requests. So the request is a value of the thread while a step of it runs
//! ([`ReadContext::enter`]), and the files of the bucket look it up.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use runtime::CallContext;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What is said about a bucket that hangs.
pub(crate) const NO_ANSWER: &str = "has not answered, and the time of the request is almost over";

thread_local! {
    static CURRENT: RefCell<Option<ReadContext>> = const { RefCell::new(None) };
    /// Bytes that the next read should read ahead.
    static AHEAD_BYTES: Cell<u64> = const { Cell::new(0) };
}

/// Runs `work`, whose first read of a bucket also reads up to so many bytes after its last range: they will be needed next.
pub(crate) fn reading_ahead<T>(bytes: u64, work: impl FnOnce() -> T) -> T {
    AHEAD_BYTES.set(bytes);
    let done = work();
    AHEAD_BYTES.set(0);
    done
}

/// Bytes to read ahead, for the first read that asks.
pub(crate) fn take_ahead_bytes() -> u64 {
    AHEAD_BYTES.replace(0)
}

/// The reads of one request. Clones are the same request.
#[derive(Clone, Debug)]
pub(crate) struct ReadContext(Arc<ContextState>);

#[derive(Debug)]
struct ContextState {
    cancelled: CancellationToken,
    /// Most bytes to read from buckets.
    limit_bytes: u64,
    bytes: AtomicU64,
    requests: AtomicU64,
    /// When the request no longer waits for a bucket.
    give_up_at: Option<Instant>,
}

/// Why a read was refused without asking the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadRefused {
    #[error("the request was cancelled")]
    Cancelled,
    #[error(
        "exceeded bytes limit: the request would read more than {limit_bytes} bytes from object storage (--store.grpc.downloaded-bytes-limit); narrow its matchers or its time range"
    )]
    Limit {
        /// The limit.
        limit_bytes: u64,
    },
}

impl ReadRefused {
    /// The refusal that an error of a block came from.
    pub(crate) fn of(error: &tsdb::BlockError) -> Option<Self> {
        match &error.problem {
            tsdb::BlockProblem::Io(error) => error.get_ref()?.downcast_ref::<Self>().copied(),
            _ => None,
        }
    }
}

impl From<ReadRefused> for io::Error {
    fn from(refused: ReadRefused) -> Self {
        Self::other(refused)
    }
}

impl ReadContext {
    /// The request of the running task, which may read `limit_bytes` from buckets.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        let state = ContextState {
            cancelled: CancellationToken::new(),
            limit_bytes,
            bytes: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            give_up_at: CallContext::current().give_up_at(),
        };
        Self(Arc::new(state))
    }

    /// Runs `work`, whose reads count for this request.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let before = CURRENT.with(|current| current.borrow_mut().replace(self.clone()));
        let _restore = Restore(before);
        work()
    }

    /// The request for which this thread works.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// Counts a read before it is sent.
    ///
    /// # Errors
    /// When the request is cancelled, or may not read so many bytes; they are not counted then.
    pub(crate) fn admit(&self, requests: usize, bytes: u64) -> Result<(), ReadRefused> {
        if self.0.cancelled.is_cancelled() {
            return Err(ReadRefused::Cancelled);
        }
        let read = self.0.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if read > self.0.limit_bytes {
            self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(ReadRefused::Limit { limit_bytes: self.0.limit_bytes });
        }
        self.0.requests.fetch_add(requests as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Bytes that may still be read from buckets.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.0.limit_bytes.saturating_sub(self.bytes())
    }

    /// Stops all reads of the request, also those that wait for an answer.
    pub(crate) fn cancel(&self) {
        self.0.cancelled.cancel();
    }

    /// Ends when the request is cancelled.
    pub(crate) async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    /// What `work` gives; `None` if a bucket does not answer while there is time to say so.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        match self.0.give_up_at {
            Some(at) => tokio::time::timeout_at(at, work).await.ok(),
            None => Some(work.await),
        }
    }

    /// Bytes that were read from buckets.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Requests that were sent to buckets.
    pub(crate) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }
}

/// Puts the context of the thread back, also when the work panics.
struct Restore(Option<ReadContext>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.with(|current| *current.borrow_mut() = self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_count_for_the_request_that_the_thread_works_for() {
        let (one, other) = (ReadContext::new(10), ReadContext::new(10));
        one.enter(|| {
            let current = ReadContext::current().unwrap();
            assert_eq!(current.admit(1, 6), Ok(()));
            other.enter(|| assert_eq!(ReadContext::current().unwrap().admit(2, 3), Ok(())));
            assert_eq!(current.admit(1, 5), Err(ReadRefused::Limit { limit_bytes: 10 }));
            assert_eq!(ReadContext::current().unwrap().admit(1, 4), Ok(()));
        });
        assert!(ReadContext::current().is_none());
        assert_eq!((one.bytes(), one.requests(), other.bytes(), other.requests()), (10, 2, 3, 2));
        other.cancel();
        assert_eq!(other.admit(1, 1), Err(ReadRefused::Cancelled));
    }
}
