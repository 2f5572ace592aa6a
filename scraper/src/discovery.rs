//! Discoveries: where the targets of a scrape configuration come from.

mod dns;
mod file;
mod found;
mod group_json;
mod http;

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::config::{DiscoveryConfig, TargetGroup};
use crate::discovery::found::Found;
use crate::metrics::ScrapeMetrics;

/// A discovery that goes on until it is dropped.
pub(crate) struct Discovery {
    pub(crate) config: DiscoveryConfig,
    found: Arc<Found>,
    task: Option<AbortHandle>,
}

impl Discovery {
    /// Begins to discover. `changed` is notified whenever the groups have changed. It must be called in a runtime.
    pub(crate) fn start(
        config: DiscoveryConfig,
        job: &str,
        changed: Arc<Notify>,
        metrics: &ScrapeMetrics,
    ) -> Self {
        let found = Arc::new(Found::new(changed));
        let handle = Arc::clone(&found);
        let failures = metrics.discovery_failures(&config, job);
        let task = match config.clone() {
            DiscoveryConfig::Static(groups) => {
                found.publish(groups);
                None
            }
            DiscoveryConfig::File(config) => Some(tokio::spawn(file::follow(config, handle, failures))),
            DiscoveryConfig::Dns(config) => Some(tokio::spawn(dns::follow(config, handle, failures))),
            DiscoveryConfig::Http(config) => Some(tokio::spawn(http::follow(*config, handle, failures))),
        };
        Self { config, found, task: task.map(|task| task.abort_handle()) }
    }

    /// What was found last; `None` if nothing is known yet.
    pub(crate) fn groups(&self) -> Option<Vec<TargetGroup>> {
        self.found.groups()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
