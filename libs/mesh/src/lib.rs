//! The mesh as a component sees it: a [`Channel`] to send gRPC requests on, and a [`Peer`] on those that come in.
//!
//! A component addresses a request to an [`Authority`] (`scraper-0.eu-1`). The request travels over a plain connection
//! ([`direct`]), through a gateway on the same host ([`Gateway`], [`via`]), or directly to a service of the same process
//! ([`Channel::local`]). The caller sees no difference.
//!
//! What this crate is not: it has no QUIC, no certificates of the mesh and no policy. They belong to the gateway.

mod authority;
mod channel;
mod connection_end;
mod connector;
mod error;
mod gateway;
mod peer;
mod resend;
mod window;
mod words;

pub use authority::{Authority, AuthorityError, AuthorityLayer, WithAuthority};
pub use channel::{Channel, ChannelOptions, direct, direct_with};
pub use compression::{MessageEncoding, UnknownEncoding};
pub use error::ChannelError;
pub use gateway::{Gateway, via, via_with};
pub use peer::{Peer, PeerLayer, Transport, WithPeer};
pub use resend::{Resend, ResendLayer};
pub use tls::{ClientTls, ClientTlsOptions, PemSource, TlsVersion};
pub use window::StreamWindow;
pub use words::transport_words;

#[cfg(test)]
mod tests;
