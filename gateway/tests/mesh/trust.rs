//! What a gateway believes from the other side: roots, denylists, and certificates that were stolen.

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use clap::Parser;
use identity::{CredentialStore, Credentials, Expectations, TrustBundle};
use pki::{KeyAndCsr, Revocation};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    stores::TestStore,
    world::{
        MeshWorld, PATIENCE, RunningGateway, client, cluster, count, directory, healthy, messages, new_token,
        within,
    },
};

#[derive(Parser)]
struct PkiProgram {
    #[command(subcommand)]
    command: pki::cli::PkiCommand,
}

/// Runs a command on the state of a world, and returns its exit code.
pub(crate) fn pki(world: &MeshWorld, args: &str) -> u8 {
    let state = world.dir.path().join("pki").display().to_string();
    let args = args.replace("STATE", &state).replace("DIR", &world.dir.path().display().to_string());
    let parsed = PkiProgram::try_parse_from(std::iter::once("pki").chain(args.split_whitespace()));
    let code = pki::cli::run(parsed.unwrap_or_else(|error| panic!("{error}")).command);
    (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).unwrap()
}

/// The credentials that a gateway has stored, as their thief has them.
fn stolen(world: &MeshWorld, name: &str) -> Arc<CredentialStore> {
    let path = world.dir.path().join(format!("{name}-data/credentials.pem"));
    let credentials = Credentials::load(&path).unwrap();
    CredentialStore::new(credentials, stored_bundle(world, name), SystemTime::now()).unwrap()
}

/// Whether the observability gateway accepts a connection with some credentials. In TLS 1.3 a handshake that succeeds here
/// may still be refused there, so this waits for what the other side does next.
async fn accepted(store: &Arc<CredentialStore>, address: SocketAddr, transport: &str) -> bool {
    let attempt = async {
        let expectations = Expectations::default();
        match transport {
            "tcp" => {
                let config = identity::client_config(store, expectations, &[b"h2"]);
                let config = config.unwrap();
                let tcp = TcpStream::connect(address).await.ok()?;
                let name = address.ip().into();
                let mut tls = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.ok()?;
                // It is the client of HTTP/2, and begins.
                tls.read_exact(&mut [0; 3]).await.ok()
            }
            _ => {
                let config = identity::client_config(store, expectations, &[b"h3"]);
                let config = quinn::crypto::rustls::QuicClientConfig::try_from(config.unwrap()).unwrap();
                let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
                let config = quinn::ClientConfig::new(Arc::new(config));
                let connection = endpoint.connect_with(config, address, "gateway").unwrap().await.ok()?;
                // It opens the streams of HTTP/3.
                connection.accept_uni().await.ok().map(|_| 3)
            }
        }
    };
    tokio::time::timeout(PATIENCE, attempt).await.expect("neither accepted nor refused").is_some()
}

/// The page of metrics.
pub(crate) async fn metrics(gateway: &RunningGateway) -> String {
    let mut tcp = TcpStream::connect(gateway.addresses.http).await.unwrap();
    tcp.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut page = String::new();
    within("the page of metrics", tcp.read_to_string(&mut page)).await.unwrap();
    page
}

/// A cluster that is connected over one transport, with an idle stream without a deadline.
async fn connected(
    world: &MeshWorld,
    obs: &RunningGateway,
    store: SocketAddr,
    transport: &str,
) -> RunningGateway {
    let by = format!("transport: {transport}\n");
    let gateway = world.cluster("eu-1", &[("scraper-0", store)], obs, &by).await;
    let entry = healthy(obs, "scraper-0.eu-1").await;
    assert_eq!(entry.transport, transport);
    gateway
}

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test")];

/// The roots that a gateway has stored.
fn stored_bundle(world: &MeshWorld, name: &str) -> TrustBundle {
    let path = world.dir.path().join(format!("{name}-data/bundle.pem"));
    TrustBundle::load("test.isthmus.example".parse().unwrap(), &path).unwrap()
}

/// The serial number of the certificate that a gateway has stored.
pub(crate) fn stored_serial(world: &MeshWorld, name: &str) -> String {
    let path = world.dir.path().join(format!("{name}-data/credentials.pem"));
    identity::Credentials::load(&path).unwrap().identity().serial.clone()
}

/// Waits until a gateway has stored another certificate.
pub(crate) async fn renewed(world: &MeshWorld, name: &str) {
    let before = stored_serial(world, name);
    within("a renewal", async {
        while stored_serial(world, name) == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Starts the observability gateway at an address that it had before. The address is free a moment after its end.
pub(crate) async fn started_again(world: &MeshWorld, yaml: &str) -> RunningGateway {
    within("the address is free", async {
        loop {
            match world.try_start("obs", yaml, None).await {
                Ok(gateway) => return gateway,
                Err(error) if error.to_string().contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

/// The attacker owns the online issuer, and adds a root to the bundle that each renewal brings.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_no_held_root_has_signed_is_not_planted_by_a_renewal() {
    for transport in ["quic", "tcp"] {
        let (world, foreign) = (MeshWorld::new(), MeshWorld::new());
        let obs = world.observability("pki: {state: pki, leaf_lifetime: 6s}\n").await;
        let store = TestStore::start(EU_1).await;
        let by = format!("transport: {transport}\n");
        let _gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, &by).await;
        healthy(&obs, "scraper-0.eu-1").await;
        let held = stored_bundle(&world, "eu-1");
        // While the gateway runs: it does not start with roots that its audit log does not know.
        let planted = world.dir.path().join("pki/bundle.pem");
        let mut pem = std::fs::read_to_string(&planted).unwrap();
        pem.push_str(&std::fs::read_to_string(foreign.dir.path().join("pki/bundle.pem")).unwrap());
        std::fs::write(&planted, pem).unwrap();
        renewed(&world, "eu-1").await;
        let after = stored_bundle(&world, "eu-1");
        let pins = |bundle: &TrustBundle| bundle.pins().collect::<Vec<_>>();
        assert_eq!(pins(&after), pins(&held), "{transport}: a root was planted");
        // The certificate itself is good: its gateway keeps working.
        healthy(&obs, "scraper-0.eu-1").await;
        obs.stop().await;
        let yaml = crate::world::observability("");
        let error = world.try_start("obs", &yaml, None).await.err().unwrap().to_string();
        assert!(error.contains("does not know the roots of bundle.pem"), "{error}");
    }
}

/// A leaf that the security team revokes, and its thief: refused from now on, and its streams end.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_and_its_streams_end() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("").await;
        let address = obs.addresses.mesh.unwrap();
        let store = TestStore::start(EU_1).await;
        let _gateway = connected(&world, &obs, store.address, transport).await;
        let thief = stolen(&world, "eu-1");
        assert!(accepted(&thief, address, transport).await, "{transport}: the certificate is good");

        let mut client = client(&obs, "scraper-0.eu-1");
        let idle = client.series(messages(-1, Duration::ZERO)).await.unwrap().into_inner();
        let idle = tokio::spawn(count(idle));
        let began = Instant::now();
        let serial = stored_serial(&world, "eu-1");
        assert_eq!(pki(&world, &format!("cert revoke --state STATE --serial {serial} --yes")), 0);
        let ended = within("the stream ends", idle).await.unwrap();
        println!("{transport}: stream ended after {:?}: {ended:?}", began.elapsed());
        assert!(ended.is_err());
        within("a handshake is refused", async { while accepted(&thief, address, transport).await {} }).await;
        println!("{transport}: refused after {:?}", began.elapsed());
        assert!(!accepted(&thief, address, transport).await);
        // It cannot be renewed either, but the cluster can join again.
        let entries =
            directory(&obs, "it is not connected", |all| all.iter().all(|entry| !entry.healthy)).await;
        assert!(entries[0].last_error.contains("not authorised"), "{}", entries[0].last_error);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_cluster_joins_again_with_a_new_token() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let gateway = connected(&world, &obs, store.address, "quic").await;
    let issuer = world.issuer();
    let revoked = issuer.revoke(&Revocation::Cluster("eu-1".parse().unwrap()), "stolen", SystemTime::now());
    assert_eq!(revoked.unwrap(), 1);
    directory(&obs, "it is not connected", |all| all.iter().all(|entry| !entry.healthy)).await;
    gateway.stop().await;
    std::fs::remove_file(world.dir.path().join("eu-1-data/credentials.pem")).unwrap();
    connected(&world, &obs, store.address, "quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_cluster_is_missing_and_a_removed_one_is_not() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("").await;
        let address = obs.addresses.mesh.unwrap();
        let store = TestStore::start(EU_1).await;
        let _gateway = connected(&world, &obs, store.address, transport).await;
        // A mistyped name: the token is made, and nothing joins.
        assert_eq!(pki(&world, "cluster add --state STATE eu-11 --environment test"), 0);
        world.token("eu-1l", &[address]);

        assert_eq!(pki(&world, "cluster pause --state STATE eu-1 --yes"), 0);
        let entries =
            directory(&obs, "the paused cluster is missing", |all| all.iter().all(|entry| !entry.healthy))
                .await;
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["scraper-0.eu-1"], "{transport}: expected clusters are not missing");
        assert!(!accepted(&stolen(&world, "eu-1"), address, transport).await);
        assert_eq!(pki(&world, "cluster resume --state STATE eu-1"), 0);
        healthy(&obs, "scraper-0.eu-1").await;

        let mut client = client(&obs, "scraper-0.eu-1");
        let idle = client.series(messages(-1, Duration::ZERO)).await.unwrap().into_inner();
        let token = world.token("eu-1", &[address]);
        assert_eq!(pki(&world, "cluster remove --state STATE eu-1 --yes"), 0);
        directory(&obs, "the removed cluster is gone", |all| all.is_empty()).await;
        assert!(within("its streams end", count(idle)).await.is_err());
        assert!(!accepted(&stolen(&world, "eu-1"), address, transport).await);
        let yaml = cluster("again", &[("scraper-0", store.address)], "");
        let error = world.try_start("again", &yaml, Some(&token)).await.err().unwrap().to_string();
        assert!(error.contains("it was revoked"), "{error}");
    }
}

/// The attacker has the key of the issuing CA and signs a perfect certificate, which no inventory has.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_in_the_inventory_is_refused() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let address = obs.addresses.mesh.unwrap();
    let store = TestStore::start(EU_1).await;
    let _gateway = connected(&world, &obs, store.address, "quic").await;
    let thief = world.forked_issuer();
    let token = thief.create_token(&new_token("eu-1", address), SystemTime::now()).unwrap();
    let key = KeyAndCsr::generate().unwrap();
    let minted = thief.enrol(token.secret(), key.csr_der(), SystemTime::now()).unwrap();
    let credentials = token.accept(key, minted.chain, &minted.bundle, SystemTime::now()).unwrap();
    let minted = CredentialStore::new(credentials, minted.bundle, SystemTime::now()).unwrap();
    for transport in ["quic", "tcp"] {
        for _ in 0..5 {
            assert!(!accepted(&minted, address, transport).await, "{transport}");
        }
        assert!(accepted(&stolen(&world, "eu-1"), address, transport).await, "{transport}");
    }
    let metrics = metrics(&obs).await;
    assert!(metrics.contains("isthmus_gateway_unknown_certificates_total 10"), "{metrics}");
}

/// The issuing CA was stolen. A root denies it; the next one issues from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_denied_issuing_ca_is_replaced_and_clusters_join_again() {
    let world = MeshWorld::new();
    std::fs::write(world.dir.path().join("passphrase"), "correct horse battery\n").unwrap();
    let roots = "--root-out DIR/roots --root-passphrase-file DIR/passphrase";
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let gateway = connected(&world, &obs, store.address, "quic").await;
    let thief = stolen(&world, "eu-1");
    let pin = thief.current().credentials.identity().issuers[0];
    // The next CA first, so that the gateways can get certificates.
    assert_eq!(pki(&world, &format!("issuer renew --state STATE {roots}")), 0);
    assert_eq!(pki(&world, &format!("cert revoke --state STATE --issuer {pin} --yes {roots}")), 0);
    let address = obs.addresses.mesh.unwrap();
    directory(&obs, "it is not connected", |all| all.iter().all(|entry| !entry.healthy)).await;
    for transport in ["quic", "tcp"] {
        assert!(!accepted(&thief, address, transport).await, "{transport}");
    }
    gateway.stop().await;
    std::fs::remove_file(world.dir.path().join("eu-1-data/credentials.pem")).unwrap();
    connected(&world, &obs, store.address, "quic").await;
    assert_eq!(pki(&world, "denylist push --state STATE"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_root_and_a_new_denylist_reach_every_cluster_at_once() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        std::fs::write(world.dir.path().join("passphrase"), "correct horse battery\n").unwrap();
        let obs = world.observability("").await;
        let store = TestStore::start(EU_1).await;
        let _gateway = connected(&world, &obs, store.address, transport).await;
        assert_eq!(pki(&world, "denylist push --state STATE"), 0, "every gateway has acknowledged");
        let roots =
            "--root-out DIR/roots --root-passphrase-file DIR/passphrase --trust-domain test.isthmus.example";
        assert_eq!(pki(&world, &format!("root create --label next {roots}")), 0);
        let sign = "bundle sign --bundle STATE/bundle.pem --out DIR/next.pem --add DIR/roots/root-next.pem";
        assert_eq!(pki(&world, &format!("{sign} {roots}")), 0);
        assert_eq!(pki(&world, "bundle install --state STATE DIR/next.pem"), 0);
        within("the cluster has the new root", async {
            while stored_bundle(&world, "eu-1").sequence() < 2 || stored_bundle(&world, "obs").sequence() < 2
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert_eq!(stored_bundle(&world, "eu-1").roots().count(), 3);
        assert_eq!(pki(&world, "denylist push --state STATE"), 0);
        healthy(&obs, "scraper-0.eu-1").await;
    }
}

/// A list of the day before yesterday, as after a weekend without power: nothing is served until the next one, which comes
/// with the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_with_an_old_denylist_is_served_again_after_a_new_one() {
    let created = SystemTime::now() - Duration::from_secs(72 * 3600);
    let world = MeshWorld::created_at("test.isthmus.example", created);
    // A list of that time: the number of a list is its time.
    let old =
        world.forked_issuer().sign_denylist(SystemTime::now() - Duration::from_secs(50 * 3600)).unwrap();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let gateway = connected(&world, &obs, store.address, "quic").await;
    gateway.stop().await;
    let stored = world.dir.path().join("eu-1-data/denylist.bin");
    std::fs::write(&stored, old.issuer().unwrap().as_bytes()).unwrap();
    let yaml = cluster("eu-1", &[("scraper-0", store.address)], "");
    let _gateway = world.try_start("eu-1", &yaml, None).await.unwrap();
    healthy(&obs, "scraper-0.eu-1").await;
    let mut client = client(&obs, "scraper-0.eu-1");
    let stream = within("a request is served", async {
        loop {
            if let Ok(stream) = client.series(messages(3, Duration::ZERO)).await {
                return stream.into_inner();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(count(stream.await).await.unwrap(), 3);
}

/// Stores what a cluster has that joined two days ago, and could not be renewed since.
fn weekend(world: &MeshWorld, obs: &RunningGateway) {
    joined_at(world, obs, SystemTime::now() - Duration::from_secs(48 * 3600));
}

/// Stores what a cluster has that joined at some time.
fn joined_at(world: &MeshWorld, obs: &RunningGateway, joined_at: SystemTime) {
    let address = obs.addresses.mesh.unwrap();
    let token = world.token_at("eu-1", &[address], joined_at);
    let key = KeyAndCsr::generate().unwrap();
    let enrolment = world.issuer().enrol(token.secret(), key.csr_der(), joined_at).unwrap();
    let credentials = token.accept(key, enrolment.chain, &enrolment.bundle, joined_at).unwrap();
    let data = world.dir.path().join("eu-1-data");
    std::fs::create_dir(&data).unwrap();
    credentials.store(&data.join("credentials.pem")).unwrap();
    std::fs::write(data.join("bundle.pem"), enrolment.bundle.to_pem()).unwrap();
    let membership = format!(
        r#"{{"issuer": "spiffe://test.isthmus.example/cluster/obs/gateway", "environment": "test", "addresses": ["{address}"]}}"#
    );
    std::fs::write(data.join("membership.json"), membership).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weekend_without_the_issuer_costs_no_token() {
    let created = SystemTime::now() - Duration::from_secs(72 * 3600);
    let world = MeshWorld::created_at("test.isthmus.example", created);
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    weekend(&world, &obs);
    let yaml = cluster("eu-1", &[("scraper-0", store.address)], "");
    let gateway = world.try_start("eu-1", &yaml, None).await.unwrap();
    healthy(&obs, "scraper-0.eu-1").await;
    assert!(metrics(&obs).await.contains("isthmus_gateway_recoveries_total{result=\"success\"} 1"));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_recovery_an_expired_certificate_needs_a_new_token() {
    let created = SystemTime::now() - Duration::from_secs(72 * 3600);
    let world = MeshWorld::created_at("test.isthmus.example", created);
    let obs = world.observability("pki: {state: pki, leaf_lifetime: 24h, recover_expired: 0s}\n").await;
    let store = TestStore::start(EU_1).await;
    weekend(&world, &obs);
    let yaml = cluster("eu-1", &[("scraper-0", store.address)], "");
    let error = world.try_start("eu-1", &yaml, None).await.err().unwrap().to_string();
    assert!(error.contains("it expired at") && error.contains("--join-file"), "{error}");
    let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
    let _gateway = world.try_start("eu-1", &yaml, Some(&token)).await.unwrap();
    healthy(&obs, "scraper-0.eu-1").await;
}

/// Stores what a cluster has whose certificate is refused in `left`, and whose connections never succeed. The issuer can be
/// reached for enrolment. Returns the configuration of its gateway.
fn about_to_expire(world: &MeshWorld, obs: &RunningGateway, left: Duration, store: SocketAddr) -> String {
    let refused_at = SystemTime::now() + left;
    joined_at(world, obs, refused_at - identity::CLOCK_SKEW - pki::DEFAULT_LEAF_TTL);
    // No gateway listens at this port.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    cluster("eu-1", &[("scraper-0", store)], &format!("dial: ['{unused}']\n"))
}

/// Lets the gateway of eu-1 dial the observability gateway, and waits until it is read.
async fn is_read_after_reload(world: &MeshWorld, obs: &RunningGateway, gateway: &RunningGateway, yaml: &str) {
    let from = yaml.lines().find(|line| line.starts_with("dial:")).unwrap();
    let to = format!("dial: ['{}']", obs.addresses.mesh.unwrap());
    world.write("eu-1.yaml", &yaml.replace(from, &to));
    gateway.reload.run().await.unwrap();
    healthy(obs, "scraper-0.eu-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_while_the_gateway_runs_is_exchanged_with_its_key() {
    let world =
        MeshWorld::created_at("test.isthmus.example", SystemTime::now() - Duration::from_secs(72 * 3600));
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let yaml = about_to_expire(&world, &obs, Duration::from_secs(3), store.address);
    let gateway = world.try_start("eu-1", &yaml, None).await.unwrap();
    renewed(&world, "eu-1").await;
    assert!(metrics(&obs).await.contains("isthmus_gateway_recoveries_total{result=\"success\"} 1"));
    is_read_after_reload(&world, &obs, &gateway, &yaml).await;
}

/// The token comes after the start: the file is read again when the certificate has expired.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_file_is_read_again_after_the_certificate_has_expired() {
    let world =
        MeshWorld::created_at("test.isthmus.example", SystemTime::now() - Duration::from_secs(72 * 3600));
    let obs = world.observability("pki: {state: pki, leaf_lifetime: 24h, recover_expired: 0s}\n").await;
    let store = TestStore::start(EU_1).await;
    let yaml = about_to_expire(&world, &obs, Duration::from_secs(3), store.address);
    let gateway = world.try_start("eu-1", &yaml, None).await.unwrap();
    let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
    let file = world.dir.path().join("new-token");
    identity::write_private(&file, token.to_text().expose().as_bytes()).unwrap();
    renewed(&world, "eu-1").await;
    assert!(metrics(&obs).await.contains("isthmus_gateway_enrolments_total{result=\"success\"} 1"));
    is_read_after_reload(&world, &obs, &gateway, &yaml).await;
}

/// A thief has copied the data directory of a gateway, and is never connected at the same time, so that he is not refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_copied_data_directory_is_found_at_the_next_renewal_and_both_are_locked() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("pki: {state: pki, leaf_lifetime: 12s}\n").await;
        let store = TestStore::start(EU_1).await;
        let gateway = connected(&world, &obs, store.address, transport).await;
        let (data, copied) = (world.dir.path().join("eu-1-data"), world.dir.path().join("thief-data"));
        std::fs::create_dir(&copied).unwrap();
        for file in ["credentials.pem", "bundle.pem", "membership.json", "instance"] {
            std::fs::copy(data.join(file), copied.join(file)).unwrap();
        }
        gateway.stop().await;
        let by = format!("transport: {transport}\n");
        let yaml = cluster("thief", &[("scraper-0", store.address)], &by);
        let thief = world.try_start("thief", &yaml, None).await.unwrap();
        renewed(&world, "thief").await;
        // It is stored first. Only a certificate that is in use is reported.
        within("the new certificate is in use", async {
            while world.show("thief-data", "certs").await[0]["serial"] != stored_serial(&world, "thief") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        thief.stop().await;
        let yaml = cluster("eu-1", &[("scraper-0", store.address)], &by);
        let _gateway = world.try_start("eu-1", &yaml, None).await.unwrap();
        within("the copy is found", async {
            while !metrics(&obs).await.contains("isthmus_gateway_clones_total 1") {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        directory(&obs, "both are locked", |all| all.iter().all(|entry| !entry.healthy)).await;
        let address = obs.addresses.mesh.unwrap();
        for name in ["eu-1", "thief"] {
            assert!(!accepted(&stolen(&world, name), address, transport).await, "{transport}: {name}");
        }
    }
}

/// The time from the command to the last refused handshake and the last ended stream. `ISTHMUS_TRIES` sets how often it is
/// measured.
async fn revocation_is_measured(transport: &str) {
    let tries = std::env::var("ISTHMUS_TRIES").ok().and_then(|tries| tries.parse().ok()).unwrap_or(3);
    let world = Arc::new(MeshWorld::new());
    let obs = world.observability("").await;
    let address = obs.addresses.mesh.unwrap();
    let by = format!("transport: {transport}\n");
    let (mut commands, mut handshakes, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..tries {
        let name = format!("eu-{number}");
        let store = TestStore::start(&[("cluster", &name), ("environment", "test")]).await;
        let gateway = world.cluster(&name, &[("scraper-0", store.address)], &obs, &by).await;
        let target = format!("scraper-0.{name}");
        healthy(&obs, &target).await;
        let thief = stolen(&world, &name);
        let idle = client(&obs, &target).series(messages(-1, Duration::ZERO)).await.unwrap().into_inner();
        let serial = stored_serial(&world, &name);
        let began = Instant::now();
        let stream = async {
            assert!(within("the stream ends", count(idle)).await.is_err());
            began.elapsed()
        };
        let handshake = async {
            within("a handshake is refused", async { while accepted(&thief, address, transport).await {} })
                .await;
            began.elapsed()
        };
        let revoking = world.clone();
        let revoking = tokio::task::spawn_blocking(move || {
            let code = pki(&revoking, &format!("cert revoke --state STATE --serial {serial} --yes"));
            (code, began.elapsed())
        });
        let (stream, handshake, revoked) = tokio::join!(stream, handshake, revoking);
        let (code, command) = revoked.unwrap();
        assert_eq!(code, 0);
        commands.push(command);
        streams.push(stream);
        handshakes.push(handshake);
        gateway.stop().await;
        assert_eq!(pki(&world, &format!("cluster remove --state STATE {name} --yes")), 0);
    }
    let measured =
        [("end of the command", commands), ("last handshake", handshakes), ("last stream", streams)];
    for (what, mut times) in measured {
        times.sort();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{transport}: revocation to {what}, {tries} tries: median {median:?}, worst {worst:?}");
        assert!(worst < Duration::from_secs(5), "{transport}: {what}: {worst:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_over_quic_is_measured() {
    revocation_is_measured("quic").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_over_tcp_is_measured() {
    revocation_is_measured("tcp").await;
}
