//! Whether a cluster's gateway serves requests: the switch of its owner.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// File in the data directory that keeps a pause across restarts.
const MARK: &str = "paused";

/// Whether requests are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServingState {
    /// Requests are served.
    #[default]
    Serving,
    /// Running requests are served, and new ones too; targets are reported as unhealthy, so that new ones go elsewhere.
    Draining,
    /// No request is served, not even after a restart.
    Paused,
}

impl ServingState {
    /// Why targets are reported as unhealthy; `None` while requests are served.
    pub(crate) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Serving => None,
            Self::Draining => Some("the owner of the cluster drains this gateway"),
            Self::Paused => Some("the owner of the cluster has paused it"),
        }
    }
}

/// The switch. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ServingSwitch {
    state: Arc<watch::Sender<ServingState>>,
    mark: PathBuf,
}

impl ServingSwitch {
    /// The switch as the last owner left it: paused if the data directory says so.
    pub(crate) fn open(data_dir: &Path) -> Self {
        let mark = data_dir.join(MARK);
        // A mark that cannot be looked at counts: a pause must not end by itself.
        let paused = mark.try_exists().unwrap_or(true);
        let state = if paused { ServingState::Paused } else { ServingState::Serving };
        Self { state: Arc::new(watch::Sender::new(state)), mark }
    }

    /// The present state.
    pub(crate) fn state(&self) -> ServingState {
        *self.state.borrow()
    }

    /// The state and every change.
    pub(crate) fn watch(&self) -> watch::Receiver<ServingState> {
        self.state.subscribe()
    }

    /// Changes the state. A pause is on the disk before this returns, and acts even if it cannot be written.
    ///
    /// # Errors
    /// The mark cannot be written, so that a restart ends the pause; or it cannot be removed, and the pause goes on.
    pub(crate) fn set(&self, state: ServingState) -> io::Result<()> {
        if state == ServingState::Paused {
            self.state.send_replace(state);
            return identity::write_private(&self.mark, b"paused by the owner\n");
        }
        match fs::remove_file(&self.mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.state.send_replace(state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_outlives_the_process_and_a_drain_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let switch = ServingSwitch::open(dir.path());
        assert_eq!(switch.state(), ServingState::Serving);
        for (set, after_restart) in [
            (ServingState::Paused, ServingState::Paused),
            (ServingState::Draining, ServingState::Serving),
            (ServingState::Paused, ServingState::Paused),
            (ServingState::Serving, ServingState::Serving),
        ] {
            switch.set(set).unwrap();
            assert_eq!(switch.state(), set);
            assert_eq!(ServingSwitch::open(dir.path()).state(), after_restart, "after {set:?}");
        }
    }

    #[test]
    fn a_pause_acts_even_if_it_cannot_be_stored() {
        let dir = tempfile::tempdir().unwrap();
        let switch = ServingSwitch::open(&dir.path().join("gone"));
        assert!(switch.set(ServingState::Paused).is_err());
        assert_eq!(switch.state(), ServingState::Paused);
    }
}
