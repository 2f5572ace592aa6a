//! HTTP/2 over TLS on TCP: hyper at both ends.

mod client;
mod io;
mod server;

pub(super) use client::client;
pub(super) use server::serve;
