//! Retries of an operation that failed for a reason that may pass.

use std::time::Duration;

use crate::error::BucketError;

/// How often and how soon an operation is retried. The store's client retries single requests by the rules of the
/// configuration. This is for failures that those rules do not cover, such as an answer that was cut short.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Number of attempts, including the first; 0 counts as 1.
    pub attempts: u32,
    /// Wait after the first failure. It doubles after each further failure, up to 100 times this value.
    pub delay: Duration,
}

impl Default for Retry {
    /// 5 attempts, with waits of about 8 seconds in total.
    fn default() -> Self {
        Self { attempts: 5, delay: Duration::from_millis(500) }
    }
}

impl Retry {
    /// Runs `work` until it succeeds, fails with an error that is not retryable, or the attempts are used up.
    ///
    /// # Errors
    /// The error of the last attempt.
    pub async fn run<T, F>(&self, mut work: impl FnMut() -> F) -> Result<T, BucketError>
    where
        F: Future<Output = Result<T, BucketError>>,
    {
        let (mut delay, most) = (self.delay, self.delay * 100);
        for attempt in 1.. {
            match work().await {
                Err(error) if error.is_retryable() && attempt < self.attempts => {
                    tracing::debug!(%error, attempt, attempts = self.attempts, "operation failed, retrying");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(most);
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns its result")
    }
}
