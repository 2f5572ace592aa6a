//! The last time that the rule files were read.

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use model::Timestamp;

use crate::metrics::RuleMetrics;

/// Whether the files could be read the last time, and when those in use were read.
pub(crate) struct LastReload {
    state: Mutex<(bool, SystemTime)>,
    metrics: RuleMetrics,
}

impl LastReload {
    /// The files were read at the start.
    pub(crate) fn new(metrics: RuleMetrics) -> Self {
        let reload = Self { state: Mutex::new((true, SystemTime::now())), metrics };
        reload.set(true);
        reload
    }

    pub(crate) fn get(&self) -> (bool, SystemTime) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set(&self, is_successful: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let used_since = if is_successful { SystemTime::now() } else { state.1 };
        *state = (is_successful, used_since);
        let since = used_since.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.reloaded(is_successful, Timestamp::EPOCH + since);
    }
}
