//! Stores that break the protocol: each is dropped with a warning, and the rest of the answer is correct.

use std::convert::Infallible;

use ::http::{Request, Response};
use bytes::Bytes;
use http_body_util::Full;
use storeapi::collect_series;
use tower::service_fn;

use super::*;

async fn with_liar(liar: Candidate) -> (Vec<String>, Vec<String>) {
    let good = remote("good", memory(&[("cluster", "eu-1")], &["api", "db"])).await;
    let proxy = proxy(vec![good, liar], ProxyOptions::default());
    let (series, warnings) = collect_series(proxy.series(up()).await.unwrap()).await.unwrap();
    (short(&series), warnings)
}

/// A peer that answers each call with these bytes.
pub(super) fn raw(bytes: Vec<u8>) -> Candidate {
    let service = service_fn(move |_: Request<tonic::body::Body>| {
        let body = Full::new(Bytes::from(bytes.clone()));
        let response = Response::builder().header("content-type", "application/grpc").body(body);
        async move { Ok::<_, Infallible>(response.expect("the response is well formed")) }
    });
    let client = StoreClient::new("liar", mesh::Channel::new("liar", service));
    local("liar", Arc::new(client))
}

pub(super) fn message(length: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(content);
    bytes
}

#[tokio::test]
async fn each_protocol_violation_drops_the_store_with_a_warning() {
    let of = |cluster, job| [("__name__", "up"), ("cluster", cluster), ("job", job)];
    let bound = |candidate: Candidate| Candidate { bound: labels(&[("cluster", "liar")]), ..candidate };
    let scripted = |sets: &[&[(&str, &str)]]| bound(local("liar", Arc::new(Scripted::series(sets))));
    for (name, liar, part) in [
        ("unsorted", scripted(&[&of("liar", "z"), &of("liar", "a")]), "out of order"),
        ("another cluster", scripted(&[&of("eu-1", "api")]), "must carry cluster=\"liar\""),
        ("no cluster", scripted(&[&[("__name__", "up")]]), "must carry cluster=\"liar\""),
        ("look-alike", scripted(&[&of("lіar", "api")]), "must carry cluster=\"liar\""),
        ("not asked for", scripted(&[&[("__name__", "down"), ("cluster", "liar")]]), "does not match"),
        ("garbage", raw(message(4, &[0xff, 0xff, 0xff, 0xff])), "cut short"),
        ("a group", raw(message(2, &[0x0b, 0x0c])), "unknown wire type"),
        ("oversized", raw(message(u32::MAX, &[0; 64])), "too large"),
        ("no gRPC at all", raw(b"<html>hello</html>".to_vec()), "liar"),
        ("cut off", raw(message(100, &[0x0a])), "liar"),
    ] {
        let (series, warnings) = with_liar(liar).await;
        assert_eq!(series.len(), if name == "unsorted" { 3 } else { 2 }, "{name}: {series:?}");
        assert!(series.contains(&"api@eu-1".to_owned()) && series.contains(&"db@eu-1".to_owned()), "{name}");
        assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
        assert!(
            warnings[0].starts_with("store liar: ") && warnings[0].contains(part),
            "{name}: {warnings:?}"
        );
    }
}

#[tokio::test]
async fn store_that_never_ends_is_dropped_at_the_limits() {
    for (what, part) in [("series", "more than 1000 series"), ("warnings", "more than 100 warnings")] {
        let frames = (0..5000).map(|i| {
            let set = labels(&[("__name__", "up"), ("cluster", "liar"), ("n", &format!("{i:06}"))]);
            Ok(match what {
                "series" => SeriesFrame::Series(vec![Series { labels: set, chunks: Vec::new() }]),
                _ => SeriesFrame::Warning("w".repeat(10_000)),
            })
        });
        let liar = local("liar", Arc::new(Scripted::new(frames.collect()).hanging()));
        let good = remote("good", memory(&[("cluster", "eu-1")], &["api", "db"])).await;
        let options = ProxyOptions { store_series: 1000, ..ProxyOptions::default() };
        let proxy = proxy(vec![good, liar], options);
        let (series, warnings) = collect_series(proxy.series(up()).await.unwrap()).await.unwrap();
        assert_eq!(series.iter().filter(|s| s.labels.get("cluster") == Some("eu-1")).count(), 2, "{what}");
        assert!(warnings.last().unwrap().contains(part), "{what}: {:?}", warnings.last());
        assert!(warnings.len() <= 101 && warnings.iter().all(|w| w.len() < 3000), "{what}");
    }
}

#[tokio::test]
async fn duplicate_labels_on_the_wire_are_a_violation() {
    use proto::thanos as wire;
    let label = |name: &str, value: &str| wire::Label { name: name.to_owned(), value: value.to_owned() };
    let series = wire::Series {
        labels: vec![label("__name__", "up"), label("cluster", "eu-1"), label("cluster", "us-1")],
        ..wire::Series::default()
    };
    let result = Some(wire::series_response::Result::Series(series));
    let content = prost::Message::encode_to_vec(&wire::SeriesResponse { result });
    let (series, warnings) = with_liar(raw(message(content.len() as u32, &content))).await;
    assert_eq!(series.len(), 2);
    assert!(warnings[0].contains("\"cluster\" occurs twice"), "{warnings:?}");
}
