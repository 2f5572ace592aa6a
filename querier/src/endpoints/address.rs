//! The address of an endpoint, and what DNS knows about it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use runtime::{AddressFamilies, DnsResolver};

/// An endpoint flag: `host:port`, or the prefix of a lookup in DNS and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointAddress {
    lookup: Option<Lookup>,
    host: String,
    /// Always there without a lookup and for addresses; replaces the ports of services.
    port: Option<u16>,
}

/// An endpoint as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndpointSpec {
    pub(crate) address: EndpointAddress,
    /// Listed however long it has been unreachable.
    pub(crate) strict: bool,
    /// Whether its addresses are replicas of one store, so that each request goes to one of them.
    pub(crate) replicas: bool,
}

/// What is looked up, with the prefixes of Thanos.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    ("dns", Lookup::Hosts),
    ("dnsdualstack", Lookup::DualStack),
    ("dnssrv", Lookup::Services),
    ("dnssrvnoa", Lookup::ServiceNames),
];

/// The text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "endpoint {0:?} is not of the form HOST:PORT, dns+HOST:PORT for each address of the name, or dnssrv+NAME for each \
     host of the service"
)]
pub(crate) struct EndpointAddressError(String);

impl EndpointAddress {
    /// Whether it is looked up in DNS.
    pub(crate) fn is_resolved(&self) -> bool {
        self.lookup.is_some()
    }

    /// The endpoints of the address, as `host:port`; without a lookup, the address itself.
    pub(super) async fn resolve(&self, resolver: &DnsResolver) -> Result<Vec<String>, String> {
        let Some(lookup) = self.lookup else { return Ok(vec![self.to_string()]) };
        let names = match lookup {
            Lookup::Hosts => self.sockets(resolver, &self.host, self.port, AddressFamilies::One).await?,
            Lookup::DualStack => self.sockets(resolver, &self.host, self.port, AddressFamilies::Both).await?,
            Lookup::Services | Lookup::ServiceNames => {
                let mut names = Vec::new();
                for service in resolver.services(&self.host).await.map_err(|cause| cause.to_string())? {
                    let port = self.port.unwrap_or(service.port);
                    match lookup {
                        Lookup::ServiceNames => names.push(format!("{}:{port}", service.host)),
                        _ => {
                            // The name of a host in a service is complete.
                            let host = format!("{}.", service.host);
                            names.extend(
                                self.sockets(resolver, &host, Some(port), AddressFamilies::One).await?,
                            );
                        }
                    }
                }
                names
            }
        };
        if names.is_empty() { Err("DNS has no address for this name".to_owned()) } else { Ok(names) }
    }

    async fn sockets(
        &self,
        resolver: &DnsResolver,
        host: &str,
        port: Option<u16>,
        families: AddressFamilies,
    ) -> Result<Vec<String>, String> {
        let found = resolver.addresses(host, families).await.map_err(|cause| cause.to_string())?;
        let port = port.unwrap_or_default();
        Ok(found.into_iter().map(|address| SocketAddr::new(address, port).to_string()).collect())
    }
}

impl FromStr for EndpointAddress {
    type Err = EndpointAddressError;

    fn from_str(text: &str) -> Result<Self, EndpointAddressError> {
        let refuse = || EndpointAddressError(text.chars().take(140).collect());
        let (lookup, rest) = match text.split_once('+') {
            Some((prefix, rest)) => {
                let known = PREFIXES.iter().find(|(name, _)| *name == prefix);
                (Some(known.ok_or_else(refuse)?.1), rest)
            }
            None => (None, text),
        };
        let authority: http::uri::Authority = rest.parse().map_err(|_| refuse())?;
        let port = authority.port_u16();
        let needs_port = !matches!(lookup, Some(Lookup::Services | Lookup::ServiceNames));
        // The colons of an IPv6 address are in brackets.
        let has_odd_port = port.is_none() && rest.rsplit(']').next().is_some_and(|end| end.contains(':'));
        if authority.host().is_empty() || rest.contains('@') || has_odd_port || (needs_port && port.is_none())
        {
            return Err(refuse());
        }
        // Names are compared without regard to case, so that a store that is given twice is asked once.
        Ok(Self { lookup, host: authority.host().to_ascii_lowercase(), port })
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = PREFIXES.iter().find(|(_, lookup)| Some(*lookup) == self.lookup);
        if let Some((prefix, _)) = prefix {
            write!(f, "{prefix}+")?;
        }
        f.write_str(&self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_addresses_are_rejected_with_the_expected_form() {
        for good in [
            "127.0.0.1:10901",
            "store.example:1",
            "[::1]:10901",
            "dns+stores.svc:10901",
            "dnsdualstack+stores.svc:10901",
            "dnssrv+_grpc._tcp.stores.svc",
            "dnssrv+_grpc._tcp.stores.svc:10901",
            "dnssrvnoa+_grpc._tcp.stores.svc.",
        ] {
            assert_eq!(good.parse::<EndpointAddress>().unwrap().to_string(), good);
        }
        assert_eq!("Store.Example:1".parse::<EndpointAddress>(), "store.example:1".parse());
        for bad in [
            "store",
            ":10901",
            "http://store:10901",
            "dns+x",
            "dnsx+x:1",
            "+x:1",
            "dnssrv+",
            "dnssrv+x:port",
            "dnssrv+x:99999",
            "a@b:1",
            "store:port",
            "",
        ] {
            let error = bad.parse::<EndpointAddress>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")) && error.contains("HOST:PORT"), "{error}");
        }
    }
}
