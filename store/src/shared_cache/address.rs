//! Addresses of cache servers, and the server of a key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;

use runtime::{AddressFamilies, DnsResolver};
use xxhash_rust::xxh64::xxh64;

/// The address of a server, or a name that is looked up in DNS, with the prefixes of Thanos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CacheAddress {
    /// `HOST:PORT`.
    Server { host: String, port: u16 },
    /// `dns+HOST:PORT`: each address of the name.
    Hosts { host: String, port: u16 },
    /// `dnssrv+NAME` and `dnssrvnoa+NAME`: each host of the service.
    Service { name: String, looks_up_hosts: bool },
}

impl FromStr for CacheAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || {
            let short: String = text.chars().take(140).collect();
            format!("{short:?} is not of the form HOST:PORT, dns+HOST:PORT, dnssrv+NAME or dnssrvnoa+NAME")
        };
        let host_port = |text: &str| {
            let (host, port) = text.rsplit_once(':')?;
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let is_odd =
                bare.is_empty() || bare.contains(['/', '@', ' ']) || (bare.contains(':') && bare == host);
            Some((bare.to_owned(), port.parse::<u16>().ok().filter(|port| *port > 0 && !is_odd)?))
        };
        match text.split_once('+') {
            None => host_port(text).map(|(host, port)| Self::Server { host, port }),
            Some(("dns", rest)) => host_port(rest).map(|(host, port)| Self::Hosts { host, port }),
            Some((kind @ ("dnssrv" | "dnssrvnoa"), name)) if !name.is_empty() && !name.contains(':') => {
                Some(Self::Service { name: name.to_owned(), looks_up_hosts: kind == "dnssrv" })
            }
            Some(_) => None,
        }
        .ok_or_else(refuse)
    }
}

/// A host with its port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct HostPort {
    pub(super) host: String,
    pub(super) port: u16,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl CacheAddress {
    /// The server, if it need not be looked up.
    pub(super) fn server(&self) -> Option<HostPort> {
        match self {
            Self::Server { host, port } => Some(HostPort { host: host.clone(), port: *port }),
            Self::Hosts { .. } | Self::Service { .. } => None,
        }
    }

    /// The servers of the address.
    ///
    /// # Errors
    /// Why DNS has no answer.
    pub(super) async fn resolve(&self, resolver: &DnsResolver) -> Result<Vec<HostPort>, String> {
        let addresses = async |host: &str, port: u16| {
            let found =
                resolver.addresses(host, AddressFamilies::One).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(found.into_iter().map(move |ip| HostPort { host: ip.to_string(), port }))
        };
        match self {
            Self::Server { host, port } => Ok(vec![HostPort { host: host.clone(), port: *port }]),
            Self::Hosts { host, port } => Ok(addresses(host, *port).await?.collect()),
            Self::Service { name, looks_up_hosts } => {
                let mut servers = Vec::new();
                for service in resolver.services(name).await.map_err(|error| error.to_string())? {
                    if *looks_up_hosts {
                        // The name of a host in a service is complete.
                        servers.extend(addresses(&format!("{}.", service.host), service.port).await?);
                    } else {
                        servers.push(HostPort { host: service.host, port: service.port });
                    }
                }
                Ok(servers)
            }
        }
    }
}

/// Servers in the order in which keys are assigned to them, each once: `cache-10` comes after `cache-9`, as in Thanos.
pub(super) fn in_order(servers: Vec<HostPort>) -> Vec<HostPort> {
    let sorted: BTreeMap<_, HostPort> =
        servers.into_iter().map(|server| ((natural(&server.host), server.port), server)).collect();
    sorted.into_values().collect()
}

/// A key that sorts numbers in names by their value.
fn natural(name: &str) -> Vec<(u64, String)> {
    if let Ok(SocketAddr::V4(address)) = format!("{name}:1").parse() {
        return vec![(u64::from(u32::from(*address.ip())), String::new())];
    }
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (word, after) = rest.split_at(text);
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(digits);
        parts.push((0, word.to_owned()));
        parts.push((number.parse().unwrap_or(u64::MAX), number.to_owned()));
        rest = after;
    }
    parts
}

/// The number of the server of a key, by the jump hash of Thanos: when a server is added at the end, only its share of the keys moves.
pub(super) fn server_of(key: &str, servers: usize) -> usize {
    let mut hash = xxh64(key.as_bytes(), 0);
    let (mut found, mut next) = (0, 0);
    while next < servers as i64 {
        found = next;
        hash = hash.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((found + 1) as f64 * ((1_i64 << 31) as f64 / ((hash >> 33) + 1) as f64)) as i64;
    }
    found as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_forms_of_thanos() {
        for (text, known) in [
            ("localhost:11211", true),
            ("[::1]:11211", true),
            ("dns+cache.svc:11211", true),
            ("dnssrv+_memcached._tcp.cache.svc", true),
            ("dnssrvnoa+_memcached._tcp.cache.svc", true),
            ("localhost", false),
            ("::1:11211", false),
            (":11211", false),
            ("localhost:0", false),
            ("/run/memcached.sock", false),
            ("dnsx+a:1", false),
            ("dns+a", false),
        ] {
            assert_eq!(text.parse::<CacheAddress>().is_ok(), known, "{text}");
        }
    }

    #[test]
    fn a_new_server_at_the_end_takes_only_its_share_of_the_keys() {
        let host = |name: &str| HostPort { host: name.to_owned(), port: 1 };
        let sorted = in_order(["c-10", "c-9", "c-1", "c-9"].map(host).to_vec());
        assert_eq!(
            sorted.iter().map(|server| server.host.as_str()).collect::<Vec<_>>(),
            ["c-1", "c-9", "c-10"]
        );
        let sorted = in_order(["10.0.0.10", "10.0.0.9"].map(host).to_vec());
        assert_eq!(sorted[0].host, "10.0.0.9");
        let mut moved = 0;
        for key in (0..1000).map(|n| n.to_string()) {
            let (before, after) = (server_of(&key, 3), server_of(&key, 4));
            assert!(before < 3 && (after == before || after == 3), "{key}: {before} to {after}");
            moved += usize::from(after != before);
        }
        assert!((150..350).contains(&moved), "{moved} keys of 1000 moved");
    }
}
