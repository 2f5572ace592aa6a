//! The mesh as a component sees it: a [`Channel`] to send gRPC requests on, and a [`Peer`] on those that come in.
//!
//! A component names what it wants to reach by an [`Authority`] (`scraper-0.eu-1`) and never learns how the request
//! gets there: over a plain connection ([`direct`]), through a gateway beside it ([`via`]), or straight into a service
//! of the same process ([`Channel::local`]). Callers cannot tell which it was.
//!
//! What this crate is not: it holds no QUIC, no TLS, no certificate and no policy. All of that is the gateway's.

mod authority;
mod channel;
mod error;
mod peer;

pub use authority::{Authority, AuthorityError, AuthorityLayer, WithAuthority};
pub use channel::{Channel, direct, via};
pub use error::Error;
pub use peer::{Peer, PeerLayer, Transport, WithPeer};

#[cfg(test)]
mod tests;
