//! The address of an endpoint, and what DNS knows about it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use runtime::{AddressFamilies, DnsResolver};

/// An address of endpoints: `HOST`, `HOST:PORT`, or the prefix of a lookup in DNS and a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpAddress {
    lookup: Option<Lookup>,
    host: String,
    /// Replaces the ports of services.
    port: Option<u16>,
}

/// What is looked up, with the prefixes of Thanos.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lookup {
    /// `dns+`: the addresses of a name.
    Hosts,
    /// `dnsdualstack+`: the addresses of a name, of both families.
    DualStack,
    /// `dnssrv+`: the addresses of the hosts of a service.
    Services,
    /// `dnssrvnoa+`: the names of the hosts of a service.
    ServiceNames,
}

const PREFIXES: [(&str, Lookup); 4] = [
    ("dns+", Lookup::Hosts),
    ("dnsdualstack+", Lookup::DualStack),
    ("dnssrv+", Lookup::Services),
    ("dnssrvnoa+", Lookup::ServiceNames),
];

/// The text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "address {0:?} is not of the form HOST:PORT, dns+HOST:PORT for each address of the name, or dnssrv+NAME for each host \
     of the service"
)]
pub struct HttpAddressError(String);

/// The prefix of a lookup at the begin of `text`, and what follows it.
pub(super) fn split_prefix(text: &str) -> (&str, &str) {
    let found = PREFIXES
        .iter()
        .find(|(prefix, _)| text.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix)));
    found.map_or(("", text), |(prefix, _)| text.split_at(prefix.len()))
}

impl HttpAddress {
    /// Whether it is looked up in DNS.
    pub fn is_resolved(&self) -> bool {
        self.lookup.is_some()
    }

    /// `HOST` or `HOST:PORT`, if it is not looked up.
    pub(super) fn fixed(&self) -> Option<String> {
        self.lookup.is_none().then(|| self.to_string())
    }

    /// The endpoints of the address, as `HOST:PORT`, sorted and unique; without a lookup, the address itself. `default_port` is the
    /// port of addresses that have none.
    ///
    /// # Errors
    /// DNS gives no answer.
    pub async fn resolve(&self, resolver: &DnsResolver, default_port: u16) -> Result<Vec<String>, String> {
        let Some(lookup) = self.lookup else { return Ok(vec![self.to_string()]) };
        let port = self.port.unwrap_or(default_port);
        let mut found = match lookup {
            Lookup::Hosts => sockets(resolver, &self.host, port, AddressFamilies::One).await?,
            Lookup::DualStack => sockets(resolver, &self.host, port, AddressFamilies::Both).await?,
            Lookup::Services | Lookup::ServiceNames => {
                let mut found = Vec::new();
                for service in resolver.services(&self.host).await.map_err(|cause| cause.to_string())? {
                    let port = self.port.unwrap_or(service.port);
                    if lookup == Lookup::ServiceNames {
                        found.push(format!("{}:{port}", service.host));
                    } else {
                        // The name of a host in a service is complete.
                        let host = format!("{}.", service.host);
                        found.extend(sockets(resolver, &host, port, AddressFamilies::One).await?);
                    }
                }
                found
            }
        };
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

async fn sockets(
    resolver: &DnsResolver,
    host: &str,
    port: u16,
    families: AddressFamilies,
) -> Result<Vec<String>, String> {
    let found = resolver.addresses(host, families).await.map_err(|cause| cause.to_string())?;
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port).to_string()).collect())
}

impl FromStr for HttpAddress {
    type Err = HttpAddressError;

    fn from_str(text: &str) -> Result<Self, HttpAddressError> {
        let refuse = || HttpAddressError(text.chars().take(140).collect());
        let (prefix, rest) = split_prefix(text);
        let lookup = PREFIXES.iter().find(|(name, _)| name.eq_ignore_ascii_case(prefix));
        let authority: http::uri::Authority = rest.parse().map_err(|_| refuse())?;
        let port = authority.port_u16();
        // The colons of an IPv6 address are in brackets.
        let has_odd_port = port.is_none() && rest.rsplit(']').next().is_some_and(|end| end.contains(':'));
        if authority.host().is_empty() || rest.contains(['@', '+']) || has_odd_port {
            return Err(refuse());
        }
        // Names are compared without regard to case, so that an endpoint that is given twice is asked once.
        let host = authority.host().to_ascii_lowercase();
        Ok(Self { lookup: lookup.map(|(_, lookup)| *lookup), host, port })
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = PREFIXES.iter().find(|(_, lookup)| Some(*lookup) == self.lookup);
        if let Some((prefix, _)) = prefix {
            f.write_str(prefix)?;
        }
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use runtime::DnsServer;

    use super::*;

    #[test]
    fn addresses_are_read_and_others_are_refused() {
        for good in [
            "127.0.0.1:9093",
            "am",
            "[::1]:9093",
            "dns+am.svc",
            "dns+am.svc:9093",
            "dnsdualstack+am.svc:9093",
            "dnssrv+_web._tcp.am.svc",
            "dnssrvnoa+_web._tcp.am.svc.",
        ] {
            assert_eq!(good.parse::<HttpAddress>().unwrap().to_string(), good);
        }
        assert_eq!("DNS+Am:1".parse::<HttpAddress>().unwrap().to_string(), "dns+am:1");
        for bad in
            ["", ":1", "http://a:1", "a/b", "x+a:1", "dns+", "dns+dns+a", "u@a", "a:port", "a:99999", "::1"]
        {
            let error = bad.parse::<HttpAddress>().unwrap_err();
            assert!(error.to_string().contains("is not of the form"), "{bad}: {error}");
        }
    }

    #[tokio::test]
    async fn names_and_services_are_looked_up() {
        let records = [
            "--host-record=a.test,10.0.0.1,fd00::1",
            "--host-record=b.test,10.0.0.2",
            "--srv-host=_web._tcp.test,b.test,9094",
            "--srv-host=_web._tcp.test,a.test,9093",
        ];
        let Some(server) = DnsServer::start(&records.map(str::to_owned)) else { return };
        let resolver = DnsResolver::with_servers(vec![server.address()]);
        let check = async |address: &str, expected: &[&str]| {
            let address: HttpAddress = address.parse().unwrap();
            assert_eq!(address.resolve(&resolver, 9).await.unwrap(), expected, "{address}");
        };
        check("a.test", &["a.test"]).await;
        check("dns+a.test", &["10.0.0.1:9"]).await;
        check("dns+a.test:1", &["10.0.0.1:1"]).await;
        check("dnsdualstack+a.test:1", &["10.0.0.1:1", "[fd00::1]:1"]).await;
        check("dnssrv+_web._tcp.test", &["10.0.0.1:9093", "10.0.0.2:9094"]).await;
        check("dnssrvnoa+_web._tcp.test", &["a.test:9093", "b.test:9094"]).await;
        check("dnssrvnoa+_web._tcp.test:1", &["a.test:1", "b.test:1"]).await;
        check("dns+none.test", &[]).await;
        let nowhere = DnsResolver::with_servers(vec![([127, 0, 0, 1], 1).into()]);
        let error = "dns+a.test".parse::<HttpAddress>().unwrap().resolve(&nowhere, 9).await.unwrap_err();
        assert!(error.starts_with("DNS name a.test: server 127.0.0.1:1"), "{error}");
    }
}
