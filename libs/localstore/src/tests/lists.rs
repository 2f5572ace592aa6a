//! Metadata, exemplars, statistics, targets and rules.

use head::{Exemplar, Metadata};
use model::MetricKind;
use promapi::{ActiveTarget, DroppedTarget, ExemplarSeries, RuleGroup, TargetDiscovery};
use storeapi::{
    AnswerMemory, ExemplarsRequest, ListingStore, MetadataRequest, MetadataStore, RulesRequest, TargetState,
    TargetsRequest, TenantTsdbStatus, TsdbStatusRequest,
};

use super::*;
use crate::LocalLists;

struct Lists;

impl LocalLists for Lists {
    fn targets(&self) -> TargetDiscovery {
        let active = ActiveTarget { labels: labels(&[("job", "api")]), ..ActiveTarget::default() };
        let dropped = DroppedTarget { scrape_pool: "p".to_owned(), ..DroppedTarget::default() };
        TargetDiscovery { active_targets: vec![active], dropped_targets: vec![dropped], alertmanagers: None }
    }
}

fn world() -> (TempDir, LocalStore) {
    let dir = TempDir::new().unwrap();
    let database = open(dir.path(), 7_200);
    let head = database.head();
    let mut appender = head.appender();
    for (n, kind) in [("1", MetricKind::Counter), ("2", MetricKind::Gauge)] {
        let series = head.series(&labels(&[("__name__", "m"), ("n", n)]));
        appender.append_float(&series, at(START_MILLIS), Timestamp::EPOCH, 1.0).unwrap();
        appender.set_metadata(&series, &Metadata { kind, unit: "s".into(), help: "It counts.".into() });
        let exemplar = Exemplar {
            labels: labels(&[("trace", n)]),
            value: 2.0,
            time: at(START_MILLIS + 1),
            has_own_time: true,
        };
        appender.append_exemplar(&series, exemplar).unwrap();
    }
    appender.commit().unwrap();
    let data = LocalData::new();
    data.opened(database, &[]);
    let options = LocalStoreOptions {
        component: "scraper",
        external: watch::channel(labels(&[("cluster", "eu-1")])).1,
        serve_from: watch::channel(Timestamp::MIN).1,
        apis: Apis::default(),
    };
    (dir, LocalStore::new(data, options, Arc::new(Lists)))
}

#[tokio::test]
async fn metadata_of_a_metric_or_of_all_are_listed() {
    let (_dir, store) = world();
    for (metric, limit, found) in
        [(None, None, 1), (Some("m"), None, 1), (Some("x"), None, 0), (None, Some(0), 0)]
    {
        let request =
            MetadataRequest { metric: metric.map(str::to_owned), limit, ..MetadataRequest::default() };
        let answer = store.metric_metadata(request).await.unwrap();
        assert_eq!(answer.metadata.len(), found, "{metric:?} {limit:?}");
        if let Some(entries) = answer.metadata.get("m") {
            let kinds: Vec<&str> = entries.iter().map(|entry| &*entry.kind).collect();
            assert_eq!(
                (kinds, &*entries[0].help, &*entries[0].unit),
                (vec!["counter", "gauge"], "It counts.", "s")
            );
        }
    }
}

async fn exemplars(store: &LocalStore, query: &str) -> Vec<ExemplarSeries> {
    let range = TimeRange::new(at(START_MILLIS), at(START_MILLIS + 1));
    let request =
        ExemplarsRequest { query: query.to_owned(), range, partial_response: PartialResponse::Warn };
    store.list(request, AnswerMemory::unlimited()).await.unwrap().items
}

#[tokio::test]
async fn exemplars_have_external_labels_and_match_them() {
    let (_dir, store) = world();
    let found = exemplars(&store, r#"rate(m{cluster="eu-1", n="2"}[5m]) + nothing"#).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].series_labels, labels(&[("__name__", "m"), ("cluster", "eu-1"), ("n", "2")]));
    assert_eq!(found[0].exemplars[0].labels, labels(&[("trace", "2")]));
    assert!(exemplars(&store, r#"m{cluster="us-1"}"#).await.is_empty());
    assert_eq!(
        exemplars(&store.for_queries(), "m").await[0].series_labels,
        labels(&[("__name__", "m"), ("n", "1")])
    );
    let request = ExemplarsRequest {
        query: "m{".to_owned(),
        range: TimeRange::ALL,
        partial_response: PartialResponse::Warn,
    };
    let refused: Result<storeapi::Listed<ExemplarSeries>, _> =
        store.list(request, AnswerMemory::unlimited()).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn statistics_are_those_of_the_head() {
    let (_dir, store) = world();
    let list = async |request: TsdbStatusRequest| -> Vec<TenantTsdbStatus> {
        store.list(request, AnswerMemory::unlimited()).await.unwrap().items
    };
    let found = list(TsdbStatusRequest { limit: Some(1), ..TsdbStatusRequest::default() }).await;
    let status = &found[0].status;
    assert_eq!((status.head_stats.num_series, status.head_stats.num_label_pairs), (2, 3));
    assert_eq!((status.head_stats.min_time, status.head_stats.chunk_count), (START_MILLIS, 2));
    assert_eq!(status.series_count_by_metric_name[0].name, "m");
    assert_eq!(status.label_value_count_by_label_name.len(), 1);
    let elsewhere = vec![Matcher::equal("cluster", "us-1")];
    assert!(list(TsdbStatusRequest { matchers: elsewhere, ..TsdbStatusRequest::default() }).await.is_empty());
    assert!(
        list(TsdbStatusRequest { tenant: "t".to_owned(), ..TsdbStatusRequest::default() }).await.is_empty()
    );
}

#[tokio::test]
async fn targets_have_external_labels() {
    let (_dir, store) = world();
    let list = async |state, alertmanagers| -> TargetDiscovery {
        let request = TargetsRequest { state, alertmanagers, ..TargetsRequest::default() };
        store.list(request, AnswerMemory::unlimited()).await.unwrap().items.remove(0)
    };
    let found = list(None, false).await;
    assert_eq!(found.active_targets[0].labels, labels(&[("cluster", "eu-1"), ("job", "api")]));
    assert_eq!(found.dropped_targets[0].discovered_labels, labels(&[("cluster", "eu-1")]));
    assert!(list(Some(TargetState::Active), false).await.dropped_targets.is_empty());
    assert!(list(Some(TargetState::Dropped), false).await.active_targets.is_empty());
    let found = list(None, true).await;
    assert!(found.active_targets.is_empty() && found.alertmanagers.is_some());
    let rules = store.list(RulesRequest::default(), AnswerMemory::unlimited()).await;
    let rules: storeapi::Listed<RuleGroup> = rules.unwrap();
    assert!(rules.items.is_empty());
}
