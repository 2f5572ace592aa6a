//! Services beside StoreAPI: a target that evaluates queries and has statistics is asked for them where the policy allows it.

use std::{net::SocketAddr, pin::Pin};

use futures::Stream;
use proto::thanos::{
    Label, LabelSet, QueryRangeRequest, QueryRangeResponse, QueryRequest, QueryResponse,
    TsdbStatisticsRequest, TsdbStatisticsResponse,
    info::{InfoRequest, InfoResponse, QueryApiInfo, StoreInfo, info_server},
    query_client::QueryClient,
    query_response::Result as QueryResult,
    query_server,
    status_client::StatusClient,
    status_server,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, transport::Server};

use crate::world::{MeshWorld, healthy, within};

/// A querier of Thanos, as far as a gateway sees it.
#[derive(Clone)]
struct Evaluating;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl info_server::Info for Evaluating {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let label = |(name, value): (&str, &str)| Label { name: name.into(), value: value.into() };
        let labels = [("cluster", "eu-1"), ("environment", "test")].map(label).to_vec();
        Ok(Response::new(InfoResponse {
            label_sets: vec![LabelSet { labels }],
            component_type: "query".into(),
            store: Some(StoreInfo { min_time: 1, max_time: i64::MAX, ..StoreInfo::default() }),
            query: Some(QueryApiInfo {}),
            ..InfoResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl query_server::Query for Evaluating {
    type QueryStream = Answers<QueryResponse>;
    type QueryRangeStream = Answers<QueryRangeResponse>;

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<Self::QueryStream>, Status> {
        let text = QueryResult::Warnings(request.into_inner().query);
        let answers = (0..3).map(move |_| Ok(QueryResponse { result: Some(text.clone()) }));
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }

    async fn query_range(
        &self,
        _: Request<QueryRangeRequest>,
    ) -> Result<Response<Self::QueryRangeStream>, Status> {
        Ok(Response::new(Box::pin(futures::stream::empty())))
    }
}

#[tonic::async_trait]
impl status_server::Status for Evaluating {
    type TSDBStatisticsStream = Answers<TsdbStatisticsResponse>;

    async fn tsdb_statistics(
        &self,
        _: Request<TsdbStatisticsRequest>,
    ) -> Result<Response<Self::TSDBStatisticsStream>, Status> {
        let one = TsdbStatisticsResponse::default();
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(one)]))))
    }
}

async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder()
        .add_service(info_server::InfoServer::new(Evaluating))
        .add_service(query_server::QueryServer::new(Evaluating))
        .add_service(status_server::StatusServer::new(Evaluating))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_statistics_travel_where_the_policy_allows_them() {
    let address = serve().await;
    for transport in ["quic", "tcp"] {
        for (policy, allowed) in
            [("", false), ("policy: {methods: [Info, Query, QueryRange, TSDBStatistics]}\n", true)]
        {
            let world = MeshWorld::new();
            let obs = world.observability("").await;
            let more = format!("transport: {transport}\n{policy}");
            let _gateway = world.cluster("eu-1", &[("querier-0", address)], &obs, &more).await;
            let info = healthy(&obs, "querier-0.eu-1").await.info.expect("Info");
            assert_eq!(
                info.query.is_some(),
                allowed,
                "{transport}: what is refused is not announced: {info:?}"
            );

            let target = "querier-0.eu-1".parse().unwrap();
            let channel = mesh::via(&obs.addresses.grpc.to_string(), &target).unwrap();
            let mut queries = QueryClient::new(channel.clone());
            let mut statistics = StatusClient::new(channel);
            let query = QueryRequest { query: "up".into(), ..QueryRequest::default() };
            let asked = within("an answer to Query", queries.query(query)).await;
            let looked =
                within("statistics", statistics.tsdb_statistics(TsdbStatisticsRequest::default())).await;
            if !allowed {
                for status in [asked.unwrap_err(), looked.unwrap_err()] {
                    assert_eq!(status.code(), Code::PermissionDenied, "{transport}: {status}");
                }
                continue;
            }
            let mut answers = asked.unwrap().into_inner();
            for _ in 0..3 {
                let answer = answers.message().await.unwrap().expect("three answers");
                assert_eq!(answer.result, Some(QueryResult::Warnings("up".into())));
            }
            assert!(answers.message().await.unwrap().is_none());
            assert!(looked.unwrap().into_inner().message().await.unwrap().is_some());
            let range = queries.query_range(QueryRangeRequest::default()).await.unwrap();
            assert!(range.into_inner().message().await.unwrap().is_none());
        }
    }
}
