//! The state of the Prometheus of the sidecar, read at an interval.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, TimeRange, Timestamp};
use promapi::{ClientError, PrometheusClient, SeriesSelection};
use runtime::{Probes, Shutdown};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::metrics::SidecarMetrics;
use crate::shipper::{Fit, Preflight, Producer};

/// Maximum delay before a Prometheus that did not answer is asked again.
const RETRY: Duration = Duration::from_secs(2);

/// The state of Prometheus at the last heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrometheusFacts {
    /// External labels, attached to each series; never empty.
    pub(crate) external: Labels,
    /// The earliest time of which Prometheus has data; the minimum time if Prometheus does not report it.
    pub(crate) min_time: Timestamp,
    /// Names of all stored labels. They determine whether an answer can be streamed.
    pub(crate) stored_names: Arc<BTreeSet<String>>,
    /// The producer of the uploaded blocks; `None` if nothing is uploaded.
    pub(crate) producer: Option<Producer>,
}

/// The state, or why it is unknown.
pub(crate) type PrometheusState = Result<PrometheusFacts, String>;

/// Why a heartbeat failed.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Prometheus(#[from] ClientError),
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error(
        "Prometheus has no external labels; set global.external_labels (cluster, environment, replica) to a \
         combination that no other Prometheus has"
    )]
    NoExternalLabels,
    #[error("uploads: {0}")]
    Unfit(String),
}

/// Waits for the first successful heartbeat, at most `limit`; zero for no limit.
///
/// # Errors
/// There was none in time; the message has the last cause.
pub(crate) async fn first_answer(
    mut state: watch::Receiver<PrometheusState>,
    limit: Duration,
) -> Result<(), String> {
    let limit = Some(limit).filter(|limit| !limit.is_zero()).unwrap_or(Duration::MAX);
    let is_ready = tokio::time::timeout(limit, state.wait_for(Result::is_ok)).await.is_ok();
    if is_ready {
        return Ok(());
    }
    let limit = runtime::format_duration(limit);
    let reason = state.borrow().clone().err().unwrap_or_default();
    Err(format!("Prometheus was not ready for uploads within --prometheus.ready_timeout={limit}: {reason}"))
}

/// Reads the state of Prometheus at an interval, and publishes it together with the readiness of the sidecar.
pub(crate) struct Heartbeat {
    pub(crate) client: PrometheusClient,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) tsdb_path: PathBuf,
    /// Requirements of uploads; `None` if nothing is uploaded.
    pub(crate) preflight: Option<Preflight>,
    pub(crate) state: watch::Sender<PrometheusState>,
    pub(crate) probes: Probes,
    pub(crate) metrics: SidecarMetrics,
}

impl Heartbeat {
    /// Runs until shutdown. An unreachable Prometheus is retried until it answers.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        let mut logged = Vec::new();
        loop {
            let outcome = self.round().await;
            let wait = if outcome.is_ok() { self.interval } else { self.interval.min(RETRY) };
            if let Ok((_, warnings)) = &outcome
                && logged != *warnings
            {
                warnings.iter().for_each(|warning| warn!(prometheus = self.client.url(), "{warning}"));
                logged.clone_from(warnings);
            }
            self.publish(outcome.map(|(facts, _)| facts));
            if shutdown.until_triggered(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// The state of Prometheus, and warnings for the operator.
    async fn round(&self) -> Result<(PrometheusFacts, Vec<String>), RoundError> {
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
            let everything = SeriesSelection { matchers: &[], range: TimeRange::ALL, limit: None };
            let names = self.client.label_names(everything).await?.data;
            let stored_names = Arc::new(names.into_iter().collect());
            Ok((PrometheusFacts { external, min_time, stored_names, producer }, warnings))
        };
        tokio::time::timeout(self.timeout, ask).await.map_err(|_| RoundError::Late(self.timeout))?
    }

    fn publish(&self, outcome: Result<PrometheusFacts, RoundError>) {
        let fresh: PrometheusState = outcome.map_err(|error| error.to_string());
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
                    info!(old = %old.external, new = %new.external, "external labels of Prometheus have changed");
                }
                (Ok(_), Err(reason)) => {
                    warn!(prometheus = self.client.url(), error = %reason, "Prometheus is not ready");
                }
                (Err(old), Err(new)) if old != new => {
                    warn!(prometheus = self.client.url(), error = %new, "Prometheus is not ready");
                }
                _ => {}
            }
            let changed = *state != fresh;
            *state = fresh;
            changed
        });
    }

    /// A warning if `--tsdb.path` is not the data directory that Prometheus reports.
    fn other_data_folder(&self, flags: Option<&BTreeMap<String, String>>) -> Option<String> {
        let theirs = flags?.get("storage.tsdb.path").map(PathBuf::from)?;
        // Relative paths depend on the working directories, which may differ. Only absolute paths are
        // compared.
        let differs = theirs.is_absolute() && self.tsdb_path.is_absolute() && theirs != self.tsdb_path;
        let real = |path: &PathBuf| path.canonicalize().ok();
        let is_same = real(&theirs).is_some_and(|theirs| Some(theirs) == real(&self.tsdb_path));
        (differs && !is_same).then(|| {
            let (ours, theirs) = (self.tsdb_path.display(), theirs.display());
            format!("--tsdb.path is {ours}, but the data directory of Prometheus is {theirs}; make sure that both are the same directory")
        })
    }
}
