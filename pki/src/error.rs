//! Errors, grouped by what a caller or a script can do about them.

use std::{io, path::Path};

use crate::token::TokenError;

/// Why a PKI operation failed. Each error prints as one line, and no error contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// An argument is missing or invalid.
    #[error("{0}")]
    Usage(String),
    /// The named object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The policy forbids it.
    #[error("{0}")]
    Refused(String),
    /// Two machines use one key.
    #[error(
        "{0} was renewed twice from one certificate, and both are in use: one is a copy. All its certificates are locked; find the copy, then join again with a token"
    )]
    Clone(String),
    /// It cannot be done at this time, and nothing was used up: a clock is wrong, or the issuing CA is not valid.
    #[error("{0}")]
    NotNow(String),
    /// It conflicts with existing state.
    #[error("{0}")]
    Conflict(String),
    /// The stored state is inconsistent: it was damaged or manipulated.
    #[error("{0}")]
    Integrity(String),
    /// The text is not a join token.
    #[error(transparent)]
    TokenText(#[from] TokenError),
    /// The join token is refused.
    #[error("join token refused: {0}")]
    Token(#[from] TokenRefusal),
    /// The certificate request is refused.
    #[error("certificate request refused: {0}")]
    Csr(#[from] CsrRefusal),
    /// A received certificate is refused.
    #[error(transparent)]
    Certificate(#[from] identity::RefusedCertificate),
    /// Certificate and key do not belong together, or their file is damaged.
    #[error(transparent)]
    Credentials(#[from] identity::CredentialsError),
    /// A trust bundle is rejected.
    #[error(transparent)]
    Bundle(#[from] identity::BundleError),
    /// A file or directory cannot be read or written.
    #[error("{what} {path}: {source}")]
    Io {
        /// The operation that failed, such as `read`.
        what: &'static str,
        /// Path of the file or directory.
        path: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The database of the inventory failed.
    #[error("inventory: {0}")]
    Inventory(#[from] rusqlite::Error),
    /// Any other failure.
    #[error("{0}")]
    Failed(String),
}

impl PkiError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { what, path, source }
    }

    /// The exit code of a command that fails with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::TokenText(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_)
            | Self::Clone(_)
            | Self::NotNow(_)
            | Self::Token(_)
            | Self::Csr(_)
            | Self::Certificate(_) => 4,
            Self::Conflict(_) => 5,
            Self::Integrity(_) | Self::Credentials(_) | Self::Bundle(_) => 7,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => 3,
            Self::Io { .. } | Self::Inventory(_) | Self::Failed(_) => 1,
        }
    }
}

/// Why a join token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// This issuer did not create it.
    #[error("it is unknown to this issuer; create a new one with `pki token create`")]
    Unknown,
    /// It was redeemed before. If the cluster's owner did not use it, the token has leaked.
    #[error("it was already used at {0}; a token works once: find out who used it, and create a new one")]
    Used(String),
    /// Its lifetime is over.
    #[error("it expired at {0}; create a new one with `pki token create`")]
    Expired(String),
    /// Its cluster is paused. The token can be used later.
    #[error("its cluster is paused; resume it with `pki cluster resume`, the token was not used")]
    Paused,
    /// It was revoked.
    #[error("it was revoked; create a new one with `pki token create`")]
    Revoked,
}

/// Why a certificate request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrRefusal {
    /// It is larger than 8 KiB.
    #[error("it has {0} bytes, expected at most 8192")]
    TooLarge(usize),
    /// It is not a PKCS #10 request.
    #[error("it is not a PKCS #10 request")]
    Unreadable,
    /// Its key type is not allowed.
    #[error("its key type is not P-256, P-384 or Ed25519")]
    KeyType,
    /// It is not signed with the key in it.
    #[error("its signature was not made with the key in it")]
    Signature,
    /// A certificate was issued for this key before.
    #[error("its key was certified before; generate a new key for each request")]
    KeyReused,
}
