mod restart;
mod tls;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use compression::{ServerCompression, ServerCompressionLayer};
use http::Request;
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, body::Body, service::Routes, transport::Server};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, health_client::HealthClient},
};
use tower::{Layer, ServiceExt, service_fn};

use super::*;

/// The authority, the peer and the encoding of a request.
type SeenRequest = (String, Peer, Option<http::HeaderValue>);

/// The requests that reached the server.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<SeenRequest>>>);

impl Seen {
    fn note<B>(&self, request: &Request<B>) {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let encoding = request.headers().get("grpc-encoding").cloned();
        self.0.lock().unwrap().push((authority, Peer::of(request.extensions()), encoding));
    }

    fn last(&self) -> (String, Peer) {
        let seen = self.0.lock().unwrap().last().cloned().expect("a request was seen");
        (seen.0, seen.1)
    }

    fn last_encoding(&self) -> Option<http::HeaderValue> {
        self.0.lock().unwrap().last().expect("a request was seen").2.clone()
    }
}

async fn routes() -> Routes {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("x", ServingStatus::Serving).await;
    Routes::new(service)
}

fn witness(
    seen: Seen,
    inner: Routes,
) -> impl tower::Service<
    Request<Body>,
    Response = http::Response<Body>,
    Error = std::convert::Infallible,
    Future = impl Future + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    service_fn(move |request: Request<Body>| {
        seen.note(&request);
        inner.clone().oneshot(request)
    })
}

/// A server, and how to stop it with all its connections.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

/// A gRPC health server with one service, `x`.
async fn serve(address: SocketAddr, seen: Seen) -> Running {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = routes().await;
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        let layer = tower::layer::layer_fn(move |inner: ServerCompression<Routes>| {
            let seen = seen.clone();
            service_fn(move |request: Request<Body>| {
                seen.note(&request);
                inner.clone().oneshot(request)
            })
        });
        let _ = Server::builder()
            .layer(layer)
            .layer(ServerCompressionLayer::new(1 << 20))
            .add_routes(routes)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            })
            .await;
    });
    Running { address, stop, task }
}

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn check(channel: Channel, service: &str) -> Result<i32, tonic::Status> {
    let request = HealthCheckRequest { service: service.into() };
    Ok(HealthClient::new(channel).check(request).await?.into_inner().status)
}

#[tokio::test]
async fn every_kind_of_channel_gives_the_same_answers() {
    let seen = Seen::default();
    let server = serve(ANY, seen.clone()).await;
    let address = server.address;
    let target: Authority = "scraper-0.eu-1".parse().unwrap();
    let local = Channel::local("health", witness(seen.clone(), routes().await));
    let named = local.clone().layer("named", AuthorityLayer::new(&target));
    let direct = direct(&address.to_string()).unwrap();
    let via = via(&address.to_string(), &target).unwrap();
    for (channel, authority) in
        [(local, None), (named, Some("scraper-0.eu-1")), (direct, None), (via, Some("scraper-0.eu-1"))]
    {
        assert_eq!(check(channel.clone(), "x").await.unwrap(), ServingStatus::Serving as i32);
        assert_eq!(check(channel, "y").await.unwrap_err().code(), Code::NotFound);
        let (seen_authority, peer) = seen.last();
        assert_eq!(peer, Peer::local());
        if let Some(authority) = authority {
            assert_eq!(seen_authority, authority);
        }
    }
}

#[tokio::test]
async fn an_error_names_a_lost_server_and_the_channel_reconnects() {
    let server = serve(ANY, Seen::default()).await;
    let address = server.address;
    let channel = direct(&address.to_string()).unwrap();
    assert!(check(channel.clone(), "x").await.is_ok());

    server.stop().await;
    let lost = check(channel.clone(), "x").await.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable);
    assert!(lost.message().starts_with(&address.to_string()), "{}", lost.message());

    let _server = serve(address, Seen::default()).await;
    assert!(check(channel, "x").await.is_ok());
}

#[tokio::test]
async fn requests_are_compressed_if_that_is_chosen() {
    let seen = Seen::default();
    let server = serve(ANY, seen.clone()).await;
    let (address, target) = (server.address.to_string(), "scraper-0.eu-1".parse().unwrap());
    for compression in MessageEncoding::ALL.map(Some).into_iter().chain([None]) {
        let options = ChannelOptions { compression, ..ChannelOptions::default() };
        let direct = direct_with(&address, &options).unwrap();
        let via = via_with(&address, &target, &options).unwrap();
        for channel in [direct, via] {
            assert_eq!(check(channel.clone(), "x").await.unwrap(), ServingStatus::Serving as i32);
            let long = "a long name of a service ".repeat(100);
            assert_eq!(check(channel, &long).await.unwrap_err().code(), Code::NotFound);
            assert_eq!(
                seen.last_encoding().as_ref().map(|name| name.as_bytes()),
                compression.map(|encoding| encoding.name().as_bytes())
            );
        }
    }
}

#[tokio::test]
async fn an_invalid_address_is_rejected_in_one_line() {
    for bad in ["", "localhost", ":10901", "http://localhost:1", "a b:1", "localhost:99999", "x@y:1"] {
        let message = direct(bad).unwrap_err().to_string();
        assert!(message.contains("must be host:port"), "{bad}: {message}");
    }
    assert!(direct("[::1]:10901").is_ok());
    assert!(direct("sidecar.monitoring.svc:10901").is_ok());
}

#[test]
fn a_target_name_is_two_labels() {
    for bad in [
        "",
        "eu-1",
        "a.b.c",
        "a.eu-1:80",
        ".eu-1",
        "a.",
        "a..",
        "a.eu-1..",
        "a..b",
        "10.0.0.1",
        "a b.c",
        "ä.eu-1",
    ] {
        assert!(bad.parse::<Authority>().is_err(), "{bad}");
    }
    let name: Authority = "scraper-0.eu-1".parse().unwrap();
    assert_eq!(name, Authority::new("scraper-0".parse().unwrap(), "eu-1".parse().unwrap()));
    assert_eq!(name.to_string(), "scraper-0.eu-1");
    for same in ["scraper-0.eu-1.", "Scraper-0.EU-1", "SCRAPER-0.eu-1."] {
        assert_eq!(same.parse::<Authority>().unwrap(), name, "{same}");
    }
}

#[tokio::test]
async fn a_peer_layer_replaces_the_peer_that_a_caller_set() {
    let seen = Seen::default();
    let gateway = Peer::new("spiffe://prod.example/cluster/eu-1/gateway".parse().unwrap(), Transport::Quic);
    let mut request = Request::new(Body::empty());
    request.extensions_mut().insert(Peer::local());
    let service = PeerLayer::new(gateway.clone()).layer(witness(seen.clone(), routes().await));
    let _ = service.oneshot(request).await;
    assert_eq!(seen.last().1, gateway);
    assert_eq!(gateway.to_string(), "spiffe://prod.example/cluster/eu-1/gateway (quic)");
}

#[test]
fn an_error_keeps_code_and_message_for_grpc_callers() {
    let status = tonic::Status::from(ChannelError::unavailable("eu-1: gone"));
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "eu-1: gone"));
    let status = tonic::Status::from_error(Box::new(ChannelError::unavailable("eu-1: gone")));
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "eu-1: gone"));
    let io = std::io::Error::other("broken pipe");
    let error = ChannelError::of("eu-1", io);
    assert_eq!((error.to_string().as_str(), error.is_retryable()), ("eu-1: broken pipe", true));
}

/// A thousand targets would otherwise take thousands of descriptors on both sides.
#[tokio::test]
async fn all_targets_of_a_gateway_share_a_connection() {
    let seen = Seen::default();
    let server = serve(ANY, seen.clone()).await;
    // Counts connections, and passes them on.
    let counting = TcpListener::bind(ANY).await.unwrap();
    let (address, opened) = (counting.local_addr().unwrap(), Arc::new(Mutex::new(0)));
    let (to, counted) = (server.address, opened.clone());
    tokio::spawn(async move {
        while let Ok((mut near, _)) = counting.accept().await {
            *counted.lock().unwrap() += 1;
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let gateway = Gateway::new(&address.to_string(), &ChannelOptions::default(), Duration::ZERO).unwrap();
    let asked = (0..50).map(|i| {
        let target: Authority = format!("store-{i}.eu-1").parse().unwrap();
        check(gateway.target(&target), "x")
    });
    for answer in futures::future::join_all(asked).await {
        assert_eq!(answer.unwrap(), ServingStatus::Serving as i32);
    }
    assert_eq!(*opened.lock().unwrap(), 1);
    let mut authorities: Vec<String> = seen.0.lock().unwrap().iter().map(|seen| seen.0.clone()).collect();
    authorities.sort();
    authorities.dedup();
    assert_eq!(authorities.len(), 50, "each request names its target");
    server.stop().await;
}
