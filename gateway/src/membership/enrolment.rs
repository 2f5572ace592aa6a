//! Enrolment at the observability gateway: one token for one certificate.
//!
//! The only service that is reached without a client certificate. What it may cost is bounded: message sizes, the
//! time of a connection, and the number of connections, in all and of one address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
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
    sync::Notify,
};
use tonic::{Request, Response, Status, service::Routes};

use crate::metrics::GatewayMetrics;

/// Largest request, in bytes: a secret and a certificate request.
const MAX_REQUEST_BYTES: usize = 16 << 10;
/// How long one joiner may stay connected.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);
/// Joiners that are served at once; more are turned away.
const MAX_CONNECTIONS: usize = 64;
/// Of these, so many from one address: nobody takes all the room alone.
const MAX_CONNECTIONS_OF_ADDRESS: usize = 8;

/// Serves enrolment.
pub(crate) struct EnrolmentService {
    issuer: Arc<Issuer>,
    metrics: Arc<GatewayMetrics>,
    room: Arc<EnrolmentSlots>,
    /// Told after each enrolment, so that the directory need not wait for its next look at the inventory.
    pub(crate) enrolled: Arc<Notify>,
}

impl EnrolmentService {
    pub(crate) fn new(issuer: Arc<Issuer>, metrics: Arc<GatewayMetrics>) -> Arc<Self> {
        let (room, enrolled) = (Arc::default(), Arc::default());
        Arc::new(Self { issuer, metrics, room, enrolled })
    }

    /// Serves one joiner on a connection whose TLS handshake is over.
    pub(crate) async fn serve<S>(self: Arc<Self>, stream: S, remote: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Some(_place) = EnrolmentSlots::enter(&self.room, remote) else {
            // At debug: anybody can cause any number of these lines. The metric counts them.
            self.metrics.handshake_failed("enrolment_full");
            tracing::debug!(%remote, "too many joiners are being served: one more is turned away");
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

/// Who is being served, by address.
#[derive(Default)]
struct EnrolmentSlots {
    taken: Mutex<HashMap<IpAddr, usize>>,
}

impl EnrolmentSlots {
    /// Takes a place for a joiner at `remote`; `None` when there is none.
    fn enter(room: &Arc<Self>, remote: IpAddr) -> Option<EnrolmentSlot> {
        // The same host, however it was reached.
        let remote = remote.to_canonical();
        let mut taken = room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_address = taken.get(&remote).copied().unwrap_or_default();
        if of_address >= MAX_CONNECTIONS_OF_ADDRESS || taken.values().sum::<usize>() >= MAX_CONNECTIONS {
            return None;
        }
        taken.insert(remote, of_address + 1);
        Some(EnrolmentSlot { room: room.clone(), remote })
    }
}

/// A joiner's place; given back when dropped.
struct EnrolmentSlot {
    room: Arc<EnrolmentSlots>,
    remote: IpAddr,
}

impl Drop for EnrolmentSlot {
    fn drop(&mut self) {
        let mut taken = self.room.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.remote) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.remote);
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
            tracing::warn!(error = %error, "a join was refused");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_the_room_and_places_are_given_back() {
        let room = Arc::<EnrolmentSlots>::default();
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let mut places: Vec<_> = (0..8).map(|_| EnrolmentSlots::enter(&room, address(1)).unwrap()).collect();
        assert!(EnrolmentSlots::enter(&room, address(1)).is_none());
        assert!(
            EnrolmentSlots::enter(&room, "::ffff:10.0.0.1".parse().unwrap()).is_none(),
            "the same address again"
        );
        for last in 2..=8 {
            places.extend((0..8).map(|_| EnrolmentSlots::enter(&room, address(last)).unwrap()));
        }
        assert!(EnrolmentSlots::enter(&room, address(9)).is_none(), "all places are taken");
        places.remove(0);
        let _again = EnrolmentSlots::enter(&room, address(9)).unwrap();
        drop(places);
        assert_eq!(room.taken.lock().unwrap().len(), 1);
    }
}
