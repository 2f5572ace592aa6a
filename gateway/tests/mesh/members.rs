//! Members gone wrong: a cluster with a valid certificate that abuses its control session, over both transports.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::{Stream, StreamExt};
use gateway::transport::{
    DialTarget, Dialer, MeshLink, MeshNode, ServiceHandler, TransportChoice, TransportSettings,
};
use identity::{CredentialStore, Expectations};
use proto::isthmus::mesh::v1::{
    FromCluster, FromObservability, Hello, Target, TargetNames,
    control_server::{Control, ControlServer},
    from_cluster::Message,
};
use proto::thanos::{LabelSet, info::InfoResponse};
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    stores::TestStore,
    world::{MeshWorld, RunningGateway, client, count, directory, healthy, messages, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test")];
const US_1: &[(&str, &str)] = &[("cluster", "us-1"), ("environment", "test")];

/// What a liar sends after its hello, once or again and again.
#[derive(Clone)]
struct Liar {
    lie: FromCluster,
    again: bool,
    sent: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl Control for Liar {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<FromCluster, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<FromObservability>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let hello =
            Hello { time: Some(SystemTime::now().into()), instance: "liar".into(), ..Hello::default() };
        let hello = FromCluster { message: Some(Message::Hello(hello)) };
        let (lie, sent, keep) = (self.lie.clone(), self.sent.clone(), request.into_inner());
        let most = if self.again { usize::MAX } else { 1 };
        let lies = futures::stream::repeat_with(move || {
            let _ = &keep;
            sent.fetch_add(1, Ordering::Relaxed);
            lie.clone()
        });
        let lies = lies.take(most).chain(futures::stream::pending());
        Ok(Response::new(Box::pin(futures::stream::once(async { hello }).chain(lies).map(Ok))))
    }
}

/// A member that dials with the credentials of us-1, for as long as it is not dropped.
struct Member {
    node: MeshNode,
    sent: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Member {
    fn new(world: &MeshWorld) -> Self {
        let folder = world.dir.path().join("us-1-data");
        let (credentials, bundle) = (folder.join("credentials.pem"), folder.join("bundle.pem"));
        let store = CredentialStore::load(&credentials, &bundle, SystemTime::now()).unwrap();
        let node = MeshNode::new(TransportSettings::default(), store, |_| {});
        Self { node, sent: Arc::default(), tasks: Vec::new() }
    }

    /// Keeps a connection on which the session sends `lie`.
    fn connect(
        &mut self,
        obs: &RunningGateway,
        transport_choice: TransportChoice,
        lie: Message,
        again: bool,
    ) {
        let target = DialTarget {
            address: obs.addresses.mesh.unwrap().to_string(),
            expectations: Expectations::default(),
            transport_choice,
            proxy: None,
        };
        let mut dialer = Dialer::new(&self.node, target).unwrap();
        let liar = Liar { lie: FromCluster { message: Some(lie) }, again, sent: self.sent.clone() };
        self.tasks.push(tokio::spawn(async move {
            loop {
                let connection = dialer.next().await;
                connection.serve(Arc::new(ServiceHandler::new(ControlServer::new(liar.clone()))));
            }
        }));
    }

    fn links(&self) -> Vec<MeshLink> {
        self.node.links().list()
    }
}

/// A world with the gateway of eu-1, in which us-1 has joined and is gone.
async fn world() -> (MeshWorld, RunningGateway, RunningGateway, crate::stores::RunningStore) {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let (honest, other) = (TestStore::start(EU_1).await, TestStore::start(US_1).await);
    let gateway = world.cluster("eu-1", &[("scraper-0", honest.address)], &obs, "").await;
    healthy(&obs, "scraper-0.eu-1").await;
    let member = world.cluster("us-1", &[("scraper-0", other.address)], &obs, "").await;
    healthy(&obs, "scraper-0.us-1").await;
    member.stop().await;
    (world, obs, gateway, honest)
}

/// Reads the honest cluster for a second. Returns the times within which half, 99 of 100, and all of its requests were answered.
async fn read(obs: &RunningGateway) -> [Duration; 3] {
    let (mut client, began, mut times) = (client(obs, "scraper-0.eu-1"), Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(1) {
        let asked = Instant::now();
        let stream = client.series(messages(5, Duration::ZERO)).await.unwrap().into_inner();
        assert_eq!(count(stream).await.unwrap(), 5);
        times.push(asked.elapsed());
    }
    times.sort();
    [50, 99, 100].map(|percent| times[(times.len() - 1) * percent / 100])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_large_once_it_is_decoded_ends_the_session() {
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        let (world, obs, _gateway, _store) = world().await;
        let info =
            InfoResponse { label_sets: vec![LabelSet::default(); 1_500_000], ..InfoResponse::default() };
        let bomb = Target { name: "scraper-0".into(), healthy: true, info: Some(info), ..Target::default() };
        let mut member = Member::new(&world);
        member.connect(&obs, transport, Message::Target(bomb), false);
        let entries = directory(&obs, "the reason is shown", |entries| {
            entries.iter().any(|entry| entry.last_error.contains("more than 400000 fields"))
        })
        .await;
        assert!(entries.iter().all(|entry| entry.healthy == entry.name.ends_with(".eu-1")), "{entries:?}");
        read(&obs).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_is_slowed_down_and_delays_no_other_cluster() {
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        let (world, obs, _gateway, _store) = world().await;
        let alone = read(&obs).await;
        let names = TargetNames { names: (0..200).map(|i| format!("Not A Name {i}")).collect() };
        let mut member = Member::new(&world);
        for _ in 0..4 {
            member.connect(&obs, transport, Message::TargetNames(names.clone()), true);
        }
        let reached = "isthmus_gateway_member_limits_reached_total{peer=\"us-1\",limit=\"messages\"}";
        within("the flood is slowed down", async {
            while !crate::owner::metrics(&obs).await.contains(reached) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        let before = member.sent.load(Ordering::Relaxed);
        let beside = read(&obs).await;
        let sent = member.sent.load(Ordering::Relaxed) - before;
        println!(
            "{transport:?}: p50, p99 and slowest request alone {alone:?}, beside a flood {beside:?}; {sent} messages in a second"
        );
        assert!(sent < 2_000, "{sent} messages in a second");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_has_so_many_connections_and_no_more() {
    for transport in [TransportChoice::Quic, TransportChoice::Tcp] {
        let (world, obs, _gateway, _store) = world().await;
        let mut member = Member::new(&world);
        // One after the other, because so many handshakes at once are refused, too.
        for opened in 1..=80 {
            member.connect(&obs, transport, Message::TargetNames(TargetNames::default()), false);
            within("the connection is decided", async {
                while member.links().len() < opened.min(60) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
            .await;
        }
        within("the limit is counted", async {
            while !crate::owner::metrics(&obs).await.contains("limit=\"connections\"") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        let metrics = crate::owner::metrics(&obs).await;
        // One line for each transport that the cluster has used.
        let sessions = metrics.lines().filter_map(|line| {
            let line = line.strip_prefix("isthmus_gateway_connections{peer=\"us-1\"")?;
            line.rsplit_once(' ')?.1.parse::<usize>().ok()
        });
        let sessions: usize = sessions.sum();
        assert!((50..=64).contains(&sessions), "{sessions}");
        read(&obs).await;
    }
}
