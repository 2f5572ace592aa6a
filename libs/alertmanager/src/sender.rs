//! Sends the alerts of the queue to one Alertmanager.

use std::time::{Duration, Instant};

use bytes::Bytes;
use runtime::{LogLimit, Shutdown};
use tracing::{error, info, warn};

use crate::alert::message;
use crate::metrics::AlertmanagerMetrics;
use crate::queue::Batch;
use crate::request::{Endpoint, Outcome};
use crate::shared::{Shared, SharedReader};

/// The first pause after a request that failed. Each further one is twice as long.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, so that an Alertmanager that is back hears soon of what it has missed.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// One Alertmanager.
pub(crate) struct Sender {
    endpoint: Endpoint,
    metrics: AlertmanagerMetrics,
    /// Most alerts of a request.
    batch: usize,
    /// Most alerts of the next request: less while an alert is searched that is refused.
    limit: usize,
    /// The end of the batch in which an alert was refused.
    suspect_end: u64,
    is_failing: bool,
    pause: Duration,
    refusals: LogLimit,
}

impl Sender {
    pub(crate) fn new(endpoint: Endpoint, metrics: AlertmanagerMetrics, batch: usize) -> Self {
        let refusals = LogLimit::new(Instant::now());
        let limit = batch;
        Self {
            endpoint,
            metrics,
            batch,
            limit,
            suspect_end: 0,
            is_failing: false,
            pause: MIN_PAUSE,
            refusals,
        }
    }

    /// Sends alerts until shutdown, and then what is left, until a request fails.
    ///
    /// # Cancel safety
    /// Dropping the future ends the request. Its alerts are still in the queue.
    pub(crate) async fn run(mut self, shared: &Shared, group: usize, shutdown: Shutdown) {
        let reader = SharedReader::new(shared, group);
        let mut version = shared.version();
        loop {
            version.borrow_and_update();
            let Some(batch) = shared.look(|queue| queue.take(reader.id, self.limit)) else {
                if shutdown.until_triggered(version.changed()).await.is_none_or(|wait| wait.is_err()) {
                    // Alerts may have come at the same time.
                    if shared.look(|queue| queue.take(reader.id, 1)).is_none() {
                        return;
                    }
                }
                continue;
            };
            let began = Instant::now();
            let outcome = self.endpoint.send(Bytes::from(message(&batch.alerts))).await;
            self.metrics.took(began.elapsed());
            match outcome {
                Outcome::Taken => {
                    self.taken(&batch);
                    shared.change(|queue| queue.done(reader.id, &batch, true));
                }
                Outcome::Refused(why) if batch.alerts.len() == 1 => {
                    self.refused(&batch, &why);
                    shared.change(|queue| queue.done(reader.id, &batch, false));
                }
                Outcome::Refused(_) => {
                    self.metrics.failed(batch.alerts.len());
                    shared.look(|queue| queue.failed(reader.id));
                    self.suspect_end = self.suspect_end.max(batch.end);
                    self.limit = batch.alerts.len() / 2;
                }
                Outcome::Retry(why) => {
                    self.failed(&batch, &why);
                    shared.look(|queue| queue.failed(reader.id));
                    if shutdown.is_triggered() {
                        return;
                    }
                    let _ = shutdown.until_triggered(tokio::time::sleep(self.pause)).await;
                    self.pause = (self.pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    fn taken(&mut self, batch: &Batch) {
        self.metrics.sent(batch.alerts.len());
        self.answered(batch);
    }

    /// The Alertmanager works. More alerts are sent at once again.
    fn answered(&mut self, batch: &Batch) {
        let is_over = batch.end >= self.suspect_end;
        self.limit = if is_over { self.batch } else { (self.limit * 2).min(self.batch) };
        self.pause = MIN_PAUSE;
        if std::mem::take(&mut self.is_failing) {
            info!(alertmanager = self.endpoint.url(), "alerts can be sent again");
        }
    }

    fn refused(&mut self, batch: &Batch, why: &str) {
        self.metrics.failed(batch.alerts.len());
        self.answered(batch);
        if let Some(suppressed) = self.refusals.admit(Instant::now()) {
            let alert = batch.alerts.first().map(|alert| alert.labels.to_string()).unwrap_or_default();
            let alertmanager = self.endpoint.url();
            error!(
                alertmanager,
                alert,
                error = why,
                suppressed,
                "an alert was refused and is not sent again"
            );
        }
    }

    fn failed(&mut self, batch: &Batch, why: &str) {
        self.metrics.failed(batch.alerts.len());
        if !std::mem::replace(&mut self.is_failing, true) {
            let alertmanager = self.endpoint.url();
            warn!(alertmanager, error = why, "alerts cannot be sent, trying again");
        }
    }
}
