//! Whom a gateway trusts beyond its roots: denylists, and the certificates that were issued.
//!
//! The observability gateway reads the inventory and pushes what it finds over the control sessions ([`issued`]). The
//! gateway of a cluster verifies and stores what it receives ([`held`]). Both refuse denied peers at the handshake and close
//! their connections ([`PeerGuard`](crate::transport::PeerGuard)).
//!
//! The issuer also sends the signed head of its audit log ([`issued_audit`]), which each cluster keeps (`held_audit`), so that
//! the log cannot be altered unnoticed (`audit_heads`).

mod audit_heads;
pub(crate) mod held;
mod held_audit;
pub(crate) mod issued;
pub(crate) mod issued_audit;
mod issuer_end;
