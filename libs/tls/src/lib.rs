//! TLS for ports and clients outside the mesh, from PEM files that are read again when they change.
//!
//! The settings are those of Thanos and of Prometheus' exporter toolkit. The mesh has its own, stricter TLS in `identity`.
//!
//! Reading order: `version`, `provider`, `pem`, `watched`, `trust`, `server`, `client`, `tcp_or_tls`, `words`.

mod client;
mod pem;
mod provider;
mod server;
mod tcp_or_tls;
mod trust;
mod version;
mod watched;
mod words;

#[cfg(test)]
mod tests;

pub use client::{ClientTls, ClientTlsOptions};
pub use pem::PemSource;
pub use provider::{CipherSuite, Curve};
pub use server::{ClientAuth, ServerHandshake, ServerTlsOptions, peer_certificate};
pub use tcp_or_tls::TcpOrTls;
pub use tokio_rustls::TlsStream;
pub use version::TlsVersion;
pub use watched::{Loaded, Watched, read_file};
pub use words::{explain, words};
