//! Delivers batches: repeats a request until it is answered, and says what it means for the samples.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use model::Timestamp;
use runtime::{LogLimit, Shutdown};
use tracing::{error, info, warn};

use crate::config::{DEFAULT_AGE_LIMIT, RemoteWriteConfig, RemoteWriteMessage};
use crate::item::{Counts, Item};
use crate::message::{encode, remove_unsendable};
use crate::metrics::{Dropped, QueueMetrics};
use crate::receiver::{Outcome, Receiver};

/// A request that is under way when the queue stops may take this long.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Delivers to one receiver. All shards of a queue share it.
pub(crate) struct Delivery {
    name: String,
    config: RemoteWriteConfig,
    receiver: Receiver,
    metrics: QueueMetrics,
    /// Whether version 2.0 is used.
    is_v2: AtomicBool,
    is_failing: AtomicBool,
    refusals: LogLimit,
}

impl Delivery {
    pub(crate) fn new(
        name: String,
        config: RemoteWriteConfig,
        receiver: Receiver,
        metrics: QueueMetrics,
    ) -> Self {
        let is_v2 = AtomicBool::new(config.message == RemoteWriteMessage::V2);
        let (is_failing, refusals) = (AtomicBool::new(false), LogLimit::new(Instant::now()));
        Self { name, config, receiver, metrics, is_v2, is_failing, refusals }
    }

    pub(crate) fn metrics(&self) -> &QueueMetrics {
        &self.metrics
    }

    pub(crate) fn message(&self) -> RemoteWriteMessage {
        if self.is_v2.load(Ordering::Relaxed) { RemoteWriteMessage::V2 } else { RemoteWriteMessage::V1 }
    }

    /// Delivers a batch, or drops what is refused or too old. False if the queue stops before.
    pub(crate) async fn deliver(&self, mut items: Vec<Item>, stop: &Shutdown) -> bool {
        let began = Instant::now();
        let mut backoff = self.config.queue.min_backoff;
        let mut attempt = 0;
        loop {
            self.drop_old(&mut items);
            let message = self.message();
            let left = remove_unsendable(message, &mut items);
            self.metrics.dropped(Counts::of(&left), Dropped::WithoutSamples);
            if items.is_empty() {
                return true;
            }
            let counts = Counts::of(&items);
            let body = encode(message, &items);
            let bytes = body.len() as u64;
            let Some(outcome) = self.send(message, body, attempt, stop).await else { return false };
            let (why, after) = match outcome {
                Outcome::Written => {
                    self.metrics.sent(counts, bytes);
                    self.metrics.took(began.elapsed());
                    self.answered();
                    return true;
                }
                Outcome::Refused(why) => {
                    self.metrics.failed(counts);
                    self.answered();
                    self.refused(&why, counts);
                    return true;
                }
                Outcome::NotUnderstood(why) => {
                    self.fall_back(&why);
                    continue;
                }
                Outcome::Retry(why, after) => (why, after),
            };
            self.metrics.retried(counts);
            if !self.is_failing.swap(true, Ordering::Relaxed) {
                warn!(queue = self.name, error = %why, "samples cannot be sent, trying again");
            }
            attempt += 1;
            let wait = after.unwrap_or(backoff);
            if stop.until_triggered(tokio::time::sleep(wait)).await.is_none() {
                return false;
            }
            backoff = (backoff * 2).min(self.config.queue.max_backoff);
        }
    }

    /// Sends metadata once: the next time is soon.
    pub(crate) async fn deliver_metadata(&self, metrics: usize, body: Bytes, stop: &Shutdown) {
        let bytes = body.len() as u64;
        let outcome = self.send(RemoteWriteMessage::V1, body, 0, stop).await;
        let is_sent = outcome == Some(Outcome::Written);
        self.metrics.metadata(metrics as u64, if is_sent { bytes } else { 0 }, is_sent);
        if let Some(Outcome::Refused(why)) = outcome {
            self.refused(&why, Counts::default());
        }
    }

    /// One request. None if the queue stops and there is no answer soon.
    async fn send(
        &self,
        message: RemoteWriteMessage,
        body: Bytes,
        attempt: u32,
        stop: &Shutdown,
    ) -> Option<Outcome> {
        let stopped = async {
            stop.triggered().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        tokio::select! {
            outcome = self.receiver.send(message, body, attempt) => Some(outcome),
            () = stopped => None,
        }
    }

    fn drop_old(&self, items: &mut Vec<Item>) {
        let limit = self.config.queue.sample_age_limit.unwrap_or(DEFAULT_AGE_LIMIT);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let oldest = Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX)) - limit;
        let old: Vec<Item> = items.extract_if(.., |item| item.time() < oldest).collect();
        if old.is_empty() {
            return;
        }
        let counts = Counts::of(&old);
        self.metrics.dropped(counts, Dropped::TooOld);
        if let Some(suppressed) = self.refusals.admit(Instant::now()) {
            let (queue, dropped) = (&self.name, counts.all());
            error!(queue, dropped, ?limit, suppressed, "samples are too old and are not sent");
        }
    }

    fn answered(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            info!(queue = self.name, "samples can be sent again");
        }
    }

    fn refused(&self, why: &str, counts: Counts) {
        if let Some(suppressed) = self.refusals.admit(Instant::now()) {
            let (queue, dropped) = (&self.name, counts.all());
            error!(
                queue,
                error = why,
                dropped,
                suppressed,
                "the receiver refused a message, which is not repeated"
            );
        }
    }

    fn fall_back(&self, why: &str) {
        if self.is_v2.swap(false, Ordering::Relaxed) {
            warn!(
                queue = self.name,
                error = why,
                "the receiver does not know remote write 2.0, sending 1.0 until the next start"
            );
        }
    }
}
