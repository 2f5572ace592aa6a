//! All groups at work, and how they are replaced.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use promapi::RuleGroup;
use rules::{Group, GroupOptions, RuleFile};
use runtime::{Shutdown, ShutdownGate};
use tokio::task::JoinHandle;
use tracing::error;

use crate::evaluation::{Evaluator, RunningGroup};
use crate::group_loop::keep_evaluating;
use crate::metrics::{GroupMetrics, RuleMetrics};
use crate::now::now;

/// The file and the name of a group.
type Key = (String, String);

/// A group and the task that evaluates it.
struct Active {
    running: Arc<RunningGroup>,
    stop: Shutdown,
    task: Option<JoinHandle<()>>,
}

/// All groups at work.
pub(crate) struct RuleManager {
    evaluator: Arc<Evaluator>,
    options: GroupOptions,
    metrics: RuleMetrics,
    groups: RwLock<BTreeMap<Key, Active>>,
    /// Whether rules were applied before. It is locked while they are replaced.
    has_begun: tokio::sync::Mutex<bool>,
    shutdown: Shutdown,
    /// Tasks that mark the series of removed groups.
    markers: ShutdownGate,
}

impl RuleManager {
    pub(crate) fn new(evaluator: Arc<Evaluator>, options: GroupOptions, metrics: RuleMetrics) -> Self {
        Self {
            evaluator,
            options,
            metrics,
            groups: RwLock::default(),
            has_begun: tokio::sync::Mutex::new(false),
            shutdown: Shutdown::new(),
            markers: ShutdownGate::new(),
        }
    }

    /// Replaces all groups. Those that are the same go on without a break; the others keep the state of rules that are the same.
    ///
    /// # Cancel safety
    /// If the future is dropped, some groups may have stopped. Run it in a task of its own.
    pub(crate) async fn apply(&self, files: Vec<(String, RuleFile)>) {
        let mut has_begun = self.has_begun.lock().await;
        let options = GroupOptions { restored: *has_begun, ..self.options.clone() };
        *has_begun = true;
        let mut fresh: BTreeMap<Key, Group> = BTreeMap::new();
        for (file, content) in files {
            for definition in content.groups {
                let group = Group::new(&file, definition, options.clone());
                fresh.insert((file.clone(), group.name().to_owned()), group);
            }
        }
        for (key, task) in self.stop_others(&mut fresh) {
            if let Err(cause) = task.await {
                error!(file = key.0, group = key.1, error = %cause, "the evaluation of a group ended unexpectedly");
            }
        }
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let stopped: Vec<(Key, Active)> = groups.extract_if(.., |_, active| active.task.is_none()).collect();
        for (key, active) in stopped {
            active.running.metrics.remove();
            let Some(old) = Arc::into_inner(active.running) else {
                error!(file = key.0, group = key.1, "the state of a group is lost, it begins anew");
                continue;
            };
            let old = old.group.into_inner().unwrap_or_else(PoisonError::into_inner);
            match fresh.get_mut(&key) {
                Some(group) => group.take_state(old),
                None => self.mark_later(old),
            }
        }
        for (key, group) in fresh {
            groups.insert(key, self.start(group));
        }
    }

    /// Stops the groups that are not in `fresh` as they are, and removes from it those that go on. Returns the tasks that end.
    fn stop_others(&self, fresh: &mut BTreeMap<Key, Group>) -> Vec<(Key, JoinHandle<()>)> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let mut ending = Vec::new();
        for (key, active) in groups.iter_mut() {
            if fresh.get(key).is_some_and(|group| active.running.group().is_same(group)) {
                fresh.remove(key);
            } else if let Some(task) = active.task.take() {
                active.stop.trigger();
                ending.push((key.clone(), task));
            }
        }
        ending
    }

    fn start(&self, group: Group) -> Active {
        let metrics: GroupMetrics = self.metrics.group(&group);
        let running = Arc::new(RunningGroup::new(group, metrics));
        let stop = self.shutdown.child();
        let work = keep_evaluating(Arc::clone(&self.evaluator), Arc::clone(&running), stop.clone());
        // Boxed, so that tokio compiles its code for it once.
        let work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
        Active { running, stop, task: Some(tokio::spawn(work)) }
    }

    /// Ends the series of a group that is gone, after two intervals: another group may write them by then.
    fn mark_later(&self, group: Group) {
        let Some(guard) = self.markers.enter() else { return };
        let (evaluator, shutdown, at) = (Arc::clone(&self.evaluator), self.shutdown.clone(), now());
        tokio::spawn(async move {
            let _guard = guard;
            let pause = tokio::time::sleep(group.interval().saturating_mul(2));
            if shutdown.until_triggered(pause).await.is_some() {
                let marked = tokio::task::spawn_blocking(move || evaluator.store_markers(&group.removed(at)));
                let _ = marked.await;
            }
        });
    }

    /// The groups as the API prints them, by file and name.
    pub(crate) fn list(&self) -> Vec<RuleGroup> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.values().map(|active| active.running.group().to_api()).collect()
    }

    /// Stops all groups, and waits until the last evaluation has ended. Series get no staleness markers: the program goes on later.
    pub(crate) async fn stop(&self) {
        let _applied = self.has_begun.lock().await;
        self.shutdown.trigger();
        let tasks: Vec<JoinHandle<()>> = {
            let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
            groups.values_mut().filter_map(|active| active.task.take()).collect()
        };
        futures::future::join_all(tasks).await;
        self.markers.close().await;
    }
}
