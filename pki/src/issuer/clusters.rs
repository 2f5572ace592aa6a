//! The clusters of an issuer: registration, pause, removal.

use std::time::SystemTime;

use identity::Name;

use crate::{error::PkiError, inventory::ClusterRecord, issuer::Issuer};

impl Issuer {
    /// The registered clusters, sorted by name, without those that were removed.
    ///
    /// # Errors
    /// When the inventory cannot be read.
    pub fn clusters(&self) -> Result<Vec<ClusterRecord>, PkiError> {
        let mut clusters = self.inventory().clusters()?;
        clusters.retain(|cluster| cluster.removed_at.is_none());
        Ok(clusters)
    }

    /// Registers a cluster that may join. Returns whether it was new.
    ///
    /// # Errors
    /// Those of [`Issuer::create_token`] about the cluster and its environment.
    pub fn add_cluster(&self, cluster: &Name, environment: &str, now: SystemTime) -> Result<bool, PkiError> {
        self.check_cluster(cluster, environment)?;
        self.changed().add_cluster(cluster, environment, now)
    }

    /// Removes a cluster: its certificates and its unused tokens are revoked, and no answer expects it any more. Returns
    /// whether it was there.
    ///
    /// # Errors
    /// [`PkiError::NotFound`] when it was never registered.
    pub fn remove_cluster(&self, cluster: &Name, now: SystemTime) -> Result<bool, PkiError> {
        let sign = self.list_signer(now, false);
        self.changed().remove_cluster(cluster, now, &sign)
    }

    /// Refuses a cluster until it is resumed, or resumes it. Returns whether this changes something.
    ///
    /// # Errors
    /// [`PkiError::NotFound`] when it is not registered, [`PkiError::Conflict`] when it was removed.
    pub fn pause_cluster(&self, cluster: &Name, pause: bool, now: SystemTime) -> Result<bool, PkiError> {
        let sign = self.list_signer(now, false);
        self.changed().pause_cluster(cluster, pause, now, &sign)
    }

    /// Checks a cluster to register, and the environment against that of a registered one. Returns whether it is new.
    pub(crate) fn check_cluster(&self, cluster: &Name, environment: &str) -> Result<bool, PkiError> {
        if *cluster == self.cluster {
            return Err(PkiError::Refused(format!(
                "cluster {cluster} is the issuer's own cluster; \
                 a token for it would give away the issuer's identity"
            )));
        }
        let printable = environment.bytes().all(|c| c.is_ascii_graphic());
        if !printable || !(1..=63).contains(&environment.len()) {
            return Err(PkiError::Usage(format!(
                "environment {environment:?} must be 1 to 63 printable ASCII characters without spaces"
            )));
        }
        match self.inventory().cluster(cluster)? {
            Some(known) if known.environment != environment => Err(PkiError::Conflict(format!(
                "cluster {cluster} is registered with environment {:?}, not {environment:?}; use the registered one",
                known.environment
            ))),
            known => Ok(known.is_none()),
        }
    }
}
