//! A scrape configuration at work: its discoveries, its targets, and their loops.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use head::Metadata;
use model::Labels;
use promapi::{ActiveTarget, DroppedTarget, TargetDiscovery};
use runtime::{Shutdown, format_duration};
use tokio::sync::{Notify, watch};

use crate::discovery::Discovery;
use crate::scrape_loop::{Refusal, ScrapeLoop};
use crate::series::TargetMetadata;
use crate::setup::JobSetup;
use crate::shared::Shared;
use crate::target::{Populated, Target, discovered_labels, populate};
use crate::target_state::TargetState;

/// Targets are compared with what was discovered no more often than this, because discoveries often publish several times in a row.
const SYNC_GAP: Duration = Duration::from_millis(250);
/// After a reload, targets are kept for this time until new discoveries have found theirs.
const DISCOVERY_WAIT: Duration = Duration::from_secs(5);

/// A scrape configuration at work.
pub(crate) struct Job {
    name: String,
    shared: Arc<Shared>,
    setup: watch::Sender<Arc<JobSetup>>,
    /// Notified when targets must be compared with what was discovered.
    changed: Arc<Notify>,
    refusal: Refusal,
    /// Triggered when the scrape configuration is removed.
    removed: Shutdown,
    state: Mutex<JobState>,
}

#[derive(Default)]
struct JobState {
    discoveries: Vec<Discovery>,
    /// By their hash.
    targets: HashMap<u64, RunningTarget>,
    /// The labels before relabelling of targets that it drops.
    dropped: Vec<Labels>,
    /// Targets that cannot be used, as far as they were logged.
    logged: HashSet<String>,
    /// Until when targets are kept that no discovery has found.
    kept_until: Option<Instant>,
}

struct RunningTarget {
    target: Arc<Target>,
    /// Before relabelling, by the last discovery.
    discovered: Labels,
    state: Arc<TargetState>,
    metadata: TargetMetadata,
    gone: Shutdown,
}

impl Job {
    /// Begins to discover and to scrape. It must be called in a runtime.
    pub(crate) fn start(shared: Arc<Shared>, setup: Arc<JobSetup>) -> Arc<Self> {
        let job = Arc::new(Self {
            name: setup.config.job_name.clone(),
            removed: shared.shutdown.child(),
            shared,
            setup: watch::Sender::new(Arc::clone(&setup)),
            changed: Arc::default(),
            refusal: Refusal::default(),
            state: Mutex::default(),
        });
        job.discover(&setup);
        let follow = Arc::clone(&job);
        tokio::spawn(async move {
            let removed = follow.removed.clone();
            removed.until_triggered(follow.follow()).await;
        });
        job
    }

    /// The scrape configuration.
    pub(crate) fn setup(&self) -> Arc<JobSetup> {
        Arc::clone(&self.setup.borrow())
    }

    /// Takes another scrape configuration of the same name. Discoveries and targets that stay the same go on.
    pub(crate) fn reload(&self, setup: Arc<JobSetup>) {
        self.shared.metrics.count_reload();
        self.setup.send_replace(Arc::clone(&setup));
        self.discover(&setup);
        self.changed.notify_one();
    }

    /// Ends all scrapes. The series become stale.
    pub(crate) fn remove(&self) {
        self.removed.trigger();
        let mut state = self.state();
        for running in state.targets.values() {
            running.gone.trigger();
        }
        *state = JobState::default();
        self.shared.metrics.forget(&self.name);
    }

    fn state(&self) -> MutexGuard<'_, JobState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the discoveries that are new, and ends those that are gone.
    fn discover(&self, setup: &JobSetup) {
        let mut state = self.state();
        let mut before = std::mem::take(&mut state.discoveries);
        if !before.is_empty() {
            state.kept_until = Some(Instant::now() + DISCOVERY_WAIT);
        }
        for config in &setup.config.discoveries {
            let known = before.iter().position(|discovery| discovery.config == *config);
            let discovery = match known {
                Some(at) => before.swap_remove(at),
                None => {
                    let changed = Arc::clone(&self.changed);
                    Discovery::start(config.clone(), &self.name, changed, &self.shared.metrics)
                }
            };
            state.discoveries.push(discovery);
        }
    }

    async fn follow(&self) {
        loop {
            let wait = {
                let state = self.state();
                let is_waiting = state.discoveries.iter().any(|discovery| discovery.groups().is_none());
                let until = state.kept_until.filter(|_| is_waiting);
                until
                    .map(|until| until.saturating_duration_since(Instant::now()))
                    .filter(|wait| !wait.is_zero())
            };
            match wait {
                Some(wait) => drop(tokio::time::timeout(wait, self.changed.notified()).await),
                None => {
                    self.sync();
                    tokio::time::sleep(SYNC_GAP).await;
                    self.changed.notified().await;
                }
            }
        }
    }

    /// Compares the targets with what was discovered: starts loops of new ones, and ends those that are gone.
    fn sync(&self) {
        let setup = self.setup();
        let mut state = self.state();
        state.kept_until = None;
        let (found, failed) = self.find(&setup, &mut state);
        let is_there: HashSet<u64> = found.iter().map(|target| target.hash).collect();
        state.targets.retain(|hash, running| {
            let is_kept = is_there.contains(hash);
            if !is_kept {
                running.gone.trigger();
            }
            is_kept
        });
        let mut new = Vec::new();
        for target in found {
            match state.targets.get_mut(&target.hash) {
                Some(running) => running.discovered = target.discovered,
                None => {
                    let discovered = target.discovered.clone();
                    let hash = target.hash;
                    let running = RunningTarget {
                        target: Arc::new(target),
                        discovered,
                        state: Arc::default(),
                        metadata: TargetMetadata::default(),
                        gone: Shutdown::new(),
                    };
                    new.push(self.scrape_loop(&running));
                    state.targets.insert(hash, running);
                }
            }
        }
        self.check_limit(&setup, state.targets.len());
        self.shared.metrics.count_sync(&self.name, state.targets.len(), failed);
        for scrapes in new.into_iter().flatten() {
            tokio::spawn(scrapes.run());
        }
    }

    /// The targets after relabelling, and how many cannot be used.
    fn find(&self, setup: &JobSetup, state: &mut JobState) -> (Vec<Target>, usize) {
        let (mut found, mut dropped, mut failed) = (Vec::new(), Vec::new(), 0);
        let most = usize::try_from(setup.config.limits.kept_dropped_targets).unwrap_or(usize::MAX);
        let groups: Vec<_> = state.discoveries.iter().filter_map(Discovery::groups).flatten().collect();
        for group in &groups {
            for own in &group.targets {
                let discovered = discovered_labels(&setup.config, own, &group.labels);
                match populate(&setup.config, &setup.relabeling, discovered.clone()) {
                    Ok(Populated::Kept(target)) => found.push(*target),
                    Ok(Populated::Dropped) if most == 0 || dropped.len() < most => dropped.push(discovered),
                    Ok(Populated::Dropped) => {}
                    Err(error) => {
                        failed += 1;
                        let line = format!("{discovered}: {error}");
                        if !state.logged.contains(&line) {
                            tracing::error!(job = self.name, target = %discovered, error, "a target cannot be used");
                            // What a discovery finds has no bound.
                            if state.logged.len() < 10_000 {
                                state.logged.insert(line);
                            }
                        }
                    }
                }
            }
        }
        state.dropped = dropped;
        (found, failed)
    }

    fn scrape_loop(&self, running: &RunningTarget) -> Option<ScrapeLoop> {
        Some(ScrapeLoop {
            // None during a shutdown.
            guard: self.shared.loops.enter()?,
            shared: Arc::clone(&self.shared),
            target: Arc::clone(&running.target),
            state: Arc::clone(&running.state),
            metadata: running.metadata.clone(),
            setup: self.setup.subscribe(),
            refusal: Arc::clone(&self.refusal),
            gone: running.gone.clone(),
        })
    }

    fn check_limit(&self, setup: &JobSetup, targets: usize) {
        let limit = setup.config.limits.targets;
        let is_over = limit > 0 && targets as u64 > limit;
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if is_over {
            self.shared.metrics.count_exceeded_targets();
            if refusal.is_none() {
                tracing::warn!(
                    job = self.name,
                    targets,
                    limit,
                    "there are more targets than target_limit, none is scraped"
                );
            }
        }
        *refusal =
            is_over.then(|| format!("target_limit exceeded (number of targets: {targets}, limit: {limit})"));
    }

    /// What each target says about its metrics.
    pub(crate) fn metadata(&self) -> Vec<(Labels, Vec<(String, Metadata)>)> {
        let state = self.state();
        let running = state.targets.values();
        running.map(|running| (running.target.labels.clone(), running.metadata.list())).collect()
    }

    /// Adds the targets. `global_url` makes a URL that other machines can use.
    pub(crate) fn list(&self, listed: &mut TargetDiscovery, global_url: &dyn Fn(&str) -> String) {
        let state = self.state();
        let mut active: Vec<ActiveTarget> = state
            .targets
            .values()
            .map(|running| {
                let (target, last) = (&running.target, running.state.last());
                ActiveTarget {
                    discovered_labels: running.discovered.clone(),
                    labels: target.labels.clone(),
                    scrape_pool: self.name.clone(),
                    scrape_url: target.url.clone(),
                    global_url: global_url(&target.url),
                    last_error: last.error,
                    last_scrape: last.at,
                    last_scrape_seconds: last.duration.as_secs_f64(),
                    health: last.health,
                    scrape_interval: format_duration(target.interval),
                    scrape_timeout: format_duration(target.timeout),
                }
            })
            .collect();
        active.sort_by(|one, two| (&one.scrape_url, &one.labels).cmp(&(&two.scrape_url, &two.labels)));
        listed.active_targets.extend(active);
        listed.dropped_targets.extend(state.dropped.iter().map(|labels| DroppedTarget {
            discovered_labels: labels.clone(),
            scrape_pool: self.name.clone(),
        }));
    }
}
