//! What a discovery has found.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::config::TargetGroup;

/// What a discovery has found.
pub(super) struct Found {
    /// None as long as it has not been looked.
    groups: Mutex<Option<Vec<TargetGroup>>>,
    /// Notified after each change.
    changed: Arc<Notify>,
}

impl Found {
    /// Nothing yet.
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self { groups: Mutex::new(None), changed }
    }

    pub(super) fn groups(&self) -> Option<Vec<TargetGroup>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the groups.
    pub(super) fn publish(&self, groups: Vec<TargetGroup>) {
        let mut known = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&groups) {
            *known = Some(groups);
            self.changed.notify_one();
        }
    }
}
