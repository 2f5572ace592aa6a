//! What is known of the Prometheus beside the sidecar, asked for again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, TimeRange, Timestamp};
use promapi::{Client, ClientError, Selection};
use runtime::{Probes, Shutdown};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::shipper::{Fit, Preflight, Producer};

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
    /// Whose blocks are uploaded; `None` where none are.
    pub(crate) producer: Option<Producer>,
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
    #[error("uploads: {0}")]
    Unfit(String),
}

/// Waits for the first facts, `limit` at most where it is not zero.
///
/// # Errors
/// No facts in time, with the last reason.
pub(crate) async fn first_answer(mut state: watch::Receiver<State>, limit: Duration) -> Result<(), String> {
    let limit = Some(limit).filter(|limit| !limit.is_zero()).unwrap_or(Duration::MAX);
    let is_ready = tokio::time::timeout(limit, state.wait_for(Result::is_ok)).await.is_ok();
    if is_ready {
        return Ok(());
    }
    let limit = runtime::format_duration(limit);
    let reason = state.borrow().clone().err().unwrap_or_default();
    Err(format!("Prometheus was not ready for uploads within --prometheus.ready_timeout={limit}: {reason}"))
}

/// Asks Prometheus for its facts at an interval, and keeps state and readiness after them.
pub(crate) struct Heartbeat {
    pub(crate) client: Client,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) tsdb_path: PathBuf,
    /// What uploads demand of Prometheus; `None` where nothing is uploaded.
    pub(crate) preflight: Option<Preflight>,
    pub(crate) state: watch::Sender<State>,
    pub(crate) probes: Probes,
    pub(crate) metrics: Metrics,
}

impl Heartbeat {
    /// Runs until shutdown; an unreachable Prometheus is asked until it answers.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut told = Vec::new();
        loop {
            let outcome = self.round().await;
            let wait = if outcome.is_ok() { self.interval } else { self.interval.min(RETRY) };
            if let Ok((_, warnings)) = &outcome
                && told != *warnings
            {
                warnings.iter().for_each(|warning| warn!(prometheus = self.client.url(), "{warning}"));
                told.clone_from(warnings);
            }
            self.publish(outcome.map(|(facts, _)| facts));
            if shutdown.until_triggered(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// The facts, and what an operator should know.
    async fn round(&self) -> Result<(Facts, Vec<String>), RoundError> {
        let ask = async {
            self.client.ready().await?;
            let configuration = self.client.configuration().await?;
            let external = configuration.external_labels;
            if external.is_empty() {
                return Err(RoundError::NoExternalLabels);
            }
            let flags = self.client.flags().await?;
            let mut warnings = Vec::from_iter(self.other_data_folder(flags.as_ref()));
            let fit = self.preflight.as_ref().map(|preflight| preflight.check(flags.as_ref()));
            let producer = fit.transpose().map_err(RoundError::Unfit)?.map(|fit: Fit| {
                warnings.extend(fit.warnings);
                Producer {
                    external: external.clone(),
                    out_of_order_window: configuration.out_of_order_time_window,
                    block_range: fit.block_range,
                }
            });
            let min_time = self.client.lowest_timestamp().await?.unwrap_or(Timestamp::MIN);
            let everything = Selection { matchers: &[], range: TimeRange::ALL, limit: None };
            let names = self.client.label_names(everything).await?.data;
            let stored_names = Arc::new(names.into_iter().collect());
            Ok((Facts { external, min_time, stored_names, producer }, warnings))
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
                    warn!(prometheus = self.client.url(), err = reason, "not ready");
                }
                (Err(old), Err(new)) if old != new => {
                    warn!(prometheus = self.client.url(), err = new, "not ready");
                }
                _ => {}
            }
            let changed = *state != fresh;
            *state = fresh;
            changed
        });
    }

    /// Says where `--tsdb.path` is not the folder that Prometheus says it writes to.
    fn other_data_folder(&self, flags: Option<&BTreeMap<String, String>>) -> Option<String> {
        let theirs = flags?.get("storage.tsdb.path").map(PathBuf::from)?;
        // Relative paths count from working folders that may differ; only those that can be compared are.
        let differs = theirs.is_absolute() && self.tsdb_path.is_absolute() && theirs != self.tsdb_path;
        let real = |path: &PathBuf| path.canonicalize().ok();
        let is_same = real(&theirs).is_some_and(|theirs| Some(theirs) == real(&self.tsdb_path));
        (differs && !is_same).then(|| {
            let (ours, theirs) = (self.tsdb_path.display(), theirs.display());
            format!("--tsdb.path is {ours}, but Prometheus writes to {theirs}: make sure that they are the same folder")
        })
    }
}
