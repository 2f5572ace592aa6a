//! Certificates, connections, and a handler for every scenario.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use identity::{CredentialStore, Credentials, Expectations, TrustBundle};
use mesh::{Peer, Transport};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use tokio::{sync::mpsc, time::timeout};

use crate::transport::*;

pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Time limit of each wait, far longer than any wait takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `future`, and panics with `what` after [`PATIENCE`].
pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: did not happen within {PATIENCE:?}"),
    }
}

/// A root CA that signs leaves.
pub(super) struct Ca {
    bundle: TrustBundle,
    signer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).unwrap().der().clone();
        let bundle = TrustBundle::new("test.example".parse().unwrap(), [root]).unwrap();
        Self { bundle, signer: Issuer::new(params, key) }
    }

    /// The credentials of a cluster's gateway, valid for `life` from now.
    pub(super) fn store(&self, cluster: &str, life: Duration) -> Arc<CredentialStore> {
        self.store_until(cluster, SystemTime::now() + life)
    }

    /// The credentials of a cluster's gateway, valid until `end`.
    pub(super) fn store_until(&self, cluster: &str, end: SystemTime) -> Arc<CredentialStore> {
        let now = SystemTime::now();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![
            SanType::URI(format!("spiffe://test.example/cluster/{cluster}/gateway").try_into().unwrap()),
            SanType::DnsName(format!("gateway.{cluster}.test.example").try_into().unwrap()),
        ];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = (now - HOUR).into();
        params.not_after = end.into();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.signer).unwrap().der().clone();
        let credentials = Credentials::from_pkcs8(vec![leaf], &key.serialize_der()).unwrap();
        CredentialStore::new(credentials, self.bundle.clone(), now).unwrap()
    }

    pub(super) fn node(&self, cluster: &str) -> (MeshNode, Events) {
        self.node_with(cluster, TransportSettings::default())
    }

    pub(super) fn node_with(&self, cluster: &str, settings: TransportSettings) -> (MeshNode, Events) {
        node(self.store(cluster, HOUR), settings)
    }
}

/// The events that a node reported, as text.
#[derive(Clone, Default)]
pub(super) struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits for an event whose text contains `part`.
    pub(super) async fn wait(&self, part: &str) -> String {
        let found = async {
            loop {
                if let Some(event) = self.all().into_iter().find(|event| event.contains(part)) {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(event) => event,
            Err(_) => panic!("no event with {part:?} among {:?}", self.all()),
        }
    }
}

pub(super) fn node(store: Arc<CredentialStore>, settings: TransportSettings) -> (MeshNode, Events) {
    let events = Events::default();
    let seen = events.clone();
    let node = MeshNode::new(settings, store, move |event| {
        let text = match event {
            ConnectionEvent::ConnectFailed { error, .. } => format!("failed {:?} {error}", error.failure),
            ConnectionEvent::InboundRefused { transport, refusal, reason, .. } => {
                format!("handshake {transport} {reason} ({refusal:?})")
            }
            other => format!("{other:?}"),
        };
        seen.0.lock().unwrap().push(text);
    });
    (node, events)
}

pub(super) fn target(address: SocketAddr, transport_choice: TransportChoice) -> DialTarget {
    DialTarget {
        address: address.to_string(),
        expectations: Expectations::default(),
        transport_choice,
        proxy: None,
    }
}

/// Both sides of a connection.
pub(super) struct ConnectedPair {
    pub(super) client: MeshClient,
    pub(super) server: MeshLink,
    pub(super) probe: ScenarioProbe,
    _listener: MeshListener,
    _dialer: Dialer,
}

/// Counters of the scenarios' handler.
#[derive(Clone)]
pub(super) struct ScenarioProbe {
    /// Bytes that `/flood` has sent.
    pub(super) produced: Arc<AtomicU64>,
    /// Bytes that `/stalled-upload` has received.
    pub(super) taken: Arc<AtomicU64>,
    dropped: mpsc::UnboundedSender<&'static str>,
}

impl ScenarioProbe {
    pub(super) fn new(dropped: mpsc::UnboundedSender<&'static str>) -> Self {
        Self { produced: Arc::default(), taken: Arc::default(), dropped }
    }

    /// A guard that reports its drop as `what`.
    fn guard(&self, what: &'static str) -> ScenarioGuard {
        ScenarioGuard(what, self.dropped.clone())
    }
}

struct ScenarioGuard(&'static str, mpsc::UnboundedSender<&'static str>);

impl Drop for ScenarioGuard {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

/// Connects two gateways. With `reverse`, the dialling side serves.
pub(super) async fn pair(
    transport: Transport,
    reverse: bool,
) -> (ConnectedPair, mpsc::UnboundedReceiver<&'static str>) {
    pair_with(transport, reverse, TransportSettings::default()).await
}

/// Like [`pair`], with these settings on both sides.
pub(super) async fn pair_with(
    transport: Transport,
    reverse: bool,
    settings: TransportSettings,
) -> (ConnectedPair, mpsc::UnboundedReceiver<&'static str>) {
    pair_through(transport, reverse, settings, async |to| to).await
}

/// Like [`pair_with`], over a path to the listener whose address `through` returns.
pub(super) async fn pair_through(
    transport: Transport,
    reverse: bool,
    settings: TransportSettings,
    through: impl AsyncFnOnce(SocketAddr) -> SocketAddr,
) -> (ConnectedPair, mpsc::UnboundedReceiver<&'static str>) {
    let ca = Ca::new();
    let (accepting, _) = ca.node_with("obs", settings.clone());
    let (dialling, _) = ca.node_with("eu-1", settings);
    let transport_choice =
        if transport == Transport::Quic { TransportChoice::Quic } else { TransportChoice::Tcp };
    let mut listener =
        MeshListener::bind(&accepting, LOOPBACK, Expectations::default(), false).await.unwrap();
    let address = through(listener.local_addr()).await;
    let mut dialer = Dialer::new(&dialling, target(address, transport_choice)).unwrap();
    let (dialled, accepted) =
        soon("a connection", async { tokio::join!(dialer.next(), listener.accept()) }).await;
    let AcceptedConnection::Peer(accepted) = accepted else { panic!("not a peer") };
    assert_eq!(
        accepted.link().identity().spiffe_id.to_string(),
        "spiffe://test.example/cluster/eu-1/gateway"
    );
    assert_eq!(dialled.link().identity().spiffe_id.to_string(), "spiffe://test.example/cluster/obs/gateway");
    assert!(dialled.link().transport() == transport && accepted.link().transport() == transport);
    assert!(dialled.link().dialled() && !accepted.link().dialled());

    let (asking, serving) = if reverse { (accepted, dialled) } else { (dialled, accepted) };
    let (dropped, seen) = mpsc::unbounded_channel();
    let probe = ScenarioProbe::new(dropped);
    let server = serving.serve(scenarios(probe.clone()));
    let client = asking.client().await.unwrap();
    (ConnectedPair { client, server, probe, _listener: listener, _dialer: dialer }, seen)
}

/// Runs a scenario on both transports in both directions.
pub(super) async fn everywhere<F, R>(scenario: F)
where
    F: Fn(ConnectedPair, mpsc::UnboundedReceiver<&'static str>) -> R,
    R: Future<Output = ()>,
{
    for transport in [Transport::Quic, Transport::Tcp] {
        for reverse in [false, true] {
            let (pair, dropped) = pair(transport, reverse).await;
            let what = format!("{transport}, {}", if reverse { "reverse" } else { "forward" });
            soon(&what, scenario(pair, dropped)).await;
            println!("{what}: good");
        }
    }
}

pub(super) fn request(path: &str, body: Body) -> Request<Body> {
    Request::post(format!("http://scraper-0.eu-1{path}")).header("te", "trailers").body(body).unwrap()
}

/// The frames of a body, and how it ended.
pub(super) async fn read(mut body: Body) -> (usize, Option<HeaderMap>, Result<(), StreamError>) {
    let (mut len, mut trailers) = (0, None);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => len += data.len(),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(error) => return (len, trailers, Err(error)),
        }
    }
    (len, trailers, Ok(()))
}

pub(super) fn pieces(pieces: Vec<Result<Frame<Bytes>, StreamError>>) -> Body {
    Body::new(StreamBody::new(stream::iter(pieces)))
}

pub(super) fn data(len: usize) -> Result<Frame<Bytes>, StreamError> {
    Ok(Frame::data(vec![7; len].into()))
}

fn trailers(status: &'static str) -> Result<Frame<Bytes>, StreamError> {
    let mut map = HeaderMap::new();
    map.insert("grpc-status", HeaderValue::from_static(status));
    map.insert("x-cause", HeaderValue::from_static("because"));
    Ok(Frame::trailers(map))
}

/// A body that sends one byte and then nothing, without ending.
fn one_byte_then_idle(guard: ScenarioGuard) -> Body {
    let rest = stream::pending().map(move |never: Result<Frame<Bytes>, StreamError>| {
        let _ = &guard;
        never
    });
    Body::new(StreamBody::new(stream::iter([data(1)]).chain(rest).boxed()))
}

pub(super) fn scenarios(probe: ScenarioProbe) -> Arc<dyn Handler> {
    Arc::new(handler_fn(move |request: Request<Body>| {
        let probe = probe.clone();
        async move {
            assert!(Peer::of(request.extensions()).identity().is_some());
            assert_eq!(request.uri().authority().map(|a| a.as_str()), Some("scraper-0.eu-1"));
            assert_eq!(request.headers()["te"], "trailers");
            let answer = Response::builder().header("content-type", "application/grpc");
            let body = match request.uri().path() {
                "/trailers" => pieces(vec![data(5), trailers("0")]),
                "/empty-pieces" => pieces(vec![data(0), data(5), data(0), data(0), data(6), trailers("0")]),
                "/trailers-only" => {
                    return Ok(answer.header("grpc-status", "5").body(Body::empty()).unwrap());
                }
                "/error-after-three" => pieces(vec![data(5), data(5), data(5), trailers("13")]),
                "/broken-after-three" => {
                    let broken = StreamError::new(StreamErrorKind::Reset, "broken");
                    pieces(vec![data(5), data(5), data(5), Err(broken)])
                }
                "/cancelled-after-three" => {
                    let cancelled = StreamError::new(StreamErrorKind::Cancelled, "cancelled");
                    pieces(vec![data(5), data(5), data(5), Err(cancelled)])
                }
                "/refused" => return Err(StreamError::new(StreamErrorKind::Refused, "not processed")),
                "/echo" => request.into_body(),
                "/idle" => one_byte_then_idle(probe.guard("idle")),
                "/silent" => {
                    let _guard = probe.guard("silent");
                    std::future::pending().await
                }
                "/flood" => {
                    let guard = probe.guard("flood");
                    let flood = stream::repeat(Bytes::from(vec![0; 64 << 10])).map(move |piece| {
                        let _ = &guard;
                        probe.produced.fetch_add(piece.len() as u64, Ordering::Relaxed);
                        Ok(Frame::data(piece))
                    });
                    Body::new(StreamBody::new(flood))
                }
                "/stalled-upload" => {
                    let mut body = request.into_body();
                    let taken = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
                    probe.taken.fetch_add(taken as u64, Ordering::Relaxed);
                    let _guard = probe.guard("stalled-upload");
                    std::future::pending().await
                }
                path => panic!("no scenario {path}"),
            };
            Ok(answer.body(body).unwrap())
        }
    }))
}
