//! StoreAPI, rules and uploads of a ruler.

use std::sync::Arc;

use head::{Database, DatabaseOptions};
use model::{Labels, Timestamp};
use promapi::RuleGroup;
use storeapi::acceptance::Dataset;
use storeapi::{AnswerMemory, Listed, ListingStore, RulesRequest, Store, StoreClient, acceptance};

use super::querier::{Behaviour, FakeQuerier};
use super::*;

fn client(role: &RunningRole) -> StoreClient {
    StoreClient::new("ruler", mesh::direct(&role.grpc_address().to_string()).unwrap())
}

/// A data folder with a data set, in the order of time as samples arrive.
fn fill(dir: &Path, dataset: &Dataset) {
    let (database, _) = Database::open(&dir.join("data"), DatabaseOptions::default()).unwrap();
    let most = dataset.series.iter().map(|(_, samples)| samples.len()).max().unwrap_or(0);
    for at in 0..most {
        let mut appender = database.head().appender();
        for (labels, samples) in &dataset.series {
            let handle = database.head().series(labels);
            let sample = samples[at];
            appender.append_float(&handle, sample.timestamp, Timestamp::EPOCH, sample.value).unwrap();
        }
        appender.commit().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_a_ruler_passes_the_acceptance_suite() {
    acceptance::run(|dataset| async move {
        let dir = TempDir::new().unwrap();
        fill(dir.path(), &dataset);
        write_rules(dir.path(), "groups: []");
        let labels: Vec<String> = dataset
            .external
            .iter()
            .map(|label| format!("--label={}={:?}", label.name, label.value))
            .collect();
        let mut flags: Vec<&str> = labels.iter().map(String::as_str).collect();
        flags.push("--query=http://127.0.0.1:1");
        let role = start(dir.path(), &flags).await;
        let store: Arc<dyn Store> = Arc::new(client(&role));
        (store, (role, dir))
    })
    .await;
}

async fn listed(role: &RunningRole) -> Listed<RuleGroup> {
    let request = RulesRequest::default();
    ListingStore::<RuleGroup>::list(&client(role), request, AnswerMemory::unlimited()).await.unwrap()
}

const RULES: &str = "groups: [{name: g, interval: 300ms, rules: [{record: r, expr: up}, \
    {alert: A, expr: up, labels: {cluster: eu-1}}]}]";

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_served_over_grpc_and_alerts_keep_their_own_labels() {
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), RULES);
    let querier = FakeQuerier::start(Behaviour::Answers(vec![("a", 1.0)], vec![])).await;
    let flags =
        [&querier.flag(), "--label=cluster=\"obs\"", "--label=replica=\"a\"", "--web.route-prefix=/p"];
    let role = start(dir.path(), &flags).await;
    let external = Labels::from_pairs([("cluster", "obs"), ("replica", "a")]).unwrap();
    let mut groups = Listed::default();
    until("an alert is listed", async || {
        groups = listed(&role).await;
        groups.items.iter().flat_map(|group| &group.rules).any(|rule| !rule.alerts().is_empty())
    })
    .await;
    assert_eq!(groups.items[0].rules[0].labels(), &external);
    let alerts = groups.items[0].rules[1].alerts();
    let expected = [("alertname", "A"), ("cluster", "eu-1"), ("job", "a"), ("replica", "a")];
    assert_eq!(alerts[0].labels, Labels::from_pairs(expected).unwrap());
    let info = client(&role).info().await.unwrap();
    assert_eq!((info.component.as_str(), &info.label_sets[..]), ("rule", &[external][..]));
    assert!(info.apis.store && info.apis.rules && !info.apis.targets, "{info:?}");

    println!("the API and the reload are below the prefix, probes and metrics at the root");
    let http = role.http_address();
    assert_eq!(data(http, "/p/api/v1/rules").await["groups"][0]["name"], "g");
    assert_eq!(get(http, "/api/v1/rules").await.0, 404);
    for path in ["/p/-/reload", "/-/reload"] {
        assert_eq!(ask(http, "POST", path).await.0, 200, "{path}");
    }
    assert_eq!(data(http, "/p/api/v1/status/flags").await["label"], "cluster=\"obs\",replica=\"a\"");
    stop(role).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_storage_samples_are_sent_and_rules_are_still_served() {
    let receiver_dir = TempDir::new().unwrap();
    if !shipper::testing::installed() {
        return;
    }
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), RULES);
    let querier = FakeQuerier::start(Behaviour::Answers(vec![("a", 1.0)], vec![])).await;
    let address = shipper::testing::free_port();
    let config = format!(
        "remote_write:\n- url: http://{address}/api/v1/write\n  queue_config: {{batch_send_deadline: 100ms, max_backoff: 200ms}}\n"
    );
    let file = dir.path().join("rw.yaml");
    std::fs::write(&file, config).unwrap();
    let flags =
        [&querier.flag(), "--label=replica=\"a\"", &format!("--remote-write.config-file={}", file.display())];
    let role = start(dir.path(), &flags).await;
    let http = role.http_address();
    let info = client(&role).info().await.unwrap();
    assert!(info.apis.rules && !info.apis.store && info.range.is_empty(), "{info:?}");
    assert_eq!(listed(&role).await.items[0].rules.len(), 2);

    println!("while the receiver is away, nothing is lost, also over a restart");
    let count = async || {
        let rows = stored(http, "count_over_time(r[1h])").await;
        rows.first().map_or(0, |(_, count)| count.parse::<usize>().unwrap())
    };
    until("samples were recorded", async || count().await >= 5).await;
    stop(role).await;
    let role = start(dir.path(), &flags).await;
    let http = role.http_address();
    until_health(http, "r", "ok").await;
    let flag = ["--web.enable-remote-write-receiver"];
    let mut prometheus =
        shipper::testing::Prometheus::start(receiver_dir.path(), &Labels::empty(), address, &flag);
    let all = format!("/api/v1/query?query={}", escaped("r[1h]"));
    // Rules that fail record nothing more.
    querier.set(Behaviour::Fails(500, "away"));
    until_health(http, "r", "err").await;
    let sent = data(http, &all).await["result"][0]["values"].clone();
    assert!(sent.as_array().unwrap().len() >= 6, "{sent}");
    until("the receiver has the same samples", async || {
        if tokio::net::TcpStream::connect(address).await.is_err() || get(address, "/-/ready").await.0 != 200 {
            return false;
        }
        let received = data(address, &all).await;
        received["result"][0]["values"] == sent && received["result"][0]["metric"]["replica"] == "a"
    })
    .await;
    prometheus.kill();
    stop(role).await;
}
