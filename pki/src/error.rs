//! What can go wrong, sorted by what a caller or a script can do about it.

use std::{io, path::Path};

use crate::token::TokenError;

/// Why a PKI operation did not happen. Each prints as one line, and none ever holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The command was given wrongly.
    #[error("{0}")]
    Usage(String),
    /// What was named does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The policy forbids it.
    #[error("{0}")]
    Refused(String),
    /// It contradicts what is already there.
    #[error("{0}")]
    Conflict(String),
    /// The state contradicts itself: damaged, or tampered with.
    #[error("{0}")]
    Integrity(String),
    /// The text given is no join token.
    #[error(transparent)]
    TokenText(#[from] TokenError),
    /// The join token opens nothing.
    #[error("join token refused: {0}")]
    Token(#[from] TokenRefusal),
    /// The certificate request is refused.
    #[error("certificate request refused: {0}")]
    Csr(#[from] CsrRefusal),
    /// The certificate received is refused.
    #[error(transparent)]
    Certificate(#[from] identity::RefusedCertificate),
    /// Certificate and key do not fit, or a file of theirs is damaged.
    #[error(transparent)]
    Credentials(#[from] identity::CredentialsError),
    /// A trust bundle is refused.
    #[error(transparent)]
    Bundle(#[from] identity::BundleError),
    /// A file or directory.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was being done, such as `read`.
        what: &'static str,
        /// To which file.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The inventory's database.
    #[error("inventory: {0}")]
    Inventory(#[from] rusqlite::Error),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl PkiError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { what, path, source }
    }

    /// The exit code of a command that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::TokenText(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) | Self::Token(_) | Self::Csr(_) | Self::Certificate(_) => 4,
            Self::Conflict(_) => 5,
            Self::Integrity(_) | Self::Credentials(_) | Self::Bundle(_) => 7,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => 3,
            Self::Io { .. } | Self::Inventory(_) | Self::Failed(_) => 1,
        }
    }
}

/// Why a join token opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// This issuer never made it.
    #[error("unknown to this issuer; create one with `pki token create`")]
    Unknown,
    /// It has been redeemed before. If the owner did not do that, somebody else has.
    #[error("already used at {0}; a token works once, create a new one and find out who used this one")]
    Used(String),
    /// Its time is over.
    #[error("expired at {0}; create a new one with `pki token create`")]
    Expired(String),
    /// It was revoked.
    #[error("revoked")]
    Revoked,
}

/// Why a certificate request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefusal {
    /// Not one PKCS #10 request.
    #[error("not a PKCS #10 certificate request")]
    Unreadable,
    /// The key is of a type outside the list.
    #[error("its key must be P-256, P-384 or Ed25519")]
    KeyType,
    /// It is not signed with the key that it carries.
    #[error("its signature is not by the key it carries")]
    Signature,
    /// A certificate was issued for this key before.
    #[error("its key has had a certificate before; make a new key for each request")]
    KeyReused,
}
