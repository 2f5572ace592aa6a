use futures::FutureExt;
use proto::isthmus::mesh::v1::DirectoryEntry;
use proto::thanos::{Label, LabelSet, info::InfoResponse};

use super::*;
use crate::directory::labels::bound_labels;
use crate::peer_text::MAX_CHARS;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn registration(cluster: &str, environment: &str) -> ClusterRegistration {
    ClusterRegistration { cluster: name(cluster), environment: environment.to_owned(), joined: true }
}

fn info(labels: &[(&str, &str)]) -> InfoResponse {
    let labels = labels.iter().map(|(n, v)| Label { name: (*n).into(), value: (*v).into() }).collect();
    InfoResponse { label_sets: vec![LabelSet { labels }], ..InfoResponse::default() }
}

fn healthy(target: &str, info: InfoResponse) -> Target {
    Target { name: target.into(), healthy: true, info: Some(info), ..Target::default() }
}

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "production"), ("replica", "0")];

fn connected() -> (Directory, Name) {
    let directory = Directory::new(GatewayMetrics::unregistered());
    let cluster = name("eu-1");
    directory.set_registered(&[registration("eu-1", "production"), registration("us-1", "production")]);
    directory.session_opened(&cluster, SessionId(1), "one", Transport::Quic);
    let targets = Targets { targets: vec![healthy("scraper-0", info(EU_1))] };
    directory.targets_reported(&cluster, SessionId(1), targets);
    directory.round_trip_measured(&cluster, SessionId(1), Duration::from_millis(3));
    (directory, cluster)
}

fn all(directory: &Directory) -> Vec<DirectoryEntry> {
    directory.changes(0).entries.iter().map(|entry| DirectoryEntry::clone(entry)).collect()
}

fn entries(directory: &Directory) -> Vec<(String, bool, String)> {
    all(directory).into_iter().map(|e| (e.name, e.healthy, e.last_error)).collect()
}

#[test]
fn a_registered_cluster_is_listed_before_its_first_connection() {
    let (directory, _) = connected();
    assert_eq!(
        entries(&directory),
        [
            ("scraper-0.eu-1".into(), true, String::new()),
            (
                "us-1".into(),
                false,
                "cluster us-1 is not connected: has not connected since this gateway started".into()
            ),
        ]
    );
    let first = &all(&directory)[0];
    assert_eq!((first.transport.as_str(), first.round_trip_seconds), ("quic", 0.003));
    assert_eq!(first.bound_labels, Some(bound_labels(&name("eu-1"), "production")));
}

#[test]
fn a_cluster_that_is_only_expected_is_accepted_and_not_missing() {
    let directory = Directory::new(GatewayMetrics::unregistered());
    let cluster = name("eu-1");
    let expected = ClusterRegistration { joined: false, ..registration("eu-1", "production") };
    directory.set_registered(std::slice::from_ref(&expected));
    assert!(directory.registration(&cluster).is_some());
    assert_eq!(entries(&directory), []);
    directory.connecting_failed(&cluster, "no answer");
    assert_eq!(entries(&directory), []);
    directory.set_registered(&[ClusterRegistration { joined: true, ..expected.clone() }]);
    assert_eq!(entries(&directory).len(), 1);
    // Removed and registered again, it is only expected.
    directory.set_registered(&[]);
    directory.set_registered(&[expected]);
    assert_eq!(entries(&directory), []);
    directory.session_opened(&cluster, SessionId(1), "one", Transport::Quic);
    assert_eq!(entries(&directory).len(), 1, "a connected cluster has joined");
}

#[test]
fn metrics_say_which_clusters_are_connected() {
    let mut registry = runtime::Registry::default();
    let directory = Directory::new(GatewayMetrics::new(&mut registry));
    let metrics = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let lines = text.lines().filter_map(|l| l.strip_prefix("isthmus_gateway_cluster_connected"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let both = [registration("eu-1", "production"), registration("us-1", "production")];
    directory.set_registered(&both);
    assert_eq!(metrics(), [r#"{peer="eu-1"} 0"#, r#"{peer="us-1"} 0"#]);
    directory.session_opened(&name("eu-1"), SessionId(1), "one", Transport::Quic);
    assert_eq!(metrics(), [r#"{peer="eu-1"} 1"#, r#"{peer="us-1"} 0"#]);
    directory.session_closed(&name("eu-1"), SessionId(1), "timed out");
    directory.set_registered(&both[..1]);
    assert_eq!(metrics(), [r#"{peer="eu-1"} 0"#]);
    // One that has not joined yet is not missed.
    let expected = ClusterRegistration { joined: false, ..registration("new", "production") };
    directory.set_registered(std::slice::from_ref(&expected));
    assert!(metrics().is_empty());
    directory.set_registered(&[ClusterRegistration { joined: true, ..expected }]);
    assert_eq!(metrics(), [r#"{peer="new"} 0"#]);
}

#[test]
fn a_disconnected_cluster_is_listed_with_its_info_while_it_is_registered() {
    let (directory, cluster) = connected();
    directory.session_opened(&cluster, SessionId(2), "one", Transport::Tcp);
    let targets = Targets { targets: vec![healthy("scraper-0", info(EU_1))] };
    directory.targets_reported(&cluster, SessionId(2), targets);
    directory.session_closed(&cluster, SessionId(1), "connection lost");
    assert!(entries(&directory)[0].1, "one of two sessions is enough");
    directory.session_closed(&cluster, SessionId(2), "timed\nout");
    let entry = &all(&directory)[0];
    assert_eq!((entry.healthy, entry.transport.as_str()), (false, ""));
    assert_eq!(entry.last_error, "cluster eu-1 is not connected: timed out");
    assert!(entry.info.is_some());

    directory.set_registered(&[registration("us-1", "production")]);
    assert_eq!(entries(&directory).len(), 1);
    directory.session_opened(&cluster, SessionId(3), "one", Transport::Quic);
    assert_eq!(entries(&directory).len(), 1, "an unregistered cluster was listed");
}

#[test]
fn a_target_with_foreign_labels_is_unhealthy_and_keeps_its_last_good_info() {
    let (directory, cluster) = connected();
    let spoofed = info(&[("cluster", "us-1"), ("environment", "production")]);
    let targets = Targets { targets: vec![healthy("scraper-0", spoofed)] };
    directory.targets_reported(&cluster, SessionId(1), targets);
    let first = &all(&directory)[0];
    assert!(!first.healthy);
    assert_eq!(first.info, Some(info(EU_1)), "the last valid Info is kept, the spoofed one is not shown");
}

#[test]
fn reports_of_a_cluster_are_bounded() {
    let (directory, cluster) = connected();
    let mut targets: Vec<_> = (0..MAX_TARGETS + 5).map(|i| healthy(&format!("t{i}"), info(EU_1))).collect();
    targets[0].name = "../etc".into();
    targets[1].healthy = false;
    targets[1].last_error = "x\n".repeat(5000);
    directory.targets_reported(&cluster, SessionId(1), Targets { targets });
    let entries = entries(&directory);
    assert_eq!(entries.len(), MAX_TARGETS - 1 + 1, "those of eu-1, and the entry of us-1");
    assert!(entries.iter().all(|(_, _, error)| error.len() <= MAX_CHARS && !error.contains('\n')));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_starts_waits_for_its_clusters_and_not_for_ever() {
    let settles_after = async |directory: &Directory| {
        let began = Instant::now();
        directory.settled().await;
        began.elapsed()
    };
    let directory = Directory::new(GatewayMetrics::unregistered());
    let cluster = name("eu-1");
    let expected = ClusterRegistration { joined: false, ..registration("new", "production") };
    directory.set_registered(&[registration("eu-1", "production"), expected]);
    assert!(directory.settled().now_or_never().is_none());
    directory.session_opened(&cluster, SessionId(1), "one", Transport::Quic);
    directory.targets_named(&cluster, SessionId(1), vec!["a".into(), "b".into()]);
    let last_check = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    directory.target_reported(&cluster, SessionId(1), Target { last_check, ..healthy("a", info(EU_1)) });
    let unhealthy = Target { name: "b".into(), last_error: "is away".into(), ..Target::default() };
    directory.target_reported(&cluster, SessionId(1), unhealthy.clone());
    assert!(directory.settled().now_or_never().is_none(), "b was not looked at yet");
    directory.target_reported(&cluster, SessionId(1), Target { last_check, ..unhealthy });
    assert_eq!(settles_after(&directory).await, Duration::ZERO);
    // What happens later does not count.
    directory.session_closed(&cluster, SessionId(1), "killed");
    assert_eq!(settles_after(&directory).await, Duration::ZERO);

    let directory = Directory::new(GatewayMetrics::unregistered());
    directory.set_registered(&[registration("eu-1", "production")]);
    assert_eq!(settles_after(&directory).await, SETTLING);
    assert_eq!(settles_after(&directory).await, Duration::ZERO);
    let directory = Directory::new(GatewayMetrics::unregistered());
    directory.set_registered(&[]);
    assert_eq!(settles_after(&directory).await, Duration::ZERO, "there is no cluster to wait for");
}

fn offer(directory: &Directory, target: &str) -> Offer {
    directory.offer(&target.parse().unwrap())
}

/// Two gateways of a cluster, with one target in common.
#[test]
fn each_target_is_offered_by_the_sessions_that_have_it() {
    let (directory, cluster) = connected();
    directory.session_opened(&cluster, SessionId(2), "two", Transport::Tcp);
    let (both, one, two) = (&[SessionId(1), SessionId(2)], &[SessionId(1)], &[SessionId(2)]);
    assert_eq!(offer(&directory, "scraper-1.eu-1"), Offer::Sessions(two.to_vec()), "not known yet");
    directory.targets_named(&cluster, SessionId(2), vec!["scraper-0".into(), "scraper-1".into()]);
    assert_eq!(offer(&directory, "scraper-0.eu-1"), Offer::Sessions(one.to_vec()), "it is healthy there");
    assert_eq!(offer(&directory, "scraper-1.eu-1"), Offer::Sessions(two.to_vec()));
    assert_eq!(offer(&directory, "scraper-2.eu-1"), Offer::Unknown);
    assert_eq!(offer(&directory, "scraper-0.us-1"), Offer::Nowhere);
    for target in ["scraper-0", "scraper-1", "scraper-9"] {
        directory.target_reported(&cluster, SessionId(2), healthy(target, info(EU_1)));
    }
    assert_eq!(offer(&directory, "scraper-0.eu-1"), Offer::Sessions(both.to_vec()));
    let names = |directory: &Directory| -> Vec<(String, bool)> {
        entries(directory).into_iter().map(|(name, healthy, _)| (name, healthy)).collect()
    };
    let shown = |second| {
        [
            ("scraper-0.eu-1".to_owned(), true),
            ("scraper-1.eu-1".to_owned(), second),
            ("us-1".to_owned(), false),
        ]
    };
    assert_eq!(names(&directory), shown(true));

    // Its gateway is gone: what only it serves is missing, and says so.
    directory.session_closed(&cluster, SessionId(2), "killed");
    assert_eq!(names(&directory), shown(false));
    let why = entries(&directory)[1].2.clone();
    assert_eq!(why, "the gateway of cluster eu-1 that serves it is not connected: killed");
    assert_eq!(offer(&directory, "scraper-1.eu-1"), Offer::Lost);
    // It comes back without the target: its owner has removed it.
    directory.session_opened(&cluster, SessionId(3), "two", Transport::Quic);
    assert_eq!(names(&directory), shown(false));
    directory.targets_named(&cluster, SessionId(3), vec!["scraper-0".into()]);
    assert_eq!(names(&directory), [("scraper-0.eu-1".to_owned(), true), ("us-1".to_owned(), false)]);
    assert_eq!(offer(&directory, "scraper-1.eu-1"), Offer::Unknown);
}

#[test]
fn what_does_not_change_wakes_no_watcher() {
    let (directory, cluster) = connected();
    let mut versions = directory.watch();
    versions.borrow_and_update();
    directory.target_reported(&cluster, SessionId(1), healthy("scraper-0", info(EU_1)));
    directory.round_trip_measured(&cluster, SessionId(1), Duration::from_millis(7));
    directory.set_registered(&[registration("eu-1", "production"), registration("us-1", "production")]);
    assert!(!versions.has_changed().unwrap());
    directory.round_trip_measured(&cluster, SessionId(1), Duration::from_millis(70));
    assert!(versions.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_session_is_used_until_another_one_serves_its_targets() {
    let (directory, cluster) = connected();
    let mut handing = Box::pin(directory.handed_over(&cluster, SessionId(1)));
    assert!((&mut handing).now_or_never().is_none());
    directory.session_opened(&cluster, SessionId(2), "one", Transport::Quic);
    directory.targets_named(&cluster, SessionId(2), vec!["scraper-0".into()]);
    tokio::time::advance(HANDOVER / 2).await;
    assert!((&mut handing).now_or_never().is_none(), "nothing is known about the target of the new session");
    directory.target_reported(&cluster, SessionId(2), healthy("scraper-0", info(EU_1)));
    tokio::time::advance(HANDOVER_LOOK).await;
    assert!(handing.now_or_never().is_some());
    directory.session_closed(&cluster, SessionId(1), "the connection was drained");
    assert!(entries(&directory)[0].1, "{:?}", entries(&directory));

    // The gateway stops.
    let began = Instant::now();
    directory.handed_over(&cluster, SessionId(2)).await;
    assert_eq!(began.elapsed(), HANDOVER);
}
