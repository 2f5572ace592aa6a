//! The queue: which alerts wait, how far each Alertmanager has come, and what the journal must be told.
//!
//! A machine without I/O and without a clock. Every Alertmanager reads the queue from the oldest alert to the newest, at its own
//! pace. An alert is sent when each group has an Alertmanager that took it. It stays until all Alertmanagers have passed it, so that
//! one that was away gets it too; the limits of the queue end that. After a restart, a group gets only what none of its Alertmanagers
//! has taken: an alert must not fire again where its resolution is known.
//!
//! An alert that is sent again while it waits takes the place of its older copy: same labels, same start, and both firing or both
//! resolved. So the queue does not grow while an Alertmanager is away, and the resolution of an alert never replaces its firing.

mod entry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use model::Timestamp;

use crate::alert::Alert;
use crate::config::{AlertmanagerGroup, NotifierConfig};
use entry::{Entry, Key};

/// Most bytes of alerts in a request, except that there is always one.
const BATCH_BYTES: usize = 4 << 20;

/// An Alertmanager as the queue knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReaderId(u64);

/// How far an Alertmanager has come.
#[derive(Debug)]
struct Reader {
    group: usize,
    /// All alerts with smaller numbers are done.
    next: u64,
    /// The end of what is being sent, which is after `next`.
    sending: Option<u64>,
}

/// Alerts for one request.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    /// The alerts.
    pub(crate) alerts: Vec<Arc<Alert>>,
    ids: Vec<u64>,
    /// Follows the last number.
    pub(crate) end: u64,
}

/// What has happened since the last look, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueCounts {
    /// Alerts that were given.
    pub(crate) pushed: u64,
    /// Alerts that are sent.
    pub(crate) sent: u64,
    /// Alerts that were not sent, because the queue was full.
    pub(crate) dropped: u64,
    /// Alerts that a group refused.
    pub(crate) refused: u64,
}

/// An alert in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalEntry {
    pub(crate) id: u64,
    pub(crate) is_resolved: bool,
    pub(crate) alert: Arc<Alert>,
    /// The groups that have it already.
    pub(crate) taken: Vec<String>,
}

/// What the journal must be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Whether `added` is all that waits, so that the journal is written anew.
    pub(crate) is_all: bool,
    pub(crate) removed: Vec<u64>,
    pub(crate) added: Vec<JournalEntry>,
    /// Alerts that a group has and another one has not, by group.
    pub(crate) taken: BTreeMap<String, BTreeSet<u64>>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_all && self.removed.is_empty() && self.added.is_empty() && self.taken.is_empty()
    }
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    capacity: usize,
    capacity_bytes: usize,
    /// Names of the groups in the journal.
    keys: Vec<String>,
    entries: BTreeMap<u64, Entry>,
    by_key: HashMap<Key, u64>,
    bytes: usize,
    /// Alerts that are not sent yet.
    waiting: usize,
    next: u64,
    readers: BTreeMap<ReaderId, Reader>,
    next_reader: u64,
    counts: QueueCounts,
    added: BTreeSet<u64>,
    removed: Vec<u64>,
    /// Alerts that a group has since the last look of the journal.
    taken: BTreeMap<String, BTreeSet<u64>>,
    /// Too much has changed to list it.
    rewrite: bool,
}

impl Queue {
    /// A queue with the alerts of a journal.
    pub(crate) fn new(config: &NotifierConfig, journal: Vec<JournalEntry>) -> Self {
        let mut queue = Self {
            capacity: config.capacity.max(1),
            capacity_bytes: config.capacity_bytes,
            keys: config.groups.iter().map(AlertmanagerGroup::key).collect(),
            entries: BTreeMap::new(),
            by_key: HashMap::new(),
            bytes: 0,
            waiting: 0,
            next: 0,
            readers: BTreeMap::new(),
            next_reader: 0,
            counts: QueueCounts::default(),
            added: BTreeSet::new(),
            removed: Vec::new(),
            taken: BTreeMap::new(),
            rewrite: false,
        };
        for entry in journal {
            let id = entry.id;
            queue.next = queue.next.max(id.saturating_add(1));
            let entry = Entry::from_journal(entry, &queue.keys);
            // It is only if a group is not configured any more.
            if !entry.is_sent() {
                queue.insert(id, entry);
            }
        }
        queue.added.clear();
        queue.limit();
        queue
    }

    /// Alerts that are not sent yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// What has happened since the last call.
    pub(crate) fn take_counts(&mut self) -> QueueCounts {
        std::mem::take(&mut self.counts)
    }

    /// Adds alerts at the end. Where the queue is full, the oldest are dropped.
    pub(crate) fn push(&mut self, alerts: Vec<Alert>, now: Timestamp) {
        self.counts.pushed += alerts.len() as u64;
        for alert in alerts {
            let is_resolved = alert.is_resolved(now);
            let entry = Entry::new(Arc::new(alert), is_resolved, self.keys.len());
            let mut id = self.next;
            if let Some(older) = self.by_key.get(&entry.key()).copied() {
                // Its place is kept, so that an alert that is sent again and again does not wait for ever.
                if self.readers.values().all(|reader| reader.sending.unwrap_or(reader.next) <= older) {
                    id = older;
                }
                self.remove(older);
            }
            self.next = self.next.max(id + 1);
            self.insert(id, entry);
        }
        self.limit();
    }

    fn limit(&mut self) {
        while self.entries.len() > self.capacity || self.bytes > self.capacity_bytes {
            let Some(oldest) = self.entries.first_key_value().map(|(id, _)| *id) else { break };
            if self.remove(oldest).is_some_and(|entry| !entry.is_sent()) {
                self.counts.dropped += 1;
            }
        }
    }

    fn insert(&mut self, id: u64, entry: Entry) {
        self.bytes += entry.bytes;
        self.waiting += 1;
        self.by_key.insert(entry.key(), id);
        self.entries.insert(id, entry);
        self.added.insert(id);
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.bytes -= entry.bytes;
        self.by_key.remove(&entry.key());
        if !entry.is_sent() {
            self.waiting -= 1;
            self.forget(id);
        }
        Some(entry)
    }

    /// Removes an alert from the journal.
    fn forget(&mut self, id: u64) {
        self.added.remove(&id);
        self.taken.values_mut().for_each(|ids| {
            ids.remove(&id);
        });
        self.removed.push(id);
        if self.removed.len() > self.capacity.saturating_mul(4) {
            self.rewrite = true;
            self.removed.clear();
        }
    }

    /// Adds an Alertmanager of a group, which gets all alerts that are there.
    pub(crate) fn add_reader(&mut self, group: usize) -> ReaderId {
        let id = ReaderId(self.next_reader);
        self.next_reader += 1;
        self.readers.insert(id, Reader { group, next: 0, sending: None });
        id
    }

    /// Removes an Alertmanager.
    pub(crate) fn remove_reader(&mut self, reader: ReaderId) {
        self.readers.remove(&reader);
        self.clean();
    }

    /// The next alerts for an Alertmanager, at most `most`; none if it has all.
    pub(crate) fn take(&mut self, reader: ReaderId, most: usize) -> Option<Batch> {
        let reader = self.readers.get_mut(&reader)?;
        let group = reader.group;
        let mut batch = Batch { alerts: Vec::new(), ids: Vec::new(), end: reader.next };
        let mut bytes = 0;
        let entries = self.entries.range(reader.next..).filter(|(_, entry)| entry.is_for(group));
        for (id, entry) in entries.take(most.max(1)) {
            bytes += entry.bytes;
            if bytes > BATCH_BYTES && !batch.ids.is_empty() {
                break;
            }
            batch.ids.push(*id);
            batch.alerts.push(Arc::clone(&entry.alert));
            batch.end = id + 1;
        }
        if batch.ids.is_empty() {
            (reader.next, reader.sending) = (self.next, None);
            self.clean();
            return None;
        }
        reader.sending = Some(batch.end);
        Some(batch)
    }

    /// Notes that an Alertmanager could not be asked: it takes the alerts again.
    pub(crate) fn failed(&mut self, reader: ReaderId) {
        if let Some(reader) = self.readers.get_mut(&reader) {
            reader.sending = None;
        }
    }

    /// Notes that an Alertmanager took the alerts of a batch, or refused them for good.
    pub(crate) fn done(&mut self, reader: ReaderId, batch: &Batch, is_taken: bool) {
        let Some(reader) = self.readers.get_mut(&reader) else { return };
        (reader.next, reader.sending) = (batch.end, None);
        let group = reader.group;
        for (id, alert) in batch.ids.iter().zip(&batch.alerts) {
            let Some(entry) = self.entries.get_mut(id).filter(|_| is_taken) else { continue };
            // Another alert cannot have this number: a number whose alerts are being sent is not used again.
            debug_assert!(Arc::ptr_eq(&entry.alert, alert), "alert {id} was replaced while it was sent");
            if !entry.take(group) {
                continue;
            }
            if entry.is_sent() {
                self.waiting -= 1;
                self.counts.sent += 1;
                self.forget(*id);
            } else if let Some(key) = self.keys.get(group) {
                self.taken.entry(key.clone()).or_default().insert(*id);
            }
        }
        self.clean();
    }

    /// Removes what all Alertmanagers have passed.
    fn clean(&mut self) {
        let passed = self.readers.values().map(|reader| reader.next).min().unwrap_or(u64::MAX);
        let has_readers: Vec<bool> = (0..self.keys.len())
            .map(|group| self.readers.values().any(|reader| reader.group == group))
            .collect();
        // A group without Alertmanagers may have one later.
        let is_refused = has_readers.iter().all(|has| *has);
        let over = self.entries.range(..passed).filter(|(_, entry)| is_refused || entry.is_sent());
        let over: Vec<u64> = over.map(|(id, _)| *id).collect();
        for id in over {
            if self.remove(id).is_some_and(|entry| !entry.is_sent()) {
                self.counts.refused += 1;
            }
        }
    }

    /// What has changed since the last call; all that waits if `all`.
    pub(crate) fn take_changes(&mut self, all: bool) -> Changes {
        let is_all = all || std::mem::take(&mut self.rewrite);
        let (mut removed, added) = (std::mem::take(&mut self.removed), std::mem::take(&mut self.added));
        let mut taken = std::mem::take(&mut self.taken);
        taken.retain(|_, ids| !ids.is_empty());
        let waiting = self.entries.iter().filter(|(_, entry)| !entry.is_sent());
        let added = if is_all {
            self.rewrite = false;
            removed.clear();
            taken.clear();
            waiting.map(|(id, entry)| entry.to_journal(*id, &self.keys)).collect()
        } else {
            let entries = added.iter().filter_map(|id| self.entries.get_key_value(id));
            let entries = entries.filter(|(_, entry)| !entry.is_sent());
            entries.map(|(id, entry)| entry.to_journal(*id, &self.keys)).collect()
        };
        Changes { is_all, removed, added, taken }
    }
}
