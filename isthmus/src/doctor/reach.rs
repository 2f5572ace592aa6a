//! The network between this machine and the gateways of the other side, and to the stores.
//!
//! A gateway that listens answers a datagram of an unknown QUIC version with the list of the versions that it knows (RFC 9000, section
//! 6). That needs no certificate, so UDP and the size of datagrams can be checked before a cluster joins.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use gateway::config::TransportChoice;
use tokio::net::{TcpStream, lookup_host};

use crate::doctor::finding::Finding;
use crate::doctor::subject::Subject;

const UDP: &str = "UDP";
const TCP: &str = "TCP";
const MTU: &str = "path MTU";
const ISSUER: &str = "issuer";

/// Time limit of a connection over TCP.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer over UDP is waited for, and how often a datagram is sent.
const UDP_WAIT: (Duration, usize) = (Duration::from_millis(500), 3);
/// The payload of a datagram in packets of 1500, 1428, 1400, 1328, 1308 and 1228 bytes, without the headers of IPv4 and UDP.
const PAYLOADS: [usize; 6] = [1472, 1400, 1372, 1300, 1280, 1200];
/// QUIC cannot be used with less.
const LEAST_PAYLOAD: usize = 1200;
/// A version of QUIC that no server knows.
const NO_VERSION: [u8; 4] = [0x1a, 0x2a, 0x3a, 0x4a];

/// Tries each gateway of the other side, over the transports that are used.
pub(super) async fn check(peers: &[String], transport: TransportChoice) -> Vec<Finding> {
    let mut findings = Vec::new();
    for peer in peers {
        // A name without an address is reported by the check of names.
        let Ok(addresses) = lookup_host(peer).await else { continue };
        for address in addresses.collect::<Vec<_>>() {
            let name =
                if peer.parse::<SocketAddr>().is_ok() { peer.clone() } else { format!("{peer} ({address})") };
            let tcp = connect(address).await;
            let over_tcp = tcp.is_ok();
            if transport != TransportChoice::Quic {
                findings.push(match tcp {
                    Ok(()) => Finding::ok(TCP, format!("{name}: accepts connections")),
                    Err(error) => {
                        Finding::critical(TCP, format!("{name}: {error}; {}", open("TCP", address)))
                    }
                });
            }
            if transport != TransportChoice::Tcp {
                let answer = tokio::task::spawn_blocking(move || largest_answered(address)).await;
                findings.extend(over_udp(&name, address, answer.unwrap_or_default(), over_tcp));
            }
        }
    }
    findings
}

fn open(protocol: &str, address: SocketAddr) -> String {
    format!("is the gateway running? open {protocol} port {} from here to it", address.port())
}

fn over_udp(name: &str, address: SocketAddr, largest: Option<usize>, over_tcp: bool) -> Vec<Finding> {
    match largest {
        None if over_tcp => vec![Finding::warning(
            UDP,
            format!(
                "{name}: no answer, so TCP is used, where lost packets delay all requests; {}",
                open("UDP", address)
            ),
        )],
        None => vec![Finding::critical(UDP, format!("{name}: no answer; {}", open("UDP", address)))],
        Some(bytes) => {
            let mtu = format!("{name}: datagrams of {bytes} bytes arrive");
            let advice = "; QUIC works, but large answers need more packets: raise the MTU of the tunnel or the network between";
            vec![
                Finding::ok(UDP, format!("{name}: answers")),
                match bytes {
                    LEAST_PAYLOAD => Finding::warning(MTU, mtu + advice),
                    _ => Finding::ok(MTU, mtu),
                },
            ]
        }
    }
}

async fn connect(address: SocketAddr) -> Result<(), String> {
    match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
    }
}

/// The largest of [`PAYLOADS`] that is answered; `None` if none is.
fn largest_answered(address: SocketAddr) -> Option<usize> {
    let socket = unfragmented_socket(address).ok()?;
    // The smallest first, with more patience, so that a silent peer costs little time.
    let (patience, attempts) = UDP_WAIT;
    (0..attempts).find(|_| is_answered(&socket, LEAST_PAYLOAD, patience))?;
    let arrives = |payload: &&usize| (0..2).any(|_| is_answered(&socket, **payload, patience));
    PAYLOADS.iter().find(arrives).copied().or(Some(LEAST_PAYLOAD))
}

/// A socket whose datagrams are not cut into pieces on their way.
fn unfragmented_socket(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?,
        SocketAddr::V6(_) => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?,
    };
    gateway::component::forbid_fragments(&socket)?;
    socket.connect(address)?;
    Ok(socket)
}

/// Sends a datagram with so many bytes, and waits for the answer to it.
fn is_answered(socket: &UdpSocket, payload: usize, patience: Duration) -> bool {
    let id: [u8; 8] = std::array::from_fn(|at| (payload >> (at % 2 * 8)) as u8 ^ at as u8);
    let sent_at = Instant::now();
    if let Err(error) = socket.send(&unknown_version(payload, id)) {
        // An earlier datagram was refused by the port: the machine is there, and no process listens.
        if error.kind() == ErrorKind::ConnectionRefused {
            std::thread::sleep(patience);
        }
        return false;
    }
    let mut answer = [0; 2048];
    while let Some(left) = patience.checked_sub(sent_at.elapsed()).filter(|left| !left.is_zero()) {
        if socket.set_read_timeout(Some(left)).is_err() {
            return false;
        }
        match socket.recv(&mut answer) {
            Ok(length) if is_version_list(&answer[..length], id) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                // The port may open a moment later, as when its gateway starts.
                std::thread::sleep(left);
                return false;
            }
            Err(_) => return false,
        }
    }
    false
}

/// A packet with a long header and an unknown version, filled up with zeros.
fn unknown_version(payload: usize, id: [u8; 8]) -> Vec<u8> {
    let mut packet = vec![0xc0];
    packet.extend(NO_VERSION);
    for connection in [id, id] {
        packet.push(8);
        packet.extend(connection);
    }
    packet.resize(payload, 0);
    packet
}

/// Whether a datagram is the list of versions that answers the packet with this connection id.
fn is_version_list(datagram: &[u8], id: [u8; 8]) -> bool {
    match datagram {
        [first, 0, 0, 0, 0, 8, rest @ ..] => first & 0x80 != 0 && rest.starts_with(&id),
        _ => false,
    }
}

/// Whether the issuer that the token names answers under a root that it pins. The token is not used.
pub(super) async fn check_issuer(subject: &Subject) -> Vec<Finding> {
    let Some(token) = &subject.token else { return Vec::new() };
    match gateway::component::issuer_answers(token, &subject.proxy).await {
        Ok(address) => vec![Finding::ok(
            ISSUER,
            format!("{address} is {}, under a root that the token pins", token.issuer()),
        )],
        Err(error) => vec![Finding::critical(ISSUER, format!("{error}; the token was not used"))],
    }
}

/// Whether the stores of this side accept connections.
pub(super) async fn check_stores(stores: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for store in stores {
        let Ok(Some(address)) = lookup_host(store).await.map(|mut found| found.next()) else { continue };
        findings.push(match connect(address).await {
            Ok(()) => Finding::ok("stores", format!("{store}: accepts connections")),
            Err(error) => {
                Finding::warning("stores", format!("{store}: {error}; start it, or correct the address"))
            }
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    /// A peer that answers datagrams of at most this payload, and accepts connections.
    fn peer(most: usize) -> (std::net::TcpListener, SocketAddr) {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || {
            let mut datagram = [0; 2048];
            while let Ok((length, from)) = udp.recv_from(&mut datagram) {
                if length <= most {
                    let mut answer = vec![0x80, 0, 0, 0, 0, 8];
                    answer.extend(&datagram[15..23]);
                    answer.extend([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
                    udp.send_to(&answer, from).unwrap();
                }
            }
        });
        (tcp, address)
    }

    async fn severities(address: SocketAddr, transport: TransportChoice) -> Vec<(&'static str, Severity)> {
        let findings = check(&[address.to_string()], transport).await;
        findings.iter().map(|finding| (finding.check, finding.severity)).collect()
    }

    #[tokio::test]
    async fn what_does_not_arrive_is_found() {
        use Severity::{Critical, Ok, Warning};
        let auto = TransportChoice::Auto;
        let (_tcp, address) = peer(1400);
        assert_eq!(severities(address, auto).await, [(TCP, Ok), (UDP, Ok), (MTU, Ok)]);
        assert_eq!(largest_answered(address), Some(1400));
        let (_tcp, address) = peer(1250);
        assert_eq!(severities(address, auto).await, [(TCP, Ok), (UDP, Ok), (MTU, Warning)]);
        // Datagrams are dropped, as by a firewall.
        let (_tcp, address) = peer(0);
        assert_eq!(severities(address, auto).await, [(TCP, Ok), (UDP, Warning)]);
        assert_eq!(severities(address, TransportChoice::Tcp).await, [(TCP, Ok)]);
        // Nobody listens.
        let (tcp, address) = {
            let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let at = tcp.local_addr().unwrap();
            (tcp, at)
        };
        drop(tcp);
        assert_eq!(severities(address, auto).await, [(TCP, Critical), (UDP, Critical)]);
    }

    #[test]
    fn other_datagrams_are_no_answer() {
        let id = [7; 8];
        assert!(is_version_list(&[&[0x80, 0, 0, 0, 0, 8][..], &id, &[0; 9]].concat(), id));
        for datagram in
            [&[][..], &[0x80], &[0x80, 0, 0, 0, 0, 8, 7], &[0xc0, 0, 0, 0, 1, 8, 7, 7, 7, 7, 7, 7, 7, 7]]
        {
            assert!(!is_version_list(datagram, id), "{datagram:?}");
        }
        assert_eq!(unknown_version(1200, id).len(), 1200);
    }
}
