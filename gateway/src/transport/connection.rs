//! An authenticated connection on which it is not yet decided which side sends requests.

use std::{net::SocketAddr, sync::Arc};

use identity::{Expectations, PeerIdentity, RefusedCertificate, verify_peer};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::task;
use crate::transport::{
    CloseReason, ConnectError, ConnectionFailure, Handler, MeshClient, MeshLink, MeshNode, h2, h3,
    link::QuicLink,
};

/// A connection to a peer whose certificate was verified. It becomes a [`MeshClient`] or is [served](Self::serve),
/// whichever side dialled. Dropping it before that closes it.
#[derive(Debug)]
pub struct MeshConnection {
    link: MeshLink,
    node: MeshNode,
    /// `None` once the connection is a client or is served.
    io: Option<Io>,
}

#[derive(Debug)]
enum Io {
    Quic(quinn::Connection),
    Tcp(Box<TlsStream<TcpStream>>),
}

impl MeshConnection {
    pub(super) fn quic(
        node: &MeshNode,
        quic: QuicLink,
        expectations: &Expectations,
        dialled: bool,
    ) -> Result<Self, ConnectError> {
        let connection = quic.connection.clone();
        let remote = connection.remote_address();
        let chain =
            connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let peer =
            identify(node, chain.as_deref().map_or(&[], Vec::as_slice), expectations).map_err(|refused| {
                connection.close(0u8.into(), b"certificate refused");
                ConnectError {
                    address: remote,
                    transport: mesh::Transport::Quic,
                    failure: ConnectionFailure::Refused,
                    reason: refused.to_string(),
                }
            })?;
        let link = node.open_link(peer, remote, dialled, Some(quic));
        Ok(Self { link, node: node.clone(), io: Some(Io::Quic(connection)) })
    }

    pub(super) fn tcp(
        node: &MeshNode,
        tls: TlsStream<TcpStream>,
        remote: SocketAddr,
        expectations: &Expectations,
        dialled: bool,
    ) -> Result<Self, ConnectError> {
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let peer = identify(node, chain, expectations).map_err(|refused| ConnectError {
            address: remote,
            transport: mesh::Transport::Tcp,
            failure: ConnectionFailure::Refused,
            reason: refused.to_string(),
        })?;
        let link = node.open_link(peer, remote, dialled, None);
        Ok(Self { link, node: node.clone(), io: Some(Io::Tcp(Box::new(tls))) })
    }

    /// The handle on this connection: the peer, and how to close it.
    pub fn link(&self) -> &MeshLink {
        &self.link
    }

    /// Makes this side the one that sends requests.
    ///
    /// A client only means that requests can be sent. In TLS 1.3 the peer may still refuse our certificate, so wait for
    /// the response to a first request before treating the peer as connected.
    ///
    /// # Errors
    /// When the connection was lost in the meantime.
    pub async fn client(mut self) -> Result<MeshClient, ConnectError> {
        match self.io.take() {
            Some(Io::Quic(quic)) => h3::client(quic, self.link.clone(), &self.node.settings).await,
            Some(Io::Tcp(tls)) => h2::client(tls, self.link.clone(), &self.node.settings).await,
            None => unreachable!("`io` is taken only by methods that consume the connection"),
        }
    }

    /// Makes this side the one that answers requests: `handler` gets every request until the connection ends.
    pub fn serve(mut self, handler: Arc<dyn Handler>) -> MeshLink {
        match self.io.take() {
            Some(Io::Quic(quic)) => {
                task::spawn(h3::serve(quic, self.link.clone(), handler, self.node.settings.clone()));
            }
            Some(Io::Tcp(tls)) => {
                task::spawn(h2::serve(tls, self.link.clone(), handler, self.node.settings.clone()));
            }
            None => {}
        }
        self.link.clone()
    }
}

impl Drop for MeshConnection {
    fn drop(&mut self) {
        if self.io.is_some() {
            self.link.close(CloseReason::Done);
        }
    }
}

/// Reads the peer's identity from the chain that the handshake verified, and verifies the chain again: rustls does not
/// keep the result of its verification. The second check costs one signature.
fn identify(
    node: &MeshNode,
    chain: &[CertificateDer<'_>],
    expectations: &Expectations,
) -> Result<PeerIdentity, RefusedCertificate> {
    let expectations = node.guard.of_peers(expectations.clone());
    verify_peer(chain, &node.store.current().bundle, std::time::SystemTime::now(), &expectations)
}
