//! Connections between gateways: HTTP/3 over QUIC and HTTP/2 over TLS on TCP, behind one small contract.
//!
//! A [`Handler`] turns a request into a response, bodies being streams of [`Bytes`](bytes::Bytes) with trailers; nothing
//! here decodes gRPC. Four ends implement or drive one: the client and the server of each protocol. Which end a gateway
//! is does not depend on who dialled: a [`MeshConnection`], dialled by a [`Dialer`] or accepted by a [`MeshListener`], becomes a
//! [`MeshClient`] or is [served](MeshConnection::serve).
//!
//! ```text
//!       Dialer ─┐                    ┌─ client() ─► MeshClient: Handler
//!               ├─► MeshConnection ──┤
//! MeshListener ─┘         │          └─ serve(handler)
//!                         └─ MeshLink: who, how, since when, close(), closed()
//! ```
//!
//! Invariants: trailers, trailers-only answers and errors after data pass unchanged; a truncated body is never ended as
//! if it were whole; dropping a response or a request reaches the far end, however idle or blocked the stream is; every
//! buffer is bounded; TCP is tried only where no UDP answer came, never after a refusal.

mod body;
mod client;
mod connection;
mod dialer;
mod error;
mod h2;
mod h3;
mod handler;
mod link;
mod listener;
mod node;
mod settings;

pub use body::Body;
pub use client::MeshClient;
pub use connection::MeshConnection;
pub use dialer::{DialTarget, Dialer};
pub use error::{ConnectError, ConnectionFailure, StreamError, StreamErrorKind};
pub use handler::{Handler, HandlerFuture, ServiceHandler, channel, handler_fn};
pub use link::{CloseReason, ConnectionEnd, MeshLink, MeshLinks};
pub use listener::{AcceptedConnection, MeshListener};
pub use node::{ConnectionEvent, MeshNode};
pub use settings::{TransportChoice, TransportSettings};

#[cfg(test)]
mod tests;
