//! Many stores as one.

use std::sync::atomic::Ordering;

use model::Timestamp;
use storeapi::{Code, MetadataRequest, MetadataStore, PartialResponse, acceptance, collect_series};

use super::*;
use crate::tests::limits::unlimited;
use crate::{FanoutEvent, StoreFilter, StoreOutcome};

#[tokio::test]
async fn proxy_passes_the_store_acceptance_suite() {
    acceptance::run(|dataset| async move {
        // Every store has every other series, and all have the first one.
        let part = |n: usize| {
            let keep = |(i, _): &(usize, &_)| *i == 0 || i % 3 == n;
            let series: Vec<_> =
                dataset.series.iter().enumerate().filter(keep).map(|(_, s)| s.clone()).collect();
            Arc::new(MemoryStore::from_samples(dataset.external.clone(), series).unwrap())
        };
        let mut candidates = Vec::new();
        for n in 0..3 {
            candidates.push(remote(&format!("store-{n}"), part(n)).await);
        }
        // One store that can neither remove replica labels nor shard.
        let mut old = (*candidates[2].info.clone().unwrap()).clone();
        old.supports_without_replica_labels = false;
        old.supports_sharding = false;
        candidates[2].info = Some(Arc::new(old));
        candidates[2].store = Arc::new(Old(Arc::clone(&candidates[2].store)));
        (Arc::new(proxy(candidates, ProxyOptions::default())) as Arc<dyn Store>, ())
    })
    .await;
}

/// A store without the features of newer stores.
struct Old(Arc<dyn Store>);

#[tonic::async_trait]
impl Store for Old {
    async fn info(&self) -> Result<StoreInfo, StoreError> {
        self.0.info().await
    }
    async fn series(&self, request: SeriesRequest) -> Result<SeriesStream, StoreError> {
        self.0.series(SeriesRequest { without_replica_labels: Vec::new(), shard: None, ..request }).await
    }
    async fn label_names(&self, request: LabelNamesRequest) -> Result<LabelsAnswer, StoreError> {
        self.0.label_names(request).await
    }
    async fn label_values(&self, request: LabelValuesRequest) -> Result<LabelsAnswer, StoreError> {
        self.0.label_values(request).await
    }
}

#[tokio::test]
async fn only_stores_that_may_match_are_asked() {
    let mut candidates = vec![
        remote("eu", memory(&[("cluster", "eu-1")], &["api"])).await,
        remote("us", memory(&[("cluster", "us-1")], &["api"])).await,
    ];
    candidates.push(Candidate {
        bound: labels(&[("cluster", "ap-1")]),
        ..local("ap", Arc::new(Scripted::new(vec![])))
    });
    let asked = |request: SeriesRequest, filter: StoreFilter| {
        let proxy = proxy(candidates.clone(), ProxyOptions::default());
        async move {
            let mut fanout = proxy.select(request, &filter).unwrap();
            while fanout.next().await.is_some() {}
            fanout.reports().iter().map(|report| report.name.to_string()).collect::<Vec<_>>()
        }
    };
    let with = |matcher: Matcher| {
        let mut request = up();
        request.matchers.push(matcher);
        request
    };
    assert_eq!(asked(up(), StoreFilter::default()).await, ["eu", "us", "ap"]);
    assert_eq!(asked(with(Matcher::equal("cluster", "eu-1")), StoreFilter::default()).await, ["eu"]);
    assert_eq!(asked(with(Matcher::equal("cluster", "ap-1")), StoreFilter::default()).await, ["ap"]);
    let not_eu = Matcher::new(model::MatchOp::NotRegex, "cluster", "eu-.*").unwrap();
    assert_eq!(asked(with(not_eu), StoreFilter::default()).await, ["us", "ap"]);
    let mut before = up();
    before.range.max = Timestamp::from_millis(START - 1);
    assert_eq!(asked(before, StoreFilter::default()).await, ["ap"]);
    let only_us = StoreFilter::new(vec![vec![Matcher::equal("__address__", "us")]]);
    assert_eq!(asked(up(), only_us).await, ["us"]);
}

#[tokio::test]
async fn replicas_are_merged_into_one_series_with_a_contribution_each() {
    let external = |replica| [("cluster", "eu-1"), ("replica", replica)];
    let proxy = proxy(
        vec![
            remote("a", memory(&external("a"), &["api", "db"])).await,
            remote("b", memory(&external("b"), &["api"])).await,
        ],
        ProxyOptions::default(),
    );
    let mut request = up();
    request.without_replica_labels = vec!["replica".to_owned()];
    let mut fanout = proxy.select(request, &StoreFilter::default()).unwrap();
    let mut seen = Vec::new();
    while let Some(event) = fanout.next().await {
        let FanoutEvent::Series(batch) = event.unwrap() else { panic!("a warning") };
        seen.extend(batch.iter().map(|s| (s.labels.value("job").to_owned(), s.contributions.len())));
    }
    assert_eq!(seen, [("api".to_owned(), 2), ("db".to_owned(), 1)]);
    assert!(fanout.reports().iter().all(|report| report.outcome == StoreOutcome::Answered));
}

#[tokio::test]
async fn missing_store_is_a_warning_or_an_error_as_requested() {
    let failing = Scripted::new(vec![Err(StoreError::internal("block 01X is damaged"))]);
    let away = Candidate {
        unavailable: Some("connection refused".to_owned()),
        ..local("away", Arc::new(Scripted::new(vec![])))
    };
    let proxy = proxy(
        vec![
            away,
            local("broken", Arc::new(failing)),
            remote("good", memory(&[("cluster", "eu-1")], &["api", "db"])).await,
        ],
        ProxyOptions::default(),
    );
    let (series, mut warnings) = collect_series(proxy.series(up()).await.unwrap()).await.unwrap();
    warnings.sort();
    assert_eq!(short(&series), ["api@eu-1", "db@eu-1"]);
    assert_eq!(
        warnings,
        ["store away: not healthy: connection refused", "store broken: block 01X is damaged"]
    );

    let mut request = up();
    request.partial_response = PartialResponse::Abort;
    let error = collect_series(proxy.series(request).await.unwrap()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::Aborted, "store away: not healthy: connection refused")
    );

    let names = proxy.label_names(LabelNamesRequest::new(TimeRange::ALL, vec![])).await.unwrap();
    assert_eq!(names.values, ["__name__", "cluster", "job"]);
    assert_eq!(names.warnings.len(), 2, "{:?}", names.warnings);
    let mut request = LabelValuesRequest::new("job", TimeRange::ALL, vec![]);
    assert_eq!(proxy.label_values(request.clone()).await.unwrap().values, ["api", "db"]);
    request.partial_response = PartialResponse::Abort;
    assert_eq!(proxy.label_values(request).await.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn missing_store_that_cannot_match_is_not_reported() {
    let mut us = remote("us", memory(&[("cluster", "us-1")], &["api"])).await;
    us.unavailable = Some("connection refused".to_owned());
    let proxy = proxy(vec![us], ProxyOptions::default());
    let mut request = up();
    request.matchers.push(Matcher::equal("cluster", "eu-1"));
    let (series, warnings) = collect_series(proxy.series(request).await.unwrap()).await.unwrap();
    assert!(series.is_empty() && warnings.is_empty(), "{warnings:?}");
}

#[tokio::test]
async fn answer_without_known_stores_has_a_warning() {
    let proxy = proxy(Vec::new(), ProxyOptions::default());
    let (_, warnings) = collect_series(proxy.series(up()).await.unwrap()).await.unwrap();
    assert!(warnings[0].contains("--endpoint"), "{warnings:?}");
    let names = proxy.label_names(LabelNamesRequest::new(TimeRange::ALL, vec![])).await.unwrap();
    assert!(names.warnings[0].contains("--endpoint"), "{names:?}");
    let mut request = LabelValuesRequest::new("job", TimeRange::ALL, vec![]);
    let values = proxy.label_values(request.clone()).await.unwrap();
    assert!(values.warnings[0].contains("--endpoint"), "{values:?}");
    request.partial_response = PartialResponse::Abort;
    assert!(proxy.label_values(request).await.is_err());
    let metadata = proxy.metric_metadata(MetadataRequest::default()).await.unwrap();
    assert!(metadata.warnings[0].contains("--endpoint"), "{metadata:?}");
}

#[tokio::test]
async fn store_filter_that_matches_none_has_a_warning() {
    let proxy = proxy(vec![remote("eu", memory(&[("cluster", "eu-1")], &["api"])).await], Default::default());
    let no_store = StoreFilter::new(vec![vec![Matcher::equal("__address__", "us")]]);
    let mut fanout = proxy.select(up(), &no_store).unwrap();
    let Some(Ok(FanoutEvent::Warning(text))) = fanout.next().await else { panic!("no warning") };
    assert!(text.contains("storeMatch[]"), "{text}");
    let names =
        proxy.names(LabelNamesRequest::new(TimeRange::ALL, vec![]), &no_store, &unlimited()).await.unwrap().0;
    assert!(names.warnings[0].contains("storeMatch[]"), "{names:?}");
}

#[tokio::test]
async fn metadata_reports_unreachable_stores() {
    let away = Candidate {
        unavailable: Some("connection refused".to_owned()),
        ..local("directory of gateway g", Arc::new(Scripted::new(vec![])))
    };
    let proxy = proxy(vec![away], ProxyOptions::default());
    let answer = proxy.metric_metadata(MetadataRequest::default()).await.unwrap();
    assert_eq!(answer.warnings, ["store directory of gateway g: not healthy: connection refused"]);
}

/// A querier in front of this one selects stores by the label sets that they announce.
#[tokio::test]
async fn announced_label_sets_include_stores_with_unknown_labels() {
    let eu = remote("eu", memory(&[("cluster", "eu-1")], &["api"])).await;
    let unheard = local("us", Arc::new(Scripted::new(vec![])));
    let bound = Candidate { bound: labels(&[("cluster", "us-1")]), ..unheard.clone() };
    let anything = remote("any", memory(&[], &["api"])).await;
    let eu_1 = labels(&[("cluster", "eu-1")]);
    for (candidates, expected) in [
        (vec![eu.clone()], vec![eu_1.clone()]),
        (vec![eu.clone(), unheard], vec![]),
        (vec![eu.clone(), bound], vec![eu_1, labels(&[("cluster", "us-1")])]),
        (vec![eu, anything], vec![]),
        (vec![], vec![]),
    ] {
        let info = proxy(candidates, ProxyOptions::default()).info().await.unwrap();
        assert_eq!(info.label_sets, expected);
        let tsdbs: Vec<_> = info.tsdbs.iter().map(|tsdb| tsdb.labels.clone()).collect();
        let anything = vec![labels(&[])];
        assert_eq!(tsdbs, if expected.is_empty() { anything } else { expected }, "{info:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn store_without_data_for_too_long_is_dropped() {
    let quiet = Scripted::series(&[&[("__name__", "up"), ("cluster", "quiet"), ("job", "a")]]).hanging();
    let open = Arc::clone(&quiet.open);
    let options = ProxyOptions { response_timeout: Some(Duration::from_secs(3)), ..ProxyOptions::default() };
    let proxy = proxy(
        vec![local("good", memory(&[("cluster", "eu-1")], &["api"])), local("quiet", Arc::new(quiet))],
        options,
    );
    let (series, warnings) = collect_series(proxy.series(up()).await.unwrap()).await.unwrap();
    assert_eq!(short(&series), ["api@eu-1", "a@quiet"]);
    assert_eq!(warnings, ["store quiet: no data within 3s (--store.response-timeout)"]);
    assert_eq!(open.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn dropped_answer_cancels_all_streams() {
    let stores: Vec<_> = (0..3).map(|_| Arc::new(Scripted::new(vec![]).hanging())).collect();
    let mut candidates = Vec::new();
    for (i, store) in stores.iter().enumerate() {
        candidates.push(remote(&format!("s{i}"), Arc::clone(store) as Arc<dyn Store>).await);
    }
    let proxy = proxy(candidates, ProxyOptions::default());
    let mut fanout = proxy.select(up(), &StoreFilter::default()).unwrap();
    let opened = || stores.iter().map(|s| s.open.load(Ordering::SeqCst)).sum::<usize>();
    tokio::select! {
        _ = fanout.next() => panic!("nothing was sent"),
        () = wait_for("three open streams", || opened() == 3) => {}
    }
    drop(fanout);
    wait_for("all streams to be dropped", || opened() == 0).await;
}

#[tokio::test]
async fn selector_labels_are_announced_and_answer_matchers() {
    let options = ProxyOptions { selector_labels: labels(&[("tier", "edge")]), ..ProxyOptions::default() };
    let proxy = proxy(vec![remote("eu", memory(&[("cluster", "eu-1")], &["api"])).await], options);
    let info = proxy.info().await.unwrap();
    assert_eq!(info.label_sets, [labels(&[("cluster", "eu-1"), ("tier", "edge")])]);
    for (value, expected) in [("edge", 1), ("core", 0)] {
        let mut request = up();
        request.matchers.push(Matcher::equal("tier", value));
        let (series, _) = collect_series(proxy.series(request).await.unwrap()).await.unwrap();
        assert_eq!(series.len(), expected, "{value}");
    }
}
