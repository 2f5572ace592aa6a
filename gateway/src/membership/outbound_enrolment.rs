//! Enrolment where clusters cannot dial out: the observability gateway connects to a cluster that waits to join.
//!
//! A cluster that waits to join speaks first on each connection that it accepts, as a TLS client, and proves itself with its
//! token only after it has verified this gateway. A gateway that has joined waits for the other side to speak. So after a
//! failed attempt to dial a cluster, this gateway connects once more and sees which of the two it is.

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use identity::{CredentialStore, enrolment_server_config};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;

use crate::{membership::enrolment::EnrolmentService, task, transport::settings::ALPN_ENROLMENT};

/// Time limit for connecting, for the first byte, and for the handshake.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);
/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// Offers enrolment to clusters that are dialled.
pub(crate) struct OutboundEnrolment {
    service: Arc<EnrolmentService>,
    tls: TlsAcceptor,
    /// Addresses that are tried at present.
    running: Mutex<BTreeSet<SocketAddr>>,
}

impl OutboundEnrolment {
    /// Offers `service` with the certificate in `store`.
    ///
    /// # Errors
    /// When TLS cannot be set up; only a broken crypto provider causes that.
    pub(crate) fn new(service: Arc<EnrolmentService>, store: &Arc<CredentialStore>) -> io::Result<Arc<Self>> {
        let tls = enrolment_server_config(store, &[ALPN_ENROLMENT]).map_err(io::Error::other)?;
        Ok(Arc::new(Self { service, tls: TlsAcceptor::from(tls), running: Mutex::default() }))
    }

    /// Sees in a task of its own whether a cluster waits to join at `address`, and serves it.
    pub(crate) fn offer(self: &Arc<Self>, address: SocketAddr) {
        if !self.lock().insert(address) {
            return;
        }
        let this = self.clone();
        task::spawn(async move {
            if let Err(error) = this.serve(address).await {
                tracing::debug!(%address, %error, "no cluster waits to join there");
            }
            this.lock().remove(&address);
        });
    }

    async fn serve(&self, address: SocketAddr) -> io::Result<()> {
        let stream = timeout(STEP_TIMEOUT, TcpStream::connect(address)).await??;
        let mut first = [0];
        let read = timeout(STEP_TIMEOUT, stream.peek(&mut first)).await??;
        if read != 1 || first[0] != TLS_HANDSHAKE {
            return Err(io::Error::other("the peer does not speak TLS first"));
        }
        let stream = timeout(STEP_TIMEOUT, self.tls.accept(stream)).await??;
        tracing::info!(%address, "a cluster that waits to join was reached");
        self.service.clone().serve(Box::new(stream.into()), address.ip()).await;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<SocketAddr>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
