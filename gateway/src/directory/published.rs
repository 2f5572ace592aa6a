//! The published entries, and which of them have changed since a version.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use identity::Name;
use proto::isthmus::mesh::v1::DirectoryEntry;

/// Removals that are remembered. A watcher that missed more gets the whole directory.
const REMOVALS: usize = 10_000;

/// The entries of all clusters. Each change has a version, which only grows.
#[derive(Default)]
pub(super) struct PublishedEntries {
    entries: BTreeMap<String, PublishedEntry>,
    by_cluster: BTreeMap<Name, BTreeSet<String>>,
    /// Names of entries that are gone, with the version, in order.
    removed: VecDeque<(u64, String)>,
    /// Before this version, removals are forgotten.
    oldest: u64,
    version: u64,
    healthy: usize,
}

struct PublishedEntry {
    version: u64,
    entry: Arc<DirectoryEntry>,
}

/// What has changed since a version.
pub(crate) struct EntryChanges {
    /// The version that has these changes.
    pub(crate) version: u64,
    /// Whether `entries` are all there are, and not only the changed ones.
    pub(crate) is_whole: bool,
    /// New and changed entries, by name.
    pub(crate) entries: Vec<Arc<DirectoryEntry>>,
    /// Names of entries that are gone.
    pub(crate) removed: Vec<String>,
}

impl PublishedEntries {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// The numbers of healthy and of other entries.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.healthy, self.entries.len() - self.healthy)
    }

    /// Replaces an entry, or adds it.
    pub(super) fn set(&mut self, cluster: &Name, entry: DirectoryEntry) {
        let known = self.entries.get(&entry.name);
        if known.is_some_and(|known| *known.entry == entry) {
            return;
        }
        let was_healthy = known.is_some_and(|known| known.entry.healthy);
        self.healthy = self.healthy + usize::from(entry.healthy) - usize::from(was_healthy);
        self.version += 1;
        self.by_cluster.entry(cluster.clone()).or_default().insert(entry.name.clone());
        let published = PublishedEntry { version: self.version, entry: Arc::new(entry) };
        self.entries.insert(published.entry.name.clone(), published);
    }

    /// Replaces all entries of a cluster.
    pub(super) fn set_cluster(&mut self, cluster: &Name, entries: Vec<DirectoryEntry>) {
        let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let known = self.by_cluster.get(cluster);
        let gone = known.into_iter().flatten().filter(|name| !names.contains(name.as_str()));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.remove(cluster, &name);
        }
        for entry in entries {
            self.set(cluster, entry);
        }
    }

    fn remove(&mut self, cluster: &Name, name: &str) {
        if let Some(known) = self.entries.remove(name) {
            self.healthy -= usize::from(known.entry.healthy);
        }
        if let Some(names) = self.by_cluster.get_mut(cluster) {
            names.remove(name);
            if names.is_empty() {
                self.by_cluster.remove(cluster);
            }
        }
        self.version += 1;
        self.removed.push_back((self.version, name.to_owned()));
        if self.removed.len() > REMOVALS
            && let Some((version, _)) = self.removed.pop_front()
        {
            self.oldest = version;
        }
    }

    /// What has changed since a version; since 0, all entries.
    pub(super) fn changes(&self, since: u64) -> EntryChanges {
        let is_whole = since == 0 || since < self.oldest;
        let changed = self.entries.values().filter(|known| is_whole || known.version > since);
        let entries = changed.map(|known| Arc::clone(&known.entry)).collect();
        let removed = match is_whole {
            true => Vec::new(),
            false => {
                let after = self.removed.iter().rev().take_while(|(version, _)| *version > since);
                // A name that is there again is among the entries.
                after
                    .filter(|(_, name)| !self.entries.contains_key(name))
                    .map(|(_, name)| name.clone())
                    .collect()
            }
        };
        EntryChanges { version: self.version, is_whole, entries, removed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, healthy: bool) -> DirectoryEntry {
        DirectoryEntry { name: name.to_owned(), healthy, ..DirectoryEntry::default() }
    }

    fn names(changes: &EntryChanges) -> (bool, Vec<&str>, Vec<&str>) {
        let entries = changes.entries.iter().map(|entry| entry.name.as_str()).collect();
        (changes.is_whole, entries, changes.removed.iter().map(String::as_str).collect())
    }

    #[test]
    fn only_what_has_changed_since_a_version_is_returned() {
        let (eu, us): (Name, Name) = ("eu-1".parse().unwrap(), "us-1".parse().unwrap());
        let mut published = PublishedEntries::default();
        published.set_cluster(&eu, vec![entry("a.eu-1", true), entry("b.eu-1", true)]);
        published.set_cluster(&us, vec![entry("us-1", false)]);
        let whole = published.changes(0);
        assert_eq!(names(&whole), (true, vec!["a.eu-1", "b.eu-1", "us-1"], vec![]));
        assert_eq!(published.counts(), (2, 1));
        // What stays as it is has no new version.
        published.set_cluster(&eu, vec![entry("a.eu-1", true), entry("b.eu-1", true)]);
        assert_eq!(published.version(), whole.version);
        published.set(&eu, entry("b.eu-1", false));
        published.set_cluster(&us, vec![entry("a.us-1", true)]);
        let changes = published.changes(whole.version);
        assert_eq!(names(&changes), (false, vec!["a.us-1", "b.eu-1"], vec!["us-1"]));
        assert_eq!(published.counts(), (2, 1));
        // It goes and comes back.
        published.set_cluster(&us, Vec::new());
        published.set_cluster(&us, vec![entry("a.us-1", true)]);
        assert_eq!(names(&published.changes(changes.version)), (false, vec!["a.us-1"], vec![]));
        for _ in 0..=REMOVALS {
            published.set_cluster(&us, vec![entry("c.us-1", true)]);
            published.set_cluster(&us, Vec::new());
        }
        assert!(published.changes(changes.version).is_whole, "too many removals to remember");
        assert!(!published.changes(published.version() - 1).is_whole);
    }
}
