//! The ports of the role: whether they are free, or used by the role itself.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};

use runtime::ListenAddress;

use crate::doctor::clocks::head;
use crate::doctor::finding::Finding;

const CHECK: &str = "ports";

/// A port that the role opens.
#[derive(Debug, Clone)]
pub(super) struct Port {
    /// The flag or the field with the address.
    pub(super) flag: String,
    pub(super) address: ListenAddress,
    /// Whether it is opened for UDP, too.
    pub(super) udp: bool,
}

/// Tries to open each port. One that is in use is right if a role answers at `http`, the HTTP port of the same command line.
pub(super) fn check(ports: &[Port], http: Option<&ListenAddress>) -> Vec<Finding> {
    let mut running = None;
    let mut findings = Vec::new();
    for (at, port) in ports.iter().enumerate().filter(|(_, port)| port.address.port() != 0) {
        let name = format!("{}={}", port.flag, port.address);
        if let Some(other) = ports[..at].iter().find(|other| overlap(&other.address, &port.address)) {
            let text = format!("{name}: is the port of {}, too; give this role another one", other.flag);
            findings.push(Finding::critical(CHECK, text));
            continue;
        }
        let failures = failures(port);
        if failures.is_empty() {
            let kinds = if port.udp { ", UDP and TCP" } else { "" };
            findings.push(Finding::ok(CHECK, format!("{name}: is free{kinds}")));
        }
        for (kind, error) in failures {
            let is_own = error.kind() == ErrorKind::AddrInUse
                && *running.get_or_insert_with(|| http.is_some_and(role_answers));
            findings.push(match is_own {
                true => Finding::ok(CHECK, format!("{name}: {kind}is used by the role that runs")),
                false => Finding::critical(CHECK, format!("{name}: {kind}{error}; {}", advice(error.kind()))),
            });
        }
    }
    findings
}

/// Whether a role cannot listen at both addresses.
fn overlap(one: &ListenAddress, other: &ListenAddress) -> bool {
    let is_any = |address: &ListenAddress| matches!(address.host(), "" | "0.0.0.0" | "::");
    one.port() == other.port() && (one.host() == other.host() || is_any(one) || is_any(other))
}

/// Why a port cannot be opened, with the protocol.
fn failures(port: &Port) -> Vec<(&'static str, std::io::Error)> {
    let addresses = match addresses(&port.address) {
        Ok(addresses) => addresses,
        Err(error) => return vec![("", error)],
    };
    let tcp = TcpListener::bind(&addresses[..]).err().map(|error| ("TCP ", error));
    let udp = if port.udp { UdpSocket::bind(&addresses[..]).err() } else { None };
    tcp.into_iter().chain(udp.map(|error| ("UDP ", error))).collect()
}

fn addresses(address: &ListenAddress) -> std::io::Result<Vec<SocketAddr>> {
    let host = if address.host().is_empty() { "::" } else { address.host() };
    Ok((host, address.port()).to_socket_addrs()?.collect())
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AddrInUse => "another process has this port, give this role another one",
        ErrorKind::PermissionDenied => {
            "a port below 1024 needs CAP_NET_BIND_SERVICE, give this role another one"
        }
        ErrorKind::AddrNotAvailable => {
            "this machine does not have the address, give an own one or leave the host out"
        }
        _ => "check the address",
    }
}

/// Whether a role answers at its HTTP port, if only that it wants a password.
fn role_answers(http: &ListenAddress) -> bool {
    let host = match http.host() {
        "" | "0.0.0.0" | "::" => "localhost",
        host => host,
    };
    head(host, http.port(), "/-/healthy")
        .is_ok_and(|answer| ["HTTP/1.1 200", "HTTP/1.1 401"].iter().any(|status| answer.starts_with(status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    #[test]
    fn a_port_is_free_or_the_finding_says_why_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (taken, datagrams) = (taken.local_addr().unwrap(), datagrams.local_addr().unwrap());
        let check = |address: &str, udp: bool, severity: Severity, expected: &str| {
            let port = Port { flag: "--x".into(), address: address.parse().unwrap(), udp };
            let findings = check(&[port], None);
            let [finding] = &findings[..] else { panic!("{findings:?}") };
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.text.starts_with(&format!("--x={address}: {expected}")), "{finding:?}");
        };
        check(&taken.to_string(), false, Severity::Critical, "TCP Address already in use");
        check(&datagrams.to_string(), true, Severity::Critical, "UDP Address already in use");
        check("192.0.2.1:7", false, Severity::Critical, "TCP Cannot assign requested address");
        check("no-such-host.invalid:7", false, Severity::Critical, "");
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        check(&free.to_string(), true, Severity::Ok, "is free, UDP and TCP");
    }

    #[test]
    fn two_ports_of_a_role_are_not_the_same() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = |flag: &str, host: &str, port: u16| Port {
            flag: flag.into(),
            address: format!("{host}:{port}").parse().unwrap(),
            udp: false,
        };
        for (one, other, expected) in [
            ("127.0.0.1", "127.0.0.1", Severity::Critical),
            ("127.0.0.1", "", Severity::Critical),
            ("0.0.0.0", "127.0.0.1", Severity::Critical),
            ("127.0.0.1", "127.0.0.2", Severity::Ok),
        ] {
            let findings = check(&[port("--a", one, free), port("--b", other, free)], None);
            assert_eq!(findings[0].severity, Severity::Ok, "{findings:?}");
            assert_eq!(findings[1].severity, expected, "{one} {other}: {findings:?}");
            assert_eq!(findings[1].text.contains("is the port of --a, too"), expected == Severity::Critical);
        }
        let any = [port("--a", "127.0.0.1", 0), port("--b", "127.0.0.1", 0)];
        assert!(check(&any, None).is_empty(), "the system chooses different ones");
    }
}
