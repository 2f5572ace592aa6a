//! Rules, targets, exemplars and statistics of a real Prometheus.

use promapi::{AlertState, ExemplarSeries, Rule, RuleGroup, TargetDiscovery, TargetHealth};
use storeapi::{
    AnswerMemory, ExemplarsRequest, Listed, Listing, ListingStore, PartialResponse, RuleKind, RulesRequest,
    TargetState, TargetsRequest, TenantTsdbStatus, TsdbStatusRequest,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use shipper::testing::wait_until;

/// Serves metrics with an exemplar.
async fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let body = "# TYPE requests counter\nrequests_total{path=\"/\"} 3 # {traceID=\"x\"} 0.5\n# EOF\n";
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

const RULES: &str = r#"
groups:
- name: g
  interval: 1s
  rules:
  - alert: Up
    expr: up == 1
    labels: {severity: page}
    annotations: {summary: "{{ $labels.instance }} is up"}
  - record: job:up:sum
    expr: sum by (job) (up)
"#;

/// A Prometheus that scrapes `target` and evaluates rules.
fn start_scraping(dir: &Path, target: SocketAddr) -> Prometheus {
    let config = format!(
        "global:\n  scrape_interval: 1s\n  external_labels: {{cluster: eu-1, replica: a}}\n\
         rule_files: [{}]\nalerting: {{alertmanagers: [{{static_configs: [{{targets: ['am:9093']}}]}}]}}\nscrape_configs:\n- job_name: api\n  static_configs: [{{targets: ['{target}', 'gone:1']}}]\n  \
         relabel_configs: [{{source_labels: [__address__], regex: 'gone:1', action: drop}}]\n",
        dir.join("rules.yml").display()
    );
    fs::create_dir_all(dir.join("data")).expect("a folder");
    fs::write(dir.join("rules.yml"), RULES).expect("a file");
    fs::write(dir.join("prometheus.yml"), config).expect("a file");
    let flags = ["--enable-feature=exemplar-storage"];
    Prometheus::run(Path::new("prometheus"), dir, free_port(), &flags)
}

async fn list<L: Listing>(store: &PrometheusStore, request: L::Request) -> Listed<L>
where
    PrometheusStore: ListingStore<L>,
{
    let listed = store.list(request, AnswerMemory::unlimited()).await.expect("a list");
    assert!(listed.warnings.is_empty(), "{:?}", listed.warnings);
    listed
}

fn exemplars(query: &str) -> ExemplarsRequest {
    let query = query.to_owned();
    ExemplarsRequest { query, range: TimeRange::ALL, partial_response: PartialResponse::Warn }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_prometheus_have_its_external_labels() {
    if !installed() {
        return;
    }
    let dir = TempDir::new().expect("a folder");
    let address = target().await;
    let prometheus = start_scraping(dir.path(), address);
    let sidecar = sidecar(prometheus.address, "0000-01-01T00:00:00Z");
    until("Prometheus", &sidecar, Result::is_ok).await;
    let store = &*sidecar.store;
    let apis = store.info().await.expect("info").apis;
    assert!(apis.rules && apis.targets && apis.exemplars && apis.status && !apis.query, "{apis:?}");

    wait_until("a firing alert", async || {
        let groups = list::<RuleGroup>(store, RulesRequest::default()).await.items;
        groups.iter().flat_map(|group| &group.rules).any(|rule| !rule.alerts().is_empty())
    })
    .await;
    let groups = list::<RuleGroup>(store, RulesRequest::default()).await.items;
    let [RuleGroup { rules, .. }] = &groups[..] else { panic!("{groups:?}") };
    let [Rule::Alerting(alerting), Rule::Recording(recording)] = &rules[..] else { panic!("{groups:?}") };
    assert_eq!((alerting.name.as_str(), alerting.state), ("Up", AlertState::Firing));
    assert_eq!(alerting.labels, labels(&[("cluster", "eu-1"), ("replica", "a"), ("severity", "page")]));
    let alert = &alerting.alerts[0];
    assert_eq!((alert.labels.value("cluster"), alert.labels.value("alertname")), ("eu-1", "Up"));
    assert!(alert.active_at.is_some() && alert.annotations.value("summary").ends_with("is up"), "{alert:?}");
    assert_eq!((recording.name.as_str(), recording.labels.value("replica")), ("job:up:sum", "a"));
    let only = RulesRequest { kind: Some(RuleKind::Recording), ..RulesRequest::default() };
    let groups = list::<RuleGroup>(store, only).await.items;
    assert!(groups.iter().flat_map(|g| &g.rules).all(|rule| matches!(rule, Rule::Recording(_))));

    let all = list::<TargetDiscovery>(store, TargetsRequest::default()).await.items.remove(0);
    let [active] = &all.active_targets[..] else { panic!("{all:?}") };
    assert_eq!((active.health, active.scrape_interval.as_str()), (TargetHealth::Up, "1s"));
    assert_eq!((active.labels.value("cluster"), active.discovered_labels.value("replica")), ("eu-1", "a"));
    assert_eq!(active.scrape_url, format!("http://{address}/metrics"));
    assert_eq!(all.dropped_targets[0].discovered_labels.value("__address__"), "gone:1");
    assert_eq!(all.dropped_targets[0].discovered_labels.value("cluster"), "eu-1");
    let only = TargetsRequest { state: Some(TargetState::Dropped), ..TargetsRequest::default() };
    let dropped = list::<TargetDiscovery>(store, only).await.items.remove(0);
    assert_eq!((dropped.active_targets.len(), dropped.dropped_targets.len()), (0, 1));

    let only = TargetsRequest { alertmanagers: true, ..TargetsRequest::default() };
    let found = list::<TargetDiscovery>(store, only).await.items.remove(0);
    let alertmanagers = found.alertmanagers.expect("the Alertmanagers").active_alertmanagers;
    assert_eq!(
        (alertmanagers[0].url.as_str(), found.active_targets.len()),
        ("http://am:9093/api/v2/alerts", 0)
    );

    wait_until("an exemplar", async || {
        !list::<ExemplarSeries>(store, exemplars("requests_total")).await.items.is_empty()
    })
    .await;
    let series = list::<ExemplarSeries>(store, exemplars("rate(requests_total{path=\"/\"}[5m])")).await.items;
    let [ExemplarSeries { series_labels, exemplars: found }] = &series[..] else { panic!("{series:?}") };
    assert_eq!((series_labels.value("cluster"), series_labels.metric_name()), ("eu-1", "requests_total"));
    assert_eq!((found[0].labels.value("traceID"), found[0].value), ("x", 0.5));
    let refused =
        ListingStore::<ExemplarSeries>::list(store, exemplars("{"), AnswerMemory::unlimited()).await;
    assert_eq!(refused.expect_err("a parse error").code(), storeapi::Code::InvalidArgument);

    // This Prometheus is older than 3 and rejects such names. A label with such a name is empty there.
    for (query, expected) in [
        ("{\"requests_total\", \"a.b\"=\"\"} + up", 1),
        ("{\"requests_total\", \"a.b\"=\"x\"}", 0),
        ("{\"a.b\"!=\"\"} or requests_total", 1),
    ] {
        let found = list::<ExemplarSeries>(store, exemplars(query)).await.items;
        assert_eq!(found.len(), expected, "{query}");
    }

    let of = |cluster: &str| TsdbStatusRequest {
        limit: Some(2),
        matchers: vec![Matcher::equal("cluster", cluster)],
        ..TsdbStatusRequest::default()
    };
    let status = list::<TenantTsdbStatus>(store, of("eu-1")).await.items.remove(0).status;
    assert!(status.head_stats.num_series > 0, "{status:?}");
    assert_eq!(status.series_count_by_metric_name.len(), 2, "{status:?}");
    assert!(list::<TenantTsdbStatus>(store, of("us-1")).await.items.is_empty());

    // Each list keeps its slot until it is dropped. There are four.
    let mut sent = Vec::new();
    for _ in 0..4 {
        sent.push(list::<RuleGroup>(store, RulesRequest::default()).await);
    }
    let fifth = list::<RuleGroup>(store, RulesRequest::default());
    tokio::pin!(fifth);
    tokio::time::timeout(Duration::from_millis(300), &mut fifth).await.expect_err("no slot is free");
    sent.pop();
    fifth.await;
    drop(sent);

    drop(prometheus);
    until("the loss", &sidecar, Result::is_err).await;
    let lost =
        ListingStore::<RuleGroup>::list(store, RulesRequest::default(), AnswerMemory::unlimited()).await;
    assert_eq!(lost.expect_err("not ready").code(), storeapi::Code::Unavailable);
}
