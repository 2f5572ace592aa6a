//! How connections are established, fail, fall back to TCP and end.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use identity::{Expectations, client_config, enrolment_client_config};
use mesh::Transport;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use crate::transport::tests::support::*;
use crate::transport::*;

/// Settings with short times.
fn quick() -> TransportSettings {
    TransportSettings {
        handshake_timeout: Duration::from_millis(500),
        fallback_after: Duration::from_millis(100),
        last_chance: Duration::from_millis(200),
        probe_quic: (Duration::from_millis(50), HOUR),
        backoff: (Duration::from_millis(1), Duration::from_millis(20)),
        ..TransportSettings::default()
    }
}

async fn listen(ca: &Ca, address: SocketAddr) -> (MeshListener, MeshNode, Events) {
    let (node, events) = ca.node("obs");
    let listener = MeshListener::bind(&node, address, Expectations::default(), false).await.unwrap();
    (listener, node, events)
}

async fn accept(listener: &mut MeshListener) -> MeshConnection {
    match soon("a connection is accepted", listener.accept()).await {
        AcceptedConnection::Peer(connection) => connection,
        AcceptedConnection::Enrolment { .. } => panic!("not a peer"),
    }
}

/// Dials `target` until there is a connection or the first failure was reported.
async fn first_outcome(
    node: &MeshNode,
    events: &Events,
    target: DialTarget,
) -> Result<MeshConnection, String> {
    let mut dialer = Dialer::new(node, target).unwrap();
    tokio::select! {
        connection = dialer.next() => Ok(connection),
        failure = events.wait("failed") => Err(failure),
    }
}

/// Forwards TCP connections to another port. UDP to its own port finds a closed port, or a socket that never answers if
/// `silent_udp` is set.
async fn tcp_only_proxy(to: SocketAddr, silent_udp: bool) -> (SocketAddr, Option<UdpSocket>) {
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let udp = silent_udp.then(|| UdpSocket::bind(address).unwrap());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, udp)
}

#[tokio::test]
async fn without_udp_a_tcp_connection_is_established_within_three_seconds() {
    for silent_udp in [false, true] {
        let ca = Ca::new();
        let (mut listener, _, _) = listen(&ca, LOOPBACK).await;
        let (proxy, _udp) = tcp_only_proxy(listener.local_addr(), silent_udp).await;
        let (node, events) = ca.node("eu-1");
        let start = Instant::now();
        let mut dialer = Dialer::new(&node, target(proxy, TransportChoice::Auto)).unwrap();
        let (dialled, _accepted) = tokio::join!(soon("TCP", dialer.next()), accept(&mut listener));
        assert_eq!(dialled.link().transport(), Transport::Tcp);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        events.wait("FellBack").await;
    }
}

/// A peer that was starting has lost the first datagrams. It answers over TCP as soon as over UDP.
#[tokio::test]
async fn tcp_does_not_win_when_udp_works_from_the_moment_when_tcp_does() {
    for silent_udp in [false, true] {
        let ca = Ca::new();
        let (mut listener, _, _) = listen(&ca, LOOPBACK).await;
        let (near, to) = (TcpListener::bind(LOOPBACK).await.unwrap(), listener.local_addr());
        let proxy = near.local_addr().unwrap();
        let udp = silent_udp.then(|| UdpSocket::bind(proxy).unwrap());
        let starting = tokio::spawn(async move {
            let (mut stream, _) = near.accept().await.unwrap();
            drop(udp);
            let forwarder = udp_forwarder(UdpSocket::bind(proxy).unwrap(), to);
            let mut far = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut far).await;
            forwarder.await
        });
        let (node, events) = ca.node("eu-1");
        let mut dialer = Dialer::new(&node, target(proxy, TransportChoice::Auto)).unwrap();
        let accepting = async {
            loop {
                // The connection over TCP is closed before a request is sent.
                let accepted = accept(&mut listener).await;
                if accepted.link().transport() == Transport::Quic {
                    return accepted;
                }
            }
        };
        let (dialled, _accepted) = tokio::join!(soon("QUIC", dialer.next()), accepting);
        assert_eq!(dialled.link().transport(), Transport::Quic, "silent_udp: {silent_udp}");
        assert!(!events.all().iter().any(|event| event.contains("FellBack")), "{:?}", events.all());
        starting.abort();
    }
}

#[tokio::test]
async fn quic_only_never_falls_back() {
    let ca = Ca::new();
    let (listener, _, _) = listen(&ca, LOOPBACK).await;
    let (proxy, _udp) = tcp_only_proxy(listener.local_addr(), true).await;
    let (node, events) = node(ca.store("eu-1", HOUR), quick());
    let failure = first_outcome(&node, &events, target(proxy, TransportChoice::Quic)).await.unwrap_err();
    assert!(
        failure.contains("NoAnswer") && failure.contains(&format!("{proxy} (quic): no answer")),
        "{failure}"
    );
}

#[tokio::test]
async fn after_a_rejected_certificate_tcp_is_not_tried() {
    // The listener has a certificate of another root, so each side rejects the other.
    let (ca, other) = (Ca::new(), Ca::new());
    let (listener, _, refusals) = listen(&other, LOOPBACK).await;
    let udp_address = listener.local_addr();
    let (node, events) = node(ca.store("eu-1", HOUR), quick());
    let failure =
        first_outcome(&node, &events, target(udp_address, TransportChoice::Auto)).await.unwrap_err();
    let refused = "(quic): certificate of spiffe://test.example/cluster/obs/gateway refused: ";
    assert!(failure.contains("Refused") && failure.contains(refused), "{failure}");
    refusals.wait("handshake quic").await;
    assert!(!refusals.all().iter().any(|event| event.contains("handshake tcp")), "{:?}", refusals.all());
}

#[tokio::test]
async fn an_unexpected_peer_is_rejected_on_both_transports() {
    for transport_choice in [TransportChoice::Quic, TransportChoice::Tcp] {
        let ca = Ca::new();
        let (listener, _, _) = listen(&ca, LOOPBACK).await;
        let (node, events) = node(ca.store("eu-1", HOUR), quick());
        let expectations = Expectations { cluster: Some("us-1".parse().unwrap()), ..Expectations::default() };
        let target = DialTarget { expectations, ..target(listener.local_addr(), transport_choice) };
        let failure = first_outcome(&node, &events, target).await.unwrap_err();
        assert!(failure.contains("Refused") && failure.contains("expected *.us-1"), "{failure}");
    }
}

#[tokio::test]
async fn a_late_refusal_by_the_listener_is_distinguished_from_a_lost_connection() {
    for transport_choice in [TransportChoice::Quic, TransportChoice::Tcp] {
        let ca = Ca::new();
        let (accepting, refusals) = ca.node("obs");
        let expectations = Expectations { cluster: Some("us-1".parse().unwrap()), ..Expectations::default() };
        let listener = MeshListener::bind(&accepting, LOOPBACK, expectations, false).await.unwrap();
        let (node, events) = node(ca.store("eu-1", HOUR), quick());
        // In TLS 1.3 the dialer's handshake is complete before the listener verifies the dialer's certificate.
        match first_outcome(&node, &events, target(listener.local_addr(), transport_choice)).await {
            Ok(connection) => {
                let link = connection.link().clone();
                let _client = connection.client().await;
                let closed = soon("the refusal arrives", link.closed()).await;
                assert!(
                    matches!(closed, ConnectionEnd::There { failure: ConnectionFailure::Refused, .. }),
                    "{closed:?}"
                );
            }
            Err(failure) => assert!(failure.contains("Refused"), "{failure}"),
        }
        assert!(refusals.wait("handshake").await.contains("expected *.us-1"));
    }
}

#[tokio::test]
async fn a_tcp_connection_is_replaced_when_quic_works_again() {
    let ca = Ca::new();
    let (mut listener, _, _) = listen(&ca, LOOPBACK).await;
    let (proxy, udp) = tcp_only_proxy(listener.local_addr(), true).await;
    let (node, events) = node(ca.store("eu-1", HOUR), quick());
    let mut dialer = Dialer::new(&node, target(proxy, TransportChoice::Auto)).unwrap();
    let (over_tcp, _at_listener) = tokio::join!(dialer.next(), accept(&mut listener));
    assert_eq!(over_tcp.link().transport(), Transport::Tcp);
    let over_tcp = over_tcp.client().await.unwrap();

    // UDP is forwarded from now on.
    drop(udp);
    let quic = udp_forwarder(UdpSocket::bind(proxy).unwrap(), listener.local_addr());
    let (over_quic, _accepted) = tokio::join!(soon("QUIC is back", dialer.next()), accept(&mut listener));
    assert_eq!(over_quic.link().transport(), Transport::Quic);
    assert!(!over_tcp.link().is_closed(), "streams on the old connection must be left alone");
    events.wait("Recovered").await;
    quic.abort();
}

#[tokio::test]
async fn a_tcp_connection_that_ends_during_an_attempt_to_use_quic_is_replaced_at_once() {
    let ca = Ca::new();
    let (mut listener, accepting, _) = listen(&ca, LOOPBACK).await;
    let (proxy, _silent) = tcp_only_proxy(listener.local_addr(), true).await;
    // The attempt begins at once and never ends.
    let settings = TransportSettings {
        handshake_timeout: HOUR,
        probe_quic: (Duration::ZERO, Duration::ZERO),
        ..quick()
    };
    let (node, _) = node(ca.store("eu-1", HOUR), settings);
    let mut dialer = Dialer::new(&node, target(proxy, TransportChoice::Auto)).unwrap();
    let (first, accepted) = tokio::join!(soon("TCP", dialer.next()), accept(&mut listener));
    let (_first, _accepted) = (first.client().await.unwrap(), accepted.client().await.unwrap());
    let closing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        accepting.links().close_where(CloseReason::Denied, |_| true);
        accept(&mut listener).await
    };
    let (second, _accepted) = tokio::join!(soon("TCP again", dialer.next()), closing);
    assert_eq!(second.link().transport(), Transport::Tcp);
}

/// Passes datagrams between one client and `to`.
fn udp_forwarder(near: UdpSocket, to: SocketAddr) -> tokio::task::JoinHandle<()> {
    forward(near, to, None)
}

/// The same, but at most so many datagrams reach the client.
fn forward(near: UdpSocket, to: SocketAddr, answers: Option<usize>) -> tokio::task::JoinHandle<()> {
    near.set_nonblocking(true).unwrap();
    let near = tokio::net::UdpSocket::from_std(near).unwrap();
    tokio::spawn(async move {
        let far = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
        let (mut a, mut b, mut client) = (vec![0; 65536], vec![0; 65536], None);
        let mut left = answers.unwrap_or(usize::MAX);
        loop {
            tokio::select! {
                Ok((len, from)) = near.recv_from(&mut a) => {
                    client = Some(from);
                    let _ = far.send_to(&a[..len], to).await;
                }
                Ok((len, _)) = far.recv_from(&mut b) => {
                    if let Some(client) = client.filter(|_| left > 0) {
                        left -= 1;
                        let _ = near.send_to(&b[..len], client).await;
                    }
                }
            }
        }
    })
}

#[tokio::test]
async fn a_lost_connection_is_dialled_again() {
    for transport_choice in [TransportChoice::Quic, TransportChoice::Tcp] {
        let ca = Ca::new();
        let (mut listener, accepting, _) = listen(&ca, LOOPBACK).await;
        let (node, _) = node(ca.store("eu-1", HOUR), quick());
        let mut dialer = Dialer::new(&node, target(listener.local_addr(), transport_choice)).unwrap();
        let mut last_port = 0;
        for _ in 0..3 {
            let (dialled, accepted) =
                tokio::join!(soon("a connection", dialer.next()), accept(&mut listener));
            // What tracks connections on the way may still send an old flow to where the peer was before it moved.
            let port = accepted.link().remote().port();
            assert!(port != last_port || transport_choice == TransportChoice::Tcp, "from the same port");
            last_port = port;
            let link =
                dialled.serve(Arc::new(handler_fn(|_| async { Ok(http::Response::new(Body::empty())) })));
            let client = accepted.client().await.unwrap();
            client.handle(request("/", Body::empty())).await.unwrap();
            assert_eq!(accepting.links().list().len(), 1);
            assert_eq!(
                accepting.links().close_where(CloseReason::Denied, |link| link
                    .identity()
                    .spiffe_id
                    .cluster()
                    .as_str()
                    == "eu-1"),
                1
            );
            let closed = soon("the dialer sees the end", link.closed()).await;
            assert!(matches!(closed, ConnectionEnd::There { .. }), "{closed:?}");
            if transport_choice == TransportChoice::Quic {
                assert_eq!(closed.to_string(), "closed by the peer: the peer is not authorised");
            }
            assert_eq!(client.link().closed().await, ConnectionEnd::Here(CloseReason::Denied));
            soon("the link is removed from the list", async {
                while !accepting.links().list().is_empty() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
}

/// The verifier accepts a certificate for a minute after its end, and a connection stays open as long.
#[tokio::test]
async fn a_connection_and_its_streams_end_when_the_peers_certificate_expires() {
    for transport_choice in [TransportChoice::Quic, TransportChoice::Tcp] {
        let ca = Ca::new();
        let (mut listener, _, _) = listen(&ca, LOOPBACK).await;
        let grace_ends = SystemTime::now() + Duration::from_secs(3);
        let store = ca.store_until("eu-1", grace_ends - identity::CLOCK_SKEW);
        let (node, _) = node(store, quick());
        let mut dialer = Dialer::new(&node, target(listener.local_addr(), transport_choice)).unwrap();
        let (dialled, accepted) = tokio::join!(soon("a connection", dialer.next()), accept(&mut listener));
        let (dropped, _seen) = tokio::sync::mpsc::unbounded_channel();
        dialled.serve(scenarios(ScenarioProbe::new(dropped)));
        let client = accepted.client().await.unwrap();
        let answer = client.handle(request("/idle", Body::full("ask"))).await.unwrap();
        let ended = soon("the stream ends", read(answer.into_body())).await;
        assert!(ended.2.is_err(), "{transport_choice:?}: {ended:?}");
        // Certificates have whole seconds.
        let earliest = grace_ends - Duration::from_secs(1);
        assert!(SystemTime::now() >= earliest, "{transport_choice:?}: closed before the end of the grace");
        assert_eq!(
            soon("the certificate expires", client.link().closed()).await,
            ConnectionEnd::Here(CloseReason::Expired)
        );
    }
}

#[tokio::test]
async fn garbage_on_the_port_does_not_stop_the_listener() {
    let ca = Ca::new();
    let (mut listener, _, events) = listen(&ca, LOOPBACK).await;
    let address = listener.local_addr();
    let udp = UdpSocket::bind(LOOPBACK).unwrap();
    for len in [0, 1, 20, 1200, 1500, 9000] {
        for first in [0x00, 0x40, 0xc0, 0xff] {
            let mut datagram = vec![0x5a; len];
            if let Some(byte) = datagram.first_mut() {
                *byte = first;
            }
            udp.send_to(&datagram, address).unwrap();
        }
    }
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0x16, 3, 1, 0xff, 0xff], &[0; 70_000]] {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let _ = tcp.write_all(bytes).await;
        let _ = tcp.shutdown().await;
        let _ = soon("the socket is closed", tcp.read_to_end(&mut Vec::new())).await;
    }
    events.wait("handshake tcp").await;
    for transport_choice in [TransportChoice::Quic, TransportChoice::Tcp] {
        let (node, _) = ca.node("eu-1");
        let mut dialer = Dialer::new(&node, target(address, transport_choice)).unwrap();
        let (_dialled, _accepted) = tokio::join!(soon("a connection", dialer.next()), accept(&mut listener));
    }
}

#[tokio::test]
async fn garbage_from_a_peer_is_not_answered() {
    // A peer with a valid certificate that speaks QUIC but not HTTP/3.
    let ca = Ca::new();
    let (mut listener, _, _) = listen(&ca, LOOPBACK).await;
    let config = quic_config(&ca, &[b"h3"]);
    let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
    for garbage in
        [&[0xff; 100][..], &[1, 0x80, 0xff, 0xff, 0xff], &[0, 5, 1, 2, 3, 4, 5], &[1, 2, 0xff, 0xff]]
    {
        let connecting = endpoint.connect_with(config.clone(), listener.local_addr(), "127.0.0.1").unwrap();
        let (quic, accepted) = tokio::join!(async { connecting.await.unwrap() }, accept(&mut listener));
        let _link =
            accepted.serve(Arc::new(handler_fn(|_| async { Ok(http::Response::new(Body::empty())) })));
        let (mut send, mut recv) = quic.open_bi().await.unwrap();
        let _ = send.write_all(garbage).await;
        let _ = send.finish();
        let answer = soon("the stream ends", recv.read_to_end(1 << 16)).await;
        assert!(answer.is_err(), "garbage was answered: {answer:?}");
    }
}

/// A client with a valid certificate that offers the protocols `alpn`.
fn quic_config(ca: &Ca, alpn: &[&[u8]]) -> quinn::ClientConfig {
    let tls = client_config(&ca.store("eu-1", HOUR), Expectations::default(), alpn).unwrap();
    quinn::ClientConfig::new(Arc::new(quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap()))
}

#[tokio::test]
async fn slow_handshakes_are_aborted() {
    let ca = Ca::new();
    let (accepting, events) = node(ca.store("obs", HOUR), quick());
    let listener = MeshListener::bind(&accepting, LOOPBACK, Expectations::default(), false).await.unwrap();
    let mut silent = TcpStream::connect(listener.local_addr()).await.unwrap();
    let mut halfway = TcpStream::connect(listener.local_addr()).await.unwrap();
    halfway.write_all(&[0x16, 3, 1]).await.unwrap();
    for tcp in [&mut silent, &mut halfway] {
        assert_eq!(soon("it is closed", tcp.read(&mut [0])).await.unwrap_or(0), 0);
    }
    assert!(events.wait("took too long").await.contains("tcp"));
}

#[tokio::test]
async fn clients_that_offer_other_protocols_are_rejected() {
    let ca = Ca::new();
    let (listener, node, events) = listen(&ca, LOOPBACK).await;
    let store = ca.store("eu-1", HOUR);
    for alpn in [&[][..], &[&b"http/1.1"[..]], &[b"isthmus-enrol/1"]] {
        let tls = TlsConnector::from(client_config(&store, Expectations::default(), alpn).unwrap());
        let tcp = TcpStream::connect(listener.local_addr()).await.unwrap();
        let stream = tls.connect(LOOPBACK.ip().into(), tcp).await;
        assert!(stream.is_err(), "{alpn:?}");
        events.wait("none of the protocols").await;

        let config = quic_config(&ca, alpn);
        let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
        let connecting = endpoint.connect_with(config, listener.local_addr(), "127.0.0.1").unwrap();
        assert!(soon("an answer", connecting).await.is_err(), "{alpn:?}");
    }
    assert!(node.links().list().is_empty());
}

#[tokio::test]
async fn a_listener_that_negotiates_no_protocol_is_rejected() {
    // A listener with a valid certificate and without ALPN, as if something between us had removed the extension.
    let ca = Ca::new();
    let config = identity::server_config(&ca.store("obs", HOUR), Expectations::default(), &[]).unwrap();
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await.unwrap();
        let _ = tls.read(&mut [0]).await;
    });
    let (node, events) = ca.node("eu-1");
    let failure = first_outcome(&node, &events, target(address, TransportChoice::Tcp)).await.unwrap_err();
    assert!(failure.contains("Refused") && failure.contains("did not negotiate h2"), "{failure}");
}

#[tokio::test]
async fn a_listener_with_enrolment_accepts_a_cluster_without_a_certificate() {
    let ca = Ca::new();
    let store = ca.store("obs", HOUR);
    let (accepting, _) = node(store.clone(), quick());
    let mut listener = MeshListener::bind(&accepting, LOOPBACK, Expectations::default(), true).await.unwrap();
    let pins: Vec<_> = store.current().bundle.pins().collect();
    let issuer = store.current().credentials.spiffe_id().clone();
    let joiner = enrolment_client_config(&issuer, &pins, &[b"isthmus-enrol/1"]).unwrap();
    let tcp = TcpStream::connect(listener.local_addr()).await.unwrap();
    let (joined, inbound) = tokio::join!(
        TlsConnector::from(joiner).connect(LOOPBACK.ip().into(), tcp),
        soon("the joiner arrives", listener.accept()),
    );
    let AcceptedConnection::Enrolment { mut stream, remote } = inbound else { panic!("not a joiner") };
    let mut joined = joined.unwrap();
    assert_eq!(remote, joined.get_ref().0.local_addr().unwrap());
    joined.write_all(b"token").await.unwrap();
    let mut token = [0; 5];
    stream.read_exact(&mut token).await.unwrap();
    assert_eq!(&token, b"token");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let ca = Ca::new();
    let (listener, node, _) = listen(&ca, LOOPBACK).await;
    let taken = listener.local_addr();
    let error =
        MeshListener::bind(&node, taken, Expectations::default(), false).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("listen address {taken}: ")), "{error}");
}

/// A peer that starts refuses datagrams for a moment, and may accept TCP before.
#[tokio::test]
async fn a_peer_that_is_starting_is_reached_over_quic() {
    let ca = Ca::new();
    let (mut listener, _, _) = listen(&ca, LOOPBACK).await;
    let (proxy, _) = tcp_only_proxy(listener.local_addr(), false).await;
    let (node, events) = ca.node("eu-1");
    let mut dialer = Dialer::new(&node, target(proxy, TransportChoice::Auto)).unwrap();
    let starting = async {
        // The time that the peer takes to start.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let forwarding = udp_forwarder(UdpSocket::bind(proxy).unwrap(), listener.local_addr());
        (accept(&mut listener).await, forwarding)
    };
    let (dialled, (_accepted, forwarding)) = tokio::join!(soon("a connection", dialer.next()), starting);
    assert_eq!(dialled.link().transport(), Transport::Quic);
    assert!(!events.all().iter().any(|event| event.contains("FellBack")), "{:?}", events.all());
    forwarding.abort();
}

/// Sockets of one address that say nothing, more than there are handshakes.
#[tokio::test]
async fn idle_sockets_keep_no_peer_out() {
    let ca = Ca::new();
    let settings = TransportSettings { max_handshakes: 40, max_handshakes_of_network: 20, ..quick() };
    let (accepting, events) = node(ca.store("obs", HOUR), settings);
    let mut listener =
        MeshListener::bind(&accepting, LOOPBACK, Expectations::default(), false).await.unwrap();
    let address = listener.local_addr();
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(events.wait("NetworkFull").await.contains("from this network"));
    for transport_choice in [TransportChoice::Quic, TransportChoice::Tcp] {
        let (node, _) = ca.node("eu-1");
        // TCP from the same network waits until the first byte of the idle ones is overdue.
        let mut dialer = Dialer::new(&node, target(address, transport_choice)).unwrap();
        let (_dialled, _accepted) = tokio::join!(soon("a connection", dialer.next()), accept(&mut listener));
    }
    assert!(events.wait("sent nothing").await.contains("tcp"));
    drop(idle);
}

#[tokio::test]
async fn each_refusal_before_the_handshake_says_of_which_kind_it_is() {
    let ca = Ca::new();
    let settings = TransportSettings { max_handshakes_of_network: 0, ..quick() };
    let (accepting, events) = node(ca.store("obs", HOUR), settings);
    let full = MeshListener::bind(&accepting, LOOPBACK, Expectations::default(), false).await.unwrap();
    for (transport_choice, expected) in [
        (
            TransportChoice::Quic,
            "handshake quic too many connections from this network at once (NetworkFull)",
        ),
        (TransportChoice::Tcp, "handshake tcp too many connections from this network at once (NetworkFull)"),
    ] {
        let (node, failures) = node(ca.store("eu-1", HOUR), quick());
        first_outcome(&node, &failures, target(full.local_addr(), transport_choice)).await.unwrap_err();
        events.wait(expected).await;
    }

    let (accepting, events) = node(ca.store("obs", HOUR), quick());
    let listener = MeshListener::bind(&accepting, LOOPBACK, Expectations::default(), false).await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr()).await.unwrap();
    let mut slow = TcpStream::connect(listener.local_addr()).await.unwrap();
    slow.write_all(&[0x16]).await.unwrap();
    let mut garbage = TcpStream::connect(listener.local_addr()).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    // What the listener sends after its first datagram, which asks for a valid address, is lost.
    let near = UdpSocket::bind(LOOPBACK).unwrap();
    let deaf = near.local_addr().unwrap();
    let forwarder = forward(near, listener.local_addr(), Some(1));
    let patient = TransportSettings { handshake_timeout: HOUR, ..quick() };
    let (node, _) = node(ca.store("eu-1", HOUR), patient);
    let mut dialer = Dialer::new(&node, target(deaf, TransportChoice::Quic)).unwrap();
    let reported = async {
        for expected in [
            "handshake tcp the handshake took too long: the client has sent nothing (Silent)",
            "handshake tcp the handshake took too long (Slow)",
            "handshake tcp the peer does not speak TLS (Rejected)",
            "handshake quic the handshake took too long (Slow)",
        ] {
            events.wait(expected).await;
        }
    };
    tokio::select! {
        connection = dialer.next() => panic!("there is a connection: {connection:?}"),
        () = reported => {}
    }
    forwarder.abort();
}

#[tokio::test]
async fn a_lost_udp_socket_is_opened_again() {
    let ca = Ca::new();
    let (mut listener, _, _) = listen(&ca, LOOPBACK).await;
    let (node, _) = ca.node("eu-1");
    for round in 0..3 {
        let mut dialer = Dialer::new(&node, target(listener.local_addr(), TransportChoice::Quic)).unwrap();
        let (dialled, accepted) = tokio::join!(soon("a connection", dialer.next()), accept(&mut listener));
        assert_eq!(dialled.link().transport(), Transport::Quic, "round {round}");
        listener.lose_udp();
        drop((dialled, accepted));
    }
}
