//! The notifier: takes alerts, and sends them to all Alertmanagers that there are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::join_all;
use httpclient::HttpEndpoints;
use model::Timestamp;
use runtime::{Registry, Shutdown};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{error, info, warn};

use crate::alert::Alert;
use crate::config::NotifierConfig;
use crate::journal::{Found, Journal};
use crate::keeper::keep;
use crate::metrics::{AlertmanagerMetrics, NotifierMetrics};
use crate::queue::Queue;
use crate::request::Endpoint;
use crate::sender::Sender;
use crate::shared::Shared;

/// After shutdown, what is left may be sent for this time.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Why a notifier cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum NotifierError {
    /// A file of the TLS settings, or a proxy of the environment, cannot be used.
    #[error("Alertmanagers, group {group}: {why}")]
    Client {
        /// The number of the group, from 1.
        group: usize,
        /// What is wrong.
        why: String,
    },
    /// The file with the queue cannot be read or written.
    #[error("queue of alerts in {folder}: {source}")]
    Journal {
        /// The data folder.
        folder: String,
        /// The error of the system.
        source: std::io::Error,
    },
}

/// Sends alerts to Alertmanagers.
///
/// Alerts go through a queue. With a data folder it is in a file, too, so that alerts that were not sent when the process ended are
/// sent by the next one.
pub struct Notifier {
    config: NotifierConfig,
    /// The Alertmanagers, with the numbers of their groups.
    members: Vec<Member>,
    shared: Arc<Shared>,
    journal: Mutex<Option<Journal>>,
    /// The last change of the queue that is on the disk.
    saved: watch::Sender<u64>,
}

/// Alertmanagers with the same settings.
struct Member {
    group: usize,
    timeout: Duration,
    endpoints: HttpEndpoints,
}

impl Notifier {
    /// Opens the queue in a data folder; without one, a restart loses alerts that are not sent. This reads a file, so it blocks.
    ///
    /// # Errors
    /// See [`NotifierError`]. A file with the queue that is damaged is reported and kept, and is not an error.
    pub fn open(
        config: NotifierConfig,
        data_dir: Option<&Path>,
        registry: &mut Registry,
    ) -> Result<Self, NotifierError> {
        let metrics = NotifierMetrics::new(&config, registry);
        let mut members = Vec::new();
        for (number, group) in config.groups.iter().enumerate() {
            for endpoints in &group.members {
                let endpoints = HttpEndpoints::new("alertmanager", endpoints.clone())
                    .map_err(|why| NotifierError::Client { group: number + 1, why })?;
                let endpoints = endpoints.counting(metrics.dns());
                members.push(Member { group: number, timeout: group.timeout, endpoints });
            }
        }
        let (mut journal, mut alerts) = (None, Vec::new());
        if let Some(folder) = data_dir.filter(|_| !members.is_empty()) {
            let in_folder = |source| NotifierError::Journal { folder: folder.display().to_string(), source };
            let (opened, found) = Journal::open(folder).map_err(in_folder)?;
            report(&found, &metrics);
            (journal, alerts) = (Some(opened), found.alerts);
        }
        let shared = Arc::new(Shared::new(Queue::new(&config, alerts), metrics));
        let saved = watch::Sender::new(if journal.is_some() { 0 } else { u64::MAX });
        Ok(Self { config, members, shared, journal: Mutex::new(journal), saved })
    }

    /// Adds alerts to the queue. It never waits, neither for an Alertmanager nor for the disk. Without Alertmanagers, it does nothing.
    ///
    /// Their labels must have the external labels. When the queue is full, the oldest alerts are dropped.
    pub fn send(&self, alerts: Vec<Alert>) {
        if !alerts.is_empty() && !self.members.is_empty() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let now = Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
            self.shared.change(|queue| queue.push(alerts, now));
        }
    }

    /// Alerts in the queue that are not sent yet.
    pub fn waiting(&self) -> usize {
        self.shared.look(|queue| queue.waiting())
    }

    /// The base URLs of the Alertmanagers that are known now.
    pub fn alertmanagers(&self) -> Vec<String> {
        self.members.iter().flat_map(|member| member.endpoints.urls().to_vec()).collect()
    }

    /// Waits until all alerts that were given before are on the disk, or cannot be written to it, while [`Notifier::run`] runs.
    /// Without a data folder it does not wait.
    pub async fn saved(&self) {
        let number = *self.shared.version().borrow();
        // The sender is in this object, so it is not gone.
        let _ = self.saved.subscribe().wait_for(|saved| *saved >= number).await;
    }

    /// Sends alerts until shutdown, and then what is left for a few seconds. What cannot be sent is sent after the next start.
    ///
    /// End what calls [`Notifier::send`] first: alerts that are given after this has returned are lost.
    ///
    /// # Cancel safety
    /// Dropping the future ends requests; what was given since the last write of the queue is then lost.
    pub async fn run(&self, shutdown: Shutdown) {
        if self.members.is_empty() {
            info!("no Alertmanager is configured, alerts are not sent");
            return;
        }
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner).take();
        let has_journal = journal.is_some();
        let sent = Shutdown::new();
        let sending = async {
            join_all(self.members.iter().map(|member| self.follow(member, &shutdown).boxed())).await;
            sent.trigger();
        };
        let keeping = async {
            if let Some(journal) = journal {
                keep(&self.shared, journal, &self.saved, sent.clone()).await;
            }
        };
        futures::join!(sending, keeping);
        self.saved.send_replace(u64::MAX);
        match self.waiting() {
            0 => {}
            waiting if has_journal => {
                info!(waiting, "alerts could not be sent, they are sent after the next start");
            }
            waiting => warn!(waiting, "alerts could not be sent and are lost"),
        }
    }

    /// Sends to the Alertmanagers that are found.
    async fn follow(&self, member: &Member, shutdown: &Shutdown) {
        let mut urls = member.endpoints.subscribe();
        let sending = async {
            let (mut running, mut tasks) = (BTreeMap::<String, AbortHandle>::new(), JoinSet::new());
            loop {
                let now = urls.borrow_and_update().clone();
                let gone = running.extract_if(.., |url, _| !now.contains(url));
                gone.for_each(|(_, task)| task.abort());
                for url in now.iter() {
                    if !running.contains_key(url) {
                        let task = self.sender(member, url, shutdown);
                        running.insert(url.clone(), tasks.spawn(task));
                    }
                }
                while tasks.try_join_next().is_some() {}
                if !matches!(shutdown.until_triggered(urls.changed()).await, Some(Ok(()))) {
                    break;
                }
            }
            let end = async { while tasks.join_next().await.is_some() {} };
            // What is not over by then is dropped.
            let _ = tokio::time::timeout(STOP_GRACE, end).await;
            tasks.shutdown().await;
        };
        futures::join!(sending, member.endpoints.run(self.config.dns_interval, shutdown.child()));
    }

    fn sender(
        &self,
        member: &Member,
        base: &str,
        shutdown: &Shutdown,
    ) -> futures::future::BoxFuture<'static, ()> {
        let endpoint = Endpoint::new(member.endpoints.client().clone(), base, member.timeout);
        let host = base.split_once("://").map_or(base, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or(host);
        let metrics = AlertmanagerMetrics::new(self.shared.metrics().clone(), host, endpoint.url());
        let sender = Sender::new(endpoint, metrics, self.config.batch.max(1));
        let (shared, group, shutdown) = (Arc::clone(&self.shared), member.group, shutdown.clone());
        async move { sender.run(&shared, group, shutdown).await }.boxed()
    }
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").field("config", &self.config).finish_non_exhaustive()
    }
}

fn report(found: &Found, metrics: &NotifierMetrics) {
    if let Some((why, kept)) = &found.damage {
        metrics.journal_damaged();
        let kept = kept.display();
        error!(error = why, %kept, alerts = found.alerts.len(), "the file with the queue of alerts is damaged; it is kept, and its valid lines are used");
    }
    if found.torn_bytes > 0 {
        let bytes = found.torn_bytes;
        warn!(
            bytes,
            "the end of the file with the queue of alerts was not written completely and is ignored"
        );
    }
    if !found.alerts.is_empty() {
        info!(alerts = found.alerts.len(), "alerts that were not sent before the restart are sent now");
    }
}
