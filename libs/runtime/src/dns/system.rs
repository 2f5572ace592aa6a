//! The configuration of the system: `/etc/resolv.conf` and `/etc/hosts`.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::dns::DnsError;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const PORT: u16 = 53;
/// As many servers as the C library asks.
const MAX_SERVERS: usize = 3;

/// Which servers are asked, and for which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolverConfig {
    pub(super) servers: Vec<SocketAddr>,
    search: Vec<String>,
    /// A name with at least this many dots is tried as it is first.
    ndots: usize,
    /// How long one server may take.
    pub(super) timeout: Duration,
    /// How often each server is asked.
    pub(super) attempts: usize,
}

impl ResolverConfig {
    pub(super) fn with_servers(servers: Vec<SocketAddr>) -> Self {
        Self { servers, search: Vec::new(), ndots: 1, timeout: Duration::from_secs(5), attempts: 2 }
    }

    /// Reads `/etc/resolv.conf`.
    pub(super) fn system() -> Result<Self, DnsError> {
        let text = fs::read_to_string(RESOLV_CONF);
        Ok(Self::parse(
            &text.map_err(|cause| DnsError::System(format!("{RESOLV_CONF}: cannot be read: {cause}")))?,
        ))
    }

    /// Reads the text of `resolv.conf`. Unknown lines are ignored, as by the C library.
    fn parse(text: &str) -> Self {
        let mut config = Self::with_servers(Vec::new());
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or("");
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // The zone of a link-local address has no meaning for a server.
                    let address =
                        words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
                    config.servers.extend(address.map(|ip| SocketAddr::new(ip, PORT)));
                }
                Some("search" | "domain") => config.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| config.set(option)),
                _ => {}
            }
        }
        config.servers.truncate(MAX_SERVERS);
        if config.servers.is_empty() {
            config.servers.push(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), PORT));
        }
        config
    }

    fn set(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
            "attempts" => self.attempts = value.clamp(1, 5) as usize,
            _ => {}
        }
    }

    /// The full names that a name may stand for, in the order in which they are tried.
    pub(super) fn names(&self, name: &str) -> Vec<String> {
        if let Some(full) = name.strip_suffix('.') {
            return vec![full.to_owned()];
        }
        let searched = self.search.iter().map(|suffix| match suffix.trim_end_matches('.') {
            "" => name.to_owned(),
            suffix => format!("{name}.{suffix}"),
        });
        let as_it_is = std::iter::once(name.to_owned());
        match name.matches('.').count() >= self.ndots {
            true => as_it_is.chain(searched).collect(),
            false => searched.chain(as_it_is).collect(),
        }
    }
}

/// The names of `/etc/hosts`, in lower case.
#[derive(Clone, Debug, Default)]
pub(super) struct HostsFile(HashMap<String, Vec<IpAddr>>);

impl HostsFile {
    /// Reads the file; empty if there is none.
    pub(super) fn system() -> Self {
        Self::parse(&fs::read_to_string(HOSTS).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or("").split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            for name in words {
                names.entry(name.to_ascii_lowercase()).or_default().push(address);
            }
        }
        Self(names)
    }

    /// The addresses of a name; empty if it is not listed.
    pub(super) fn addresses(&self, name: &str) -> &[IpAddr] {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.0.get(&name).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_of_a_pod_is_read() {
        let config = ResolverConfig::parse(
            "# comment\nnameserver 10.96.0.10\nnameserver fe80::1%eth0\nnameserver nonsense\n\
             search prod.svc.cluster.local svc.cluster.local. ; rest\noptions ndots:5 timeout:2 attempts:99 rotate\n",
        );
        assert_eq!(config.servers, ["10.96.0.10:53".parse().unwrap(), "[fe80::1]:53".parse().unwrap()]);
        assert_eq!((config.ndots, config.timeout, config.attempts), (5, Duration::from_secs(2), 5));
        assert_eq!(
            config.names("stores"),
            ["stores.prod.svc.cluster.local", "stores.svc.cluster.local", "stores"]
        );
        assert_eq!(
            config.names("_grpc._tcp.a.b.c.d").first().map(String::as_str),
            Some("_grpc._tcp.a.b.c.d")
        );
        assert_eq!(config.names("stores.example."), ["stores.example"]);
        let empty = ResolverConfig::parse("");
        assert_eq!(empty.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(empty.names("a.b"), ["a.b"]);
    }

    #[test]
    fn names_of_the_hosts_file_are_found_in_any_case() {
        let hosts = HostsFile::parse(
            "127.0.0.1 localhost # x\n::1 localhost ip6\n10.0.0.7\tStore-0 store-0.example\n",
        );
        assert_eq!(hosts.addresses("LOCALHOST").len(), 2);
        assert_eq!(hosts.addresses("store-0.example."), [IpAddr::from([10, 0, 0, 7])]);
        assert!(hosts.addresses("store-1").is_empty());
    }
}
