//! Connections that a gateway refuses before their handshake is complete: each is counted by its reason.

use identity::enrolment_client_config;
use rustls_pki_types::ServerName;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Duration, sleep},
};
use tokio_rustls::TlsConnector;

use crate::{
    domains::metric,
    world::{MeshWorld, RunningGateway, within},
};

/// More than may come from one network at once.
const HANDSHAKES: usize = 70;
const ENROLMENTS: usize = 9;

async fn counted(gateway: &RunningGateway, reason: &str) {
    let series = format!("isthmus_gateway_handshake_failures_total{{reason=\"{reason}\"}}");
    within(reason, async {
        while metric(gateway, &series).await == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_before_the_handshake_is_counted_by_its_reason() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let mesh = obs.addresses.mesh.unwrap();
    let mut open = Vec::new();
    for _ in 0..HANDSHAKES {
        open.push(TcpStream::connect(mesh).await.unwrap());
    }
    // The first byte of TLS, and no more.
    open[0].write_all(&[0x16]).await.unwrap();
    for reason in ["inbound_tcp_network_full", "inbound_tcp_silent", "inbound_tcp_slow"] {
        counted(&obs, reason).await;
    }
    let mut garbage = TcpStream::connect(mesh).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    counted(&obs, "inbound_tcp").await;

    let token = world.token("us-1", &[mesh]);
    let config = enrolment_client_config(token.issuer(), token.pins(), &[b"isthmus-enrol/1"]).unwrap();
    let (connector, name) = (TlsConnector::from(config), token.issuer().dns_name());
    let mut joining = Vec::new();
    for _ in 0..ENROLMENTS {
        let stream = TcpStream::connect(mesh).await.unwrap();
        let name = ServerName::try_from(name.clone()).unwrap();
        joining.push(within("a handshake", connector.connect(name, stream)).await.unwrap());
    }
    counted(&obs, "enrolment_network_full").await;
}
