//! An issuing CA that is delivered in a folder, as Kubernetes mounts a Secret.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use crate::stores::TestStore;
use crate::trust::pki;
use crate::world::{MeshWorld, RunningGateway, directory, healthy, observability, within};

const PKI: &str = "pki: {state: pki, leaf_lifetime: 24h, issuer_dir: secret, trust_domain: test.isthmus.example, cluster: obs}\n";

/// Puts the files of the PKI into the folder, as the next version of a Secret: the files are links to a folder that is replaced.
fn deliver(world: &MeshWorld, version: &str) {
    let (secret, data) = (world.dir.path().join("secret"), world.dir.path().join(version));
    fs::create_dir_all(&secret).unwrap();
    fs::create_dir(&data).unwrap();
    for file in ["issuer.pem", "bundle.pem"] {
        fs::copy(world.dir.path().join("offline").join(file), data.join(file)).unwrap();
        if !secret.join(file).exists() {
            symlink(PathBuf::from("..data").join(file), secret.join(file)).unwrap();
        }
    }
    let next = secret.join("..next");
    symlink(&data, &next).unwrap();
    fs::rename(&next, secret.join("..data")).unwrap();
}

/// Where the PKI is created, apart from what the gateway has.
fn offline() -> MeshWorld {
    let world = MeshWorld::new();
    fs::rename(world.dir.path().join("pki"), world.dir.path().join("offline")).unwrap();
    fs::write(world.dir.path().join("passphrase"), "correct horse battery\n").unwrap();
    world
}

async fn joins(world: &MeshWorld, obs: &RunningGateway, cluster: &'static str) {
    let labels = &[("cluster", cluster), ("environment", "test")];
    let store = TestStore::start(labels).await;
    let gateway = world.cluster(cluster, &[("scraper-0", store.address)], obs, "").await;
    healthy(obs, &format!("scraper-0.{cluster}")).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuing_ca_is_delivered_and_replaced_while_the_gateway_runs() {
    let world = offline();
    let error = world.try_start("obs", &observability(PKI), None).await.err().unwrap().to_string();
    assert!(error.contains("pki.issuer_dir") && error.contains("issuer.pem"), "{error}");
    deliver(&world, "1");
    let obs = world.observability(PKI).await;
    joins(&world, &obs, "eu-1").await;
    let renew = "issuer renew --state DIR/offline --root-out DIR/roots --root-passphrase-file DIR/passphrase";
    assert_eq!(pki(&world, renew), 0);
    deliver(&world, "2");
    let ca = |folder: &str| fs::read(world.dir.path().join(folder).join("issuer.pem")).unwrap();
    within("the next issuing CA is used", async {
        while ca("pki") != ca("offline") {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    joins(&world, &obs, "eu-2").await;
    obs.stop().await;
    // The inventory is in the state directory: a gateway that starts again knows the clusters, without the files, too.
    fs::remove_dir_all(world.dir.path().join("secret")).unwrap();
    let obs = world.observability(PKI).await;
    directory(&obs, "both clusters are known", |all| all.len() == 2).await;
}
