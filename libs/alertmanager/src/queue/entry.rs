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
}

impl Entry {
    pub(super) fn new(alert: Arc<Alert>, is_resolved: bool, groups: usize) -> Self {
        let bytes = alert.size_bytes();
        Self { alert, is_resolved, bytes, taken: vec![false; groups] }
    }

    pub(super) fn key(&self) -> Key {
        (self.alert.labels.clone(), self.alert.starts_at, self.is_resolved)
    }

    /// Whether each group has an Alertmanager that took it.
    pub(super) fn is_sent(&self) -> bool {
        self.taken.iter().all(|taken| *taken)
    }

    /// Notes that an Alertmanager of a group took it. True if it is sent with that.
    pub(super) fn take(&mut self, group: usize) -> bool {
        let was_sent = self.is_sent();
        if let Some(taken) = self.taken.get_mut(group) {
            *taken = true;
        }
        !was_sent && self.is_sent()
    }

    pub(super) fn to_journal(&self, id: u64) -> JournalEntry {
        JournalEntry { id, is_resolved: self.is_resolved, alert: Arc::clone(&self.alert) }
    }
}
