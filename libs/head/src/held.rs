//! What of the log is kept because its readers have not read it yet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// What the readers of a log need.
#[derive(Default)]
pub(crate) struct HeldLog {
    holds: Vec<Weak<AtomicU32>>,
    /// Series that were removed from the head, and the segment that was current then: segments up to it may have samples of them.
    removed: HashMap<u64, u32>,
}

/// Keeps segments of the log of a head until it is dropped. Initially it keeps all.
#[derive(Debug)]
pub struct LogHold(Arc<AtomicU32>);

impl LogHold {
    /// Segments before this one are not needed any more.
    pub fn release_before(&self, segment: u32) {
        self.0.store(segment, Ordering::Relaxed);
    }
}

impl HeldLog {
    /// Keeps all segments, for a new reader.
    pub(crate) fn hold(&mut self) -> LogHold {
        let hold = Arc::new(AtomicU32::new(0));
        self.holds.push(Arc::downgrade(&hold));
        LogHold(hold)
    }

    /// The first segment that is needed; none without a reader.
    pub(crate) fn first_needed(&mut self) -> Option<u32> {
        self.holds.retain(|hold| hold.strong_count() > 0);
        self.holds.iter().filter_map(Weak::upgrade).map(|hold| hold.load(Ordering::Relaxed)).min()
    }

    /// Whether segments after the one that is replaced may have samples of a series that the head no longer has.
    pub(crate) fn is_needed(&self, reference: u64, replaced: u32) -> bool {
        self.removed.get(&reference).is_some_and(|last| *last > replaced)
    }

    /// Remembers series that are removed while this segment is the current one.
    pub(crate) fn remember(&mut self, references: impl Iterator<Item = u64>, segment: u32) {
        if self.first_needed().is_some() {
            self.removed.extend(references.map(|reference| (reference, segment)));
        }
    }

    /// Forgets series of which no later segment has samples.
    pub(crate) fn forget(&mut self, replaced: u32) {
        self.removed.retain(|_, last| *last > replaced);
        self.removed.shrink_to_fit();
    }
}
