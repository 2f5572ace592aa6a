//! Versions of the protocol.

use std::fmt;
use std::str::FromStr;

use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// The versions from `min` to `max`, both inclusive.
    pub(crate) fn range(min: Self, max: Self) -> Vec<&'static SupportedProtocolVersion> {
        let versions = [(Self::Tls12, &TLS12), (Self::Tls13, &TLS13)];
        versions.into_iter().filter(|(version, _)| (min..=max).contains(version)).map(|(_, v)| v).collect()
    }
}

impl FromStr for TlsVersion {
    type Err = String;

    /// A minimum in the form of Thanos (`1.2`) or of Prometheus (`TLS12`). 1.0 and 1.1 mean 1.2, because older versions are insecure and never used.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1.0" | "1.1" | "1.2" | "TLS10" | "TLS11" | "TLS12" => Ok(Self::Tls12),
            "1.3" | "TLS13" => Ok(Self::Tls13),
            _ => Err(format!("TLS version {text:?} is not supported, expected 1.2 or 1.3")),
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        })
    }
}
