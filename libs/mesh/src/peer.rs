//! The caller of a request, and the transport on which the request came.

use std::{
    fmt,
    task::{Context, Poll},
};

use http::{Extensions, Request};
use identity::SpiffeId;
use tower::{Layer, Service};

/// The transport between two peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// HTTP/3 over QUIC with mutual TLS.
    Quic,
    /// HTTP/2 over mutual TLS on TCP, where UDP is blocked.
    Tcp,
    /// Within one process or one trusted host, without TLS.
    Local,
}

impl Transport {
    /// `quic`, `tcp` or `local`: the name in logs, metrics and the directory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The caller of a request; it is in the extensions of the request.
///
/// Only the mesh sets it, after it has verified the certificate. It does not depend on any header of the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    identity: Option<SpiffeId>,
    transport: Transport,
}

impl Peer {
    /// A peer whose certificate proves `identity`.
    pub fn new(identity: SpiffeId, transport: Transport) -> Self {
        Self { identity: Some(identity), transport }
    }

    /// A caller on this host, without a proved identity.
    pub fn local() -> Self {
        Self { identity: None, transport: Transport::Local }
    }

    /// The peer of a request with these extensions; [`Peer::local`] for a request that did not come over the mesh.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_else(Self::local)
    }

    /// The proved identity; `None` on a local connection.
    pub fn identity(&self) -> Option<&SpiffeId> {
        self.identity.as_ref()
    }

    /// The transport on which the request came.
    pub fn transport(&self) -> Transport {
        self.transport
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => write!(f, "{identity} ({})", self.transport),
            None => f.write_str("local"),
        }
    }
}

/// Sets the peer of every request.
#[derive(Debug, Clone)]
pub struct PeerLayer {
    peer: Peer,
}

impl PeerLayer {
    /// A layer that sets `peer`.
    pub fn new(peer: Peer) -> Self {
        Self { peer }
    }
}

impl<S> Layer<S> for PeerLayer {
    type Service = WithPeer<S>;

    fn layer(&self, inner: S) -> WithPeer<S> {
        WithPeer { inner, peer: self.peer.clone() }
    }
}

/// The service that [`PeerLayer`] makes.
#[derive(Debug, Clone)]
pub struct WithPeer<S> {
    inner: S,
    peer: Peer,
}

impl<S, B> Service<Request<B>> for WithPeer<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(self.peer.clone());
        self.inner.call(request)
    }
}
