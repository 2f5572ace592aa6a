//! Keeps the registered clusters in the directory equal to those in the inventory.

use std::{sync::Arc, time::Duration};

use identity::Name;
use pki::Issuer;
use tokio::sync::Notify;

use crate::directory::{ClusterRegistration, Directory};

/// How often the inventory is read. Commands in other processes create tokens and remove clusters.
const INTERVAL: Duration = Duration::from_secs(2);

/// Copies the registered clusters from the inventory to the directory.
pub(crate) struct Registrations {
    issuer: Arc<Issuer>,
    directory: Arc<Directory>,
}

impl Registrations {
    pub(crate) fn new(issuer: Arc<Issuer>, directory: Arc<Directory>) -> Arc<Self> {
        Arc::new(Self { issuer, directory })
    }

    /// Whether a cluster is registered. If the directory does not contain it, the inventory is read: the cluster may have
    /// been registered a moment ago.
    pub(crate) async fn contains(&self, cluster: &Name) -> bool {
        if self.directory.registration(cluster).is_some() {
            return true;
        }
        if let Err(error) = self.refresh().await {
            tracing::error!(error, "reading the inventory failed");
        }
        self.directory.registration(cluster).is_some()
    }

    /// Reads the inventory once.
    pub(crate) async fn refresh(&self) -> Result<(), String> {
        let issuer = self.issuer.clone();
        let read = tokio::task::spawn_blocking(move || issuer.registrations()).await;
        let read = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let registrations: Vec<_> = read
            .into_iter()
            .map(|(cluster, environment)| ClusterRegistration { cluster, environment })
            .collect();
        self.directory.set_registered(&registrations);
        Ok(())
    }

    /// Reads the inventory again and again, and at once when `sooner` is notified. While it cannot be read, the directory
    /// keeps the clusters that it has. Never returns.
    pub(crate) async fn run(&self, sooner: &Notify) {
        let mut failing = false;
        loop {
            let read = self.refresh().await;
            match &read {
                Err(error) if !failing => {
                    tracing::error!(error, "reading the inventory failed, registrations are not updated");
                }
                Ok(()) if failing => tracing::info!("reading the inventory works again"),
                _ => {}
            }
            failing = read.is_err();
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = sooner.notified() => {}
            }
        }
    }
}
