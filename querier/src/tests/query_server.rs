//! Queries over gRPC, as a querier of Thanos in distributed mode and `thanos rule` send them.

use proto::prometheus_copy::TimeSeries;
use proto::thanos as wire;
use runtime::RunningRole;
use tonic::Code;
use wire::query_client::QueryClient;

use super::*;
use crate::tests::web::querier;

/// Time in seconds at which all samples exist.
const AT: i64 = START / 1000 + 590;

async fn two_clusters() -> Vec<String> {
    let external = |cluster, replica| [("cluster", cluster), ("replica", replica)];
    vec![
        serve(memory(&external("eu-1", "a"), &["api", "db"])).await,
        serve(memory(&external("eu-1", "b"), &["api", "db"])).await,
        serve(memory(&external("us-1", "a"), &["web"])).await,
    ]
}

fn client(querier: &RunningRole) -> QueryClient<mesh::Channel> {
    QueryClient::new(mesh::direct(&querier.grpc_address().to_string()).unwrap())
}

/// A request as Thanos sends it.
fn instant(query: &str) -> wire::QueryRequest {
    wire::QueryRequest {
        query: query.to_owned(),
        query_plan: Some(wire::QueryPlan {
            encoding: Some(wire::query_plan::Encoding::Json(b"{\"type\":\"x\"}".to_vec().into())),
        }),
        time_seconds: AT,
        timeout_seconds: 120,
        enable_partial_response: true,
        replica_labels: vec!["replica".to_owned()],
        enable_dedup: true,
        response_batch_size: 64,
        ..Default::default()
    }
}

fn range(query: &str, start: i64, step: i64) -> wire::QueryRangeRequest {
    wire::QueryRangeRequest {
        query: query.to_owned(),
        start_time_seconds: start,
        end_time_seconds: AT,
        interval_seconds: step,
        enable_dedup: true,
        ..Default::default()
    }
}

/// An answer: warnings, series, the sizes of batches, and the number of samples.
#[derive(Debug, Default)]
struct Received {
    warnings: Vec<String>,
    series: Vec<TimeSeries>,
    batches: Vec<usize>,
    samples: Option<i64>,
}

async fn ask(querier: &RunningRole, request: wire::QueryRequest) -> Result<Received, tonic::Status> {
    use wire::query_response::Result as Kind;
    let mut messages = client(querier).query(request).await?.into_inner();
    let mut received = Received::default();
    while let Some(message) = messages.message().await? {
        assert_eq!(received.samples, None, "the statistics are last");
        match message.result.expect("a result") {
            Kind::Warnings(text) => received.warnings.push(text),
            Kind::Timeseries(series) => received.series.push(series),
            Kind::TimeseriesBatch(batch) => {
                received.batches.push(batch.series.len());
                received.series.extend(batch.series);
            }
            Kind::Stats(stats) => received.samples = Some(stats.samples_total),
        }
    }
    Ok(received)
}

async fn ask_range(
    querier: &RunningRole,
    request: wire::QueryRangeRequest,
) -> Result<Vec<TimeSeries>, tonic::Status> {
    use wire::query_range_response::Result as Kind;
    let mut messages = client(querier).query_range(request).await?.into_inner();
    let mut series = Vec::new();
    while let Some(message) = messages.message().await? {
        match message.result.expect("a result") {
            Kind::Warnings(text) => panic!("{text}"),
            Kind::Timeseries(one) => series.push(one),
            Kind::TimeseriesBatch(batch) => series.extend(batch.series),
            Kind::Stats(_) => {}
        }
    }
    Ok(series)
}

fn short(series: &[TimeSeries]) -> Vec<String> {
    let labels = |one: &TimeSeries| one.labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect();
    series.iter().map(|one| -> Vec<String> { labels(one) }).map(|labels| labels.join(",")).collect()
}

#[tokio::test]
async fn instant_queries_are_answered_as_in_thanos() {
    let querier = querier(&two_clusters().await, &[]).await;
    let answer = ask(&querier, instant("count by (cluster, job) (up)")).await.unwrap();
    assert_eq!(
        short(&answer.series),
        ["cluster=eu-1,job=api", "cluster=eu-1,job=db", "cluster=us-1,job=web"]
    );
    assert!(
        answer.series.iter().all(|one| one.samples[0].value == 1.0 && one.samples[0].timestamp == AT * 1000)
    );
    assert_eq!((answer.batches, answer.warnings.len()), (vec![3], 0));
    assert!(answer.samples > Some(0));

    let single = wire::QueryRequest { response_batch_size: 0, ..instant("up") };
    let answer = ask(&querier, single).await.unwrap();
    assert_eq!((answer.series.len(), answer.batches.len()), (3, 0));
    let pairs = wire::QueryRequest { response_batch_size: 2, ..instant("up") };
    assert_eq!(ask(&querier, pairs).await.unwrap().batches, [2, 1]);
    let all = wire::QueryRequest { enable_dedup: false, ..instant("up") };
    assert_eq!(ask(&querier, all).await.unwrap().series.len(), 5);
    let scalar = ask(&querier, instant("1 + 1")).await.unwrap();
    assert_eq!((short(&scalar.series), scalar.series[0].samples[0].value), (vec![String::new()], 2.0));
    let now = wire::QueryRequest { time_seconds: 0, ..instant("vector(1)") };
    let at = ask(&querier, now).await.unwrap().series[0].samples[0].timestamp;
    assert!(at > AT * 1000, "{at}");
    let halves = (0..2).map(|shard_index| wire::QueryRequest {
        shard_info: Some(wire::ShardInfo { shard_index, total_shards: 2, ..Default::default() }),
        ..instant("up")
    });
    let mut found = Vec::new();
    for half in halves {
        found.extend(short(&ask(&querier, half).await.unwrap().series));
    }
    assert_eq!(found.len(), 3, "{found:?}");
}

#[tokio::test]
async fn range_queries_are_answered_as_in_thanos() {
    let querier = querier(&two_clusters().await, &[]).await;
    let series = ask_range(&querier, range("sum by (cluster) (up)", AT - 120, 60)).await.unwrap();
    assert_eq!(short(&series), ["cluster=eu-1", "cluster=us-1"]);
    let values: Vec<_> = series[0].samples.iter().map(|s| (s.timestamp / 1000, s.value)).collect();
    assert_eq!(values, [(AT - 120, 2.0), (AT - 60, 2.0), (AT, 2.0)]);
    for bad in
        [range("up", AT - 120, 0), range("up", AT + 1, 1), range("up", AT - 20_000, 1), range("up{", AT, 1)]
    {
        assert_eq!(ask_range(&querier, bad).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn lost_store_is_a_warning_or_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = listener.local_addr().unwrap().to_string();
    drop(listener);
    let mut endpoints = two_clusters().await;
    endpoints.push(closed_port.clone());
    let querier = querier(&endpoints, &[]).await;
    let answer = ask(&querier, instant("up")).await.unwrap();
    assert_eq!((answer.series.len(), answer.warnings.len()), (3, 1));
    assert!(answer.warnings[0].contains(&closed_port), "{:?}", answer.warnings);
    let strict = wire::QueryRequest { enable_partial_response: false, ..instant("up") };
    let error = ask(&querier, strict).await.unwrap_err();
    assert!(error.message().contains(&closed_port), "{error}");
    let matcher = wire::LabelMatcher {
        r#type: wire::label_matcher::Type::Neq.into(),
        name: "__address__".to_owned(),
        value: closed_port,
    };
    let chosen = wire::QueryRequest {
        enable_partial_response: false,
        store_matchers: vec![wire::StoreMatchers { label_matchers: vec![matcher] }],
        ..instant("up")
    };
    assert_eq!(ask(&querier, chosen).await.unwrap().series.len(), 3);
}

#[tokio::test]
async fn errors_have_the_code_of_their_cause() {
    let small = querier(&two_clusters().await, &["--query.max-samples=2"]).await;
    let error = ask(&small, instant("up")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert!(error.message().contains("--query.max-samples"), "{error}");
    let querier = querier(&two_clusters().await, &[]).await;
    let bad = ask(&querier, instant("up + on (nothing) up")).await.unwrap_err();
    assert_eq!(bad.code(), Code::Aborted, "{bad}");
    assert_eq!(ask(&querier, instant("up{")).await.unwrap_err().code(), Code::InvalidArgument);
}

/// In distributed mode Thanos sends queries to the queriers that announce them, by the labels of their TSDBs.
#[tokio::test]
async fn queries_are_announced_with_the_labels_of_all_tsdbs() {
    let querier = querier(&two_clusters().await, &[]).await;
    let channel = mesh::direct(&querier.grpc_address().to_string()).unwrap();
    let mut info = wire::info::info_client::InfoClient::new(channel);
    let info = info.info(wire::info::InfoRequest {}).await.unwrap().into_inner();
    assert!(info.query.is_some(), "{info:?}");
    let tsdbs = info.store.unwrap().tsdb_infos;
    let mut clusters: Vec<_> =
        tsdbs.iter().map(|tsdb| tsdb.labels.as_ref().unwrap().labels[0].value.clone()).collect();
    clusters.sort();
    assert_eq!(clusters, ["eu-1", "eu-1", "us-1"]);
}
