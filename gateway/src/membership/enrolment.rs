//! Enrolment at the observability gateway: one token for one certificate.
//!
//! It is the only service that can be reached without a client certificate. Its cost is limited: message sizes, the
//! duration of a connection, and the number of connections, in all and from one address.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper_util::rt::TokioTimer;
use pki::{Issuer, PkiError};
use proto::isthmus::pki::v1::{
    EnrolRequest, EnrolResponse, RecoverRequest,
    enrolment_server::{Enrolment, EnrolmentServer},
};
use tokio::{net::TcpStream, sync::Notify};
use tokio_rustls::TlsStream;
use tonic::{Request, Response, Status};

use crate::{
    membership::received::certificates,
    metrics::GatewayMetrics,
    slots::{Slots, SlotsFull},
    task::BoxingExecutor,
    transport::{
        ServiceHandler,
        h2::{Http2Io, serve_connection},
    },
};

/// Largest request, in bytes: a secret and a certificate request.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// Time limit of the connection of one joining cluster.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections that are served at once; further ones are closed.
const MAX_CONNECTIONS: usize = 64;
/// Connections from one network that are served at once, so that one host cannot use all slots.
const MAX_CONNECTIONS_OF_NETWORK: usize = 8;

/// Serves enrolment.
pub(crate) struct EnrolmentService {
    issuer: Arc<Issuer>,
    metrics: Arc<GatewayMetrics>,
    slots: Arc<Slots>,
    /// Notified after each enrolment, so that the registrations are read at once.
    pub(crate) enrolled: Arc<Notify>,
}

impl EnrolmentService {
    pub(crate) fn new(issuer: Arc<Issuer>, metrics: Arc<GatewayMetrics>) -> Arc<Self> {
        let slots = Slots::new(MAX_CONNECTIONS, MAX_CONNECTIONS_OF_NETWORK);
        Arc::new(Self { issuer, metrics, slots, enrolled: Arc::default() })
    }

    /// Serves one joining cluster on a connection whose TLS handshake is complete.
    pub(crate) async fn serve(self: Arc<Self>, stream: Box<TlsStream<TcpStream>>, remote: IpAddr) {
        let _slot = match self.slots.take(remote) {
            Ok(slot) => slot,
            Err(full) => {
                // At level debug, because any host can cause any number of these lines. The metric counts them.
                self.metrics.handshake_failed(match full {
                    SlotsFull::All => "enrolment_full",
                    SlotsFull::OfNetwork => "enrolment_network_full",
                });
                tracing::debug!(%remote, error = %full, "a connection for enrolment was refused");
                return;
            }
        };
        let joining = Joining { service: self.clone(), remote };
        let service = EnrolmentServer::new(joining).max_decoding_message_size(MAX_REQUEST_BYTES);
        let mut builder = hyper::server::conn::http2::Builder::new(BoxingExecutor);
        builder.timer(TokioTimer::new()).max_concurrent_streams(1).max_header_list_size(8 << 10);
        let handler = Arc::new(ServiceHandler::new(service));
        let connection = serve_connection(&builder, Http2Io::tls(stream), handler);
        match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%remote, %error, "enrolment connection was lost"),
            Err(_) => {
                tracing::debug!(%remote, "enrolment connection closed after {} s", CONNECTION_TIMEOUT.as_secs())
            }
        }
    }
}

/// Enrolment for one joining cluster, whose address is recorded.
struct Joining {
    service: Arc<EnrolmentService>,
    remote: IpAddr,
}

#[tonic::async_trait]
impl Enrolment for Joining {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let EnrolRequest { secret, csr, time } = request.into_inner();
        let from = self.remote.to_string();
        let issue = move |issuer: &Issuer, now| issuer.enrol_from(&secret, &csr, &from, now);
        let enrolled = self.service.issue(time, issue).await;
        self.service.metrics.enrolment(enrolled.is_ok());
        let enrolment = enrolled.inspect_err(|status| {
            tracing::warn!(error = status.message(), "enrolment refused");
        })?;
        tracing::info!(cluster = %enrolment.cluster, environment = enrolment.environment, "cluster joined");
        self.service.enrolled.notify_one();
        Ok(Response::new(self.service.answer(enrolment)))
    }

    async fn recover(&self, request: Request<RecoverRequest>) -> Result<Response<EnrolResponse>, Status> {
        let RecoverRequest { chain, csr, signature, time } = request.into_inner();
        let from = self.remote.to_string();
        let recovered = self.service.issue(time, move |issuer, now| {
            let chain: Vec<_> = certificates(chain).take(identity::MAX_CHAIN_LEN + 1).collect();
            issuer.recover(&chain, &csr, &signature, &from, now)
        });
        let recovered = recovered.await;
        self.service.metrics.recovery(recovered.is_ok());
        let enrolment = recovered.inspect_err(|status| {
            tracing::warn!(error = status.message(), "the exchange of an expired certificate was refused");
        })?;
        tracing::warn!(cluster = %enrolment.cluster, "an expired certificate was exchanged for its key");
        self.service.enrolled.notify_one();
        Ok(Response::new(self.service.answer(enrolment)))
    }
}

impl EnrolmentService {
    /// Compares the clocks, then issues a certificate.
    async fn issue(
        &self,
        time: Option<prost_types::Timestamp>,
        issue: impl FnOnce(&Issuer, SystemTime) -> Result<pki::Enrolment, PkiError> + Send + 'static,
    ) -> Result<pki::Enrolment, Status> {
        let issuer = self.issuer.clone();
        let issued = tokio::task::spawn_blocking(move || {
            let now = SystemTime::now();
            // Earlier versions do not send their time.
            if let Some(theirs) = time.and_then(|time| SystemTime::try_from(time).ok()) {
                issuer.check_clock(theirs, now)?;
            }
            issue(&issuer, now)
        });
        let issued = issued.await.map_err(|error| Status::internal(error.to_string()))?;
        issued.map_err(|error| {
            tracing::debug!(error = %error, "a certificate was not issued");
            refusal(&error)
        })
    }

    fn answer(&self, enrolment: pki::Enrolment) -> EnrolResponse {
        EnrolResponse {
            chain: enrolment.chain.iter().map(|der| der.to_vec().into()).collect(),
            roots: enrolment.bundle.roots().map(|der| der.to_vec().into()).collect(),
            trust_domain: self.issuer.trust_domain().to_string(),
            cluster: enrolment.cluster.to_string(),
            environment: enrolment.environment,
            bundle_signature: enrolment.bundle.signature_bytes().unwrap_or_default().into(),
        }
    }
}

/// The status for the joining cluster: its own mistakes in full, and nothing about internal errors.
pub(crate) fn refusal(error: &PkiError) -> Status {
    match error {
        PkiError::Token(_) | PkiError::Refused(_) | PkiError::Clone(_) => {
            Status::permission_denied(error.to_string())
        }
        PkiError::NotNow(_) => Status::failed_precondition(error.to_string()),
        PkiError::Certificate(_) => Status::permission_denied(error.to_string()),
        PkiError::Csr(_) | PkiError::TokenText(_) | PkiError::Usage(_) => {
            Status::invalid_argument(error.to_string())
        }
        _ => Status::internal(
            "the issuer cannot issue certificates now; see the log of the observability gateway",
        ),
    }
}
