//! An authenticated connection that has no role yet.

use std::{net::SocketAddr, sync::Arc};

use identity::{Expectations, PeerIdentity, RefusedCertificate, verify_peer};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use crate::transport::{
    CloseReason, ConnectError, ConnectionFailure, Handler, MeshClient, MeshLink, MeshNode, h2, h3,
};

/// A connection to a peer that has proved who it is. It becomes a [`MeshClient`] or is [served](Self::serve), whoever
/// dialled; dropped without either it is closed.
#[derive(Debug)]
pub struct MeshConnection {
    link: MeshLink,
    node: MeshNode,
    /// Taken when the connection gets its role.
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
        quic: quinn::Connection,
        expectations: &Expectations,
        dialled: bool,
    ) -> Result<Self, ConnectError> {
        let remote = quic.remote_address();
        let chain = quic.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let peer =
            identify(node, chain.as_deref().map_or(&[], Vec::as_slice), expectations).map_err(|refused| {
                quic.close(0u8.into(), b"certificate refused");
                ConnectError {
                    address: remote,
                    transport: mesh::Transport::Quic,
                    failure: ConnectionFailure::Refused,
                    reason: refused.to_string(),
                }
            })?;
        let link = node.open_link(peer, remote, dialled, Some(quic.clone()));
        Ok(Self { link, node: node.clone(), io: Some(Io::Quic(quic)) })
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

    /// Who is there, and how to end it.
    pub fn link(&self) -> &MeshLink {
        &self.link
    }

    /// Makes this side the one that asks.
    ///
    /// Ready only says that requests can be sent: in TLS 1.3 the peer may still refuse our certificate, so wait for an
    /// answer to a first request before calling the peer connected.
    ///
    /// # Errors
    /// When the connection broke meanwhile.
    pub async fn client(mut self) -> Result<MeshClient, ConnectError> {
        match self.io.take() {
            Some(Io::Quic(quic)) => h3::client(quic, self.link.clone(), &self.node.settings).await,
            Some(Io::Tcp(tls)) => h2::client(*tls, self.link.clone(), &self.node.settings).await,
            None => unreachable!("the connection has a role only once it is consumed"),
        }
    }

    /// Makes this side the one that answers: every request goes to `handler`, until the link is closed.
    pub fn serve(mut self, handler: Arc<dyn Handler>) -> MeshLink {
        match self.io.take() {
            Some(Io::Quic(quic)) => {
                tokio::spawn(h3::serve(quic, self.link.clone(), handler, self.node.settings.clone()));
            }
            Some(Io::Tcp(tls)) => {
                tokio::spawn(h2::serve(*tls, self.link.clone(), handler, self.node.settings.clone()));
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

/// Reads the peer's identity from the chain that the handshake verified, and checks it once more: rustls keeps no
/// verdict, and the second look costs one signature.
fn identify(
    node: &MeshNode,
    chain: &[CertificateDer<'_>],
    expectations: &Expectations,
) -> Result<PeerIdentity, RefusedCertificate> {
    verify_peer(chain, &node.store.current().bundle, std::time::SystemTime::now(), expectations)
}
