//! Addresses to listen on, as flags spell them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The address of a server: `HOST:PORT`, with an empty host for all interfaces.
///
/// For port 0 the system chooses a free port. An IPv6 host is written in brackets.
///
/// ```
/// let address: runtime::ListenAddress = ":10901".parse().unwrap();
/// assert_eq!((address.host(), address.port()), ("", 10901));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

/// Why a text is not a valid address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `:PORT` at the end.
    #[error(
        "address {0:?} has no port: write HOST:PORT, for example 0.0.0.0:10902, or :10902 for all interfaces"
    )]
    NoPort(String),
    /// The port is not a number from 0 to 65535.
    #[error("address {address:?}: port {port:?} is not a number from 0 to 65535")]
    BadPort {
        /// The whole text.
        address: String,
        /// The part after the last colon.
        port: String,
    },
    /// The host is neither a host name nor an IP address.
    #[error(
        "address {address:?}: {host:?} is neither a host name nor an IP address (write an IPv6 address in brackets: [::1]:10902)"
    )]
    BadHost {
        /// The whole text.
        address: String,
        /// The part before the last colon.
        host: String,
    },
}

impl ListenAddress {
    /// The host as written, without brackets; empty for all interfaces.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for any free one.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        let bad_host = || AddressError::BadHost { address: text.to_owned(), host: host.to_owned() };
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or_else(bad_host)?;
                inner.parse::<Ipv6Addr>().map_err(|_| bad_host())?;
                inner
            }
            None if host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) => {
                host
            }
            None => return Err(bad_host()),
        };
        // `parse` alone would accept a sign.
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AddressError::BadPort { address: text.to_owned(), port: port.to_owned() });
        }
        let port = port
            .parse()
            .map_err(|_| AddressError::BadPort { address: text.to_owned(), port: port.to_owned() })?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse() {
            Ok(IpAddr::V6(_)) => write!(f, "[{}]:{}", self.host, self.port),
            _ => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_spellings_are_accepted() {
        for (text, host, port) in [
            (":10901", "", 10901),
            ("0.0.0.0:10902", "0.0.0.0", 10902),
            ("localhost:0", "localhost", 0),
            ("[::1]:9", "::1", 9),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!((address.host(), address.port()), (host, port));
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn errors_name_the_address_and_what_is_wrong() {
        for (text, expected) in [
            ("10902", "has no port"),
            ("host", "has no port"),
            ("host:", "is not a number"),
            ("host:65536", "is not a number"),
            ("host:+80", "is not a number"),
            ("::1:80", "IPv6 address in brackets"),
            ("http://x:80", "neither a host name nor"),
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(text), "{text}: {error}");
        }
    }
}
