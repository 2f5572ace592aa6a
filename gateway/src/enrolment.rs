//! Enrolment at the observability gateway: one token for one certificate.
//!
//! The only service that is reached without a client certificate. What it may cost is bounded: message sizes, the
//! time of a connection, and the number of connections.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use pki::{Issuer, PkiError};
use proto::isthmus::pki::v1::{
    EnrolRequest, EnrolResponse,
    enrolment_server::{Enrolment, EnrolmentServer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, Semaphore},
};
use tonic::{Request, Response, Status, service::Routes};

use crate::metrics::GatewayMetrics;

/// Largest request, in bytes: a secret and a certificate request.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// How long one joiner may stay connected.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Joiners that are served at once; more are turned away.
const MAX_CONNECTIONS: usize = 64;

/// Serves enrolment.
pub(crate) struct EnrolmentService {
    issuer: Arc<Issuer>,
    metrics: Arc<GatewayMetrics>,
    room: Arc<Semaphore>,
    /// Told after each enrolment, so that the directory need not wait for its next look at the inventory.
    pub(crate) enrolled: Arc<Notify>,
}

impl EnrolmentService {
    pub(crate) fn new(issuer: Arc<Issuer>, metrics: Arc<GatewayMetrics>) -> Arc<Self> {
        let (room, enrolled) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Arc::default());
        Arc::new(Self { issuer, metrics, room, enrolled })
    }

    /// Serves one joiner on a connection whose TLS handshake is over.
    pub(crate) async fn serve<S>(self: Arc<Self>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Ok(_place) = self.room.clone().try_acquire_owned() else {
            tracing::warn!("{MAX_CONNECTIONS} joiners are being served: one more is turned away");
            return;
        };
        let service = EnrolmentServer::from_arc(self.clone()).max_decoding_message_size(MAX_REQUEST_BYTES);
        let routes = Routes::new(service).prepare();
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(1)
            .max_header_list_size(8 << 10)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
        match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "enrolment connection"),
            Err(_) => {
                tracing::debug!("enrolment connection: closed after {} s", CONNECTION_TIMEOUT.as_secs())
            }
        }
    }
}

#[tonic::async_trait]
impl Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let EnrolRequest { secret, csr } = request.into_inner();
        let issuer = self.issuer.clone();
        let enrolled = tokio::task::spawn_blocking(move || {
            let enrolled = issuer.enrol(&secret, &csr, SystemTime::now());
            (enrolled, issuer)
        });
        let (enrolled, issuer) = enrolled.await.map_err(|error| Status::internal(error.to_string()))?;
        self.metrics.enrolment(enrolled.is_ok());
        let enrolment = enrolled.map_err(|error| {
            tracing::warn!(err = %error, "a join was refused");
            refusal(&error)
        })?;
        tracing::info!(cluster = %enrolment.cluster, environment = enrolment.environment, "cluster joined");
        self.enrolled.notify_one();
        Ok(Response::new(EnrolResponse {
            chain: enrolment.chain.iter().map(|der| der.to_vec().into()).collect(),
            roots: enrolment.bundle.roots().map(|der| der.to_vec().into()).collect(),
            trust_domain: issuer.trust_domain().to_string(),
            cluster: enrolment.cluster.to_string(),
            environment: enrolment.environment,
        }))
    }
}

/// What a joiner hears: its own mistakes in full, ours not at all.
pub(crate) fn refusal(error: &PkiError) -> Status {
    match error {
        PkiError::Token(_) | PkiError::Refused(_) => Status::permission_denied(error.to_string()),
        PkiError::Csr(_) | PkiError::TokenText(_) | PkiError::Usage(_) => {
            Status::invalid_argument(error.to_string())
        }
        _ => Status::internal("the issuer cannot issue now; its own log says why"),
    }
}
