//! The mesh's own PKI: an offline root, an online issuer, join tokens, and the inventory of all that was issued.
//!
//! The library decides and records; it opens no socket. The gateway of the observability cluster serves
//! enrolment and renewal over the network and calls [`Issuer`]; a joining gateway uses [`JoinToken`] and
//! [`KeyAndCsr`]; people use the commands in [`cli`].
//!
//! What is absent: a certificate request's names (only its public key is read), a token in clear on disk (only
//! its SHA-256), a root key in the state directory, a private key of a peer (it never leaves the peer).
//!
//! Reading order: `token`, `key`, `csr`, `authority`, `inventory`, `issuer`, `init`, `doctor`, `cli`.

mod authority;
pub mod cli;
mod csr;
mod doctor;
mod error;
mod init;
mod inventory;
mod issuer;
mod join;
mod key;
mod seal;
mod token;

#[cfg(test)]
mod testing;

pub use error::{CsrRefusal, PkiError, TokenRefusal};
pub use identity::Secret;
pub use init::{InitOptions, InitOutcome, init};
pub use issuer::{DEFAULT_LEAF_TTL, Enrolment, Issuer, NewToken};
pub use key::KeyAndCsr;
pub use token::{JoinToken, TOKEN_PREFIX, TokenError};

/// The component that joins with a token and that issues: the gateway, in both cases.
pub const GATEWAY: &str = "gateway";
