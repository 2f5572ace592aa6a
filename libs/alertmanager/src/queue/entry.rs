//! An alert in the queue.

use std::sync::Arc;

use model::{Labels, Timestamp};

use crate::alert::Alert;
use crate::queue::JournalEntry;

/// What tells alerts of the queue apart: labels, start, and whether it is resolved.
pub(super) type Key = (Labels, Timestamp, bool);

/// An alert in the queue.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) alert: Arc<Alert>,
    is_resolved: bool,
    pub(super) bytes: usize,
    /// Which groups have an Alertmanager that took it.
    taken: Vec<bool>,
    /// Which groups had one before the last restart. They do not get it again.
    taken_before: Vec<bool>,
}

impl Entry {
    pub(super) fn new(alert: Arc<Alert>, is_resolved: bool, groups: usize) -> Self {
        let bytes = alert.size_bytes();
        let (taken, taken_before) = (vec![false; groups], vec![false; groups]);
        Self { alert, is_resolved, bytes, taken, taken_before }
    }

    /// An alert of the journal. `keys` name the groups.
    pub(super) fn from_journal(entry: JournalEntry, keys: &[String]) -> Self {
        let taken: Vec<bool> = keys.iter().map(|key| entry.taken.contains(key)).collect();
        Self {
            taken: taken.clone(),
            taken_before: taken,
            ..Self::new(entry.alert, entry.is_resolved, keys.len())
        }
    }

    #[cfg(test)]
    pub(super) fn has(&self, group: usize) -> bool {
        self.taken[group]
    }

    /// Whether the Alertmanagers of a group get it.
    pub(super) fn is_for(&self, group: usize) -> bool {
        self.taken_before.get(group) != Some(&true)
    }

    pub(super) fn key(&self) -> Key {
        (self.alert.labels.clone(), self.alert.starts_at, self.is_resolved)
    }

    /// Whether each group has an Alertmanager that took it.
    pub(super) fn is_sent(&self) -> bool {
        self.taken.iter().all(|taken| *taken)
    }

    /// Notes that an Alertmanager of a group took it. False if another one of the group did before.
    pub(super) fn take(&mut self, group: usize) -> bool {
        self.taken.get_mut(group).is_some_and(|taken| !std::mem::replace(taken, true))
    }

    pub(super) fn to_journal(&self, id: u64, keys: &[String]) -> JournalEntry {
        let taken = keys.iter().zip(&self.taken).filter(|(_, taken)| **taken).map(|(key, _)| key.clone());
        let taken = taken.collect();
        JournalEntry { id, is_resolved: self.is_resolved, alert: Arc::clone(&self.alert), taken }
    }
}
