//! What a cluster's owner limits and logs, over both transports.

use std::time::Duration;

use mesh::{ChannelOptions, MessageEncoding};
use proto::thanos::{LabelMatcher, LabelNamesRequest, SeriesRequest, store_client::StoreClient};
use tonic::Code;

use crate::{
    stores::TestStore,
    world::{MeshWorld, client, count, healthy, messages, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test"), ("replica", "0")];

fn up() -> LabelMatcher {
    LabelMatcher { r#type: 0, name: "__name__".into(), value: "up".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_series_that_the_owner_selects_are_asked_for() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("").await;
        let store = TestStore::start(EU_1).await;
        let policy = "policy: {select: '{namespace=~\"shop-.*\"}'}";
        let more = format!("transport: {transport}\n{policy}\n");
        let _gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, &more).await;
        let info = healthy(&obs, "scraper-0.eu-1").await.info.unwrap();
        assert!(info.warnings[0].contains("{namespace=~\"shop-.*\"}"), "{:?}", info.warnings);
        assert!(info.metric_metadata.is_none());

        let expected = ["__name__~0~up", "namespace~2~shop-.*"];
        let request = SeriesRequest { matchers: vec![up()], ..messages(3, Duration::ZERO) };
        let mut plain = client(&obs, "scraper-0.eu-1");
        let stream = plain.series(request.clone()).await.unwrap().into_inner();
        assert_eq!(
            (count(stream).await.unwrap(), store.store.asked()),
            (3, expected.map(str::to_owned).to_vec())
        );

        // A client may compress its requests.
        let target = "scraper-0.eu-1".parse().unwrap();
        let options =
            ChannelOptions { compression: Some(MessageEncoding::Snappy), ..ChannelOptions::default() };
        let channel = mesh::via_with(&obs.addresses.grpc.to_string(), &target, &options).unwrap();
        let mut compressed = StoreClient::new(channel);
        let names = LabelNamesRequest { matchers: vec![up()], ..LabelNamesRequest::default() };
        let names = compressed.label_names(names).await.unwrap().into_inner().names;
        assert_eq!((names.len(), store.store.asked()), (3, expected.map(str::to_owned).to_vec()));

        let large = LabelMatcher { value: "x".repeat(2 << 20), ..up() };
        let request = SeriesRequest { matchers: vec![large], ..messages(3, Duration::ZERO) };
        let refused = plain.series(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_samples_and_too_many_requests_are_refused() {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let policy = "policy: {max_age: 2h, max_requests_per_second: 20}\n";
    let _gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, policy).await;
    let info = healthy(&obs, "scraper-0.eu-1").await.info.unwrap();
    assert!(info.store.unwrap().min_time > 1_600_000_000_000 && info.warnings[0].contains("the last 2h"));
    let mut client = client(&obs, "scraper-0.eu-1");
    // The store would send a message for each millisecond of this range.
    let stream = client.series(messages(1000, Duration::ZERO)).await.unwrap().into_inner();
    assert_eq!(count(stream).await.unwrap(), 0);
    let old = LabelNamesRequest { start: 1, end: 1000, ..LabelNamesRequest::default() };
    assert!(client.label_names(old).await.unwrap().into_inner().names.is_empty());
    assert_eq!(store.store.calls(), 0);
    let recent = LabelNamesRequest { start: 1, end: i64::MAX, ..LabelNamesRequest::default() };
    assert_eq!(client.label_names(recent.clone()).await.unwrap().into_inner().names.len(), 3);

    let mut refused = 0;
    for _ in 0..200 {
        if let Err(status) = client.label_names(recent.clone()).await {
            assert_eq!(status.code(), Code::ResourceExhausted);
            assert!(status.message().contains("allows 20 requests a second"), "{status}");
            refused += 1;
        }
    }
    assert!(refused > 0, "200 requests in less than 9 s were admitted");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_in_the_access_log() {
    for transport in ["quic", "tcp"] {
        let world = MeshWorld::new();
        let obs = world.observability("").await;
        let store = TestStore::start(EU_1).await;
        let more = format!("transport: {transport}\naccess_log: {{file: access.log}}\n");
        let _gateway = world.cluster("eu-1", &[("scraper-0", store.address)], &obs, &more).await;
        healthy(&obs, "scraper-0.eu-1").await;
        let mut client = client(&obs, "scraper-0.eu-1");
        let request =
            SeriesRequest { matchers: vec![up()], skip_chunks: true, ..messages(7, Duration::ZERO) };
        let stream = client.series(request).await.unwrap().into_inner();
        assert_eq!(count(stream).await.unwrap(), 7);
        let mut stream = client.series(messages(-1, Duration::ZERO)).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        drop(stream);
        client.label_values(proto::thanos::LabelValuesRequest::default()).await.unwrap_err();

        let path = world.dir.path().join("access.log");
        let lines = within("three lines", async {
            loop {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                if text.lines().count() == 3 {
                    return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let lines: Vec<serde_json::Value> = lines.await;
        let of = |code: &str| {
            lines.iter().find(|line| line["code"] == code).unwrap_or_else(|| panic!("{lines:?}"))
        };
        let whole = of("ok");
        assert_eq!(whole["peer"], "spiffe://test.isthmus.example/cluster/obs/gateway");
        assert_eq!((&whole["target"], &whole["method"]), (&"scraper-0.eu-1".into(), &"Series".into()));
        assert_eq!(
            (&whole["matchers"], &whole["series"]),
            (&"{__name__=\"up\"}".into(), &7.into()),
            "{whole}"
        );
        assert!(whole["transport"] == transport && whole["bytes"].as_u64().unwrap() > 70, "{whole}");
        assert_eq!(of("cancelled")["series"], 0);
        assert_eq!(of("failed_precondition")["method"], "LabelValues");
    }
}
