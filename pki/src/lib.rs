//! The PKI of the mesh: offline roots, an online issuer, join tokens, and the inventory of all issued
//! certificates.
//!
//! The library opens no socket. The gateway of the observability cluster serves enrolment and renewal over
//! the network and calls [`Issuer`]; a joining gateway uses [`JoinToken`] and [`KeyAndCsr`]; people use the
//! commands in [`cli`].
//!
//! Four things are absent on purpose. Names in a certificate request are ignored; only its public key is
//! used. Tokens are not stored; only their SHA-256 is. The state directory contains no root key. The private
//! key of a peer never leaves the peer.
//!
//! Reading order: `token`, `key`, `csr`, `authority`, `inventory`, `issuer`, `join`, `roots`, `init`, `delivered`, `doctor`, `cluster_bundle`, `cli`.

mod authority;
mod backup;
pub mod cli;
mod cluster_bundle;
mod csr;
mod delivered;
mod doctor;
mod error;
mod init;
mod inventory;
mod issuer;
mod issuing;
mod join;
mod key;
mod roots;
mod seal;
mod token;
mod wiped_key;

#[cfg(test)]
mod testing;

pub use cluster_bundle::BUNDLE_METHODS;
pub use csr::recovery_statement;
pub use delivered::{Delivered, DeliveredIssuer, DeliveredVersion};
pub use doctor::examine_state;
pub use error::{CsrRefusal, PkiError, TokenRefusal};
pub use identity::Secret;
pub use init::{InitOptions, InitOutcome, init};
pub use inventory::{ClusterRecord, GatewayReport, Revocation};
pub use issuer::{DEFAULT_LEAF_TTL, DEFAULT_RECOVERY, Enrolment, Issuer, IssuerFigures, NewToken};
pub use key::KeyAndCsr;
pub use token::{JoinToken, TOKEN_PREFIX, TokenError};

/// The component that joins with a token, and also the component that issues certificates: the gateway.
pub const GATEWAY: &str = "gateway";
