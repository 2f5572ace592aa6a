//! Doing an operation again after it failed for a reason that may pass.

use std::time::Duration;

use crate::error::BucketError;

/// How often and how soon an operation is repeated. The requests under it are repeated too, by the rules of the
/// configuration; this is for what those rules cannot repeat, such as an answer that ended too early.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often an operation is tried in all; at least once.
    pub attempts: u32,
    /// Wait after the first failure; doubled after each further one, up to a hundredfold.
    pub delay: Duration,
}

impl Default for Retry {
    /// 5 attempts within some 8 seconds of waiting.
    fn default() -> Self {
        Self { attempts: 5, delay: Duration::from_millis(500) }
    }
}

impl Retry {
    /// Runs `work` until it succeeds, fails for good, or has been tried often enough.
    pub(crate) async fn run<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T, BucketError>
    where
        F: Future<Output = Result<T, BucketError>>,
    {
        let (mut delay, most) = (self.delay, self.delay * 100);
        for attempt in 1.. {
            match work().await {
                Err(error) if error.is_retryable() && attempt < self.attempts => {
                    tracing::debug!("{error}; trying again (attempt {attempt} of {})", self.attempts);
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(most);
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns its result")
    }
}
