//! DNS discovery: the addresses of hosts, and the hosts of services.
//!
//! The resolver asks the servers of `/etc/resolv.conf`, one after the other, and tries the search list, as the resolver of
//! the C library does. It reads `/etc/hosts` first. It does not cache: callers look names up at an interval. It reads no
//! other source of names, such as those of `/etc/nsswitch.conf`.
//!
//! Reading order: `system` (configuration), `exchange` (one question to one server), `message` (bytes).

mod exchange;
mod message;
mod system;
#[cfg(any(test, feature = "test-util"))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use message::{QuestionType, RecordData};
use system::{HostsFile, ResolverConfig};

/// Aliases (CNAME) that are followed for one name, so that a circle of them ends.
const MAX_ALIASES: usize = 8;

/// Why a name cannot be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// No server gave an answer that says whether the name exists.
    #[error("DNS name {name}: {cause}")]
    NoAnswer {
        /// The name.
        name: String,
        /// The last error.
        cause: String,
    },
    /// The text is not a DNS name.
    #[error("DNS name {0:?}: is not a valid name")]
    BadName(String),
    /// The configuration of the system cannot be read.
    #[error("{0}")]
    System(String),
}

/// Which addresses of a host are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressFamilies {
    /// Those of IPv4; those of IPv6 if there are none, so that a host with both is listed once.
    One,
    /// Those of both.
    Both,
    /// Those of IPv4.
    V4,
    /// Those of IPv6.
    V6,
}

/// Which hosts of a domain are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainHosts {
    /// Its mail servers (records of type MX).
    Mail,
    /// Its name servers (records of type NS).
    Name,
}

/// A host that offers a service (a record of type SRV).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceHost {
    /// Its name, without a dot at the end.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// Looks names up in DNS.
#[derive(Clone, Debug)]
pub struct DnsResolver {
    config: ResolverConfig,
    hosts: HostsFile,
}

impl DnsResolver {
    /// A resolver with the configuration of the system at this moment.
    ///
    /// # Errors
    /// `/etc/resolv.conf` cannot be read.
    pub fn system() -> Result<Self, DnsError> {
        Ok(Self { config: ResolverConfig::system()?, hosts: HostsFile::system() })
    }

    /// A resolver that asks these servers and reads no file.
    pub fn with_servers(servers: Vec<SocketAddr>) -> Self {
        Self { config: ResolverConfig::with_servers(servers), hosts: HostsFile::default() }
    }

    /// The addresses of a host, sorted and unique; empty if the name does not exist or has none.
    ///
    /// # Errors
    /// The name is not valid, or no server answered.
    pub async fn addresses(&self, host: &str, families: AddressFamilies) -> Result<Vec<IpAddr>, DnsError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let mut found = match families {
            AddressFamilies::Both => {
                let (v4, v6) = futures::join!(
                    self.of_type(host, QuestionType::A),
                    self.of_type(host, QuestionType::Aaaa)
                );
                // One family may have an answer while the question for the other one fails.
                match (v4, v6) {
                    (Ok(v4), Ok(v6)) => [v4, v6].concat(),
                    (Ok(found), Err(cause)) | (Err(cause), Ok(found)) if found.is_empty() => {
                        return Err(cause);
                    }
                    (Ok(found), Err(_)) | (Err(_), Ok(found)) => found,
                    (Err(cause), Err(_)) => return Err(cause),
                }
            }
            AddressFamilies::V4 => self.of_type(host, QuestionType::A).await?,
            AddressFamilies::V6 => self.of_type(host, QuestionType::Aaaa).await?,
            AddressFamilies::One => match self.of_type(host, QuestionType::A).await? {
                v4 if !v4.is_empty() => v4,
                _ => self.of_type(host, QuestionType::Aaaa).await?,
            },
        };
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    async fn of_type(&self, host: &str, kind: QuestionType) -> Result<Vec<IpAddr>, DnsError> {
        let listed = self.hosts.addresses(host);
        if !listed.is_empty() {
            return Ok(listed.iter().filter(|a| a.is_ipv4() == (kind == QuestionType::A)).copied().collect());
        }
        let address = |record| match record {
            RecordData::Address(address) => Some(address),
            RecordData::Service(_) | RecordData::Host(_) => None,
        };
        Ok(self.lookup(host, kind).await?.into_iter().filter_map(address).collect())
    }

    /// The hosts of a service such as `_grpc._tcp.stores.example`, sorted and unique; empty if the name does not exist or
    /// has none. Priorities and weights are ignored, because a querier asks every store.
    ///
    /// # Errors
    /// The name is not valid, or no server answered.
    pub async fn services(&self, name: &str) -> Result<Vec<ServiceHost>, DnsError> {
        let service = |record| match record {
            RecordData::Service(service) => Some(service),
            RecordData::Address(_) | RecordData::Host(_) => None,
        };
        let records = self.lookup(name, QuestionType::Srv).await?;
        let mut found: Vec<ServiceHost> = records.into_iter().filter_map(service).collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The hosts of a domain, without a dot at the end, sorted and unique; empty if the name does not exist or has none.
    ///
    /// # Errors
    /// The name is not valid, or no server answered.
    pub async fn hosts(&self, domain: &str, hosts: DomainHosts) -> Result<Vec<String>, DnsError> {
        let kind = match hosts {
            DomainHosts::Mail => QuestionType::Mx,
            DomainHosts::Name => QuestionType::Ns,
        };
        let host = |record| match record {
            RecordData::Host(host) => Some(host),
            RecordData::Address(_) | RecordData::Service(_) => None,
        };
        let mut found: Vec<String> = self.lookup(domain, kind).await?.into_iter().filter_map(host).collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The records of the first name of the search list that exists.
    async fn lookup(&self, name: &str, kind: QuestionType) -> Result<Vec<RecordData>, DnsError> {
        let mut failed = None;
        for full in self.config.names(name) {
            match self.lookup_full(&full, kind).await {
                Ok(Some(records)) => return Ok(records),
                Ok(None) => {}
                // A later name may have an answer. Without one it is not known whether the name exists.
                Err(cause) => failed = Some(cause),
            }
        }
        failed.map_or(Ok(Vec::new()), Err)
    }

    /// The records of a full name, through its aliases; `None` if it does not exist.
    async fn lookup_full(&self, name: &str, kind: QuestionType) -> Result<Option<Vec<RecordData>>, DnsError> {
        let mut wanted = name.to_owned();
        for _ in 0..MAX_ALIASES {
            let Some(answer) = self.ask_servers(&wanted, kind).await? else { return Ok(None) };
            match answer.alias {
                Some(alias) if answer.records.is_empty() => wanted = alias,
                _ => return Ok(Some(answer.records)),
            }
        }
        let cause = format!("has more than {MAX_ALIASES} aliases (CNAME) in a row");
        Err(DnsError::NoAnswer { name: name.to_owned(), cause })
    }

    /// Asks one server after the other until one says whether the name exists.
    async fn ask_servers(&self, name: &str, kind: QuestionType) -> Result<Option<message::Answer>, DnsError> {
        let mut cause = "no server is configured in /etc/resolv.conf".to_owned();
        for _ in 0..self.config.attempts {
            for server in &self.config.servers {
                let question =
                    message::Question::new(name, kind).ok_or_else(|| DnsError::BadName(name.to_owned()))?;
                match exchange::ask(*server, &question, self.config.timeout).await {
                    Ok(answer) => return Ok(answer),
                    Err(why) => cause = format!("server {server}: {why}"),
                }
            }
        }
        Err(DnsError::NoAnswer { name: name.to_owned(), cause })
    }
}
