//! What servers see as the client.

/// The header `User-Agent`.
pub(crate) const USER_AGENT: &str = concat!("isthmus/", env!("CARGO_PKG_VERSION"));
