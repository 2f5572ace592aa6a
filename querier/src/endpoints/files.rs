//! Files that list endpoints, in the form of Prometheus' file discovery.
//!
//! A file is a list of groups, each with `targets`: addresses as in `--endpoint`. It is read again when it changes. A file
//! that is deleted lists nothing, and one that becomes unreadable keeps its endpoints, as in Prometheus. One that was never
//! read makes answers partial.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use runtime::yaml::{YamlNode, YamlValue};
use tokio::sync::Notify;

use crate::endpoints::address::EndpointAddress;

/// Largest file, in bytes: far larger than real ones.
const MAX_BYTES: u64 = 16 << 20;
const SUFFIXES: [&str; 6] = [".json", ".yml", ".yaml", ".JSON", ".YML", ".YAML"];

/// The path of a file, whose last part may contain `*` for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePattern(String);

/// The text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {0:?} must end in .json, .yml or .yaml, and may contain * only in its last part")]
pub(crate) struct FilePatternError(String);

impl FilePattern {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn split(&self) -> (&Path, &str) {
        match self.0.rsplit_once('/') {
            Some(("", name)) => (Path::new("/"), name),
            Some((folder, name)) => (Path::new(folder), name),
            None => (Path::new("."), &self.0),
        }
    }

    /// The files that exist; the path itself if it has no `*`.
    fn files(&self) -> Vec<PathBuf> {
        runtime::matching_files(Path::new(&self.0))
    }
}

impl FromStr for FilePattern {
    type Err = FilePatternError;

    fn from_str(text: &str) -> Result<Self, FilePatternError> {
        let pattern = Self(text.to_owned());
        let (folder, name) = pattern.split();
        let is_file =
            SUFFIXES.iter().any(|suffix| name.strip_suffix(suffix).is_some_and(|stem| !stem.is_empty()));
        match is_file && !folder.to_string_lossy().contains('*') {
            true => Ok(pattern),
            false => Err(FilePatternError(text.to_owned())),
        }
    }
}

/// What all files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// The addresses, in the order of the files.
    pub(super) addresses: Vec<EndpointAddress>,
    /// Files that were never read, and why.
    pub(super) unknown: Vec<(String, String)>,
}

/// The files and their content when they could last be read.
pub(super) struct Files {
    patterns: Vec<FilePattern>,
    known: BTreeMap<PathBuf, Vec<EndpointAddress>>,
    /// Why a file cannot be read now.
    failures: BTreeMap<PathBuf, String>,
}

impl Files {
    pub(super) fn new(patterns: Vec<FilePattern>) -> Self {
        Self { patterns, known: BTreeMap::new(), failures: BTreeMap::new() }
    }

    /// Reads all files.
    pub(super) fn scan(&mut self) -> Listing {
        let files: BTreeSet<PathBuf> = self.patterns.iter().flat_map(FilePattern::files).collect();
        for file in &files {
            match read(file) {
                Err(ReadFileError::Missing) if self.known.contains_key(file) => {
                    let listed = self.known.insert(file.clone(), Vec::new());
                    if listed.is_some_and(|addresses| !addresses.is_empty()) {
                        tracing::warn!(file = %file.display(), "a file with endpoints was deleted, its endpoints are removed");
                    }
                    self.failures.remove(file);
                }
                Ok(addresses) => {
                    self.failures.remove(file);
                    self.known.insert(file.clone(), addresses);
                }
                Err(reason) => {
                    let reason = reason.to_string();
                    if self.failures.get(file) != Some(&reason) {
                        tracing::warn!(file = %file.display(), error = %reason, "a file with endpoints cannot be read, keeping those that are known");
                    }
                    self.failures.insert(file.clone(), reason);
                }
            }
        }
        // A file that was found by `*` and is gone lists nothing.
        self.known.retain(|file, _| files.contains(file));
        self.failures.retain(|file, _| files.contains(file));
        let never_read = self.failures.iter().filter(|(file, _)| !self.known.contains_key(*file));
        Listing {
            addresses: self.known.values().flatten().cloned().collect(),
            unknown: never_read.map(|(file, why)| (file.display().to_string(), why.clone())).collect(),
        }
    }

    fn folders(&self) -> BTreeSet<PathBuf> {
        self.patterns.iter().map(|pattern| pattern.split().0.to_owned()).collect()
    }

    /// Applies what the files say, now and whenever they may have changed; forever.
    pub(super) async fn follow(mut self, interval: Duration, wake: Arc<Notify>, apply: impl Fn(Listing)) {
        let mut watcher = watcher(Arc::clone(&wake));
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

/// Wakes `wake` when something in a watched folder changes; `None` if the system has no watches left.
fn watcher(wake: Arc<Notify>) -> Option<RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the files causes events of access.
        if !event.is_ok_and(|event| event.kind.is_access()) {
            wake.notify_one();
        }
    });
    let watcher = watcher.inspect_err(|cause| {
        tracing::warn!(error = %cause, "file system events are not available, files are read only every --store.sd-interval");
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

fn read(file: &Path) -> Result<Vec<EndpointAddress>, ReadFileError> {
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
    parse(&text).map_err(ReadFileError::Unusable)
}

/// The addresses in a file; labels of groups are ignored, as in Thanos.
fn parse(text: &str) -> Result<Vec<EndpointAddress>, String> {
    let node = YamlNode::parse(text).map_err(|mistake| mistake.to_string())?;
    let YamlValue::List(groups) = &node.value else {
        return Err(format!("expected a list of groups with targets, found {}", node.kind()));
    };
    let mut addresses = Vec::new();
    for group in groups {
        let at = |node: &YamlNode| node.line.map_or(String::new(), |line| format!("line {line}: "));
        let YamlValue::Map(fields) = &group.value else {
            return Err(format!("{}expected a group with targets, found {}", at(group), group.kind()));
        };
        for (_, value) in fields.iter().filter(|(key, _)| key.name() == "targets") {
            let YamlValue::List(targets) = &value.value else {
                return Err(format!(
                    "{}targets: expected a list of addresses, found {}",
                    at(value),
                    value.kind()
                ));
            };
            for target in targets {
                addresses.push(target.parsed().map_err(|why| format!("{}targets: {why}", at(target)))?);
            }
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(listing: &Listing) -> Vec<String> {
        listing.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn endpoints_of_json_and_yaml_files_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let pattern = |name: &str| format!("{}/{name}", folder.path().display()).parse().unwrap();
        write("eu-1.json", r#"[{"targets": ["a:1", "dns+b:2"], "labels": {"x": "y"}}, {"targets": []}]"#);
        write("us-1.yml", "- targets:\n  - c:3\n");
        write("notes.txt", "not a list");
        let mut files = Files::new(vec![pattern("*-1.json"), pattern("us-1.yml"), pattern("*.yml")]);
        let all = files.scan();
        assert_eq!((listed(&all), all.unknown), (vec!["a:1".into(), "dns+b:2".into(), "c:3".into()], vec![]));

        // A file that is damaged keeps its endpoints; one that is removed loses them.
        write("us-1.yml", "- targets: [c]\n");
        std::fs::remove_file(folder.path().join("eu-1.json")).unwrap();
        let rest = files.scan();
        assert_eq!((listed(&rest), rest.unknown), (vec!["c:3".to_owned()], vec![]));
        let file = folder.path().join("us-1.yml");
        assert!(files.failures[&file].starts_with("line 1: targets: endpoint \"c\" is not of the form"));

        // So does one that is given without `*`.
        std::fs::remove_file(&file).unwrap();
        assert_eq!(files.scan(), Listing::default());
        write("us-1.yml", "- targets: ['d:4']\n");
        assert_eq!(listed(&files.scan()), ["d:4"]);
    }

    #[test]
    fn file_that_was_never_read_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let path = format!("{}/stores.yaml", folder.path().display());
        let mut files = Files::new(vec![path.parse().unwrap()]);
        let unknown = files.scan().unknown;
        assert!(unknown[0].0 == path && unknown[0].1.contains("No such file"), "{unknown:?}");
        std::fs::write(&path, "").unwrap();
        let why = files.scan().unknown[0].1.clone();
        assert_eq!(why, "expected a list of groups with targets, found nothing");
        std::fs::write(&path, "[]").unwrap();
        assert_eq!(files.scan(), Listing::default());
    }

    #[test]
    fn patterns_have_stars_in_the_last_part_only() {
        for bad in ["stores", "/a/*/b.json", ".json", "x.txt", "/a/*"] {
            assert!(bad.parse::<FilePattern>().is_err(), "{bad}");
        }
    }
}
