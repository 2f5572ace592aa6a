//! A cluster that reaches the observability side only through a real proxy of HTTP (tinyproxy).

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    stores::TestStore,
    world::{MeshWorld, client, cluster, count, directory, healthy, messages, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test"), ("replica", "0")];

/// A proxy that runs until it is dropped.
struct Proxy {
    process: Child,
    address: SocketAddr,
    log: std::path::PathBuf,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Proxy {
    /// Starts it; `None` where it is not installed, which is said.
    async fn start(world: &MeshWorld) -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = world.dir.path().join("proxy.log");
        let config = format!(
            "Port {}\nListen 127.0.0.1\nAllow 127.0.0.1\nMaxClients 50\nLogLevel Connect\nLogFile \"{}\"\nBasicAuth user secret\n",
            address.port(),
            log.display()
        );
        let file = world.write("proxy.conf", &config);
        let started = Command::new("tinyproxy")
            .arg("-d")
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = started else {
            eprintln!("skipped: tinyproxy is not installed");
            return None;
        };
        let proxy = Self { process, address, log };
        within("the start of the proxy", async {
            while TcpStream::connect(address).is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        Some(proxy)
    }

    /// Connections that it has opened.
    fn tunnels(&self) -> usize {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter(|line| line.contains("CONNECT ")).count()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_joins_and_is_read_through_a_proxy() {
    let world = MeshWorld::new();
    let Some(proxy) = Proxy::start(&world).await else { return };
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let targets = &[("scraper-0", store.address)];
    let through = format!("transport: tcp\nproxy: 'http://user:secret@{}'\n", proxy.address);
    let gateway = world.cluster("eu-1", targets, &obs, &through).await;
    assert_eq!(healthy(&obs, "scraper-0.eu-1").await.transport, "tcp");
    assert!(proxy.tunnels() >= 2, "joining and dialling used {} tunnels", proxy.tunnels());
    let stream =
        client(&obs, "scraper-0.eu-1").series(messages(500, Duration::ZERO)).await.unwrap().into_inner();
    assert_eq!(count(stream).await.unwrap(), 500);
    gateway.stop().await;

    // QUIC is tried directly, and wins where it answers.
    let auto = through.replace("transport: tcp\n", "");
    let gateway = world.try_start("eu-1", &cluster("eu-1", targets, &auto), None).await.unwrap();
    assert_eq!(healthy(&obs, "scraper-0.eu-1").await.transport, "quic");
    gateway.stop().await;

    // A proxy that refuses is named, without the password.
    let wrong = through.replace("secret", "guess");
    let _gateway = world.try_start("eu-1", &cluster("eu-1", targets, &wrong), None).await.unwrap();
    directory(&obs, "it is not connected", |entries| entries.iter().all(|entry| !entry.healthy)).await;
    let attempts = world.change("eu-1-data", "connect-test").await;
    let error = attempts[0]["error"].as_str().unwrap();
    assert!(error.contains(&format!("proxy {}", proxy.address)) && !error.contains("guess"), "{attempts}");
    let token = world.token("us-1", &[obs.addresses.mesh.unwrap()]);
    let refused =
        world.try_start("us-1", &cluster("us-1", targets, &wrong), Some(&token)).await.err().unwrap();
    let refused = refused.to_string();
    assert!(refused.contains("the token was not used") && refused.contains("proxy"), "{refused}");
}
