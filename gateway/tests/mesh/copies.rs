//! Two processes that use the certificate of one gateway, and what only looks like it.

use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    stores::{RunningStore, TestStore},
    trust::{metrics, renewed, stored_serial},
    world::{MeshWorld, RunningGateway, client, cluster, count, directory, healthy, messages, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test")];

/// Copies what a thief needs from a data directory.
fn copy_data(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in ["credentials.pem", "bundle.pem", "membership.json", "instance"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

/// The value of the counter of copies.
async fn copies(obs: &RunningGateway) -> u64 {
    let page = metrics(obs).await;
    let line = page.lines().find_map(|line| line.strip_prefix("isthmus_gateway_clones_total "));
    line.expect("the counter of copies").parse().unwrap()
}

async fn until_copies(obs: &RunningGateway, least: u64) {
    within("the copy is found", async {
        while copies(obs).await < least {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn read(obs: &RunningGateway) -> usize {
    let mut client = client(obs, "scraper-0.eu-1");
    count(client.series(messages(3, Duration::ZERO)).await.unwrap().into_inner()).await.unwrap()
}

/// The gateway of eu-1, and the configuration of a thief that offers a store of his own under the same name.
async fn with_thief(
    world: &MeshWorld,
    obs: &RunningGateway,
    transport: &str,
) -> (RunningGateway, [RunningStore; 2], String) {
    let stores = [TestStore::start(EU_1).await, TestStore::start(EU_1).await];
    let by = format!("transport: {transport}\n");
    let owner = world.cluster("eu-1", &[("scraper-0", stores[0].address)], obs, &by).await;
    healthy(obs, "scraper-0.eu-1").await;
    let targets = [("scraper-0", stores[1].address), ("scraper-1", stores[1].address)];
    let yaml = cluster("thief", &targets, &by);
    (owner, stores, yaml)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_a_copied_certificate_gets_no_requests() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("").await;
        let (_owner, [own, foreign], yaml) = with_thief(&world, &obs, transport).await;
        copy_data(&world.dir.path().join("eu-1-data"), &world.dir.path().join("thief-data"));
        let thief = world.try_start("thief", &yaml, None).await.unwrap();
        // It tries again, and is refused again.
        until_copies(&obs, 2).await;
        for _ in 0..20 {
            assert_eq!(read(&obs).await, 3);
        }
        assert_eq!((own.store.calls(), foreign.store.calls()), (20, 0), "{transport}");
        let entries = directory(&obs, "the directory", |all| !all.is_empty()).await;
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["scraper-0.eu-1"], "{transport}: the targets of the thief are not read");
        thief.stop().await;
    }
}

/// The thief has the certificate from before the last renewal, which is still valid.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_an_older_certificate_of_the_line_gets_no_requests() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("pki: {state: pki, leaf_lifetime: 12s}\n").await;
        let (_owner, [_own, foreign], yaml) = with_thief(&world, &obs, transport).await;
        let copied = stored_serial(&world, "eu-1");
        copy_data(&world.dir.path().join("eu-1-data"), &world.dir.path().join("thief-data"));
        renewed(&world, "eu-1").await;
        assert_ne!(stored_serial(&world, "eu-1"), copied);
        let thief = world.try_start("thief", &yaml, None).await.unwrap();
        until_copies(&obs, 1).await;
        assert_eq!(read(&obs).await, 3);
        assert_eq!(foreign.store.calls(), 0, "{transport}");
        // It could not renew, so nothing is locked.
        assert_eq!(stored_serial(&world, "thief"), copied);
        thief.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_of_a_cluster_and_their_restarts_are_no_copies() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("pki: {state: pki, leaf_lifetime: 6s}\n").await;
        let store = TestStore::start(EU_1).await;
        let yaml = cluster("eu-1", &[("scraper-0", store.address)], &format!("transport: {transport}\n"));
        let yamls = ["a", "b"].map(|name| yaml.replace("eu-1-data", &format!("{name}-data")));
        let token = || world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
        let first = world.try_start("a", &yamls[0], Some(&token())).await.unwrap();
        let _second = world.try_start("b", &yamls[1], Some(&token())).await.unwrap();
        healthy(&obs, "scraper-0.eu-1").await;
        first.stop().await;
        let _first = world.try_start("a", &yamls[0], None).await.unwrap();
        // Each connection is replaced after a renewal, while the one before is open.
        renewed(&world, "a").await;
        renewed(&world, "b").await;
        within("two sessions", async {
            while world.show("obs-data", "status").await["connections"] != 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(copies(&obs).await, 0, "{transport}");
    }
}

/// A process that is killed says nothing on QUIC. The next one waits until it is known that the one before has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_killed_is_no_copy_of_itself() {
    for transport in ["quic", "tcp"] {
        let world = Arc::new(MeshWorld::new());
        let obs = world.observability("").await;
        let store = TestStore::start(EU_1).await;
        let yaml = cluster("eu-1", &[("scraper-0", store.address)], &format!("transport: {transport}\n"));
        let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
        // On a runtime of its own, which ends as abruptly as a process does.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (starting, killed) = (world.clone(), yaml.clone());
        runtime.spawn(async move {
            let _gateway = starting.try_start("killed", &killed, Some(&token)).await.unwrap();
            std::future::pending::<()>().await;
        });
        healthy(&obs, "scraper-0.eu-1").await;
        runtime.shutdown_background();
        let _gateway = within("the data directory is free", async {
            loop {
                match world.try_start("eu-1", &yaml, None).await {
                    Ok(gateway) => return gateway,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        within("the new process is read", async {
            while world.show("eu-1-data", "status").await["streams"] != 0 || store.store.calls() == 0 {
                let mut client = client(&obs, "scraper-0.eu-1");
                let asked = client.series(messages(3, Duration::ZERO));
                // A request to the old process hangs until its connection is given up.
                let _ = tokio::time::timeout(Duration::from_millis(200), asked).await;
            }
        })
        .await;
        assert_eq!(copies(&obs).await, 0, "{transport}");
    }
}
