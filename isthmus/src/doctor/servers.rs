//! Addresses that are looked up in DNS, such as those of a service (SRV), and the HTTP servers of a ruler: queriers and Alertmanagers.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use httpclient::{HttpAddress, HttpClient, HttpEndpointsConfig};
use runtime::{DnsError, DnsResolver};

use crate::doctor::finding::Finding;
use crate::doctor::names;

/// Time limit of a request.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The port of stores for which neither the flag nor DNS has one.
const STORE_PORT: u16 = 10901;

/// HTTP servers that a role sends requests to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerKind {
    Querier,
    Alertmanager,
}

impl ServerKind {
    fn check(self) -> &'static str {
        match self {
            Self::Querier => "queriers",
            Self::Alertmanager => "Alertmanagers",
        }
    }
}

/// The resolver of this machine.
pub(super) type Resolver = Result<DnsResolver, DnsError>;

/// Looks up the addresses of stores with a prefix such as `dnssrv+`. Returns the stores that were found, as `HOST:PORT`.
pub(super) async fn look_up(addresses: &[String], resolver: &Resolver) -> (Vec<Finding>, Vec<String>) {
    let (mut findings, mut stores) = (Vec::new(), Vec::new());
    for text in addresses {
        // The role reports an address that it cannot read.
        let Ok(address) = text.parse::<HttpAddress>() else { continue };
        let (finding, found) = resolve(text, &address, STORE_PORT, resolver).await;
        findings.push(finding);
        stores.extend(found);
    }
    (findings, stores)
}

async fn resolve(
    text: &str,
    address: &HttpAddress,
    port: u16,
    resolver: &Resolver,
) -> (Finding, Vec<String>) {
    let failed = |why: &str| (names::failed(text, why), Vec::new());
    let resolver = match resolver {
        Ok(resolver) => resolver,
        Err(error) => return failed(&error.to_string()),
    };
    match address.resolve(resolver, port).await {
        Err(error) => failed(&error),
        Ok(found) if found.is_empty() => failed("has no address"),
        Ok(found) => (Finding::ok(names::CHECK, format!("{text}: {}", found.join(", "))), found),
    }
}

/// Asks each server of a ruler whether it is ready.
pub(super) async fn check(
    servers: &[(ServerKind, HttpEndpointsConfig)],
    resolver: &Resolver,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, config) in servers {
        findings.extend(check_one(*kind, config.clone(), resolver).await);
    }
    findings
}

async fn check_one(kind: ServerKind, config: HttpEndpointsConfig, resolver: &Resolver) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut endpoints = Vec::new();
    let listed = config.listed();
    let unknown = listed.unknown.iter();
    findings.extend(unknown.map(|(file, why)| {
        Finding::warning(kind.check(), format!("{file}: {why}; write it, or correct its path"))
    }));
    for address in config.addresses.iter().chain(&listed.items) {
        // Without its user and password, which are not in the address.
        let text = address.to_string();
        let (finding, found) = resolve(&text, address, config.default_port, resolver).await;
        if address.is_resolved() || found.is_empty() {
            findings.push(finding);
        }
        endpoints.extend(found);
    }
    let scheme = if config.is_https { "https" } else { "http" };
    let client = match HttpClient::new(kind.check(), config.http) {
        Ok(client) => client,
        Err(error) => {
            findings.push(Finding::critical(kind.check(), error));
            return findings;
        }
    };
    for endpoint in endpoints {
        let base = format!("{scheme}://{endpoint}{}", config.path_prefix);
        let url = format!("{base}/-/ready");
        let asked = client.send(Method::GET, &url, HeaderMap::new(), Bytes::new());
        findings.push(match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(answer)) => judge(kind, &base, answer.status()),
            Ok(Err(error)) => {
                let text = error.to_string();
                // It begins with the URL of the request.
                not_reached(kind, &base, text.strip_prefix(&format!("{url}: ")).unwrap_or(&text))
            }
            Err(_) => not_reached(kind, &base, &format!("no answer within {} s", TIMEOUT.as_secs())),
        });
    }
    findings
}

fn not_reached(kind: ServerKind, base: &str, why: &str) -> Finding {
    Finding::warning(kind.check(), format!("{base}: {why}; start it, or correct the URL"))
}

fn judge(kind: ServerKind, base: &str, status: StatusCode) -> Finding {
    let (check, code) = (kind.check(), status.as_u16());
    match status {
        status if status.is_success() => Finding::ok(check, format!("{base}: is ready")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Finding::critical(check, format!("{base}: answers {code}; correct the user and the password"))
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            Finding::warning(check, format!("{base}: answers, and is not ready; its log says why"))
        }
        _ => Finding::warning(
            check,
            format!(
                "{base}: answers {code} to /-/ready, expected 200; correct the port and the path of the URL"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use runtime::DnsServer;

    use super::*;
    use crate::doctor::finding::Severity;

    /// A server that answers one request with a status, and its address.
    fn server(status: &'static str) -> std::net::SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /x/-/ready HTTP/1.1\r\n"));
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        });
        address
    }

    async fn asked(url: String, resolver: &Resolver) -> Vec<Finding> {
        let config = HttpEndpointsConfig::from_url(&url, 9093).unwrap();
        check(&[(ServerKind::Alertmanager, config)], resolver).await
    }

    #[tokio::test]
    async fn a_server_is_ready_or_says_what_is_wrong() {
        let resolver = Ok(DnsResolver::with_servers(Vec::new()));
        for (status, severity, text) in [
            ("200 OK", Severity::Ok, "is ready"),
            ("401 Unauthorized", Severity::Critical, "correct the user"),
            ("503 Service Unavailable", Severity::Warning, "is not ready"),
            ("404 Not Found", Severity::Warning, "correct the port and the path"),
        ] {
            let findings = asked(format!("http://user:secret@{}/x", server(status)), &resolver).await;
            let [finding] = &findings[..] else { panic!("{findings:?}") };
            assert!(finding.severity == severity && finding.text.contains(text), "{finding:?}");
            assert!(!finding.text.contains("secret"), "{finding:?}");
        }
        let nothing = asked("http://127.0.0.1:1".to_owned(), &resolver).await;
        assert!(
            nothing[0].severity == Severity::Warning && nothing[0].text.contains("start it"),
            "{nothing:?}"
        );
    }

    #[tokio::test]
    async fn services_are_looked_up_and_their_hosts_are_asked() {
        let http = server("200 OK");
        let Some(dns) = DnsServer::start(&[
            "--host-record=a.test,127.0.0.1".to_owned(),
            "--srv-host=_grpc._tcp.stores.test,a.test,10901".to_owned(),
            format!("--srv-host=_http._tcp.am.test,a.test,{}", http.port()),
        ]) else {
            return;
        };
        let resolver = Ok(DnsResolver::with_servers(vec![dns.address()]));
        let wanted = ["dnssrv+_grpc._tcp.stores.test", "dns+a.test:7", "dnssrv+_grpc._tcp.none.test"];
        let (findings, stores) = look_up(&wanted.map(str::to_owned), &resolver).await;
        assert_eq!(stores, ["127.0.0.1:10901", "127.0.0.1:7"]);
        let severities: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Ok, Severity::Ok, Severity::Critical], "{findings:?}");
        assert!(findings[2].text.starts_with("dnssrv+_grpc._tcp.none.test: has no address"), "{findings:?}");
        let findings = asked("dnssrv+http://_http._tcp.am.test/x".to_owned(), &resolver).await;
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[1].text.ends_with("/x: is ready"), "{findings:?}");
    }
}
