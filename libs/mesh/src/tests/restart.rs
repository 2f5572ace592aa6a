//! A gateway that restarts, and one that does not come back.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tls::ClientTls;
use tokio::net::TcpListener;
use tonic::Code;

use super::tls::Files;
use super::{ANY, Seen, check, serve};
use crate::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn gateway(address: &str, patience: Duration) -> Channel {
    let gateway = Gateway::new(address, &ChannelOptions::default(), patience).unwrap();
    gateway.target(&"scraper-0.eu-1".parse().unwrap())
}

#[tokio::test]
async fn requests_wait_for_a_gateway_that_restarts() {
    let server = serve(ANY, Seen::default()).await;
    let address = server.address;
    let patient = gateway(&address.to_string(), PATIENCE);
    let hasty = gateway(&address.to_string(), Duration::ZERO);
    for channel in [&patient, &hasty] {
        check(channel.clone(), "x").await.unwrap();
    }
    server.stop().await;
    assert_eq!(check(hasty, "x").await.unwrap_err().code(), Code::Unavailable);
    let waiting = tokio::spawn(join_all((0..10).map(|_| check(patient.clone(), "x"))));
    // Long enough for several attempts that are refused.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    let _server = serve(address, Seen::default()).await;
    assert!(waiting.await.unwrap().iter().all(Result::is_ok));
}

#[tokio::test]
async fn requests_fail_when_a_gateway_does_not_come_back_or_was_never_there() {
    let server = serve(ANY, Seen::default()).await;
    let address = server.address.to_string();
    let channel = gateway(&address, Duration::from_millis(300));
    check(channel.clone(), "x").await.unwrap();
    server.stop().await;
    let lost = Instant::now();
    for status in join_all((0..10).map(|_| check(channel.clone(), "x"))).await {
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().starts_with(&format!("scraper-0.eu-1 via {address}: ")), "{status}");
    }
    assert!(lost.elapsed() < Duration::from_secs(5), "{:?}", lost.elapsed());
    let never_there = gateway(&address, Duration::from_secs(3600));
    assert_eq!(check(never_there, "x").await.unwrap_err().code(), Code::Unavailable);
}

/// Each attempt takes the time limit of a connection. Requests that wait for one do not begin another.
#[tokio::test]
async fn requests_to_a_gateway_that_does_not_answer_fail_together() {
    let silent = TcpListener::bind(ANY).await.unwrap();
    let address = format!("localhost:{}", silent.local_addr().unwrap().port());
    let tls = Some(ClientTls::load("test", Files::new().client()).unwrap());
    let options = ChannelOptions { tls, ..ChannelOptions::default() };
    let gateway = Gateway::new(&address, &options, Duration::ZERO).unwrap();
    let channel = gateway.target(&"scraper-0.eu-1".parse().unwrap());
    let began = Instant::now();
    for status in join_all((0..20).map(|_| check(channel.clone(), "x"))).await {
        let status = status.unwrap_err();
        assert!(status.message().contains("was not open after 5 s"), "{status}");
    }
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}
