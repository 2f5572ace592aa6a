//! Production, staging and testing as three trust domains with a cluster of the same name each: no gateway serves one of another domain.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use identity::{CredentialStore, Credentials, TrustBundle};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{
    stores::{RunningStore, TestStore},
    trust::metrics,
    world::{MeshWorld, RunningGateway, cluster, directory, healthy, within},
};

const NAMES: [&str; 3] = ["production", "staging", "testing"];

/// One trust domain: an observability gateway, and the cluster `eu-1` with one store.
struct Domain {
    world: MeshWorld,
    obs: RunningGateway,
    eu: RunningGateway,
    store: RunningStore,
}

impl Domain {
    async fn start(name: &str) -> Self {
        let world = MeshWorld::named(&format!("{name}.example"));
        let labels = [("cluster", "eu-1"), ("environment", "test"), ("domain", name)];
        let store = TestStore::start(&labels).await;
        let obs = world.observability("").await;
        let eu = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, "").await;
        healthy(&obs, "scraper-0.eu-1").await;
        Self { world, obs, eu, store }
    }

    fn address(&self) -> SocketAddr {
        self.obs.addresses.mesh.unwrap()
    }
}

async fn three() -> Vec<Domain> {
    let mut domains = Vec::new();
    for name in NAMES {
        domains.push(Domain::start(name).await);
    }
    domains
}

/// The value of a metric with these labels; 0 if it is absent.
pub(crate) async fn metric(gateway: &RunningGateway, series: &str) -> u64 {
    let page = metrics(gateway).await;
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_of_other_trust_domains_are_neither_dialled_nor_listed() {
    for transport in ["quic", "tcp"] {
        let domains = three().await;
        let addresses: Vec<String> = domains.iter().map(|domain| format!("'{}'", domain.address())).collect();
        let mut running = Vec::new();
        for (name, domain) in NAMES.iter().zip(domains) {
            let Domain { world, obs, eu, store } = domain;
            eu.stop().await;
            let dial = format!("transport: {transport}\ndial: [{}]\n", addresses.join(", "));
            let yaml = cluster("eu-1", &[("scraper-0", store.address)], &dial);
            let eu = world.try_start("eu-1", &yaml, None).await.unwrap();
            let entry = healthy(&obs, "scraper-0.eu-1").await;
            let labels = &entry.info.unwrap().label_sets[0].labels;
            assert!(labels.iter().any(|label| label.value == *name), "{labels:?} are those of {name}");
            within("both others are refused", async {
                while metric(&eu, "isthmus_gateway_handshake_failures_total{reason=\"refused\"}").await < 2 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
            // All three observability gateways have this name.
            let peer = format!("isthmus_gateway_connections{{peer=\"obs\",transport=\"{transport}\"}}");
            assert_eq!(metric(&eu, &peer).await, 1, "{name} over {transport}");
            directory(&obs, "its own store alone", |entries| entries.len() == 1).await;
            running.push((world, obs, eu, store));
        }
        for (_world, obs, eu, _store) in running {
            eu.stop().await;
            obs.stop().await;
        }
    }
}

/// A thief who has the certificate of a gateway, and who talks to every server.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the gateway at `address` begins HTTP/2 with a client that has the certificate of `eu-1` in `domain`.
async fn is_served(domain: &Domain, name: &str, address: SocketAddr) -> bool {
    let data = domain.world.dir.path().join("eu-1-data");
    let credentials = Credentials::load(&data.join("credentials.pem")).unwrap();
    let bundle = TrustBundle::load(format!("{name}.example").parse().unwrap(), &data.join("bundle.pem"));
    let store = CredentialStore::new(credentials, bundle.unwrap(), SystemTime::now()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_cert_resolver(store);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let attempt = async {
        let mut tls = connector.connect(address.ip().into(), tcp).await.ok()?;
        tls.read_exact(&mut [0; 3]).await.ok()
    };
    within("served or refused", attempt).await.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_trust_domain_is_refused() {
    let domains = three().await;
    for (name, own) in NAMES.iter().zip(&domains) {
        for (other, listening) in NAMES.iter().zip(&domains) {
            let served = is_served(own, name, listening.address()).await;
            assert_eq!(served, name == other, "a gateway of {name} at {other}");
        }
        let refused =
            metric(&own.obs, "isthmus_gateway_handshake_failures_total{reason=\"inbound_tcp\"}").await;
        assert!(refused <= 2, "{name} refuses the two others and nothing else: {refused}");
    }
}
