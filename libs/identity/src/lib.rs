//! The identity of peers and its proof: SPIFFE ids, trust bundles, credentials, and the TLS settings of the
//! mesh.
//!
//! One function, [`verify_peer`], decides whether a certificate chain belongs to a peer of the mesh. QUIC and
//! TCP, clients and servers all call it. The rustls configurations of this crate are the only ones in the
//! mesh: TLS 1.3 with hybrid post-quantum key exchange first, and without tickets, resumption and early data,
//! so that every connection is verified.
//!
//! This crate opens no socket, uses no async runtime, and issues no certificates (see `pki`).
//!
//! Reading order: `spiffe`, `bundle`, `credentials`, `verify`, `denylist`, `audit_head`, `store`, `tls`, `enrolment`.

mod audit_head;
mod bundle;
mod core_dumps;
mod credentials;
mod crypto;
mod denylist;
mod enrolment;
mod files;
mod hex;
mod issuer_signature;
mod key_type;
mod pem;
mod pem_content;
mod pin;
mod root_signature;
mod secret;
mod spiffe;
mod store;
mod tls;
mod verify;

#[cfg(test)]
mod testing;

pub use audit_head::{AuditHeadError, MAX_AUDIT_HEAD_BYTES, SignedAuditHead};
pub use bundle::{BundleError, BundleRefusal, RootFacts, TrustBundle};
pub use core_dumps::forbid_core_dumps;
pub use credentials::{Credentials, CredentialsError};
pub use crypto::crypto_provider;
pub use denylist::{
    DenyEntry, DenySubject, DenylistError, DenylistSigner, HeldDenylists, MAX_DENYLIST_AGE,
    MAX_DENYLIST_BYTES, SignedDenylist,
};
pub use enrolment::{enrolment_client_config, enrolment_server_config};
pub use files::{read_bounded, read_private, write_private, write_public};
pub use key_type::KeyType;
pub use pem::certificate_pem;
pub use pem_content::{PemContent, PemError};
pub use pin::{PinError, SpkiPin};
pub use secret::Secret;
pub use spiffe::{Name, NameError, SpiffeId, TrustDomain};
pub use store::{ActiveCredentials, CredentialStore};
pub use tls::{client_config, server_config};
pub use verify::{
    CLOCK_SKEW, Denylist, Expectations, MAX_CHAIN_LEN, NoDenylist, PeerIdentity, RefusalReason,
    RefusedCertificate, verify_peer,
};
