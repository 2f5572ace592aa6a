//! Polls the Info of each target of a cluster.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream::FuturesUnordered};
use http::{Request, Uri};
use identity::Name;
use mesh::{Channel, ChannelError};
use proto::{
    isthmus::mesh::v1::{Target, Targets},
    thanos::info::{InfoRequest, InfoResponse, info_client::InfoClient},
};
use tokio::sync::{Notify, watch};
use tonic::body::Body;

use crate::{
    control::verdicts::TargetVerdicts,
    peer_text::bounded,
    proxy::{inbound::InboundProxy, target::TargetClient},
};

/// Time limit for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until a target that did not answer a poll is asked again.
const CONFIRMATION: Duration = Duration::from_secs(1);
/// Least time between two polls while requests find a target unavailable.
const SUSPICIOUS_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two reports of a round. Most rounds finish earlier, and are reported as a whole.
const PUBLISHED: Duration = Duration::from_millis(250);
/// Largest answer in bytes. A store lists the label sets of all its blocks.
const MAX_INFO_BYTES: usize = 1 << 20;

/// Keeps [`Targets`] up to date.
pub(crate) struct Poller {
    inbound: Arc<InboundProxy>,
    verdicts: Arc<TargetVerdicts>,
    targets: watch::Sender<Targets>,
    interval: watch::Sender<Duration>,
    now: Notify,
}

impl Poller {
    pub(crate) fn new(
        inbound: Arc<InboundProxy>,
        interval: Duration,
        verdicts: Arc<TargetVerdicts>,
    ) -> Arc<Self> {
        let unknown = |name: &Name| Target {
            name: name.to_string(),
            last_error: "not polled yet".to_owned(),
            ..Target::default()
        };
        let targets = Targets { targets: inbound.offer().targets.keys().map(unknown).collect() };
        Arc::new(Self {
            inbound,
            verdicts,
            targets: watch::Sender::new(targets),
            interval: watch::Sender::new(interval),
            now: Notify::new(),
        })
    }

    /// The current state of the targets, and every change.
    pub(crate) fn targets(&self) -> watch::Receiver<Targets> {
        self.targets.subscribe()
    }

    /// Polls at once, and then at this interval, because the configuration has changed.
    pub(crate) fn reconfigured(&self, interval: Duration) {
        self.interval.send_replace(interval);
        self.now.notify_one();
    }

    /// Polls at the interval, and when a request found a target unavailable. Never returns.
    pub(crate) async fn run(&self) {
        let mut unanswered = BTreeSet::new();
        let mut serving = self.inbound.switch().watch();
        loop {
            serving.mark_unchanged();
            self.round(&mut unanswered).await;
            let mut interval = *self.interval.borrow();
            if !unanswered.is_empty() {
                interval = interval.min(CONFIRMATION);
            }
            let suspicious = async {
                tokio::time::sleep(SUSPICIOUS_INTERVAL.min(interval)).await;
                self.inbound.target_unavailable().await;
            };
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = self.now.notified() => {}
                // The switch lives as long as the poller.
                _ = serving.changed() => {
                    let known = self.targets.borrow().targets.clone();
                    self.publish(&known);
                }
                () = suspicious => {}
            }
        }
    }

    /// Polls all targets at the same time. A slow target does not delay the report of the others.
    ///
    /// `unanswered` names the healthy targets that did not answer the last poll. They stay healthy, because a connection may
    /// end at any time; a target that does not answer two polls in a row, or that answers with an error, is unhealthy.
    async fn round(&self, unanswered: &mut BTreeSet<String>) {
        let offer = self.inbound.offer();
        unanswered.retain(|name| offer.targets.keys().any(|offered| offered.as_str() == name));
        let known: Vec<Target> = self.targets.borrow().targets.clone();
        let mut present: Vec<Target> = known
            .into_iter()
            .filter(|target| target.name.parse::<Name>().is_ok_and(|name| offer.targets.contains_key(&name)))
            .collect();
        let mut answers: FuturesUnordered<_> =
            offer.targets.iter().map(|(name, client)| poll(name.clone(), client.clone())).collect();
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PUBLISHED, PUBLISHED);
        loop {
            tokio::select! {
                answer = answers.next() => {
                    let Some(PollAnswer { target: mut answer, lost }) = answer else { break };
                    if let Some(info) = &mut answer.info {
                        offer.policy.restrict(info);
                    }
                    let known = present.iter_mut().find(|target| target.name == answer.name);
                    let first_loss = lost && known.as_ref().is_some_and(|target| target.healthy);
                    if first_loss && unanswered.insert(answer.name.clone()) {
                        tracing::debug!(target = answer.name, error = answer.last_error, "no answer to Info");
                        continue;
                    }
                    unanswered.remove(&answer.name);
                    match known {
                        Some(target) => *target = answer,
                        None => present.push(answer),
                    }
                }
                _ = ticks.tick() => self.publish(&present),
            }
        }
        self.publish(&present);
    }

    fn publish(&self, present: &[Target]) {
        let mut targets = present.to_vec();
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        log_changes(&self.targets.borrow().targets, &targets);
        self.verdicts.polled(&targets);
        if let Some(reason) = self.inbound.switch().state().reason() {
            for target in &mut targets {
                (target.healthy, target.info) = (false, None);
                reason.clone_into(&mut target.last_error);
            }
        }
        self.targets.send_replace(Targets { targets });
    }
}

/// Logs which targets answer now, and which do not any more.
fn log_changes(before: &[Target], now: &[Target]) {
    for target in now {
        let known = before.iter().find(|known| known.name == target.name);
        let was_polled = known.is_some_and(|known| known.last_check.is_some());
        if target.last_check.is_none()
            || was_polled && known.is_some_and(|known| known.healthy == target.healthy)
        {
            continue;
        }
        match target.healthy {
            true => tracing::info!(target = target.name, "the target can be read"),
            false => {
                tracing::warn!(target = target.name, error = target.last_error, "the target cannot be read")
            }
        }
    }
}

/// The result of polling a target.
struct PollAnswer {
    target: Target,
    /// Whether nothing was received from it.
    lost: bool,
}

/// Why a target did not announce itself, in one line.
struct PollError {
    message: String,
    lost: bool,
}

async fn poll(name: Name, client: Arc<TargetClient>) -> PollAnswer {
    let late =
        || PollError { message: format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()), lost: true };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, info(&client)).await.unwrap_or_else(|_| Err(late()));
    let target =
        Target { name: name.to_string(), last_check: Some(SystemTime::now().into()), ..Target::default() };
    match answer {
        Ok(info) => PollAnswer { target: Target { healthy: true, info: Some(info), ..target }, lost: false },
        Err(PollError { message, lost }) => {
            PollAnswer { target: Target { last_error: bounded(&message), ..target }, lost }
        }
    }
}

async fn info(client: &Arc<TargetClient>) -> Result<InfoResponse, PollError> {
    let origin = Uri::builder()
        .scheme(client.scheme())
        .authority(client.address().as_str())
        .path_and_query("/")
        .build()
        .map_err(|error| PollError { message: error.to_string(), lost: false })?;
    let service = {
        let client = client.clone();
        tower::service_fn(move |request: Request<Body>| {
            let client = client.clone();
            async move { client.call(request).await }
        })
    };
    let mut client = InfoClient::with_origin(Channel::new("target", service), origin)
        .max_decoding_message_size(MAX_INFO_BYTES);
    let answer = client.info(InfoRequest {}).await;
    answer.map(tonic::Response::into_inner).map_err(|status| PollError {
        message: status.message().to_owned(),
        lost: ChannelError::is_cause_of(&status),
    })
}

#[cfg(test)]
mod tests {
    use proto::thanos::info::{
        InfoRequest,
        info_server::{Info, InfoServer},
    };
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Response, Status};

    use super::*;
    use crate::{config::ClusterTarget, metrics::GatewayMetrics, policy::Policy, serving::ServingSwitch};

    struct Sidecar(Result<(), &'static str>);

    #[tonic::async_trait]
    impl Info for Sidecar {
        async fn info(&self, _: tonic::Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
            self.0.map(|()| Response::new(InfoResponse::default())).map_err(Status::unavailable)
        }
    }

    /// Serves on this address until the runtime is dropped, which closes all connections.
    fn serve(address: &str, sidecar: Sidecar) -> (String, tokio::runtime::Runtime) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(InfoServer::new(sidecar));
        runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (address, runtime)
    }

    #[test]
    fn only_the_second_poll_without_an_answer_in_a_row_makes_a_target_unhealthy() {
        let (address, server) = serve("127.0.0.1:0", Sidecar(Ok(())));
        let targets = [ClusterTarget {
            name: "scraper-0".parse().unwrap(),
            address: address.parse().unwrap(),
            tls: None,
        }];
        let dir = tempfile::tempdir().unwrap();
        let switch = ServingSwitch::open(dir.path());
        let inbound = InboundProxy::new("eu-1".parse().unwrap(), &targets, Policy::default(), switch);
        let verdicts = TargetVerdicts::new(GatewayMetrics::unregistered());
        let poller = Poller::new(Arc::new(inbound), Duration::from_secs(5), verdicts);
        let client = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut unanswered = BTreeSet::new();
        let mut healthy = || {
            client.block_on(poller.round(&mut unanswered));
            poller.targets().borrow().targets[0].healthy
        };
        assert!(healthy());
        drop(server);
        assert_eq!([healthy(), healthy(), healthy()], [true, false, false]);
        let (_, server) = serve(&address, Sidecar(Ok(())));
        assert!(healthy());
        drop(server);
        // What the target reports itself counts at once.
        let (_, _server) = serve(&address, Sidecar(Err("Prometheus is away")));
        assert!(!healthy());
    }
}
