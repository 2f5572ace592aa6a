//! Sends a request once more when its answer takes much longer than usual: some requests to object storage take seconds, and a
//! second one is then answered sooner.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// A second request is sent after this many times the usual time ...
const FACTOR: u64 = 4;
/// ... within these bounds.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(5);

/// How long answers usually take, and how many requests were sent twice.
#[derive(Debug, Default)]
pub(crate) struct Hedge {
    /// The moving average in microseconds; 0 before the first answer.
    usual_micros: AtomicU64,
    sent_twice: AtomicU64,
}

impl Hedge {
    /// The answer of `request`, or of a second one that is sent when the first takes long. The other one is dropped.
    pub(crate) async fn run<T, E, F>(&self, request: impl Fn() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let begin = Instant::now();
        let mut first = std::pin::pin!(request());
        let answer = match tokio::time::timeout(self.delay(), &mut first).await {
            Ok(answer) => answer,
            Err(_) => {
                self.sent_twice.fetch_add(1, Ordering::Relaxed);
                let mut second = std::pin::pin!(request());
                // When one of both fails, the other one may still succeed.
                tokio::select! {
                    answer = &mut first => if answer.is_ok() { answer } else { second.await },
                    answer = &mut second => if answer.is_ok() { answer } else { first.await },
                }
            }
        };
        if answer.is_ok() {
            self.learn(begin.elapsed());
        }
        answer
    }

    /// Number of requests that were sent twice.
    pub(crate) fn sent_twice(&self) -> u64 {
        self.sent_twice.load(Ordering::Relaxed)
    }

    fn delay(&self) -> Duration {
        match self.usual_micros.load(Ordering::Relaxed) {
            0 => LATEST,
            usual => Duration::from_micros(usual.saturating_mul(FACTOR)).clamp(SOONEST, LATEST),
        }
    }

    fn learn(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let usual = self.usual_micros.load(Ordering::Relaxed);
        // Races lose a sample of the average, which does no harm.
        let next = if usual == 0 { micros } else { usual - usual / 16 + micros / 16 };
        self.usual_micros.store(next.max(1), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_request_is_sent_once_more_and_the_sooner_answer_counts() {
        let hedge = Hedge::default();
        for _ in 0..10 {
            let answer = hedge.run(|| async {
                tokio::time::sleep(Duration::from_millis(20)).await;
                Ok::<_, ()>(1)
            });
            assert_eq!(answer.await, Ok(1));
        }
        assert_eq!(hedge.sent_twice(), 0);
        let sent = AtomicU64::new(0);
        let begin = Instant::now();
        let answer = hedge.run(|| {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            async move {
                let takes = if number == 0 { Duration::from_secs(30) } else { Duration::from_millis(20) };
                tokio::time::sleep(takes).await;
                Ok::<_, ()>(number)
            }
        });
        assert_eq!(answer.await, Ok(1));
        assert!(begin.elapsed() < Duration::from_millis(200), "{:?}", begin.elapsed());
        assert_eq!((hedge.sent_twice(), sent.load(Ordering::Relaxed)), (1, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_one_of_two_requests_waits_for_the_other_one() {
        let hedge = Hedge::default();
        hedge.learn(Duration::from_millis(1));
        let sent = AtomicU64::new(0);
        let answer = hedge.run(|| {
            let number = sent.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if number == 0 {
                    return Err("lost");
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(number)
            }
        });
        assert_eq!(answer.await, Ok(1));
    }
}
