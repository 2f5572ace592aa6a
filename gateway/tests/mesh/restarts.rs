//! Gateways of a cluster that are restarted and killed under load, over both transports.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use crate::{
    stores::TestStore,
    world::{MeshWorld, RunningGateway, client, cluster, count, healthy, messages, within},
};

const EU_1: &[(&str, &str)] = &[("cluster", "eu-1"), ("environment", "test"), ("replica", "0")];

/// 200 requests a second, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<(usize, Vec<String>, Duration)>,
}

impl Load {
    fn start(obs: &RunningGateway) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, stopped) = (client(obs, "scraper-0.eu-1"), stop.clone());
        let task = tokio::spawn(async move {
            let mut requests = Vec::new();
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            while !stopped.load(Ordering::Relaxed) {
                ticks.tick().await;
                let mut client = client.clone();
                requests.push(tokio::spawn(async move {
                    let began = Instant::now();
                    let stream = client.series(messages(3, Duration::from_millis(1))).await?.into_inner();
                    let count = count(stream).await?;
                    Ok::<_, tonic::Status>((count, began.elapsed()))
                }));
            }
            let (sent, mut failed, mut slowest) = (requests.len(), Vec::new(), Duration::ZERO);
            for request in requests {
                match request.await.unwrap() {
                    Ok((3, took)) => slowest = slowest.max(took),
                    Ok((count, _)) => failed.push(format!("{count} of 3 messages")),
                    Err(status) => failed.push(status.message().to_owned()),
                }
            }
            (sent, failed, slowest)
        });
        Self { stop, task }
    }

    /// Returns how many requests were sent, the errors of those that failed, and the time of the slowest.
    async fn stop(self) -> (usize, Vec<String>, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        within("the last answer", self.task).await.unwrap()
    }
}

/// Two gateways of eu-1 serve one store.
async fn pair(transport: &str) -> (MeshWorld, RunningGateway, [String; 2], crate::stores::RunningStore) {
    let world = MeshWorld::new();
    let obs = world.observability("").await;
    let store = TestStore::start(EU_1).await;
    let targets: &[(&str, SocketAddr)] = &[("scraper-0", store.address)];
    let yaml = cluster("eu-1", targets, &format!("transport: {transport}\n"));
    let yamls = ["a", "b"].map(|name| yaml.replace("eu-1-data", &format!("eu-1-{name}-data")));
    (world, obs, yamls, store)
}

async fn connections(world: &MeshWorld, expected: usize) {
    within("the gateways are connected", async {
        while world.show("obs-data", "status").await["connections"] != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_one_after_the_other_fail_no_request() {
    let restarts = std::env::var("ISTHMUS_RESTARTS").ok().and_then(|count| count.parse().ok()).unwrap_or(10);
    for transport in ["quic", "tcp"] {
        let (world, obs, yamls, _store) = pair(transport).await;
        let mut gateways = Vec::new();
        for (i, yaml) in yamls.iter().enumerate() {
            let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
            gateways.push(Some(world.try_start(&format!("eu-1-{i}"), yaml, Some(&token)).await.unwrap()));
        }
        healthy(&obs, "scraper-0.eu-1").await;
        connections(&world, 2).await;
        let load = Load::start(&obs);
        for i in 0..restarts {
            let which = i % 2;
            gateways[which].take().unwrap().stop().await;
            let yaml = &yamls[which];
            gateways[which] = Some(world.try_start(&format!("eu-1-{which}"), yaml, None).await.unwrap());
            connections(&world, 2).await;
            // As a rolling update waits for the readiness of a pod: its target was reported.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let (sent, failed, slowest) = load.stop().await;
        println!(
            "{transport}: {restarts} restarts, {sent} requests, {} failed, slowest {slowest:?}",
            failed.len()
        );
        assert!(failed.is_empty(), "{transport}: {} of {sent} failed: {:?}", failed.len(), failed.first());
    }
}

/// A gateway whose process is killed says nothing. What it has not answered yet is answered by the other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_costs_a_retry_and_no_answer() {
    static KILLED: AtomicUsize = AtomicUsize::new(0);
    for transport in ["quic", "tcp"] {
        let (world, obs, yamls, _store) = pair(transport).await;
        let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
        let _other = world.try_start("eu-1-a", &yamls[0], Some(&token)).await.unwrap();
        let token = world.token("eu-1", &[obs.addresses.mesh.unwrap()]);
        // On a runtime of its own, which ends as abruptly as a process does.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (file, yaml) = (format!("eu-1-b{}", KILLED.fetch_add(1, Ordering::Relaxed)), yamls[1].clone());
        let (world, started) = (Arc::new(world), tokio::sync::oneshot::channel());
        let (starting, (tell, told)) = (world.clone(), started);
        runtime.spawn(async move {
            let gateway = starting.try_start(&file, &yaml, Some(&token)).await.unwrap();
            tell.send(()).unwrap_or_default();
            std::future::pending::<()>().await;
            drop(gateway);
        });
        within("the start of the other gateway", told).await.unwrap();
        healthy(&obs, "scraper-0.eu-1").await;
        connections(&world, 2).await;
        let load = Load::start(&obs);
        tokio::time::sleep(Duration::from_millis(500)).await;
        runtime.shutdown_background();
        tokio::time::sleep(Duration::from_secs(9)).await;
        let (sent, failed, slowest) = load.stop().await;
        println!("{transport}: killed, {sent} requests, {} failed, slowest {slowest:?}", failed.len());
        // Those whose answer had begun are lost, and their callers know it.
        let cut =
            failed.iter().filter(|error| error.contains("interrupted") || error.contains("of 3")).count();
        assert!(
            failed.len() == cut && cut <= 10,
            "{transport}: {} of {sent} failed: {:?}",
            failed.len(),
            failed.first()
        );
    }
}
