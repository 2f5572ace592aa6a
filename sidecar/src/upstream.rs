//! The state of the Prometheus of the sidecar, read at an interval.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::{Labels, TimeRange, Timestamp};
use promapi::{ClientError, PrometheusClient, SeriesSelection};
use runtime::{Probes, Shutdown};
use shipper::Producer;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::data_folder::{DataFolder, ReportedData};
use crate::metrics::SidecarMetrics;
use crate::preflight::{Fit, Preflight};

/// Maximum delay before a Prometheus that did not answer is asked again, and between two probes of one that does.
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
    /// Whether its label names may be any text. Prometheus before version 3 rejects requests with other names, and has no such
    /// labels.
    pub(crate) utf8_names: bool,
    /// The producer of the uploaded blocks; `None` if nothing is uploaded, or the flags of Prometheus do not permit it.
    pub(crate) producer: Option<Producer>,
    /// What an operator should know, for example why nothing is uploaded.
    pub(crate) warnings: Vec<String>,
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
}

impl RoundError {
    /// The reason without the address of Prometheus, because it is shown to clients of StoreAPI. The log names the address.
    fn public(&self) -> String {
        match self {
            Self::Prometheus(error) => error.without_address(),
            other => other.to_string(),
        }
    }
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
    Err(format!("Prometheus was not ready within --prometheus.ready_timeout={limit}: {reason}"))
}

/// Publishes the state of Prometheus together with the readiness of the sidecar. Clones share both.
#[derive(Clone)]
pub(crate) struct StateReporter {
    client: PrometheusClient,
    /// Time limit for an answer of Prometheus.
    timeout: Duration,
    state: Arc<watch::Sender<PrometheusState>>,
    probes: Probes,
    metrics: SidecarMetrics,
}

impl StateReporter {
    pub(crate) fn new(
        client: PrometheusClient,
        timeout: Duration,
        state: watch::Sender<PrometheusState>,
        probes: Probes,
        metrics: SidecarMetrics,
    ) -> Self {
        Self { client, timeout, state: Arc::new(state), probes, metrics }
    }

    /// Asks Prometheus whether it is ready, after a request to it has failed or some time after the last answer. If it is not,
    /// the sidecar is not ready from now on. Returns whether it is ready.
    pub(crate) async fn probe(&self) -> bool {
        if self.state.borrow().is_err() {
            // The heartbeat already tries again.
            return false;
        }
        let answer = tokio::time::timeout(self.timeout, self.client.ready()).await;
        let error = match answer {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => RoundError::from(error),
            Err(_) => RoundError::Late(self.timeout),
        };
        self.publish(Err(error));
        false
    }

    fn publish(&self, outcome: Result<PrometheusFacts, RoundError>) {
        let fresh: PrometheusState = outcome.map_err(|error| error.public());
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
}

/// Reads the state of Prometheus at an interval.
pub(crate) struct Heartbeat {
    pub(crate) interval: Duration,
    pub(crate) tsdb_path: PathBuf,
    /// Requirements of uploads; `None` if nothing is uploaded.
    pub(crate) preflight: Option<Preflight>,
    pub(crate) reporter: StateReporter,
}

impl Heartbeat {
    /// Runs until shutdown. An unreachable Prometheus is retried until it answers.
    pub(crate) async fn run(self, shutdown: Shutdown) {
        shutdown.until_triggered(self.beat()).await;
    }

    async fn beat(self) {
        let mut logged = Vec::new();
        let mut folder = DataFolder::new(self.tsdb_path.clone());
        loop {
            let outcome = self.round(&mut folder).await;
            let is_ready = outcome.is_ok();
            if let Ok(PrometheusFacts { warnings, .. }) = &outcome
                && logged != *warnings
            {
                let url = self.reporter.client.url();
                warnings.iter().for_each(|warning| warn!(prometheus = url, "{warning}"));
                logged.clone_from(warnings);
            }
            self.reporter.publish(outcome);
            if is_ready {
                self.until_due_or_lost().await;
            } else {
                tokio::time::sleep(self.interval.min(RETRY)).await;
            }
        }
    }

    /// Waits for the next heartbeat, at most until a probe finds that Prometheus is not ready.
    async fn until_due_or_lost(&self) {
        let due = Instant::now() + self.interval;
        loop {
            let now = Instant::now();
            tokio::time::sleep_until(due.min(now + RETRY)).await;
            if now + RETRY >= due || !self.reporter.probe().await {
                return;
            }
        }
    }

    /// The state of Prometheus.
    async fn round(&self, folder: &mut DataFolder) -> Result<PrometheusFacts, RoundError> {
        let (client, timeout) = (&self.reporter.client, self.reporter.timeout);
        let ask = async {
            client.ready().await?;
            let configuration = client.configuration().await?;
            let external = configuration.external_labels;
            if external.is_empty() {
                return Err(RoundError::NoExternalLabels);
            }
            let flags = client.flags().await?;
            let mut warnings = Vec::new();
            let fit = self.preflight.as_ref().map(|preflight| preflight.check(flags.as_ref()));
            self.reporter.metrics.uploads_blocked(matches!(fit, Some(Err(_))));
            let producer = match fit {
                None => None,
                // Its data is served nevertheless.
                Some(Err(reason)) => {
                    warnings.push(format!("blocks are not uploaded: {reason}"));
                    None
                }
                Some(Ok(Fit { block_range, warnings: more })) => {
                    warnings.extend(more);
                    let out_of_order_window = configuration.out_of_order_time_window;
                    Some(Producer { external: external.clone(), out_of_order_window, block_range })
                }
            };
            let lowest = client.lowest_timestamp().await?;
            if self.preflight.is_some() {
                // An old Prometheus does not report its working directory.
                let info = client.runtime_info().await.ok();
                let directory = info.as_ref().and_then(|info| info.working_directory.as_deref());
                let reported = ReportedData::new(client.url(), flags.as_ref(), directory, lowest);
                warnings.extend(folder.check(reported).await);
            }
            let min_time = lowest.unwrap_or(Timestamp::MIN);
            let everything = SeriesSelection { matchers: &[], range: TimeRange::ALL, limit: None };
            let names = client.label_names(everything).await?.data;
            let stored_names = Arc::new(names.into_iter().collect());
            let utf8_names = accepts_utf8_names(client.version().await?.as_deref(), flags.as_ref());
            Ok(PrometheusFacts { external, min_time, stored_names, utf8_names, producer, warnings })
        };
        tokio::time::timeout(timeout, ask).await.map_err(|_| RoundError::Late(timeout))?
    }
}

/// Whether a Prometheus of this version and with these flags accepts label names that are not legacy names. A version that is
/// not reported is an old one; a version without a number may be that of another product.
fn accepts_utf8_names(version: Option<&str>, flags: Option<&BTreeMap<String, String>>) -> bool {
    let Some(version) = version else { return false };
    let features = flags.and_then(|flags| flags.get("enable-feature")).map_or("", String::as_str);
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_none_or(|major| major >= 3) || features.split(',').any(|feature| feature == "utf8-names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_names_are_accepted_since_version_3_or_with_their_feature_flag() {
        let check = |version, features: &str| {
            let flags = BTreeMap::from([("enable-feature".to_owned(), features.to_owned())]);
            accepts_utf8_names(version, Some(&flags))
        };
        for (version, features, expected) in [
            (None, "", false),
            (Some("2.42.0"), "", false),
            (Some("2.55.1"), "agent,utf8-names", true),
            (Some("v3.0.0-beta.0"), "", true),
            (Some("10.1"), "", true),
            (Some("main"), "", true),
        ] {
            assert_eq!(check(version, features), expected, "{version:?} {features:?}");
        }
    }
}
