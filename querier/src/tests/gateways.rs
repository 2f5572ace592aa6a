//! Several gateways that announce the same store.

use proto::isthmus::mesh::v1 as wire;
use runtime::Shutdown;
use tokio::sync::watch;

use super::directory::{answer, entry, gateway, set};
use super::*;

#[tokio::test]
async fn a_request_that_a_gateway_cannot_take_is_sent_through_another_one() {
    let store = memory(&[("cluster", "eu-1")], &["api"]);
    let announced = entry("scraper-0.eu-1", &*store, &[("cluster", "eu-1")]).await;
    let snapshot = wire::DirectorySnapshot { entries: vec![announced], ..Default::default() };
    let (sender, receiver) = watch::channel(snapshot);
    let (first, first_server) = gateway(store.clone(), receiver.clone());
    let (second, second_server) = gateway(store.clone(), receiver);
    let set = set(&[], &[first.clone(), second.clone()]);
    let shutdown = Shutdown::new();
    let task = tokio::spawn(set.clone().run(|_| {}, shutdown.clone()));
    wait_for("both directories", || set.endpoints().len() == 2).await;
    let whole = (vec!["api@eu-1".to_owned()], vec![]);
    assert_eq!(answer(&set).await, whole);

    // The first of them is that of the lower address, and both are lost one after the other.
    let (lost, stopped, left) = match first < second {
        true => (first, first_server, second_server),
        false => (second, second_server, first_server),
    };
    stopped.shutdown_background();
    wait_for("the gateway to be gone", || std::net::TcpStream::connect(&lost).is_err()).await;
    for _ in 0..5 {
        assert_eq!(answer(&set).await, whole, "through the other gateway");
    }
    left.shutdown_background();
    let (series, warnings) = answer(&set).await;
    assert!(series.is_empty() && warnings[0].starts_with("store scraper-0.eu-1: "), "{warnings:?}");
    drop(sender);
    shutdown.trigger();
    task.await.unwrap();
}
