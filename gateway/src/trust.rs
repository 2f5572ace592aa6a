//! Whom a gateway trusts beyond its roots: denylists, and the certificates that were issued.
//!
//! The observability gateway reads the inventory and pushes what it finds over the control sessions ([`issued`]). The
//! gateway of a cluster verifies and stores what it receives ([`held`]). Both refuse denied peers at the handshake and close
//! their connections ([`PeerGuard`](crate::transport::PeerGuard)).

pub(crate) mod held;
pub(crate) mod issued;
