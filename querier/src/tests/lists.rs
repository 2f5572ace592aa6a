//! Rules, targets, exemplars and statistics, of stores that speak as those of Thanos.

use std::sync::Mutex;

use promapi::{ExemplarSeries, RuleGroup, TargetDiscovery};
use proto::thanos as wire;
use runtime::RunningRole;
use serde_json::{Value, json};
use storeapi::{AnswerMemory, Listed, PartialResponse, RulesRequest};
use tonic::{Request, Response, Status};

use super::*;
use crate::tests::web::{get, post, querier};
use crate::{StoreFilter, StoreLists};

type Answer<T> = Result<Response<stream::BoxStream<'static, Result<T, Status>>>, Status>;

fn frames<T: Send + 'static>(results: Vec<T>) -> Answer<T> {
    Ok(Response::new(stream::iter(results.into_iter().map(Ok)).boxed()))
}

/// A sidecar of Thanos: its labels, and what it was asked.
#[derive(Clone)]
struct ThanosSidecar {
    external: Labels,
    asked: Arc<Mutex<Vec<String>>>,
    warning: Option<&'static str>,
    /// Whether it has no field of ours.
    old: bool,
}

impl ThanosSidecar {
    fn new(external: &[(&str, &str)]) -> Self {
        Self { external: labels(external), asked: Arc::default(), warning: None, old: false }
    }

    fn set(&self, own: &[(&str, &str)]) -> Option<wire::LabelSet> {
        Some(storeapi::labels_to_wire(&labels(own).extended(&self.external)))
    }

    fn asked(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }

    async fn serve(self) -> String {
        let mut routes = RoutesBuilder::default();
        routes.add_service(wire::info::info_server::InfoServer::new(self.clone()));
        routes.add_service(wire::rules_server::RulesServer::new(self.clone()));
        routes.add_service(wire::targets_server::TargetsServer::new(self.clone()));
        routes.add_service(wire::exemplars_server::ExemplarsServer::new(self.clone()));
        routes.add_service(wire::status_server::StatusServer::new(self));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_routes(routes.routes());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        address
    }
}

#[tonic::async_trait]
impl wire::info::info_server::Info for ThanosSidecar {
    async fn info(
        &self,
        _: Request<wire::info::InfoRequest>,
    ) -> Result<Response<wire::info::InfoResponse>, Status> {
        Ok(Response::new(wire::info::InfoResponse {
            label_sets: Vec::from_iter(self.set(&[])),
            component_type: "sidecar".to_owned(),
            store: Some(wire::info::StoreInfo { min_time: 0, max_time: i64::MAX, ..Default::default() }),
            rules: Some(Default::default()),
            targets: Some(Default::default()),
            exemplars: Some(Default::default()),
            status: Some(Default::default()),
            ..Default::default()
        }))
    }
}

/// As in Thanos, rules have the external labels, their alerts do not.
#[tonic::async_trait]
impl wire::rules_server::Rules for ThanosSidecar {
    type RulesStream = stream::BoxStream<'static, Result<wire::RulesResponse, Status>>;

    async fn rules(&self, request: Request<wire::RulesRequest>) -> Answer<wire::RulesResponse> {
        use wire::rule::Result as Kind;
        use wire::rules_response::Result as Frame;
        self.asked(format!("rules {}", request.get_ref().r#type));
        let alert = wire::AlertInstance {
            labels: Some(storeapi::labels_to_wire(&labels(&[("alertname", "Down")]))),
            annotations: Some(storeapi::labels_to_wire(&labels(&[("summary", "<down>")]))),
            state: wire::AlertState::Firing.into(),
            active_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 }),
            value: "1e+00".to_owned(),
            ..Default::default()
        };
        let alerting = wire::Alert {
            state: wire::AlertState::Firing.into(),
            name: "Down".to_owned(),
            query: "up == 0".to_owned(),
            labels: self.set(&[("severity", "page")]),
            alerts: vec![alert],
            health: "ok".to_owned(),
            ..Default::default()
        };
        let recording = wire::RecordingRule {
            name: "job:up:sum".to_owned(),
            query: "sum by (job) (up)".to_owned(),
            labels: self.set(&[]),
            health: "ok".to_owned(),
            ..Default::default()
        };
        let rules = [Kind::Alert(alerting), Kind::Recording(recording)].into_iter();
        let group = wire::RuleGroup {
            name: "g".to_owned(),
            file: "/r.yml".to_owned(),
            rules: rules.map(|rule| wire::Rule { result: Some(rule) }).collect(),
            interval: 15.0,
            partial_response_strategy: wire::PartialResponseStrategy::Abort.into(),
            ..Default::default()
        };
        let warning = self.warning.map(|text| Frame::Warning(text.to_owned()));
        let results = warning.into_iter().chain([Frame::Group(group)]);
        frames(results.map(|result| wire::RulesResponse { result: Some(result) }).collect())
    }
}

#[tonic::async_trait]
impl wire::targets_server::Targets for ThanosSidecar {
    type TargetsStream = stream::BoxStream<'static, Result<wire::TargetsResponse, Status>>;

    async fn targets(&self, request: Request<wire::TargetsRequest>) -> Answer<wire::TargetsResponse> {
        self.asked(format!("targets {}", request.get_ref().state));
        let urls = || vec![format!("http://{}/api/v2/alerts", self.external.value("replica"))];
        let alertmanagers = wire::Alertmanagers { active: urls(), dropped: vec!["http://d".to_owned()] };
        let alertmanagers = Some(alertmanagers).filter(|_| request.get_ref().alertmanagers && !self.old);
        let active = wire::ActiveTarget {
            discovered_labels: self.set(&[("__address__", "a:1")]),
            labels: self.set(&[("instance", "a:1"), ("job", "api")]),
            scrape_pool: "api".to_owned(),
            scrape_url: "http://a:1/metrics".to_owned(),
            health: wire::TargetHealth::Up.into(),
            ..Default::default()
        };
        let dropped = wire::DroppedTarget {
            discovered_labels: self.set(&[("__address__", "b:1")]),
            ..Default::default()
        };
        let targets = wire::TargetDiscovery {
            active_targets: vec![active],
            dropped_targets: vec![dropped],
            alertmanagers,
        };
        let result = Some(wire::targets_response::Result::Targets(targets));
        frames(vec![wire::TargetsResponse { result }])
    }
}

#[tonic::async_trait]
impl wire::exemplars_server::Exemplars for ThanosSidecar {
    type ExemplarsStream = stream::BoxStream<'static, Result<wire::ExemplarsResponse, Status>>;

    async fn exemplars(&self, request: Request<wire::ExemplarsRequest>) -> Answer<wire::ExemplarsResponse> {
        self.asked(format!("exemplars {}", request.get_ref().query));
        let exemplar = wire::Exemplar {
            labels: Some(storeapi::labels_to_wire(&labels(&[("traceID", "x")]))),
            value: 6.0,
            ts: 1_600_096_945_479,
        };
        let data =
            wire::ExemplarData { series_labels: self.set(&[("__name__", "m")]), exemplars: vec![exemplar] };
        let result = Some(wire::exemplars_response::Result::Data(data));
        frames(vec![wire::ExemplarsResponse { result }])
    }
}

#[tonic::async_trait]
impl wire::status_server::Status for ThanosSidecar {
    type TSDBStatisticsStream = stream::BoxStream<'static, Result<wire::TsdbStatisticsResponse, Status>>;

    async fn tsdb_statistics(
        &self,
        request: Request<wire::TsdbStatisticsRequest>,
    ) -> Answer<wire::TsdbStatisticsResponse> {
        self.asked(format!("statistics {}", request.get_ref().limit));
        let entry = wire::TsdbStatisticsEntry {
            head_statistics: Some(wire::HeadStatistics { num_series: 10, min_time: 1, ..Default::default() }),
            series_count_by_metric_name: vec![wire::Statistic { name: "up".to_owned(), value: 3 }],
            ..Default::default()
        };
        let statistics = wire::TsdbStatistics { statistics: [(String::new(), entry)].into_iter().collect() };
        let result = Some(wire::tsdb_statistics_response::Result::Statistics(statistics));
        frames(vec![wire::TsdbStatisticsResponse { result }])
    }
}

async fn two_replicas() -> (Vec<String>, ThanosSidecar) {
    let of = |replica| ThanosSidecar::new(&[("cluster", "eu-1"), ("replica", replica)]);
    let first = of("a");
    (vec![first.clone().serve().await, of("b").serve().await], first)
}

async fn data(querier: &RunningRole, path: &str) -> Value {
    let answer = get(querier, path).await;
    let body = answer.json();
    assert_eq!(answer.status, 200, "{path}: {body}");
    assert!(body.get("warnings").is_none(), "{path}: {body}");
    body["data"].clone()
}

const PATHS: [&str; 7] = [
    "/api/v1/rules",
    "/api/v1/alerts",
    "/api/v1/targets",
    "/api/v1/scrape_pools",
    "/api/v1/query_exemplars?query=m",
    "/api/v1/status/tsdb",
    "/api/v1/alertmanagers",
];

#[tokio::test]
async fn rules_and_alerts_of_replicas_are_merged_and_have_external_labels() {
    let (endpoints, first) = two_replicas().await;
    let querier = querier(&endpoints, &[]).await;
    let rules = data(&querier, "/api/v1/rules").await;
    let group = &rules["groups"][0];
    assert_eq!(rules["groups"].as_array().unwrap().len(), 1, "{rules}");
    assert_eq!(
        (&group["name"], &group["file"], &group["interval"]),
        (&json!("g"), &json!("/r.yml"), &json!(15.0))
    );
    assert_eq!(group["partialResponseStrategy"], "ABORT");
    assert_eq!(group["lastEvaluation"], "0001-01-01T00:00:00Z");
    let [alerting, recording] = &group["rules"].as_array().unwrap()[..] else { panic!("{rules}") };
    assert_eq!((&alerting["type"], &alerting["state"]), (&json!("alerting"), &json!("firing")));
    assert_eq!(alerting["labels"], json!({"cluster": "eu-1", "severity": "page"}));
    assert_eq!(
        (&recording["type"], &recording["labels"]),
        (&json!("recording"), &json!({"cluster": "eu-1"}))
    );
    let alert = json!({
        "labels": {"alertname": "Down", "cluster": "eu-1"}, "annotations": {"summary": "<down>"},
        "state": "firing", "activeAt": "2023-11-14T22:13:20.5Z", "value": "1e+00",
    });
    assert_eq!(alerting["alerts"], json!([alert]));
    assert_eq!(data(&querier, "/api/v1/alerts").await, json!({"alerts": [alert]}));
    assert_eq!(*first.asked.lock().unwrap(), ["rules 0", "rules 1"], "the type is applied by the store");

    let count = async |parameters: &str| {
        let rules = data(&querier, &format!("/api/v1/rules?{parameters}")).await;
        let groups = rules["groups"].as_array().unwrap().clone();
        groups.iter().map(|g| g["rules"].as_array().unwrap().len()).sum::<usize>()
    };
    assert_eq!(count("dedup=false").await, 4);
    assert_eq!(count("rule_name[]=Down").await, 1);
    assert_eq!(count("match[]=%7Bseverity=%22page%22%7D&dedup=false").await, 2);
    assert_eq!(count("file[]=/other.yml").await, 0);
    assert_eq!(count("group_limit=1&exclude_alerts=true").await, 2);
    let without = data(&querier, "/api/v1/rules?exclude_alerts=true&type=ALERT").await;
    assert_eq!(without["groups"][0]["rules"][0]["alerts"], json!([]));
}

#[tokio::test]
async fn targets_exemplars_and_statistics_of_replicas_are_merged() {
    let (endpoints, first) = two_replicas().await;
    let querier = querier(&endpoints, &[]).await;
    let targets = data(&querier, "/api/v1/targets").await;
    let [active] = &targets["activeTargets"].as_array().unwrap()[..] else { panic!("{targets}") };
    assert_eq!(active["labels"], json!({"cluster": "eu-1", "instance": "a:1", "job": "api"}));
    assert_eq!((&active["health"], &active["scrapePool"]), (&json!("up"), &json!("api")));
    let dropped = json!([{"discoveredLabels": {"__address__": "b:1", "cluster": "eu-1"}}]);
    assert_eq!(targets["droppedTargets"], dropped);
    let other = data(&querier, "/api/v1/targets?state=ACTIVE&scrapePool=other").await;
    assert_eq!(other, json!({"activeTargets": [], "droppedTargets": []}));
    assert_eq!(data(&querier, "/api/v1/scrape_pools").await, json!({"scrapePools": ["api"]}));

    let query = "query=rate(m%7Bcluster=%22eu-1%22%7D%5B5m%5D)%2Bn%7Bcluster=%22us-1%22%7D&start=0&end=9";
    let exemplars = json!([{
        "seriesLabels": {"__name__": "m", "cluster": "eu-1"},
        "exemplars": [{"labels": {"traceID": "x"}, "value": "6", "timestamp": 1_600_096_945.479}],
    }]);
    assert_eq!(data(&querier, &format!("/api/v1/query_exemplars?{query}")).await, exemplars);
    assert_eq!(post(&querier, "/api/v1/query_exemplars", query).await.json()["data"], exemplars);
    let elsewhere = data(&querier, "/api/v1/query_exemplars?query=m%7Bcluster=%22us-1%22%7D").await;
    assert_eq!(elsewhere, json!([]));
    assert_eq!(data(&querier, "/api/v1/query_exemplars?query=1").await, json!([]));

    let status = data(&querier, "/api/v1/status/tsdb?limit=5").await;
    assert_eq!((&status["headStats"]["numSeries"], &status["headStats"]["minTime"]), (&json!(20), &json!(1)));
    assert_eq!(status["seriesCountByMetricName"], json!([{"name": "up", "value": 6}]));
    assert_eq!(status["memoryInBytesByLabelName"], json!([]));
    let asked = first.asked.lock().unwrap();
    let expected = [
        "targets 0",
        "targets 1",
        "targets 0",
        "exemplars {__name__=\"m\"}",
        "exemplars {__name__=\"m\"}",
        "statistics 5",
    ];
    assert_eq!(*asked, expected);
}

/// Thanos has no service for Alertmanagers. Our sidecars send them in a field that Thanos ignores.
#[tokio::test]
async fn alertmanagers_are_those_of_all_sidecars_and_a_sidecar_without_them_is_a_warning() {
    let (mut endpoints, _) = two_replicas().await;
    let whole = querier(&endpoints, &[]).await;
    let of = |replica: &str| json!({"url": format!("http://{replica}/api/v2/alerts")});
    let expected =
        json!({"activeAlertmanagers": [of("a"), of("b")], "droppedAlertmanagers": [{"url": "http://d"}]});
    assert_eq!(data(&whole, "/api/v1/alertmanagers").await, expected);
    let stacked = querier(&[whole.grpc_address().to_string()], &[]).await;
    assert_eq!(data(&stacked, "/api/v1/alertmanagers").await, expected);
    let old = ThanosSidecar { old: true, ..ThanosSidecar::new(&[("cluster", "us-1")]) };
    endpoints.push(old.serve().await);
    let answer = get(&querier(&endpoints, &[]).await, "/api/v1/alertmanagers").await.json();
    assert_eq!(answer["data"], expected);
    let warnings = answer["warnings"].as_array().unwrap();
    assert!(warnings.len() == 1 && warnings[0].as_str().unwrap().contains("does not send its Alertmanagers"));
}

#[tokio::test]
async fn lost_store_is_a_warning_or_an_error_for_every_list() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (mut endpoints, _) = two_replicas().await;
    endpoints.push(closed_port.clone());
    let querier = querier(&endpoints, &[]).await;
    for path in PATHS {
        let answer = get(&querier, path).await;
        let body = answer.json();
        assert_eq!(answer.status, 200, "{path}: {body}");
        assert_eq!(body["warnings"].as_array().unwrap().len(), 1, "{path}: {body}");
        assert!(body["warnings"][0].as_str().unwrap().contains(&closed_port), "{path}: {body}");
        let separator = if path.contains('?') { '&' } else { '?' };
        let answer = get(&querier, &format!("{path}{separator}partial_response=false")).await;
        assert!(answer.status >= 400 && answer.body.contains(&closed_port), "{path}: {}", answer.body);
    }
    let chosen = format!("/api/v1/rules?storeMatch[]=%7B__address__!=%22{closed_port}%22%7D");
    assert_eq!(data(&querier, &chosen).await["groups"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn lists_without_a_source_are_empty_and_have_the_right_shape() {
    let store = serve(memory(&[("cluster", "eu-1")], &["api"])).await;
    let querier = querier(&[store], &[]).await;
    let statistics = json!({
        "headStats": {"numSeries": 0, "numLabelPairs": 0, "chunkCount": 0, "minTime": 0, "maxTime": 0},
        "seriesCountByMetricName": [], "labelValueCountByLabelName": [], "memoryInBytesByLabelName": [],
        "seriesCountByLabelValuePair": [],
    });
    let expected = [
        json!({"groups": []}),
        json!({"alerts": []}),
        json!({"activeTargets": [], "droppedTargets": []}),
        json!({"scrapePools": []}),
        json!([]),
        statistics,
        json!({"activeAlertmanagers": [], "droppedAlertmanagers": []}),
    ];
    for (path, expected) in PATHS.into_iter().zip(expected) {
        assert_eq!(data(&querier, path).await, expected, "{path}");
    }
    let metadata = get(&querier, "/api/v1/targets/metadata").await.json();
    assert_eq!((&metadata["data"], metadata["infos"].as_array().map(Vec::len)), (&json!([]), Some(1)));
    assert_eq!(data(&querier, "/api/v1/status/config").await, json!({"yaml": ""}));
}

#[tokio::test]
async fn invalid_parameters_are_bad_data() {
    let (endpoints, _) = two_replicas().await;
    let querier = querier(&endpoints, &[]).await;
    for path in [
        "/api/v1/rules?type=x",
        "/api/v1/rules?match[]=x%7B",
        "/api/v1/rules?group_next_token=x",
        "/api/v1/rules?group_limit=0",
        "/api/v1/rules?group_limit=1&group_next_token=x",
        "/api/v1/rules?exclude_alerts=x",
        "/api/v1/targets?state=x",
        "/api/v1/query_exemplars?query=m%7B",
        "/api/v1/query_exemplars?query=m&start=5&end=4",
        "/api/v1/status/tsdb?limit=0",
        "/api/v1/status/tsdb?limit=10001",
    ] {
        let answer = get(&querier, path).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["errorType"]), (400, &json!("bad_data")), "{path}: {body}");
    }
}

#[tokio::test]
async fn list_over_the_memory_limit_fails_and_names_the_limit() {
    let (endpoints, _) = two_replicas().await;
    let each = querier(&endpoints, &["--query.max-memory-per-store=500B"]).await;
    let answer = get(&each, "/api/v1/rules").await.json();
    assert_eq!(answer["warnings"].as_array().unwrap().len(), 2, "{answer}");
    assert!(answer["warnings"][0].as_str().unwrap().contains("--query.max-memory-per-store"), "{answer}");
    let querier = querier(&endpoints, &["--query.max-memory=500B"]).await;
    for path in ["/api/v1/rules", "/api/v1/targets", "/api/v1/query_exemplars?query=m"] {
        let answer = get(&querier, path).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["errorType"]), (422, &json!("execution")), "{path}: {body}");
        assert!(answer.body.contains("(--query.max-memory)"), "{path}: {body}");
    }
    assert!(get(&querier, "/metrics").await.body.contains("isthmus_query_memory_bytes 0"));
}

/// A querier of Thanos in front of this one speaks gRPC, and removes replica labels itself.
#[tokio::test]
async fn lists_are_announced_and_served_over_grpc_without_merging() {
    let (endpoints, _) = two_replicas().await;
    let lower = querier(&endpoints, &["--selector-label=tier=\"edge\""]).await;
    let channel = mesh::direct(&lower.grpc_address().to_string()).unwrap();
    let mut info = wire::info::info_client::InfoClient::new(channel.clone());
    let info = info.info(wire::info::InfoRequest {}).await.unwrap().into_inner();
    assert!(info.rules.is_some() && info.targets.is_some(), "{info:?}");
    assert!(info.exemplars.is_some() && info.status.is_some(), "{info:?}");
    let mut rules = wire::rules_client::RulesClient::new(channel.clone());
    let answer = rules.rules(wire::RulesRequest::default()).await.unwrap().into_inner();
    let groups: Vec<_> = answer.collect().await;
    assert_eq!(groups.len(), 2, "{groups:?}");
    let mut targets = wire::targets_client::TargetsClient::new(channel.clone());
    let answer = targets.targets(wire::TargetsRequest::default()).await.unwrap().into_inner();
    let parts: Vec<_> = answer.collect().await;
    assert!(parts.iter().all(Result::is_ok) && !parts.is_empty(), "{parts:?}");
    let bad = wire::RulesRequest { r#type: 7, ..Default::default() };
    assert_eq!(rules.rules(bad).await.unwrap_err().code(), tonic::Code::InvalidArgument);

    // Matchers for the labels of lower stores, and for its own selector labels, reach a querier.
    let upper = querier(&[lower.grpc_address().to_string()], &[]).await;
    assert_eq!(data(&upper, "/api/v1/alerts").await["alerts"].as_array().unwrap().len(), 1);
    for (matcher, found) in [("cluster=%22eu-1%22", 1), ("tier=%22edge%22", 1), ("tier=%22core%22", 0)] {
        let series = data(&upper, &format!("/api/v1/query_exemplars?query=m%7B{matcher}%7D")).await;
        assert_eq!(series.as_array().unwrap().len(), found, "{matcher}: {series}");
    }
    assert_eq!(data(&upper, "/api/v1/status/tsdb").await["headStats"]["numSeries"], 20);
}

/// The list of a member as the fan-out sees it.
async fn member(sidecar: ThanosSidecar) -> Candidate {
    let client = Arc::new(StoreClient::new("member", mesh::direct(&sidecar.serve().await).unwrap()));
    let info = client.info().await.unwrap();
    Candidate {
        info: Some(Arc::new(info)),
        bound: labels(&[("cluster", "eu-1")]),
        lists: Some(Arc::clone(&client) as Arc<dyn StoreLists>),
        ..local("member", client)
    }
}

#[tokio::test]
async fn member_cannot_show_labels_of_another_cluster() {
    let gather = async |sidecar: ThanosSidecar| {
        let proxy = proxy(vec![member(sidecar).await], ProxyOptions::default());
        let (all, memory, warn) = (StoreFilter::default(), AnswerMemory::unlimited(), PartialResponse::Warn);
        let request = RulesRequest::default();
        let rules: Listed<RuleGroup> =
            proxy.gather(&all, warn, &memory, |_| Some(request.clone())).await.unwrap();
        let targets: Listed<TargetDiscovery> =
            proxy.gather(&all, warn, &memory, |_| Some(Default::default())).await.unwrap();
        let exemplars = storeapi::ExemplarsRequest {
            query: "m".to_owned(),
            range: TimeRange::ALL,
            partial_response: warn,
        };
        let exemplars: Listed<ExemplarSeries> =
            proxy.gather(&all, warn, &memory, |_| Some(exemplars.clone())).await.unwrap();
        let items = rules.items.len() + targets.items.len() + exemplars.items.len();
        (items, [rules.warnings, targets.warnings, exemplars.warnings].concat())
    };
    let (items, warnings) = gather(ThanosSidecar::new(&[("cluster", "eu-1")])).await;
    assert_eq!((items, warnings.len()), (3, 0), "{warnings:?}");
    for external in [&[("cluster", "us-1")][..], &[("cluster", "еu-1")], &[("site", "eu-1")]] {
        let (items, warnings) = gather(ThanosSidecar::new(external)).await;
        assert_eq!((items, warnings.len()), (0, 3), "{external:?}: {warnings:?}");
        for warning in warnings {
            let is_named =
                warning.starts_with("store member: ") && warning.contains("must carry cluster=\"eu-1\"");
            assert!(is_named, "{warning}");
        }
    }
}

#[tokio::test]
async fn warnings_of_stores_are_passed_on_with_their_name() {
    let sidecar =
        ThanosSidecar { warning: Some("rules are stale"), ..ThanosSidecar::new(&[("cluster", "eu-1")]) };
    let address = sidecar.serve().await;
    let querier = querier(std::slice::from_ref(&address), &[]).await;
    let answer = get(&querier, "/api/v1/rules").await.json();
    assert_eq!(answer["warnings"], json!([format!("store {address}: rules are stale")]));
    assert_eq!(answer["data"]["groups"].as_array().unwrap().len(), 1);
}
