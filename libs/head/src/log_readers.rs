//! What readers of the log ask a head for.

use std::sync::PoisonError;

use crate::head::{Head, LOG_DIR};
use crate::held::LogHold;
use crate::log::follow::{LogFollower, LogPosition};

impl Head {
    /// Keeps segments of the log that are there now and later. A checkpoint then replaces only those before
    /// [`LogHold::release_before`].
    pub fn hold_log(&self) -> LogHold {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).hold()
    }

    /// The end of the log: all records before it are whole.
    pub fn log_end(&self) -> LogPosition {
        // An open head has begun a segment.
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (segment, offset) = log.end().unwrap_or_default();
        LogPosition { segment, offset }
    }

    /// A reader of the log from its begin, which is the last checkpoint. Only what a [`LogHold`] keeps is certainly read.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn follow_log(&self) -> std::io::Result<LogFollower> {
        LogFollower::open(&self.dir.join(LOG_DIR))
    }

    /// Remembers series that are removed, as segments may have samples of them that a reader has not read.
    pub(crate) fn remember_removed(&self, references: impl Iterator<Item = u64>) {
        let segment = self.log_end().segment;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remember(references, segment);
    }
}
