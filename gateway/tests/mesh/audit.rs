//! The audit log of the issuer, which an attacker on its machine alters.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use pki::Issuer;
use serde_json::Value;

use crate::{
    stores::TestStore,
    trust::{metrics, pki, started_again},
    world::{MeshWorld, RunningGateway, healthy, new_token, observability, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test")];
const ALTERED: &str = "isthmus_gateway_audit_log_altered";

/// The number of the newest head that the gateway of eu-1 has stored.
fn kept(world: &MeshWorld) -> u64 {
    let file = world.dir.path().join("eu-1-data/audit-heads.json");
    let Ok(text) = std::fs::read_to_string(file) else { return 0 };
    let kept: Value = serde_json::from_str(&text).unwrap();
    kept["heads"].as_array().unwrap().last().map_or(0, |head| head["number"].as_u64().unwrap())
}

async fn until_kept(world: &MeshWorld, least: u64) {
    within(&format!("a head of at least {least} entries is kept"), async {
        while kept(world) < least {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn until_altered(gateways: [&RunningGateway; 2], expected: u8) {
    within(&format!("{ALTERED} is {expected}"), async {
        for gateway in gateways {
            while !metrics(gateway).await.contains(&format!("{ALTERED} {expected}\n")) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    })
    .await;
}

async fn shown(world: &MeshWorld, data_dir: &str) -> String {
    world.show(data_dir, "status").await["audit_log"].as_str().unwrap_or_default().to_owned()
}

/// Creates tokens, each with its entry.
fn append(issuer: &Issuer, tokens: usize) -> u64 {
    for _ in 0..tokens {
        issuer.create_token(&new_token("eu-2", "127.0.0.1:1".parse().unwrap()), SystemTime::now()).unwrap();
    }
    issuer.audit_entries().unwrap()
}

/// The state of the issuer is replaced with another one, whose chain is intact: an older copy, to which `more` tokens were added.
async fn another_log_is_found(transport: &str, more: usize, expected: [&str; 2]) {
    let world = MeshWorld::new();
    std::fs::write(world.dir.path().join("passphrase"), "correct horse battery\n").unwrap();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let by = format!("transport: {transport}\n");
    let gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, &by).await;
    healthy(&obs, "scraper-0.eu-1").await;
    let yaml = observability("").replace("127.0.0.1:0", &obs.addresses.mesh.unwrap().to_string());
    obs.stop().await;

    let older = world.forked_issuer();
    // The head that is kept has entries that the older copy has not.
    let entries = append(&world.issuer(), 3);
    let obs = started_again(&world, &yaml).await;
    until_kept(&world, entries).await;
    assert!(shown(&world, "eu-1-data").await.starts_with(&format!("head {entries}:")));
    until_altered([&obs, &gateway], 0).await;
    obs.stop().await;

    append(&older, more);
    drop(older);
    replace_inventory(world.dir.path());
    let obs = started_again(&world, &yaml).await;
    until_altered([&obs, &gateway], 1).await;
    let text = shown(&world, "eu-1-data").await;
    // A new head or the proof for the kept one may come first.
    assert!(text.starts_with("ALTERED: ") && expected.iter().any(|why| text.contains(why)), "{text}");
    assert!(shown(&world, "obs-data").await.starts_with("ALTERED: 1 connected gateways"));
    assert_eq!(pki(&world, "doctor --state STATE"), 11, "critical");
    assert_eq!(kept(&world), entries, "the evidence is kept");

    // A root accepts the log as it is now, as after the restore of a backup.
    let roots = "--root-out DIR/roots --root-passphrase-file DIR/passphrase";
    let sign = "bundle sign --trust-domain test.isthmus.example --bundle STATE/bundle.pem --out DIR/next.pem";
    assert_eq!(pki(&world, &format!("{sign} {roots}")), 0);
    assert_eq!(pki(&world, "bundle install --state STATE DIR/next.pem"), 0);
    until_altered([&obs, &gateway], 0).await;
    assert!(shown(&world, "eu-1-data").await.starts_with("head "));
    assert_ne!(pki(&world, "doctor --state STATE"), 11);
}

/// Puts the inventory of the forked issuer into the place of the other one.
fn replace_inventory(dir: &Path) {
    for end in ["", "-wal", "-shm"] {
        let name = format!("inventory.db{end}");
        let (from, to) = (dir.join("fork").join(&name), dir.join("pki").join(&name));
        let _ = std::fs::remove_file(&to);
        if from.exists() {
            std::fs::copy(from, to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_end_was_cut_is_found_over_quic() {
    another_log_is_found("quic", 0, ["was removed from it", "it had "]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_written_again_is_found_over_tcp() {
    another_log_is_found("tcp", 20, ["are not those whose head was signed at"; 2]).await;
}
