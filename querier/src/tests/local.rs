//! Queries over a data folder of this process.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use head::{Database, DatabaseOptions};
use localstore::{LocalData, LocalStore, LocalStoreOptions, NoLists};
use model::Timestamp;
use storeapi::Apis;
use tempfile::TempDir;
use tokio::sync::watch;

use super::web::{HttpAnswer, send};
use super::*;
use crate::{ApiFacts, Feature, LocalQueries, LocalQueryArgs, QueryEngine, StartPage, WebPaths};

const PAGE: StartPage = StartPage { title: "Here", what: "the samples of here", list: "<a href=\"x\">X</a>" };

#[derive(clap::Parser)]
struct LocalCommand {
    #[command(flatten)]
    args: LocalQueryArgs,
}

struct Facts(LocalData);

impl ApiFacts for Facts {
    fn flags(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("a".to_owned(), "b".to_owned())])
    }

    fn unready(&self) -> Option<String> {
        self.0.database().err().map(|error| error.message().to_owned())
    }

    fn configuration(&self) -> String {
        "global: {}".to_owned()
    }

    fn retention(&self) -> String {
        "15d".to_owned()
    }
}

/// Serves the API over `data`.
async fn serve_api(data: &LocalData, features: Vec<Feature>) -> SocketAddr {
    let options = LocalStoreOptions {
        component: "scraper",
        external: watch::channel(labels(&[("cluster", "eu-1")])).1,
        serve_from: watch::channel(Timestamp::MIN).1,
        apis: Apis::default(),
    };
    let store = LocalStore::new(data.clone(), options, Arc::new(NoLists)).for_queries();
    let command: LocalCommand = clap::Parser::try_parse_from(["x", "--query.max-samples=1000"]).unwrap();
    let mut registry = Registry::default();
    let queries = LocalQueries {
        store: Arc::new(store),
        engine: QueryEngine::new(command.args.check(features).unwrap(), &mut registry),
        facts: Arc::new(Facts(data.clone())),
        page: PAGE,
        paths: WebPaths::default(),
        remote_read: None,
        cors: true,
    };
    let routes = queries.routes(&mut registry);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

async fn get(address: SocketAddr, path: &str) -> HttpAnswer {
    send(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
}

/// Two replicas of a series, 100 samples each, 15 s apart.
fn fill(database: &Database) {
    for n in 0..100 {
        let mut appender = database.head().appender();
        for replica in ["a", "b"] {
            let series = labels(&[("__name__", "m"), ("replica", replica)]);
            let series = database.head().series(&series);
            let time = Timestamp::from_millis(1_700_000_000_000 + n * 15_000);
            appender.append_float(&series, time, Timestamp::EPOCH, n as f64).unwrap();
        }
        appender.commit().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_queried_without_external_labels_and_deduplication() {
    let dir = TempDir::new().unwrap();
    let (database, _) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    fill(&database);
    let data = LocalData::new();
    let address = serve_api(&data, vec![Feature::ExperimentalFunctions]).await;
    let answer = get(address, "/api/v1/query?query=up").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["errorType"], "unavailable");
    assert!(answer.body.contains("write-ahead log"), "{}", answer.body);
    data.opened(Arc::new(database), &[]);

    let answer = get(address, "/api/v1/query?query=sum(rate(m[5m]))&time=1700000600").await.json();
    assert_eq!(answer["data"]["result"][0]["value"][1], "0.13333333333333333");
    let answer =
        get(address, "/api/v1/query?query=sort_by_label(m,%22replica%22)&time=1700000600").await.json();
    assert_eq!(answer["data"]["result"][1]["metric"], serde_json::json!({"__name__": "m", "replica": "b"}));
    assert_eq!(answer["warnings"], serde_json::Value::Null);
    for path in [
        "/api/v1/query_range?query=m&start=1700000000&end=1700001000&step=60",
        "/api/v1/series?match[]=m",
        "/api/v1/labels",
        "/api/v1/label/replica/values",
        "/api/v1/metadata",
        "/api/v1/targets",
        "/api/v1/rules",
        "/api/v1/query_exemplars?query=m&start=1700000000&end=1700001000",
        "/api/v1/status/tsdb",
        "/api/v1/status/buildinfo",
        "/api/v1/alertmanagers",
    ] {
        let answer = get(address, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(
            !answer.body.contains("eu-1") && !answer.body.contains("warnings"),
            "{path}: {}",
            answer.body
        );
    }
    let status = get(address, "/api/v1/status/tsdb").await.json();
    assert_eq!(status["data"]["headStats"]["numSeries"], 2);
    assert_eq!(get(address, "/api/v1/status/config").await.json()["data"]["yaml"], "global: {}");
    assert_eq!(get(address, "/api/v1/status/flags").await.json()["data"]["a"], "b");
    assert_eq!(get(address, "/api/v1/status/runtimeinfo").await.json()["data"]["storageRetention"], "15d");
    assert_eq!(get(address, "/api/v1/stores").await.status, 404, "there is one store");
    let page = get(address, "/").await.body;
    assert!(page.contains("<h1>Here</h1>") && page.contains("<a href=\"x\">X</a>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_damage_are_reported() {
    let dir = TempDir::new().unwrap();
    let (database, _) = Database::open(dir.path(), DatabaseOptions::default()).unwrap();
    fill(&database);
    let damaged = tsdb::Block::open(&dir.path().join("01HF804SF0ZG1H8N664Z8FPTDR")).unwrap_err();
    let data = LocalData::new();
    data.opened(Arc::new(database), &[damaged]);
    let address = serve_api(&data, Vec::new()).await;
    let range = "start=1700000000&end=1700001500&step=15";
    let answer = get(address, &format!("/api/v1/query_range?query=sum_over_time(m[20m])&{range}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = get(address, &format!("/api/v1/query_range?query=m[1d:1s]&{range}")).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    let answer = get(address, "/api/v1/query?query=m&time=1699000000").await.json();
    let warning = answer["warnings"][0].as_str().unwrap();
    assert!(warning.contains("01HF804SF0ZG1H8N664Z8FPTDR") && warning.contains("missing"), "{warning}");
}
