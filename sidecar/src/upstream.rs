//! What is known of the Prometheus beside the sidecar, asked for again and again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, TimeRange, Timestamp};
use promapi::{Client, ClientError, Selection};
use runtime::{Probes, Shutdown};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::metrics::Metrics;

/// How soon a Prometheus that did not answer is asked again, at the latest.
const RETRY: Duration = Duration::from_secs(2);

/// What the last round told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Attached to every series; never empty.
    pub(crate) external: Labels,
    /// The earliest instant of which Prometheus has data; as early as can be where it does not tell.
    pub(crate) min_time: Timestamp,
    /// Names of all labels that are stored. They decide whether an answer can be streamed.
    pub(crate) stored_names: Arc<BTreeSet<String>>,
}

/// The facts, or why there are none at present.
pub(crate) type State = Result<Facts, String>;

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Prometheus(#[from] ClientError),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error(
        "Prometheus has no external labels; set global.external_labels (cluster, environment, replica), so that its \
         series can be told from those of others"
    )]
    NoExternalLabels,
}

/// Asks Prometheus for its facts at an interval, and keeps state and readiness after them.
pub(crate) struct Heartbeat {
    pub(crate) client: Client,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) tsdb_path: PathBuf,
    pub(crate) state: watch::Sender<State>,
    pub(crate) probes: Probes,
    pub(crate) metrics: Metrics,
}

impl Heartbeat {
    /// Runs until shutdown; an unreachable Prometheus is asked until it answers.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut compared = false;
        loop {
            let outcome = self.round().await;
            let wait = if outcome.is_ok() { self.interval } else { self.interval.min(RETRY) };
            if outcome.is_ok() && !compared {
                compared = self.compare_data_folder().await;
            }
            self.publish(outcome);
            if shutdown.until_triggered(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    async fn round(&self) -> Result<Facts, RoundError> {
        let ask = async {
            self.client.ready().await?;
            let external = self.client.external_labels().await?;
            if external.is_empty() {
                return Err(RoundError::NoExternalLabels);
            }
            let min_time = self.client.lowest_timestamp().await?.unwrap_or(Timestamp::MIN);
            let everything = Selection { matchers: &[], range: TimeRange::ALL, limit: None };
            let names = self.client.label_names(everything).await?.data;
            Ok(Facts { external, min_time, stored_names: Arc::new(names.into_iter().collect()) })
        };
        tokio::time::timeout(self.timeout, ask).await.map_err(|_| RoundError::Late(self.timeout))?
    }

    fn publish(&self, outcome: Result<Facts, RoundError>) {
        let fresh: State = outcome.map_err(|error| error.to_string());
        self.metrics.prometheus_up(fresh.is_ok());
        match &fresh {
            Ok(_) => {
                self.metrics.heartbeat();
                self.probes.ready();
            }
            Err(reason) => self.probes.not_ready(reason),
        }
        self.state.send_if_modified(|state| {
            match (&*state, &fresh) {
                (Err(_), Ok(facts)) => {
                    info!(prometheus = self.client.url(), external = %facts.external, "Prometheus answers");
                }
                (Ok(old), Ok(new)) if old.external != new.external => {
                    info!(old = %old.external, new = %new.external, "external labels have changed");
                }
                (Ok(_), Err(reason)) => {
                    warn!(prometheus = self.client.url(), err = reason, "Prometheus does not answer");
                }
                (Err(old), Err(new)) if old != new => {
                    warn!(prometheus = self.client.url(), err = new, "Prometheus does not answer");
                }
                _ => {}
            }
            let changed = *state != fresh;
            *state = fresh;
            changed
        });
    }

    /// Warns once where `--tsdb.path` is not the folder that Prometheus says it writes to. Whether that was asked.
    async fn compare_data_folder(&self) -> bool {
        let Ok(flags) = self.client.flags().await else { return false };
        let theirs = flags.and_then(|flags| flags.get("storage.tsdb.path").map(PathBuf::from));
        let Some(theirs) = theirs else { return true };
        // Relative paths count from working folders that may differ; only those that can be compared are.
        if theirs.is_absolute() && self.tsdb_path.is_absolute() && theirs != self.tsdb_path {
            warn!(
                ours = %self.tsdb_path.display(),
                prometheus = %theirs.display(),
                "--tsdb.path is not the folder that Prometheus writes to"
            );
        }
        true
    }
}
