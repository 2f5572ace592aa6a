//! Watches the file system. Events only make reloads faster; changes without an event are found at the next
//! interval.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::warn;

use crate::reloader::ReloaderMetrics;

/// Watches directories, and wakes the reloader when something in them changes.
///
/// Directories are watched instead of files: a watch ends when its file is replaced, and Kubernetes replaces
/// a symlink in the parent directory.
pub(super) struct FolderWatch {
    /// `None` if the system has no watches left.
    watcher: Option<RecommendedWatcher>,
    changed: Arc<Notify>,
    watched: BTreeSet<PathBuf>,
    metrics: ReloaderMetrics,
}

impl FolderWatch {
    pub(super) fn new(metrics: ReloaderMetrics) -> Self {
        let changed = Arc::new(Notify::new());
        let (wake, counted) = (Arc::clone(&changed), metrics.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            // The reloader itself causes read events.
            Ok(event) if is_reading(&event.kind) => {}
            Ok(_) => {
                counted.watch_event();
                wake.notify_one();
            }
            Err(_) => {
                counted.watch_error();
                wake.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|cause| {
            warn!(error = %cause, "file system events are not available, files are checked only every --reloader.watch-interval");
        });
        Self { watcher: watcher.ok(), changed, watched: BTreeSet::new(), metrics }
    }

    /// Watches exactly these directories from now on.
    pub(super) fn follow(&mut self, directories: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&directories) {
            // The system removes the watch of a removed directory itself.
            drop(watcher.unwatch(gone));
        }
        let mut watched = BTreeSet::new();
        for directory in directories {
            // Watched directories are added again: another directory may have taken the name.
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(directory)),
                Err(cause) => {
                    self.metrics.watch_error();
                    if self.watched.contains(&directory) {
                        warn!(directory = %directory.display(), error = %cause, "directory can no longer be watched, it is checked only every --reloader.watch-interval");
                    }
                }
            }
        }
        self.watched = watched;
        self.metrics.watches(self.watched.len());
    }

    /// Waits for a change since the last call. Cancel safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until nothing has changed for `pause`, at most ten times.
    pub(super) async fn until_quiet(&self, pause: Duration) {
        for _ in 0..10 {
            if tokio::time::timeout(pause, self.changed()).await.is_err() {
                return;
            }
        }
    }
}

fn is_reading(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}
