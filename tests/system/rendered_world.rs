//! The charts, rendered by Helm, run: two client clusters and the observability cluster.
//!
//! A query finds the series of both clusters, pods that are killed come back with their identity and without a token, and an upgrade
//! of each cluster loses no query.

mod moto;
mod queries;
mod setup;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Deletion, ObjectId, PodView, Programs, isthmus};

use crate::rendered_world::queries::{Answer, ask, ask_until, replicas};
use crate::rendered_world::setup::{
    EU_1, LIMIT, NAMESPACE, OBSERVABILITY, Release, Rendered, SCRAPERS, US_1,
};

#[test]
fn rendered_charts_answer_survive_kills_and_are_upgraded_without_losing_a_query() {
    let Some(rendered) = Rendered::start(Programs { isthmus: isthmus(), previous: None }) else { return };
    let world = &rendered.world;
    println!("all pods are ready");
    wait_whole(&rendered);

    for cluster in ["eu-1", "us-1"] {
        let (kind, namespace, name) = ("Secret".to_owned(), NAMESPACE.to_owned(), "isthmus-join".to_owned());
        assert!(world.remove(cluster, &ObjectId { kind, namespace, name }), "{cluster} has tokens");
    }
    println!("a gateway and a scraper are lost");
    let gateway = rendered.pod("us-1", "-gateway-0");
    let identity = identity(&rendered, &gateway);
    let scraper = rendered.pod("eu-1", "-scraper-1");
    assert!(world.delete_pod("us-1", gateway.number, Deletion::Sudden));
    assert!(world.delete_pod("eu-1", scraper.number, Deletion::Sudden));
    let next = rendered.wait_replaced("us-1", &gateway);
    assert_eq!(self::identity(&rendered, &next), identity, "the same gateway");
    rendered.wait_replaced("eu-1", &scraper);
    wait_whole(&rendered);

    println!("the issuing CA is replaced by changing its Secret");
    rendered.replace_issuer();

    let debug = "log: {level: debug}\n";
    for (kube, values) in [("eu-1", EU_1), ("us-1", US_1), ("observability", OBSERVABILITY)] {
        upgrade(&rendered, kube, &format!("{values}{debug}"), Release::Current);
        wait_whole(&rendered);
    }
}

/// Every role of this release meets every role of the previous one, on the wire and on disk.
#[test]
fn previous_release_is_upgraded_one_cluster_at_a_time() {
    let Some(previous) = std::env::var_os("ISTHMUS_PREVIOUS_BIN").map(PathBuf::from) else {
        println!(
            "skipped: the upgrade of the previous release (ISTHMUS_PREVIOUS_BIN does not name its program)"
        );
        return;
    };
    let programs = Programs { isthmus: isthmus(), previous: Some(previous) };
    let Some(rendered) = Rendered::start(programs) else { return };
    wait_whole(&rendered);
    // New gateways and scrapers meet an old observability cluster, then a new one meets old gateways and scrapers.
    for (kube, values) in [("eu-1", EU_1), ("observability", OBSERVABILITY), ("us-1", US_1)] {
        upgrade(&rendered, kube, values, Release::Current);
        wait_whole(&rendered);
    }
    println!("and back: the objects of the earlier revision are applied, as by `helm rollback`");
    for (kube, values) in [("us-1", US_1), ("observability", OBSERVABILITY), ("eu-1", EU_1)] {
        upgrade(&rendered, kube, values, Release::Previous);
        wait_whole(&rendered);
    }
}

/// Waits for an answer with both clusters and no warnings, and until every replica has samples.
fn wait_whole(rendered: &Rendered) {
    let world = &rendered.world;
    world.wait("observability", "a whole answer", LIMIT, || match ask(world, rendered.queriers())? {
        answer if answer.clusters == both() && answer.warnings.is_empty() => Ok(()),
        answer => Err(format!("{answer:?}")),
    });
    world.wait("eu-1", "samples of all replicas", LIMIT, || match replicas(world, rendered.queriers())? {
        SCRAPERS => Ok(()),
        found => Err(format!("{found} of {SCRAPERS}")),
    });
}

fn both() -> BTreeSet<String> {
    BTreeSet::from(["eu-1".to_owned(), "us-1".to_owned()])
}

/// Upgrades a release while queries run: none fails, and none lacks a cluster without a warning.
fn upgrade(rendered: &Rendered, kube: &str, values: &str, release: Release) {
    println!("{kube} gets the objects of the {release:?} release");
    let begun = Instant::now();
    let answers = answers_during(rendered, kube, values, release);
    let failed: Vec<&String> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {} queries failed: {failed:?}", failed.len(), answers.len());
    let partial: Vec<&Answer> = answers.iter().flatten().filter(|answer| answer.clusters != both()).collect();
    let counts: String = answers.iter().flatten().map(|answer| answer.clusters.len().to_string()).collect();
    println!("{kube}: upgraded in {:?}; clusters in each answer: {counts}", begun.elapsed());
    let silent: Vec<&&Answer> = partial.iter().filter(|answer| answer.warnings.is_empty()).collect();
    assert!(silent.is_empty(), "answers that lack a cluster without a warning: {silent:?}");
    assert!(kube != "eu-1" || partial.is_empty(), "two gateways and two scrapers: {partial:?}");
}

/// Upgrades a release while queries run, and returns what they were answered.
fn answers_during(
    rendered: &Rendered,
    kube: &str,
    values: &str,
    release: Release,
) -> Vec<Result<Answer, String>> {
    let (world, at, is_over) = (&rendered.world, rendered.queriers(), AtomicBool::new(false));
    let before: BTreeSet<u32> = world.pods(kube).iter().map(|pod| pod.number).collect();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask_until(world, at, &is_over));
        let settled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            rendered.upgrade(kube, values, release);
            world.wait_settled(kube, LIMIT);
        }));
        is_over.store(true, Ordering::Relaxed);
        let answers = asked.join().expect("the queries do not panic");
        settled.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let pods = world.pods(kube);
        let kept: Vec<&PodView> = pods.iter().filter(|pod| before.contains(&pod.number)).collect();
        // What has no flag for its log is not changed.
        assert!(kept.iter().all(|pod| pod.name.contains("-pushgateway-")), "not replaced: {kept:?}");
        answers
    })
}

/// The identity of a gateway, as it shows it to its owner.
fn identity(rendered: &Rendered, pod: &PodView) -> String {
    let status = ["isthmus", "gateway", "status", "--config=/etc/isthmus/gateway/gateway.yaml", "--json"];
    let output = rendered.world.exec(pod.number, "gateway", &status).expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let status: Value =
        serde_json::from_str(&text).unwrap_or_else(|cause| panic!("{cause}: {text} {output:?}"));
    status["identity"].as_str().unwrap_or_else(|| panic!("{status}")).to_owned()
}

/// Starts the same clusters for someone who wants to look at them.
#[test]
#[ignore = "runs for ISTHMUS_WORLD_MINUTES, to be looked at"]
fn rendered_world_by_hand() {
    let minutes = std::env::var("ISTHMUS_WORLD_MINUTES").ok().and_then(|minutes| minutes.parse().ok());
    let minutes: u64 = minutes.expect("ISTHMUS_WORLD_MINUTES is a number of minutes");
    let Some(rendered) = Rendered::start(Programs { isthmus: isthmus(), previous: None }) else { return };
    for kube in ["observability", "eu-1", "us-1"] {
        println!(
            "{kube}: logs in {}; the network: {}",
            rendered.world.logs(kube).display(),
            rendered.world.enter(kube)
        );
        for pod in rendered.world.pods(kube) {
            println!("  {} {} {}", pod.address, pod.name, pod.state);
        }
    }
    let enter = rendered.world.enter("observability");
    println!("query: {enter} curl 'http://{}/api/v1/query?query=up'", rendered.queriers());
    std::thread::sleep(Duration::from_secs(minutes * 60));
}
