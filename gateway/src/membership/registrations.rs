//! Keeps the registered clusters in the directory equal to those in the inventory.

use std::sync::Arc;

use identity::Name;
use pki::{ClusterRecord, Issuer};

use crate::directory::{ClusterRegistration, Directory};

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
        let read = tokio::task::spawn_blocking(move || issuer.clusters()).await;
        self.set(&read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Uses the clusters that were read from the inventory.
    pub(crate) fn set(&self, clusters: &[ClusterRecord]) {
        let registrations: Vec<_> = clusters
            .iter()
            .map(|found| ClusterRegistration {
                cluster: found.cluster.clone(),
                environment: found.environment.clone(),
                joined: found.joined_at.is_some(),
            })
            .collect();
        self.directory.set_registered(&registrations);
    }
}
