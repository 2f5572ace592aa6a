//! The thread that runs the world: it follows the objects, starts and ends pods, and keeps the rules of the router and the DNS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

use crate::cluster::controller::{OwnedPod, Step, steps};
use crate::cluster::firewall::rules;
use crate::cluster::image::Programs;
use crate::cluster::names;
use crate::cluster::network::{Namespace, enter};
use crate::cluster::objects::{Claim, Controller, Object, ObjectId, Workload};
use crate::cluster::pod::{self, Context};
use crate::cluster::state::{Applied, DNS_ADDRESS, Kube, Phase, Pod, Shared, State};
use crate::cluster::volume_spec::{ClaimVolume, Volume};

/// How long the world may take to end.
const END: Duration = Duration::from_secs(20);

/// Runs the world until the state says that it ends. Sends once whether it could begin.
///
/// It must have a thread of its own, which it moves into the network of the router: pods end with the thread that started them.
pub(crate) fn run(
    shared: Arc<Shared>,
    programs: Programs,
    folder: PathBuf,
    begun: &Sender<Result<(), String>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(cause) => return drop(begun.send(Err(cause.to_string()))),
    };
    runtime.block_on(async {
        match begin(shared, programs, folder).await {
            Ok(context) => {
                drop(begun.send(Ok(())));
                follow(&context).await;
            }
            Err(error) => drop(begun.send(Err(error))),
        }
    });
}

async fn begin(shared: Arc<Shared>, programs: Programs, folder: PathBuf) -> Result<Arc<Context>, String> {
    let router = Namespace::create("node").await?;
    router.route()?;
    router.apply_rules(&rules(&State::default()))?;
    enter(router.pid())?;
    let address = SocketAddr::from((DNS_ADDRESS, 53));
    let failed = |cause: std::io::Error| format!("DNS at {address}: {cause}");
    let udp = UdpSocket::bind(address).await.map_err(failed)?;
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    tokio::spawn(names::serve(shared.clone(), udp, tcp));
    Ok(Arc::new(Context { shared, router, programs, folder }))
}

/// Does what the objects require, each time when something has changed.
async fn follow(context: &Arc<Context>) {
    let mut machines = Vec::new();
    let mut written = String::new();
    while !context.shared.read().is_stopping {
        if let Err(error) = create_machines(context, &mut machines).await {
            context.shared.read().fault = Some(error);
        }
        let started = reconcile(&mut context.shared.read());
        for (kube, number) in started {
            tokio::spawn(pod::run(context.clone(), kube, number));
        }
        let rules = rules(&context.shared.read());
        if rules != written {
            if let Err(error) = context.router.apply_rules(&rules) {
                context.shared.read().fault = Some(error);
            }
            written = rules;
        }
        let next = next_available(&context.shared.read()).unwrap_or(Duration::MAX);
        drop(tokio::time::timeout(next, context.shared.changed.notified()).await);
    }
    for pod in context.shared.read().kubes.iter_mut().flat_map(|kube| &mut kube.pods) {
        pod.stop.send_replace(Some(Duration::ZERO));
    }
    let all_ended = async {
        while context.shared.read().kubes.iter().any(|kube| !kube.pods.is_empty()) {
            context.shared.changed.notified().await;
        }
    };
    // What has not ended then is killed with this thread.
    drop(tokio::time::timeout(END, all_ended).await);
}

/// When the next pod will have been ready for as long as its workload asks for.
fn next_available(state: &State) -> Option<Duration> {
    let mut soon = Vec::new();
    for kube in &state.kubes {
        for (id, workload) in kube.workloads() {
            let pods = kube.pods.iter().filter(|pod| pod.owner == *id);
            soon.extend(pods.filter_map(|pod| pod.until_available(workload.min_ready)));
        }
    }
    soon.into_iter().filter(|left| !left.is_zero()).min()
}

/// Creates the machines that tests have asked for.
async fn create_machines(context: &Arc<Context>, machines: &mut Vec<Namespace>) -> Result<(), String> {
    loop {
        let missing = context.shared.read().machines.iter().position(|machine| machine.pid.is_none());
        let Some(at) = missing else { return Ok(()) };
        let address = context.shared.read().machines[at].address;
        let machine = Namespace::create("machine").await?;
        machine.connect(&context.router, address, &format!("machine{at}"))?;
        context.shared.read().machines[at].pid = Some(machine.pid());
        machines.push(machine);
    }
}

/// Creates and ends pods. Returns the cluster and the number of each pod that is new.
pub(crate) fn reconcile(state: &mut State) -> Vec<(String, u32)> {
    state.assign_addresses();
    let mut wanted: Vec<(String, ObjectId, Workload, Option<usize>)> = Vec::new();
    for kube in &mut state.kubes {
        let mut ended: Vec<u32> = Vec::new();
        for (id, workload) in kube.workloads() {
            for step in steps(&id.name, workload, &owned(kube, id, workload)) {
                match step {
                    Step::Create(ordinal) => {
                        wanted.push((kube.name.clone(), id.clone(), workload.clone(), ordinal))
                    }
                    Step::End(number) => ended.push(number),
                }
            }
        }
        let objects = &kube.objects;
        let orphans = kube.pods.iter().filter(|pod| !objects.contains_key(&pod.owner));
        ended.extend(orphans.map(|pod| pod.number));
        for pod in kube.pods.iter_mut().filter(|pod| ended.contains(&pod.number)) {
            end(pod, None);
        }
    }
    wanted
        .into_iter()
        .map(|(kube, id, workload, ordinal)| {
            let number = create(state, &kube, &id, &workload, ordinal);
            (kube, number)
        })
        .collect()
}

/// The pods of a workload, as its controller sees them.
pub(crate) fn owned(kube: &Kube, id: &ObjectId, workload: &Workload) -> Vec<OwnedPod> {
    let pods = kube.pods.iter().filter(|pod| pod.owner == *id);
    pods.map(|pod| OwnedPod {
        number: pod.number,
        name: pod.name.clone(),
        is_current: pod.revision == workload.revision,
        is_ready: pod.is_ready(),
        is_available: pod.until_available(workload.min_ready).is_some_and(|left| left.is_zero()),
        is_terminating: pod.is_terminating,
    })
    .collect()
}

/// Ends a pod, by default within the time that it asks for.
pub(crate) fn end(pod: &mut Pod, grace: Option<Duration>) {
    let grace = grace.unwrap_or(Duration::from_secs(pod.spec.termination_grace_period_seconds));
    pod.is_terminating = true;
    // A pod that ends already may only be asked to end sooner.
    pod.stop.send_if_modified(|stop| {
        let is_sooner = stop.is_none_or(|before| grace < before);
        if is_sooner {
            *stop = Some(grace);
        }
        is_sooner
    });
}

fn create(state: &mut State, kube: &str, id: &ObjectId, workload: &Workload, ordinal: Option<usize>) -> u32 {
    let number = state.next_pod();
    let kube = state.kube_mut(kube);
    let name = match ordinal {
        Some(ordinal) => format!("{}-{ordinal}", id.name),
        None => format!("{}-{}-{number:05}", id.name, workload.revision),
    };
    let mut spec = workload.template.spec.clone();
    let mut labels = workload.template.metadata.labels.clone();
    if let (Controller::StatefulSet { service, claims, .. }, Some(ordinal)) = (&workload.controller, ordinal)
    {
        labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
        labels.insert("apps.kubernetes.io/pod-index".to_owned(), ordinal.to_string());
        spec.hostname = Some(name.clone());
        spec.subdomain = Some(service.clone()).filter(|service| !service.is_empty());
        for (template, claim) in claims {
            let claim_name = format!("{template}-{name}");
            add_claim(kube, &id.namespace, &claim_name, claim);
            spec.volumes.retain(|volume| volume.name != *template);
            spec.volumes.push(Volume::of_claim(template, ClaimVolume { claim_name, read_only: false }));
        }
    }
    kube.pods.push(Pod {
        number,
        namespace: id.namespace.clone(),
        owner: id.clone(),
        revision: workload.revision.clone(),
        labels,
        annotations: workload.template.metadata.annotations.clone(),
        address: kube.pod_address(number),
        spec: Arc::new(spec),
        phase: Phase::Pending("it is being created".to_owned()),
        ready: std::collections::BTreeSet::new(),
        ready_since: None,
        is_terminating: false,
        restarts: 0,
        last_fault: String::new(),
        processes: BTreeMap::new(),
        stop: watch::Sender::new(None),
        name,
    });
    number
}

/// A claim of a StatefulSet. It exists until the world ends, and no release replaces it.
fn add_claim(kube: &mut Kube, namespace: &str, name: &str, claim: &Claim) {
    let kind = "PersistentVolumeClaim".to_owned();
    let id = ObjectId { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    let object = Object::Claim(claim.clone());
    kube.objects.entry(id).or_insert(Applied { release: String::new(), object });
}
