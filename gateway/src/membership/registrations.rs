//! The registered clusters, as the inventory has them, kept in the directory.

use std::{sync::Arc, time::Duration};

use identity::Name;
use pki::Issuer;
use tokio::sync::Notify;

use crate::directory::{Directory, RegisteredCluster};

/// How often the inventory is read. Tokens are made, and clusters removed, by commands in other processes.
const INTERVAL: Duration = Duration::from_secs(2);

/// Reads the inventory into the directory.
pub(crate) struct Registrations {
    issuer: Arc<Issuer>,
    directory: Arc<Directory>,
}

impl Registrations {
    pub(crate) fn new(issuer: Arc<Issuer>, directory: Arc<Directory>) -> Arc<Self> {
        Arc::new(Self { issuer, directory })
    }

    /// Whether a cluster is registered; one that the directory does not know may have been a moment ago.
    pub(crate) async fn knows(&self, cluster: &Name) -> bool {
        if self.directory.registration(cluster).is_some() {
            return true;
        }
        if let Err(error) = self.refresh().await {
            tracing::error!(err = error, "read the inventory");
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
            .map(|(cluster, environment)| RegisteredCluster { cluster, environment })
            .collect();
        self.directory.set_registered(&registrations);
        Ok(())
    }

    /// Reads the inventory for ever, and at once whenever `sooner` is told. What cannot be read leaves what is known.
    pub(crate) async fn run(&self, sooner: &Notify) {
        let mut failing = false;
        loop {
            let read = self.refresh().await;
            if let (Err(error), false) = (&read, failing) {
                tracing::error!(err = error, "read the inventory: registrations stay as they are");
            }
            failing = read.is_err();
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = sooner.notified() => {}
            }
        }
    }
}
