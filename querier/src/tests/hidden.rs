//! Stores that announce less than they have to: they are asked, or reported as missing, but never skipped silently.

use model::Timestamp;
use storeapi::{Apis, collect_series};

use super::*;

/// A registered store that announces this component, these times and whether it serves StoreAPI.
fn registered(component: &str, range: TimeRange, store_api: bool) -> Candidate {
    let mut info = StoreInfo::new(component, vec![labels(&[("cluster", "eu-1")])], range);
    info.apis = Apis { store: store_api, ..Apis::default() };
    Candidate {
        info: Some(Arc::new(info)),
        bound: labels(&[("cluster", "eu-1")]),
        ..local("eu", memory(&[("cluster", "eu-1")], &["api"]))
    }
}

/// The series and warnings of an answer for the last hour.
async fn recent(candidate: Candidate) -> (Vec<String>, Vec<String>) {
    let now = Timestamp::EPOCH
        + std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let hour = Duration::from_secs(3600);
    let mut request = up();
    request.range = TimeRange::new(now - hour, now);
    let proxy = proxy(vec![candidate], ProxyOptions::default());
    let (series, warnings) = collect_series(proxy.series(request).await.unwrap()).await.unwrap();
    let request = LabelNamesRequest::new(TimeRange::new(now - hour, now), vec![]);
    assert_eq!(proxy.label_names(request).await.unwrap().warnings, warnings);
    (short(&series), warnings)
}

fn until(millis: i64) -> TimeRange {
    TimeRange::new(Timestamp::from_millis(START), Timestamp::from_millis(millis))
}

#[tokio::test]
async fn a_registered_store_that_announces_no_recent_samples_is_reported() {
    let empty = TimeRange::new(Timestamp::MAX, Timestamp::MIN);
    let future = TimeRange::new(Timestamp::MAX.offset_millis(-1), Timestamp::MAX);
    for (candidate, reason) in [
        (registered("store", until(START + 1000), true), "announces no samples after 1700000001000 ms"),
        (registered("store", empty, true), "announces that it has no samples"),
        (registered("store", future, true), "announces only samples of the future"),
        (registered("sidecar", TimeRange::ALL, false), "announces no StoreAPI"),
    ] {
        let (series, warnings) = recent(candidate).await;
        assert!(series.is_empty());
        assert!(warnings.len() == 1 && warnings[0].starts_with("store eu: it is registered"), "{warnings:?}");
        assert!(warnings[0].contains(reason), "{warnings:?}");
    }
}

/// The query reaches from the times of the store to now: its old samples are used, and its silence about the rest is reported.
#[tokio::test]
async fn an_outdated_store_is_asked_for_what_it_announces() {
    let proxy = proxy(vec![registered("store", until(START + 600_000), true)], ProxyOptions::default());
    let (series, warnings) = collect_series(proxy.series(up()).await.unwrap()).await.unwrap();
    assert_eq!(short(&series), ["api@eu-1"]);
    assert!(warnings.len() == 1 && warnings[0].contains("announces no samples after"), "{warnings:?}");
    let mut old = up();
    old.range = until(START + 60_000);
    let (series, warnings) = collect_series(proxy.series(old).await.unwrap()).await.unwrap();
    assert_eq!((short(&series), warnings), (vec!["api@eu-1".to_owned()], vec![]));
}

#[tokio::test]
async fn the_end_that_a_sidecar_announces_is_not_believed() {
    for range in [until(START + 1000), TimeRange::new(Timestamp::MAX, Timestamp::MIN)] {
        let candidate = registered("sidecar", range, true);
        assert!(
            candidate.may_hold(&[], TimeRange::new(Timestamp::from_millis(START + 9000), Timestamp::MAX))
        );
        let (_, warnings) = recent(candidate.clone()).await;
        assert!(warnings.is_empty(), "{warnings:?}");
        let info = proxy(vec![candidate], ProxyOptions::default()).info().await.unwrap();
        assert_eq!(info.range.max, Timestamp::MAX);
        assert!(info.tsdbs.iter().all(|tsdb| tsdb.range.max == Timestamp::MAX));
    }
}

#[tokio::test]
async fn a_store_that_is_not_registered_may_announce_what_it_wants() {
    for (component, store_api) in [("store", true), ("rule", false)] {
        let candidate =
            Candidate { bound: Labels::empty(), ..registered(component, until(START), store_api) };
        assert_eq!(recent(candidate).await, (vec![], vec![]));
    }
}

#[tokio::test]
async fn values_of_a_bound_label_are_only_the_bound_value() {
    let liar = Candidate {
        bound: labels(&[("cluster", "us-1")]),
        ..local("liar", memory(&[("cluster", "eu-1")], &["api"]))
    };
    let good = remote("good", memory(&[("cluster", "ap-1")], &["api"])).await;
    let proxy = proxy(vec![good, liar], ProxyOptions::default());
    let request = LabelValuesRequest::new("cluster", TimeRange::ALL, vec![]);
    let answer = proxy.label_values(request).await.unwrap();
    assert_eq!(answer.values, ["ap-1"]);
    assert!(answer.warnings[0].contains("must be \"us-1\""), "{:?}", answer.warnings);
}
