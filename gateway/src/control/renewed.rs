//! The answer to a certificate request on a session.

use std::{sync::Arc, time::SystemTime};

use pki::Issuer;
use proto::isthmus::mesh::v1::{Certificate, from_observability::Message as ToCluster};

use crate::{membership::enrolment, metrics::GatewayMetrics, transport::MeshLink};

/// Answers a certificate request of the peer of `link`. The connection has verified the peer's current certificate.
pub(super) async fn renew(
    issuer: &Arc<Issuer>,
    metrics: &GatewayMetrics,
    link: &MeshLink,
    csr: Vec<u8>,
) -> ToCluster {
    let (issuer, identity, from) = (issuer.clone(), link.identity().clone(), link.remote().to_string());
    let renewed =
        tokio::task::spawn_blocking(move || issuer.renew_from(&identity, &csr, &from, SystemTime::now()))
            .await;
    match renewed {
        Ok(Ok(enrolment)) => {
            tracing::info!(peer = %link.peer(), "a certificate was renewed");
            ToCluster::Certificate(Certificate {
                chain: enrolment.chain.iter().map(|der| der.to_vec().into()).collect(),
                roots: enrolment.bundle.roots().map(|der| der.to_vec().into()).collect(),
                bundle_signature: enrolment.bundle.signature_bytes().unwrap_or_default().into(),
            })
        }
        Ok(Err(error)) => {
            if let pki::PkiError::Clone(_) = &error {
                metrics.clone_found();
                tracing::error!(peer = %link.peer(), remote = %link.remote(), error = %error, "a copied certificate was found");
            }
            tracing::warn!(peer = %link.peer(), error = %error, "a certificate renewal was refused");
            ToCluster::Refused(enrolment::refusal(&error).message().to_owned())
        }
        Err(error) => {
            tracing::error!(peer = %link.peer(), error = %error, "the task that renews a certificate failed");
            ToCluster::Refused("the issuer failed; see the log of the observability gateway".to_owned())
        }
    }
}
