//! Files that list something, such as targets, and that are read again when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::matching_files::matching_files;

/// Largest file, in bytes: far larger than real ones.
const MAX_BYTES: u64 = 16 << 20;

type Parse<T> = Box<dyn Fn(&Path, &str) -> Result<Vec<T>, String> + Send>;

/// What all files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileListing<T> {
    /// What is listed, in the order of the files.
    pub items: Vec<T>,
    /// Files that were never read, and why.
    pub unknown: Vec<(String, String)>,
    /// Files that cannot be read now.
    pub failed: usize,
}

/// The files, and their content when they could last be read.
///
/// A file that is deleted lists nothing, and one that becomes unreadable keeps what it listed, as in Prometheus' file discovery.
pub struct FileLists<T> {
    /// What is listed, for log lines, such as `endpoints`.
    what: &'static str,
    /// Paths, whose last part may contain `*`.
    patterns: Vec<PathBuf>,
    parse: Parse<T>,
    known: BTreeMap<PathBuf, Vec<T>>,
    /// Why a file cannot be read now.
    failures: BTreeMap<PathBuf, String>,
}

impl<T: Clone + Send + 'static> FileLists<T> {
    /// Files that match `patterns`, whose text is read by `parse`. `what` names the items in log lines.
    pub fn new(
        what: &'static str,
        patterns: Vec<PathBuf>,
        parse: impl Fn(&Path, &str) -> Result<Vec<T>, String> + Send + 'static,
    ) -> Self {
        Self { what, patterns, parse: Box::new(parse), known: BTreeMap::new(), failures: BTreeMap::new() }
    }

    /// Reads all files.
    pub fn scan(&mut self) -> FileListing<T> {
        let files: BTreeSet<PathBuf> = self.patterns.iter().flat_map(|p| matching_files(p)).collect();
        for file in &files {
            match self.read(file) {
                Err(ReadFileError::Missing) if self.known.contains_key(file) => {
                    let listed = self.known.insert(file.clone(), Vec::new());
                    if listed.is_some_and(|items| !items.is_empty()) {
                        tracing::warn!(file = %file.display(), what = self.what, "a file with a list was deleted, what it listed is removed");
                    }
                    self.failures.remove(file);
                }
                Ok(items) => {
                    self.failures.remove(file);
                    self.known.insert(file.clone(), items);
                }
                Err(reason) => {
                    let reason = reason.to_string();
                    if self.failures.get(file) != Some(&reason) {
                        tracing::warn!(file = %file.display(), what = self.what, error = %reason, "a file with a list cannot be read, keeping what it listed before");
                    }
                    self.failures.insert(file.clone(), reason);
                }
            }
        }
        // A file that was found by `*` and is gone lists nothing.
        self.known.retain(|file, _| files.contains(file));
        self.failures.retain(|file, _| files.contains(file));
        let never_read = self.failures.iter().filter(|(file, _)| !self.known.contains_key(*file));
        FileListing {
            items: self.known.values().flatten().cloned().collect(),
            unknown: never_read.map(|(file, why)| (file.display().to_string(), why.clone())).collect(),
            failed: self.failures.len(),
        }
    }

    /// Why a file cannot be read now.
    pub fn failure(&self, file: &Path) -> Option<&str> {
        self.failures.get(file).map(String::as_str)
    }

    fn read(&self, file: &Path) -> Result<Vec<T>, ReadFileError> {
        use std::io::Read;
        let read = || {
            let mut text = String::new();
            std::fs::File::open(file)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        let text: String = read().map_err(|cause: std::io::Error| match cause.kind() {
            std::io::ErrorKind::NotFound => ReadFileError::Missing,
            _ => ReadFileError::Unusable(cause.to_string()),
        })?;
        if text.len() as u64 > MAX_BYTES {
            return Err(ReadFileError::Unusable("the file is larger than 16 MiB".to_owned()));
        }
        (self.parse)(file, &text).map_err(ReadFileError::Unusable)
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        let folder = |path: &PathBuf| match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        self.patterns.iter().map(folder).collect()
    }

    /// Applies what the files say, now and whenever they may have changed; forever. They are read when an event of the file system
    /// says so, each `interval`, and when `wake` is notified.
    pub async fn follow(mut self, interval: Duration, wake: Arc<Notify>, apply: impl Fn(FileListing<T>)) {
        let mut watcher = watcher(self.what, Arc::clone(&wake));
        loop {
            // Folders are watched instead of files, because a file that is replaced loses its watch. A folder may appear
            // later, so it is added again each time.
            for folder in self.folders() {
                let watched = watcher.as_mut().map(|w| w.watch(&folder, RecursiveMode::NonRecursive));
                if let Some(Err(cause)) = watched {
                    tracing::debug!(folder = %folder.display(), error = %cause, "folder cannot be watched, it is read at an interval");
                }
            }
            let scanned = tokio::task::spawn_blocking(move || {
                let listing = self.scan();
                (self, listing)
            });
            let Ok((files, listing)) = scanned.await else { return };
            self = files;
            apply(listing);
            // No event is lost: it wakes the next wait, even if it comes before.
            let _ = tokio::time::timeout(interval, wake.notified()).await;
        }
    }
}

impl<T> std::fmt::Debug for FileLists<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileLists").field("patterns", &self.patterns).finish_non_exhaustive()
    }
}

/// Wakes `wake` when something in a watched folder changes; `None` if the system has no watches left.
fn watcher(what: &'static str, wake: Arc<Notify>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files causes events of access.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            wake.notify_one();
        }
    });
    let watcher = watcher.inspect_err(|cause| {
        tracing::warn!(what, error = %cause, "file system events are not available, files are read at an interval only");
    });
    watcher.ok()
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
enum ReadFileError {
    #[error("No such file or directory")]
    Missing,
    #[error("{0}")]
    Unusable(String),
}
