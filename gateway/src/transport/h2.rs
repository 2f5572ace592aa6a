//! HTTP/2 on TCP: hyper on both sides.
//!
//! hyper's HTTP/2 is large and generic. All clients here (mesh, stores, joining) use one instance of it, and all servers
//! (mesh, enrolment) another: [`handshake`] and [`serve_connection`].

mod client;
mod io;
mod server;

pub(super) use client::client;
pub(crate) use client::{Http2RequestBody, Http2Sender, handshake};
pub(crate) use io::Http2Io;
pub(super) use server::serve;
pub(crate) use server::serve_connection;
