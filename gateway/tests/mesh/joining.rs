//! Joining with a token, and tokens that must be rejected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    stores::TestStore,
    world::{MeshWorld, client, cluster, healthy, new_token, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test")];

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_joins_with_a_token_and_joins_again_without_using_it() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
    let yaml = cluster("eu-1", &[("scraper-0", store.address)], "");
    let gateway = world.try_start("eu-1", &yaml, Some(&token)).await.unwrap();
    let entry = healthy(&obs, "scraper-0.eu-1").await;
    assert_eq!((entry.transport.as_str(), entry.environment.as_str()), ("quic", "test"));
    assert!(entry.round_trip_seconds > 0.0);
    gateway.stop().await;

    // Started again with the same arguments: the token was used, but the stored certificate is valid.
    let gateway = world.try_start("eu-1", &yaml, Some(&token)).await.unwrap();
    healthy(&obs, "scraper-0.eu-1").await;
    gateway.stop().await;
    let gateway = world.try_start("eu-1", &yaml, None).await.unwrap();
    healthy(&obs, "scraper-0.eu-1").await;

    // A token of another cluster is rejected for this data directory.
    let other = world.token("us-1", &[obs.addresses.mesh.unwrap()]);
    gateway.stop().await;
    let error = world.try_start("eu-1", &yaml, Some(&other)).await.err().unwrap().to_string();
    assert!(error.contains("cluster/us-1/gateway") && error.contains("another data directory"), "{error}");
}

/// Checks that the gateway does not start, and its exit code: 2 if a restart does not help.
async fn refused(world: &MeshWorld, name: &str, token: &pki::JoinToken, code: u8, expected: &str) {
    let yaml = cluster(name, &[("scraper-0", "127.0.0.1:1".parse().unwrap())], "");
    let error = world.try_start(name, &yaml, Some(token)).await.err().expect("joined");
    let (error, exit_code) = (error.to_string(), error.exit_code());
    assert_eq!(exit_code, code, "{error}");
    assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    assert!(!world.dir.path().join(format!("{name}-data/credentials.pem")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_expired_or_unknown_token_is_rejected_in_one_line() {
    // Old enough for a token that has expired.
    let created = SystemTime::now() - Duration::from_secs(7200);
    let world = MeshWorld::created_at("test.isthmus.example", created);
    let obs = world.observability("").await;
    let mesh = obs.addresses.mesh.unwrap();

    let used = world.token("eu-1", &[mesh]);
    let store = TestStore::start(EU_1).await;
    let yaml = cluster("eu-1", &[("scraper-0", store.address)], "");
    let _gateway = world.try_start("eu-1", &yaml, Some(&used)).await.unwrap();
    refused(&world, "thief", &used, 2, "already used").await;

    let expired = world.token_at("eu-2", &[mesh], SystemTime::now() - Duration::from_secs(3600));
    refused(&world, "eu-2", &expired, 2, "expired").await;

    // Signed under the same roots, but not in the inventory, like a guessed token.
    let unknown = world.forked_issuer().create_token(&new_token("eu-3", mesh), SystemTime::now()).unwrap();
    refused(&world, "eu-3", &unknown, 2, "unknown to this issuer").await;

    let unreachable = world.token("eu-4", &["127.0.0.1:1".parse().unwrap()]);
    refused(&world, "eu-4", &unreachable, 1, "the token was not used").await;
}

/// A configuration of one cluster with the token, or the data directory, of another one.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_or_a_certificate_of_another_cluster_than_the_configuration_says_is_refused() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
    let yaml = |identity: &str| {
        cluster("eu-1", &[("scraper-0", "127.0.0.1:1".parse().unwrap())], &format!("identity: {identity}\n"))
    };
    let right = "{trust_domain: test.isthmus.example, cluster: eu-1, environment: test}";
    let refused = async |identity: &str, token: Option<&pki::JoinToken>, expected: &str| {
        let error = world.try_start("eu-1", &yaml(identity), token).await.err().expect("started");
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().starts_with(expected), "{error}");
    };
    let of_token =
        "identity.trust_domain: is \"staging.example\", but the token is for \"test.isthmus.example\"";
    refused("{trust_domain: staging.example}", Some(&token), of_token).await;
    refused("{cluster: us-1}", Some(&token), "identity.cluster: is \"us-1\", but the token is for").await;

    // The token was not used: it still works.
    let gateway = world.try_start("eu-1", &yaml(right), Some(&token)).await.unwrap();
    // A reload is refused, too.
    world.write("eu-1.yaml", &yaml("{environment: production}"));
    let error = gateway.reload.run().await.unwrap_err().to_string();
    assert!(error.contains("identity.environment: is \"production\", but the certificate is for"), "{error}");
    gateway.stop().await;

    let of_certificate = "identity.environment: is \"production\", but the certificate is for \"test\"";
    refused("{environment: production}", None, of_certificate).await;
}

/// A relay between the joining gateway and an impostor counts the application data that the gateway sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_under_another_root_never_receives_the_secret() {
    let (world, foreign) = (MeshWorld::new(), MeshWorld::new());
    // The same names; only the roots differ.
    let impostor = foreign.observability("").await;
    let (listener, seen) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Arc::new(AtomicUsize::new(0)));
    let address = listener.local_addr().unwrap();
    let (to, counted) = (impostor.addresses.mesh.unwrap(), seen.clone());
    tokio::spawn(async move {
        while let Ok((joiner, _)) = listener.accept().await {
            let gateway = TcpStream::connect(to).await.unwrap();
            let (mut from_joiner, mut to_joiner) = joiner.into_split();
            let (mut from_gateway, mut to_gateway) = gateway.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_gateway, &mut to_joiner).await });
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from_joiner.read(&mut buffer).await {
                counted.fetch_add(application_data(&buffer[..n]), Ordering::SeqCst);
                to_gateway.write_all(&buffer[..n]).await.unwrap();
            }
        }
    });
    // The foreign issuer has a token of the same cluster, so only the pins can stop the join.
    foreign.token("eu-1", &[address]);
    let token = world.token("eu-1", &[address]);
    refused(&world, "eu-1", &token, 1, "no root that the token pins").await;
    assert_eq!(seen.load(Ordering::SeqCst), 0, "bytes of application data left the joiner");
}

/// The number of bytes in TLS records of application data that are larger than an alert, as the request with the secret
/// would be.
fn application_data(bytes: &[u8]) -> usize {
    let (mut rest, mut found) = (bytes, 0);
    while let [kind, _, _, high, low, after @ ..] = rest {
        let length = usize::from(*high) << 8 | usize::from(*low);
        // 23 is application data. TLS 1.3 encrypts alerts with this type too (2 bytes, 1 byte of type, 16 bytes of tag).
        if *kind == 23 && length > 19 {
            found += length;
        }
        rest = after.get(length..).unwrap_or_default();
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_or_a_certificate_the_error_says_how_to_join() {
    let world = MeshWorld::new();
    let yaml = cluster("eu-1", &[("scraper-0", "127.0.0.1:1".parse().unwrap())], "");
    let error = world.try_start("eu-1", &yaml, None).await.err().unwrap().to_string();
    assert!(error.contains("--join") && error.contains("token create"), "{error}");
}

/// A cluster that listens and cannot dial out joins over a connection of the observability gateway.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_listens_joins_when_it_is_dialled() {
    let world = MeshWorld::new();
    let at = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dials = format!("clusters: [{{name: eu-1, dial: ['{at}']}}]\n");
    // A gateway under another root dials first, and never sees the secret.
    let other = MeshWorld::new();
    let impostor = other.observability(&dials).await;
    let obs = world.observability(&dials).await;
    let store = TestStore::start(EU_1).await;
    // Nothing answers at the address of the token.
    let nowhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let token = world.token("eu-1", &[nowhere]);
    let yaml = cluster("eu-1", &[("scraper-0", store.address)], &format!("listen: '{at}'\n"));
    let joining = world.try_start("eu-1", &yaml, Some(&token));
    let gateway = within("the cluster joins", joining).await.unwrap();
    assert_eq!(gateway.addresses.mesh, Some(at));
    healthy(&obs, "scraper-0.eu-1").await;
    let names = proto::thanos::LabelNamesRequest::default();
    client(&impostor, "scraper-0.eu-1").label_names(names.clone()).await.unwrap_err();
    client(&obs, "scraper-0.eu-1").label_names(names).await.unwrap();
}
