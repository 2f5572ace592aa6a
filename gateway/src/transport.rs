//! Connections between gateways: HTTP/3 over QUIC and HTTP/2 over TLS on TCP, with one interface.
//!
//! A [`Handler`] turns a request into a response. Bodies are streams of [`Bytes`](bytes::Bytes) with trailers; nothing
//! here decodes gRPC. Each protocol has a client, which is a handler, and a server, which calls one. A connection is
//! dialled by a [`Dialer`] or accepted by a [`MeshListener`]; either side can then be the client. A [`MeshConnection`]
//! becomes a [`MeshClient`] or is [served](MeshConnection::serve).
//!
//! ```text
//!       Dialer ─┐                    ┌─ client() ─► MeshClient: Handler
//!               ├─► MeshConnection ──┤
//! MeshListener ─┘         │          └─ serve(handler)
//!                         └─ MeshLink: peer, transport, age, close(), closed()
//! ```
//!
//! Invariants: trailers, trailers-only responses and errors after data pass unchanged. A truncated body never looks
//! complete. Dropping a response or a request cancels it on the peer, even when the stream is idle or blocked. Every
//! buffer is bounded. TCP is tried only when no UDP answer came, never after a refusal.

mod body;
mod client;
mod connection;
mod dialer;
mod end;
mod error;
mod fallback;
mod guard;
pub(crate) mod h2;
mod h3;
mod handler;
mod link;
mod listener;
mod node;
mod peer_clock;
mod probing;
mod proxied;
mod quic_runtime;
pub(crate) mod settings;
mod trial;

pub use body::Body;
pub use client::MeshClient;
pub use connection::MeshConnection;
pub use dialer::{DialTarget, Dialer};
pub use end::{CloseReason, ConnectionEnd};
pub use error::{ConnectError, ConnectionFailure, StreamError, StreamErrorKind};
pub use guard::PeerGuard;
pub use handler::{Handler, HandlerFuture, ServiceHandler, channel, handler_fn};
pub use link::{MeshLink, MeshLinks};
pub use listener::{AcceptedConnection, MeshListener};
pub use node::{ConnectionEvent, InboundRefusal, MeshNode};
pub(crate) use peer_clock::PeerClock;
pub(crate) use proxied::connect_through;
pub use settings::{TransportChoice, TransportSettings};

#[cfg(test)]
mod tests;
