//! The lists of who appends to the data folder.

use promapi::{RuleGroup, TargetDiscovery};

/// The lists of who appends to the data folder, without external labels.
pub trait LocalLists: Send + Sync + 'static {
    /// The targets that are scraped, and the Alertmanagers that are notified.
    fn targets(&self) -> TargetDiscovery {
        TargetDiscovery::default()
    }

    /// The rules that are evaluated.
    fn rules(&self) -> Vec<RuleGroup> {
        Vec::new()
    }
}

/// Nothing is listed.
pub struct NoLists;

impl LocalLists for NoLists {}
