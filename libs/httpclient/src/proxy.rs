//! Which requests go through a proxy.

use std::net::IpAddr;

use promapi::ProxyUrl;

/// The proxy of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ProxyConfig {
    /// Connections are direct.
    #[default]
    None,
    /// One proxy, except for some hosts.
    Url(ProxyUrl, NoProxy),
    /// What the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say, in upper or lower case.
    Environment,
}

/// The proxies of a client, for each scheme.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    pub(crate) http: Option<ProxyUrl>,
    pub(crate) https: Option<ProxyUrl>,
    pub(crate) except: NoProxy,
}

impl Proxies {
    /// Reads the environment of the process where the settings ask for it.
    ///
    /// # Errors
    /// A variable is not the URL of a proxy.
    pub fn of(config: &ProxyConfig) -> Result<Self, String> {
        Self::new(config, |name| std::env::var(name).ok())
    }

    /// The proxy for connections with TLS to a host; `None` if they are direct.
    pub fn for_tls(&self, host: &str, port: u16) -> Option<&ProxyUrl> {
        self.https.as_ref().filter(|_| !self.except.has(host, port))
    }

    /// Reads the environment with `variable` where the settings ask for it.
    ///
    /// # Errors
    /// A variable is not the URL of a proxy.
    pub(crate) fn new(
        config: &ProxyConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let either = |name: &str| {
            let value = variable(name).or_else(|| variable(&name.to_lowercase()));
            value.filter(|value| !value.is_empty())
        };
        let of_environment = |name: &str| {
            either(name)
                .map(|value| {
                    // A host without a scheme is a proxy of HTTP.
                    let url = if value.contains("://") { value } else { format!("http://{value}") };
                    url.parse::<ProxyUrl>().map_err(|why| format!("environment variable {name}: {why}"))
                })
                .transpose()
        };
        Ok(match config {
            ProxyConfig::None => Self::default(),
            ProxyConfig::Url(proxy, except) => {
                Self { http: Some(proxy.clone()), https: Some(proxy.clone()), except: except.clone() }
            }
            ProxyConfig::Environment => {
                let mut except = NoProxy::parse(&either("NO_PROXY").unwrap_or_default());
                except.local = true;
                Self { http: of_environment("HTTP_PROXY")?, https: of_environment("HTTPS_PROXY")?, except }
            }
        })
    }
}

/// Hosts that are connected to directly, as a list that is separated by commas: `*`, names (which include their subdomains),
/// names that begin with a dot (subdomains only), addresses, networks such as `10.0.0.0/8`; each with a port if it is for this
/// port only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy {
    entries: Vec<Exception>,
    /// Whether this machine is excepted, which it is with a proxy of the environment.
    local: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network { address: IpAddr, bits: u8 },
    Address { address: IpAddr, port: Option<u16> },
    Name { suffix: String, own: bool, port: Option<u16> },
}

impl NoProxy {
    /// Reads a list. What is neither an address nor a network is a name.
    pub fn parse(text: &str) -> Self {
        let entries = text.split(',').map(|entry| entry.trim().to_lowercase());
        Self {
            entries: entries.filter(|entry| !entry.is_empty()).map(|entry| exception(&entry)).collect(),
            local: false,
        }
    }

    /// Whether a host is connected to directly. An IPv6 address has no brackets.
    pub fn has(&self, host: &str, port: u16) -> bool {
        let host = host.trim_end_matches('.').to_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        if self.local && (host == "localhost" || address.is_some_and(|address| address.is_loopback())) {
            return true;
        }
        self.entries.iter().any(|entry| match entry {
            Exception::All => true,
            Exception::Network { address: network, bits } => {
                address.is_some_and(|address| is_within(address, *network, *bits))
            }
            Exception::Address { address: one, port: only } => {
                address == Some(*one) && only.is_none_or(|only| only == port)
            }
            Exception::Name { suffix, own, port: only } => {
                let is_own = *own && host == suffix[1..];
                address.is_none()
                    && (is_own || host.ends_with(suffix.as_str()))
                    && only.is_none_or(|only| only == port)
            }
        })
    }
}

fn exception(entry: &str) -> Exception {
    if entry == "*" {
        return Exception::All;
    }
    if let Some((network, bits)) = entry.split_once('/')
        && let (Ok(address), Ok(bits)) = (network.parse(), bits.parse())
    {
        return Exception::Network { address, bits };
    }
    let bare = |text: &str| text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    if let Some(address) = bare(entry) {
        return Exception::Address { address, port: None };
    }
    let (host, port) = match entry.rsplit_once(':').map(|(host, port)| (host, port.parse().ok())) {
        Some((host, port @ Some(_))) => (host, port),
        _ => (entry, None),
    };
    if let Some(address) = bare(host) {
        return Exception::Address { address, port };
    }
    let host = host.strip_prefix('*').unwrap_or(host);
    match host.starts_with('.') {
        true => Exception::Name { suffix: host.to_owned(), own: false, port },
        false => Exception::Name { suffix: format!(".{host}"), own: true, port },
    }
}

fn is_within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(u32::from(32 - bits)).unwrap_or(0);
            u32::from(address) & mask == u32::from(network) & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(u32::from(128 - bits)).unwrap_or(0);
            u128::from(address) & mask == u128::from(network) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_names_addresses_and_networks() {
        let check = |list: &str, host: &str, port: u16, expected: bool| {
            assert_eq!(NoProxy::parse(list).has(host, port), expected, "{list} {host}:{port}");
        };
        check("", "a.example", 80, false);
        check("*", "a.example", 80, true);
        check("x, a.example", "A.example.", 80, true);
        check("example", "a.example", 80, true);
        check("example", "anexample", 80, false);
        check(".example", "example", 80, false);
        check("*.example", "b.example", 80, true);
        check("a.example:8080", "a.example", 80, false);
        check("a.example:8080", "a.example", 8080, true);
        check("10.0.0.0/8", "10.2.3.4", 80, true);
        check("10.0.0.0/8", "11.2.3.4", 80, false);
        check("0.0.0.0/0", "11.2.3.4", 80, true);
        check("10.0.0.0/99", "10.2.3.4", 80, false);
        check("::/0", "::1", 80, true);
        check("::/0", "1.2.3.4", 80, false);
        check("10.0.0.1", "10.0.0.1", 80, true);
        check("10.0.0.1:81", "10.0.0.1", 80, false);
        check("[::1]:80,fe80::1", "::1", 80, true);
        check("0.0.1", "10.0.0.1", 80, false);
    }

    #[test]
    fn the_environment_names_a_proxy_for_each_scheme() {
        let variable = |name: &str| match name {
            "HTTP_PROXY" => Some("proxy:3128".to_owned()),
            "https_proxy" => Some("socks5://socks:1080".to_owned()),
            "NO_PROXY" => Some("inside".to_owned()),
            _ => None,
        };
        let proxies = Proxies::new(&ProxyConfig::Environment, variable).unwrap();
        assert_eq!(proxies.http, Some("http://proxy:3128".parse().unwrap()));
        assert_eq!(proxies.https, Some("socks5://socks:1080".parse().unwrap()));
        assert!(proxies.except.has("inside", 1) && proxies.except.has("127.0.0.1", 1));
        assert!(!proxies.except.has("outside", 1));
        let wrong = Proxies::new(&ProxyConfig::Environment, |_| Some("ftp://x".to_owned())).unwrap_err();
        assert!(wrong.starts_with("environment variable HTTP_PROXY: is not of the form"), "{wrong}");
        assert!(Proxies::new(&ProxyConfig::None, variable).unwrap().http.is_none());
    }
}
