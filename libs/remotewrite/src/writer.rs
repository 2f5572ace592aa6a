//! All queues at work, and how they are replaced.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use head::{Database, LogHold};
use model::{Labels, Relabeling};
use runtime::Shutdown;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};

use crate::config::RemoteWriteConfig;
use crate::delivery::Delivery;
use crate::metrics::{QueueMetrics, RemoteWriteMetrics};
use crate::position::path_of;
use crate::queue::Queue;
use crate::receiver::Receiver;
use crate::source::SentRules;

/// The folder of the positions, beside the log.
const POSITIONS_DIR: &str = "remote_write";

/// Queues that are checked, and not at work yet.
#[derive(Clone, Default)]
pub struct PreparedRemoteWrite(BTreeMap<String, Arc<Settings>>);

/// The settings of a queue.
struct Settings {
    config: RemoteWriteConfig,
    rules: SentRules,
    receiver: Receiver,
}

impl Settings {
    fn is_same(&self, other: &Self) -> bool {
        self.config == other.config && self.rules.external == other.rules.external
    }
}

/// Sends the samples of a data folder to the receivers of a configuration.
///
/// A queue reads the write-ahead log. How much of it was sent is in a file, so that the next start goes on there. A queue that is new
/// begins at the end of the log.
pub struct RemoteWriter {
    dir: PathBuf,
    database: Arc<Database>,
    metrics: RemoteWriteMetrics,
    /// None before the first configuration: positions are not forgotten because of it.
    wanted: watch::Sender<Option<PreparedRemoteWrite>>,
}

/// A queue at work.
struct Running {
    settings: Arc<Settings>,
    stop: Shutdown,
    /// One task, which is aborted when this is dropped.
    task: JoinSet<()>,
    hold: Arc<LogHold>,
}

impl RemoteWriter {
    /// Sends nothing yet. `data_dir` is the folder of the database.
    pub fn new(data_dir: &Path, database: Arc<Database>, metrics: RemoteWriteMetrics) -> Self {
        let wanted = watch::Sender::new(None);
        Self { dir: data_dir.join(POSITIONS_DIR), database, metrics, wanted }
    }

    /// Checks a configuration. The external labels are attached to all series that do not have labels of these names.
    ///
    /// # Errors
    /// Relabelling, a file of TLS settings, or a proxy of the environment cannot be used.
    pub fn prepare(configs: &[RemoteWriteConfig], external: &Labels) -> Result<PreparedRemoteWrite, String> {
        let mut prepared = BTreeMap::new();
        let mut same_urls: HashMap<&str, usize> = HashMap::new();
        for config in configs {
            let count = same_urls.entry(&config.url).or_insert(0);
            let name = config.name.clone().unwrap_or_else(|| own_name(&config.url, *count));
            *count += 1;
            let relabeling = Relabeling::new(config.write_relabel_configs.clone());
            let rules = SentRules {
                external: external.clone(),
                relabeling: relabeling.map_err(|why| format!("remote_write: {name}: {why}"))?,
                exemplars: config.send_exemplars,
                histograms: config.send_native_histograms,
            };
            let receiver =
                Receiver::new(&name, config).map_err(|why| format!("remote_write: {name}: {why}"))?;
            let settings = Settings { config: config.clone(), rules, receiver };
            if prepared.insert(name.clone(), Arc::new(settings)).is_some() {
                return Err(format!("remote_write: two entries have the name {name:?}: rename one"));
            }
        }
        Ok(PreparedRemoteWrite(prepared))
    }

    /// Replaces what is sent. Queues whose settings are the same go on without a break; those that are gone forget their position.
    pub fn apply(&self, prepared: PreparedRemoteWrite) {
        self.wanted.send_replace(Some(prepared));
    }

    /// Runs until shutdown.
    pub async fn run(&self, shutdown: Shutdown) {
        let mut wanted = self.wanted.subscribe();
        let mut running: BTreeMap<String, Running> = BTreeMap::new();
        loop {
            let next = wanted.borrow_and_update().clone();
            if let Some(PreparedRemoteWrite(next)) = next {
                self.replace(&mut running, next, &shutdown).await;
            }
            match shutdown.until_triggered(wanted.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => break,
            }
        }
        for (name, queue) in running {
            queue.end(&name).await;
        }
    }

    async fn replace(
        &self,
        running: &mut BTreeMap<String, Running>,
        next: BTreeMap<String, Arc<Settings>>,
        shutdown: &Shutdown,
    ) {
        let mut holds = BTreeMap::new();
        let changed = running.extract_if(.., |name, queue| {
            next.get(name).is_none_or(|settings| !settings.is_same(&queue.settings))
        });
        for (name, queue) in changed.collect::<Vec<_>>() {
            // What the next queue of this name needs is kept meanwhile.
            holds.insert(name.clone(), queue.end(&name).await);
        }
        self.remove_others(&next);
        for (name, settings) in next {
            if running.contains_key(&name) {
                continue;
            }
            let hold = match holds.remove(&name) {
                Some(hold) => hold,
                None => {
                    let database = Arc::clone(&self.database);
                    match tokio::task::spawn_blocking(move || database.head().hold_log()).await {
                        Ok(hold) => Arc::new(hold),
                        Err(_) => continue,
                    }
                }
            };
            let queue = self.queue(&name, &settings, Arc::clone(&hold));
            let stop = shutdown.child();
            let mut task = JoinSet::new();
            task.spawn(Arc::new(queue).run(stop.clone()));
            running.insert(name, Running { settings, stop, task, hold });
        }
    }

    fn queue(&self, name: &str, settings: &Settings, hold: Arc<LogHold>) -> Queue {
        let Settings { config, rules, receiver } = settings;
        let metrics = QueueMetrics::new(self.metrics.clone(), name, &config.url);
        let decided = format!(
            "{}{:?}{}{}",
            rules.external, config.write_relabel_configs, rules.exemplars, rules.histograms
        );
        Queue {
            name: name.to_owned(),
            config: config.clone(),
            rules: rules.clone(),
            fingerprint: u64::from(crc32c::crc32c(decided.as_bytes())),
            file: path_of(&self.dir, name),
            database: Arc::clone(&self.database),
            hold,
            delivery: Delivery::new(name.to_owned(), config.clone(), receiver.clone(), metrics),
        }
    }

    /// Removes the positions of queues that are gone: a queue of the same name that comes later begins at the end of the log.
    fn remove_others(&self, next: &BTreeMap<String, Arc<Settings>>) {
        let kept: Vec<PathBuf> = next.keys().map(|name| path_of(&self.dir, name)).collect();
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| !kept.contains(path)) {
            if let Err(cause) = fs::remove_file(&path) {
                warn!(file = %path.display(), error = %cause, "the position of a queue that is gone cannot be removed");
            }
        }
    }
}

impl Running {
    async fn end(mut self, name: &str) -> Arc<LogHold> {
        self.stop.trigger();
        if let Some(Err(cause)) = self.task.join_next().await {
            error!(queue = name, error = %cause, "the queue of remote write ended unexpectedly");
        }
        self.hold
    }
}

/// A short name for a URL.
fn own_name(url: &str, number: usize) -> String {
    let hash = crc32c::crc32c(url.as_bytes()) >> 8;
    if number == 0 { format!("{hash:06x}") } else { format!("{hash:06x}-{number}") }
}
