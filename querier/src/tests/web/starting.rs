//! What a querier answers before it knows its stores.

use std::time::Instant;

use proto::isthmus::mesh::v1 as wire;
use tokio::net::TcpSocket;
use tokio::sync::watch;

use super::*;
use crate::tests::directory::{entry, gateway_at};

/// Short, so that the patience of a querier, twice as long, is over soon.
const INFO_TIMEOUT: &str = "--endpoint.info-timeout=100ms";
/// Longer than the patience.
const LATE: Duration = Duration::from_millis(500);

/// A port that refuses connections until it is listened on, and its address.
fn refusing_port() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    (socket, address)
}

fn listen(socket: TcpSocket) -> std::net::TcpListener {
    socket.listen(64).unwrap().into_std().unwrap()
}

fn query() -> String {
    format!("/api/v1/query?query=count(up)&time={AT}")
}

/// Asks again and again until the patience is over. Each request must be refused, for the reason that `waits_for` names.
async fn must_be_refused(querier: &RunningRole, waits_for: &str) {
    let begin = Instant::now();
    while begin.elapsed() < LATE {
        for path in [query(), "/api/v1/labels".to_owned(), "/api/v1/rules".to_owned()] {
            let answer = get(querier, &path).await;
            assert_eq!(answer.status, 503, "{}", answer.body);
            assert!(answer.head.contains("retry-after: 1\r\n"), "{}", answer.head);
            let json = answer.json();
            let error = json["error"].as_str().unwrap();
            assert!(
                error.starts_with("the stores are not known yet, waiting for ") && error.contains(waits_for),
                "{error}"
            );
        }
    }
    let ready = get(querier, "/-/ready").await;
    assert!(ready.status == 503 && ready.body.contains(waits_for), "{}", ready.body);
    // What it knows is shown.
    assert_eq!(get(querier, "/api/v1/stores").await.status, 200);
    let channel = mesh::direct(&querier.grpc_address().to_string()).unwrap();
    let client = StoreClient::new("querier", channel);
    let refused = [client.info().await.err(), client.series(up()).await.err()];
    for error in refused.map(|error| error.expect("it is refused")) {
        assert!(error.is_retryable() && error.message().contains(waits_for), "{error:?}");
    }
}

async fn until_answered(querier: &RunningRole) -> HttpAnswer {
    for _ in 0..2000 {
        let answer = get(querier, &query()).await;
        if answer.status != 503 {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the querier did not answer within 10 s");
}

#[tokio::test]
async fn a_querier_refuses_requests_until_its_gateway_says_which_stores_there_are() {
    let (socket, address) = refusing_port();
    let querier = start(&[], &[INFO_TIMEOUT, &format!("--gateway={address}")]).await;
    must_be_refused(&querier, &format!("directory of gateway {address} (")).await;

    let store = memory(&[("cluster", "eu-1")], &["api", "db"]);
    let announced = entry("scraper-0.eu-1", &*store, &[("cluster", "eu-1")]).await;
    let whole = wire::DirectorySnapshot { entries: vec![announced], ..Default::default() };
    let (_sender, snapshots) = watch::channel(whole);
    let server = gateway_at(listen(socket), store, snapshots);
    let answer = until_answered(&querier).await;
    let json = answer.json();
    assert!(json["data"]["result"][0]["value"][1] == "2" && json["warnings"].is_null(), "{json}");

    // It knows its stores from now on: one that is lost is named, and refuses nothing.
    server.shutdown_background();
    wait_for("the gateway to be gone", || std::net::TcpStream::connect(&address).is_err()).await;
    let begin = Instant::now();
    while begin.elapsed() < LATE {
        let answer = get(&querier, &query()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(answer.body.contains("store scraper-0.eu-1: "), "{}", answer.body);
    }
    assert_eq!(get(&querier, "/-/ready").await.status, 200);
}

#[tokio::test]
async fn a_querier_refuses_requests_until_a_store_has_answered() {
    let (socket, address) = refusing_port();
    let querier = start(std::slice::from_ref(&address), &[INFO_TIMEOUT]).await;
    must_be_refused(&querier, &format!("endpoint {address} (")).await;
    serve_at(TcpListener::from_std(listen(socket)).unwrap(), memory(&[("cluster", "eu-1")], &["api"]));
    let json = until_answered(&querier).await.json();
    assert!(json["data"]["result"][0]["value"][1] == "1" && json["warnings"].is_null(), "{json}");
}

#[tokio::test]
async fn sources_of_unknown_stores_are_waited_for_in_a_bounded_time() {
    let store = serve(memory(&[("cluster", "eu-1")], &["api"])).await;
    let (_refusing, address) = refusing_port();
    let querier = start(&[store], &[INFO_TIMEOUT, &format!("--gateway={address}")]).await;
    let answer = until_answered(&querier).await;
    assert_eq!(answer.status, 200);
    // It lacks what the gateway would announce, and says so.
    let expected = format!("store directory of gateway {address}: not healthy: ");
    assert!(answer.body.contains(&expected), "{}", answer.body);
}
