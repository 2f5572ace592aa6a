//! When to look: events of the file system. They only make the reloader quick; what they miss, its interval finds.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::warn;

use crate::reloader::ReloaderMetrics;

/// Watches folders, and wakes who waits for a change in them.
///
/// Folders, not files: a file that is replaced takes its watch with it, and Kubernetes replaces a symlink in the folder
/// above.
pub(super) struct Watch {
    /// `None` where the system has no watches left.
    watcher: Option<RecommendedWatcher>,
    changed: Arc<Notify>,
    watched: BTreeSet<PathBuf>,
    metrics: ReloaderMetrics,
}

impl Watch {
    pub(super) fn new(metrics: ReloaderMetrics) -> Self {
        let changed = Arc::new(Notify::new());
        let (wake, counted) = (Arc::clone(&changed), metrics.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| match event {
            // Reading is what the reloader does itself.
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
            warn!(error = %cause, "no events from the file system, files are looked at every --reloader.watch-interval");
        });
        Self { watcher: watcher.ok(), changed, watched: BTreeSet::new(), metrics }
    }

    /// Watches these folders from now on, and no others.
    pub(super) fn follow(&mut self, directories: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.watched.difference(&directories) {
            // The watch of a folder that was removed is gone already.
            drop(watcher.unwatch(gone));
        }
        let mut watched = BTreeSet::new();
        for directory in directories {
            // Again for those that are watched: another folder may have taken the name.
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => drop(watched.insert(directory)),
                Err(cause) => {
                    self.metrics.watch_error();
                    if self.watched.contains(&directory) {
                        warn!(folder = %directory.display(), error = %cause, "folder cannot be watched any more");
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

    /// Waits until nothing has changed for `pause`, ten pauses at most.
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
