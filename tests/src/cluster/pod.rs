//! The life of a pod: its network and volumes, its init containers, its containers with their probes, and its end.

use std::collections::BTreeMap;
use std::fs;
use std::future::pending;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::watch;

use crate::cluster::container::{Launch, Running};
use crate::cluster::environment::environment;
use crate::cluster::image::Programs;
use crate::cluster::network::Namespace;
use crate::cluster::pod_spec::{Container, PodSpec, Probe};
use crate::cluster::probe::{Probed, Verdict};
use crate::cluster::state::{DNS_ADDRESS, Phase, Pod, Shared};
use crate::cluster::volumes::Volumes;

/// The wait before a container is started again; it doubles each time. It is a tenth of the kubelet's.
const FIRST_BACK_OFF: Duration = Duration::from_secs(1);

/// The longest such wait. A container that ran for this long is started again at once.
const MAX_BACK_OFF: Duration = Duration::from_secs(30);

/// The time from the start of a container to its first probe. The kubelet notices a container about a second after its start.
const NOTICED: Duration = Duration::from_millis(500);

/// How often a pod that waits for something looks for it.
const RETRY: Duration = Duration::from_millis(200);

/// What all pods share.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) router: Namespace,
    pub(crate) programs: Programs,
    /// The folder of the world.
    pub(crate) folder: PathBuf,
}

/// One pod that runs.
struct Life {
    context: Arc<Context>,
    kube: String,
    number: u32,
    namespace: String,
    name: String,
    address: Ipv4Addr,
    spec: Arc<PodSpec>,
    network: Namespace,
    stop: watch::Receiver<Option<Duration>>,
}

/// Runs the pod with this number until it is stopped, and removes it.
pub(crate) async fn run(context: Arc<Context>, kube: String, number: u32) {
    let started = Life::begin(&context, kube, number).await;
    match started {
        Ok(life) => {
            life.live().await;
            // Nothing is left if this fails but a folder that the world removes.
            drop(fs::remove_dir_all(life.folder()));
        }
        Err(error) => context.shared.change(|state| state.fault = Some(error)),
    }
    context.shared.change(|state| {
        state.kubes.iter_mut().for_each(|kube| kube.pods.retain(|pod| pod.number != number));
    });
}

impl Life {
    async fn begin(context: &Arc<Context>, kube: String, number: u32) -> Result<Self, String> {
        let hostname = context.shared.read().pod(number).map(|pod| pod.hostname().to_owned());
        let network = Namespace::create(&hostname.unwrap_or_default()).await?;
        let state = context.shared.read();
        let pod = state.pod(number).ok_or("the pod does not exist")?;
        network.connect(&context.router, pod.address, &format!("pod{number}"))?;
        Ok(Self {
            context: context.clone(),
            kube,
            number,
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            address: pod.address,
            spec: pod.spec.clone(),
            network,
            stop: pod.stop.subscribe(),
        })
    }

    fn folder(&self) -> PathBuf {
        self.context.folder.join(format!("pods/{}", self.number))
    }

    fn change(&self, change: impl FnOnce(&mut Pod)) {
        self.context.shared.change(|state| state.pod_mut(self.number).map(change));
    }

    /// Waits until the pod is stopped, and returns how long that may take.
    async fn stopped(&self) -> Duration {
        let mut stop = self.stop.clone();
        let grace = stop.wait_for(Option::is_some).await.map(|grace| *grace);
        grace.ok().flatten().unwrap_or_default()
    }

    async fn live(&self) {
        let mut volumes = Volumes::default();
        while let Err(missing) = self.update(&mut volumes) {
            self.change(|pod| pod.phase = Phase::Pending(missing));
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                _ = self.stopped() => return,
            }
        }
        let folders = volumes.folders.clone();
        for container in &self.spec.init_containers {
            self.change(|pod| pod.phase = Phase::Init(container.name.clone()));
            if !self.initialise(container, &folders).await {
                return;
            }
        }
        self.change(|pod| pod.phase = Phase::Running);
        let containers = self.spec.containers.iter().map(|container| self.keep_running(container, &folders));
        tokio::select! {
            _ = join_all(containers) => {}
            () = self.refresh(&mut volumes) => {}
        }
    }

    fn update(&self, volumes: &mut Volumes) -> Result<(), String> {
        let state = self.context.shared.read();
        let kube = state.kube(&self.kube).ok_or("the cluster does not exist")?;
        let pod = state.pod(self.number).ok_or("the pod does not exist")?;
        volumes.update(kube, pod, &self.folder(), &self.context.folder.join("claims"))
    }

    /// Writes changed ConfigMaps and Secrets into the volumes. It never ends.
    async fn refresh(&self, volumes: &mut Volumes) {
        let mut applied = self.context.shared.applied.subscribe();
        while applied.changed().await.is_ok() {
            if let Err(error) = self.update(volumes) {
                self.change(|pod| pod.last_fault = error);
            }
        }
        pending().await
    }

    /// Runs an init container until it has succeeded. Returns whether the pod goes on.
    async fn initialise(&self, container: &Container, folders: &BTreeMap<String, PathBuf>) -> bool {
        let mut back_off = FIRST_BACK_OFF;
        loop {
            let fault = match self.start(container, folders).await {
                Ok(mut running) => tokio::select! {
                    status = running.ended() => {
                        if status == "exit status: 0" {
                            return true;
                        }
                        status
                    }
                    grace = self.stopped() => {
                        running.stop(grace).await;
                        return false;
                    }
                },
                Err(error) => error,
            };
            self.failed(container, &fault);
            if !self.wait(&mut back_off).await {
                return false;
            }
        }
    }

    /// Runs a container, and starts it again when it ends, until the pod is stopped.
    async fn keep_running(&self, container: &Container, folders: &BTreeMap<String, PathBuf>) {
        let mut back_off = Duration::ZERO;
        loop {
            let begun = Instant::now();
            let fault = match self.start(container, folders).await {
                Ok(mut running) => {
                    let pid = running.pid;
                    self.change(|pod| {
                        pod.processes.insert(container.name.clone(), pid);
                    });
                    let fault = tokio::select! {
                        status = running.ended() => status,
                        failed = self.probe(container, pid) => {
                            let grace = Duration::from_secs(self.spec.termination_grace_period_seconds);
                            let status = running.stop(grace).await;
                            format!("{failed}; {status}")
                        }
                        grace = self.stopped() => {
                            running.stop(grace).await;
                            return;
                        }
                    };
                    self.change(|pod| {
                        pod.processes.remove(&container.name);
                    });
                    fault
                }
                Err(error) => error,
            };
            self.failed(container, &fault);
            if begun.elapsed() >= MAX_BACK_OFF {
                back_off = Duration::ZERO;
            }
            if !self.wait(&mut back_off).await {
                return;
            }
        }
    }

    fn failed(&self, container: &Container, fault: &str) {
        let fault = format!("container {}: {fault}", container.name);
        self.change(|pod| {
            pod.set_ready(&container.name, false);
            pod.restarts += 1;
            pod.last_fault = fault;
        });
    }

    /// Waits, and doubles the wait. Returns whether the pod goes on.
    async fn wait(&self, back_off: &mut Duration) -> bool {
        let wait = *back_off;
        *back_off = (wait * 2).clamp(FIRST_BACK_OFF, MAX_BACK_OFF);
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            _ = self.stopped() => false,
        }
    }

    async fn start(
        &self,
        container: &Container,
        folders: &BTreeMap<String, PathBuf>,
    ) -> Result<Running, String> {
        let environment = {
            let state = self.context.shared.read();
            let kube = state.kube(&self.kube).ok_or("the cluster does not exist")?;
            environment(kube, state.pod(self.number).ok_or("the pod does not exist")?, container)?
        };
        let logs = self.context.folder.join("logs").join(&self.kube);
        fs::create_dir_all(&logs).map_err(|cause| cause.to_string())?;
        let namespace = &self.namespace;
        let launch = Launch {
            spec: &self.spec,
            container,
            environment,
            volumes: folders.clone(),
            network: &self.network,
            folder: self.folder().join("containers").join(&container.name),
            log: logs.join(format!("{namespace}_{}_{}.log", self.name, container.name)),
            hosts: format!("127.0.0.1\tlocalhost\n{}\t{}\n", self.address, self.name),
            resolver: format!(
                "search {namespace}.svc.cluster.local svc.cluster.local cluster.local\nnameserver {DNS_ADDRESS}\n\
                 options ndots:5\n"
            ),
            programs: &self.context.programs,
        };
        launch.start().await
    }

    /// Runs the probes of a container. Returns when it must be started again, with the reason.
    async fn probe(&self, container: &Container, pid: u32) -> String {
        let probed = Probed { container, address: self.address, pid };
        tokio::time::sleep(NOTICED).await;
        if let Some(probe) = &container.startup_probe
            && let Some(fault) = self.repeat(&probed, probe, |_| {}, true).await
        {
            return format!("startup probe: {fault}");
        }
        let ready = |is_ready: bool| {
            let state = self.context.shared.read();
            let was_ready = state.pod(self.number).is_some_and(|pod| pod.ready.contains(&container.name));
            drop(state);
            if is_ready == was_ready {
                return;
            }
            self.change(|pod| pod.set_ready(&container.name, is_ready));
        };
        let readiness = async {
            match &container.readiness_probe {
                Some(probe) => drop(self.repeat(&probed, probe, ready, false).await),
                None => ready(true),
            }
            pending::<()>().await;
        };
        let liveness = async {
            let Some(probe) = &container.liveness_probe else { return pending().await };
            self.repeat(&probed, probe, |_| {}, true).await
        };
        tokio::select! {
            () = readiness => String::new(),
            fault = liveness => format!("liveness probe: {}", fault.unwrap_or_default()),
        }
    }

    /// Repeats a probe. With `is_vital`, returns the fault after too many failures. A startup probe ends with its first success.
    async fn repeat(
        &self,
        probed: &Probed<'_>,
        probe: &Probe,
        decided: impl Fn(bool),
        is_vital: bool,
    ) -> Option<String> {
        tokio::time::sleep(Duration::from_secs(probe.initial_delay_seconds)).await;
        let is_startup = probed.container.startup_probe.as_ref().is_some_and(|own| std::ptr::eq(own, probe));
        let mut verdict = Verdict::default();
        loop {
            let begun = tokio::time::Instant::now();
            let result = probed.run(probe).await;
            let decision = verdict.add(probe, result.is_ok());
            if let Some(is_success) = decision {
                decided(is_success);
            }
            match result {
                Ok(()) if is_startup => return None,
                Err(fault) if is_vital && decision == Some(false) => return Some(fault),
                Err(fault) => self.change(|pod| pod.last_fault = fault),
                Ok(()) => {}
            }
            tokio::time::sleep_until(begun + Duration::from_secs(probe.period_seconds.max(1))).await;
        }
    }
}
