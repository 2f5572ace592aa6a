//! What exists in the world: clusters of Kubernetes with their objects and pods, and which address belongs to what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::cluster::objects::{Object, ObjectId, Workload, selects};
use crate::cluster::pod_spec::{PodSpec, Port, Protocol};
use crate::cluster::service::{Service, port_number};

/// The DNS server of all clusters. It answers each cluster with the names of that cluster.
pub(crate) const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);

/// The router that every pod sends its packets to.
pub(crate) const ROUTER_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The machine outside of all clusters.
pub(crate) const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// The state, shared by the runner and its user.
#[derive(Default)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the runner up after a change.
    pub(crate) changed: Notify,
    /// Counts the changes of objects, for those who wait for them.
    pub(crate) applied: watch::Sender<u64>,
}

impl Shared {
    /// The state, to be read.
    pub(crate) fn read(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes the runner up.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.read());
        self.changed.notify_one();
        result
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) kubes: Vec<Kube>,
    /// Names outside of the clusters, as a public DNS has them.
    pub(crate) public_names: BTreeMap<String, Ipv4Addr>,
    /// Machines that run no pods, from which tests connect and on which they start programs.
    pub(crate) machines: Vec<Machine>,
    /// Whether everything ends.
    pub(crate) is_stopping: bool,
    /// What the runner itself could not do.
    pub(crate) fault: Option<String>,
    /// Pods that were ever created; their numbers are used for names, devices and addresses.
    last_pod: u32,
    last_balancer: u8,
}

/// A machine on the network.
pub(crate) struct Machine {
    /// The cluster whose network it is in; `None`: outside of all clusters, and every pod can reach it.
    pub(crate) kube: Option<String>,
    pub(crate) address: Ipv4Addr,
    /// A process in its network, once that exists.
    pub(crate) pid: Option<u32>,
}

/// One cluster of Kubernetes.
pub(crate) struct Kube {
    pub(crate) name: String,
    /// The number in its addresses.
    index: u8,
    pub(crate) objects: BTreeMap<ObjectId, Applied>,
    pub(crate) pods: Vec<Pod>,
    /// Addresses of services within the cluster, and of load balancers. A service keeps them while it exists.
    pub(crate) addresses: BTreeMap<ObjectId, ServiceAddresses>,
    last_service: u8,
}

/// An object, and what it was applied with.
pub(crate) struct Applied {
    /// Objects that are applied together replace those that were applied together under this name.
    pub(crate) release: String,
    pub(crate) object: Object,
}

#[derive(Clone, Copy)]
pub(crate) struct ServiceAddresses {
    pub(crate) cluster: Ipv4Addr,
    pub(crate) balancer: Option<Ipv4Addr>,
}

/// Where a pod is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It waits for something that it needs, which is named.
    Pending(String),
    /// The init container of this name runs.
    Init(String),
    Running,
}

pub(crate) struct Pod {
    pub(crate) number: u32,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) owner: ObjectId,
    pub(crate) revision: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) spec: Arc<PodSpec>,
    pub(crate) address: Ipv4Addr,
    pub(crate) phase: Phase,
    /// Names of the containers that are ready.
    pub(crate) ready: BTreeSet<String>,
    /// Since when all containers are ready.
    pub(crate) ready_since: Option<Instant>,
    pub(crate) is_terminating: bool,
    /// Containers that were started again.
    pub(crate) restarts: u32,
    /// Why a container ended, or a probe failed, the last time.
    pub(crate) last_fault: String,
    /// The process ids of the running containers.
    pub(crate) processes: BTreeMap<String, u32>,
    /// Ends the pod within the time.
    pub(crate) stop: watch::Sender<Option<Duration>>,
}

impl State {
    pub(crate) fn kube(&self, name: &str) -> Option<&Kube> {
        self.kubes.iter().find(|kube| kube.name == name)
    }

    /// The cluster of this name, which is created if it does not exist.
    pub(crate) fn kube_mut(&mut self, name: &str) -> &mut Kube {
        let at = self.kubes.iter().position(|kube| kube.name == name).unwrap_or_else(|| {
            let index = u8::try_from(self.kubes.len()).unwrap_or(u8::MAX);
            self.kubes.push(Kube::new(name, index));
            self.kubes.len() - 1
        });
        &mut self.kubes[at]
    }

    /// The cluster that an address of a pod belongs to.
    pub(crate) fn kube_of(&self, address: IpAddr) -> Option<&Kube> {
        let IpAddr::V4(address) = address else { return None };
        self.kubes.iter().find(|kube| kube.pod_address(0).octets()[..2] == address.octets()[..2])
    }

    /// The process of the machine of a cluster, or of the one outside, and its address. It is created if it does not exist.
    pub(crate) fn machine(&mut self, kube: Option<&str>) -> Option<(u32, Ipv4Addr)> {
        if let Some(known) = self.machines.iter().find(|machine| machine.kube.as_deref() == kube) {
            return known.pid.map(|pid| (pid, known.address));
        }
        let number = self.next_pod();
        let address = kube.map_or(OUTSIDE_ADDRESS, |kube| self.kube_mut(kube).pod_address(number));
        self.machines.push(Machine { kube: kube.map(str::to_owned), address, pid: None });
        None
    }

    /// The next number of a pod.
    pub(crate) fn next_pod(&mut self) -> u32 {
        self.last_pod += 1;
        self.last_pod
    }

    pub(crate) fn pod(&self, number: u32) -> Option<&Pod> {
        self.kubes.iter().flat_map(|kube| &kube.pods).find(|pod| pod.number == number)
    }

    pub(crate) fn pod_mut(&mut self, number: u32) -> Option<&mut Pod> {
        self.kubes.iter_mut().flat_map(|kube| &mut kube.pods).find(|pod| pod.number == number)
    }

    /// Gives addresses to services that have none, and takes those of removed services.
    pub(crate) fn assign_addresses(&mut self) {
        for kube in &mut self.kubes {
            let objects = &kube.objects;
            kube.addresses.retain(|id, _| objects.contains_key(id));
            for (id, applied) in &kube.objects {
                let Object::Service(service) = &applied.object else { continue };
                let addresses = kube.addresses.entry(id.clone()).or_insert_with(|| {
                    kube.last_service += 1;
                    let cluster = Ipv4Addr::new(10, 128 + kube.index, 0, kube.last_service);
                    ServiceAddresses { cluster, balancer: None }
                });
                if service.is_load_balancer && addresses.balancer.is_none() {
                    self.last_balancer += 1;
                    addresses.balancer = Some(Ipv4Addr::new(198, 51, 100, self.last_balancer));
                }
            }
        }
    }
}

impl Kube {
    fn new(name: &str, index: u8) -> Self {
        Self {
            name: name.to_owned(),
            index,
            objects: BTreeMap::new(),
            pods: Vec::new(),
            addresses: BTreeMap::new(),
            last_service: 0,
        }
    }

    /// The address of the pod with this number.
    pub(crate) fn pod_address(&self, number: u32) -> Ipv4Addr {
        let [.., high, low] = number.to_be_bytes();
        Ipv4Addr::new(10, 64 + self.index, high, low)
    }

    /// The addresses of all of its pods.
    pub(crate) fn pod_network(&self) -> String {
        format!("{}/16", self.pod_address(0))
    }

    pub(crate) fn object(&self, kind: &str, namespace: &str, name: &str) -> Option<&Object> {
        let id = ObjectId { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() };
        self.objects.get(&id).map(|applied| &applied.object)
    }

    /// The keys of a ConfigMap or of a Secret.
    pub(crate) fn files(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Option<&BTreeMap<String, Vec<u8>>> {
        match self.object(kind, namespace, name)? {
            Object::Files(files) => Some(files),
            _ => None,
        }
    }

    pub(crate) fn services(&self) -> impl Iterator<Item = (&ObjectId, &Service)> {
        self.objects.iter().filter_map(|(id, applied)| match &applied.object {
            Object::Service(service) => Some((id, service)),
            _ => None,
        })
    }

    pub(crate) fn workloads(&self) -> impl Iterator<Item = (&ObjectId, &Workload)> {
        self.objects.iter().filter_map(|(id, applied)| match &applied.object {
            Object::Workload(workload) => Some((id, &**workload)),
            _ => None,
        })
    }

    /// The pods to which a service leads: those that are ready and do not end.
    pub(crate) fn endpoints(&self, id: &ObjectId, service: &Service) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |pod| {
            let is_usable = (pod.is_ready() && !pod.is_terminating) || service.publish_not_ready;
            pod.namespace == id.namespace
                && is_usable
                && !service.selector.is_empty()
                && selects(&service.selector, &pod.labels)
        })
    }
}

impl Pod {
    /// Whether all of its containers are ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Running && self.ready.len() == self.spec.containers.len()
    }

    /// Notes whether a container is ready.
    pub(crate) fn set_ready(&mut self, container: &str, is_ready: bool) {
        if is_ready {
            self.ready.insert(container.to_owned());
        } else {
            self.ready.remove(container);
        }
        self.ready_since = self.is_ready().then(|| self.ready_since.unwrap_or_else(Instant::now));
    }

    /// How long the pod must still be ready until it was ready for `min_ready`; `None` if it is not ready.
    pub(crate) fn until_available(&self, min_ready: Duration) -> Option<Duration> {
        self.ready_since.map(|since| min_ready.saturating_sub(since.elapsed()))
    }

    /// The address of a port of this pod, if it has a port of this name.
    pub(crate) fn at(&self, port: &Port) -> Option<SocketAddr> {
        let number = port_number(port, self.spec.containers.iter())?;
        Some(SocketAddr::from((self.address, number)))
    }

    /// Its name within its services, if it has one.
    pub(crate) fn hostname(&self) -> &str {
        self.spec.hostname.as_deref().unwrap_or(&self.name)
    }
}

/// Addresses of a service with the pods that it leads to.
pub(crate) struct Route {
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// Only pods of this network may use it; `None`: everyone.
    pub(crate) network: Option<String>,
    pub(crate) backends: Vec<SocketAddr>,
}

/// All addresses of services that are not headless.
pub(crate) fn routes(state: &State) -> Vec<Route> {
    let mut routes = Vec::new();
    for kube in &state.kubes {
        for (id, service) in kube.services().filter(|(_, service)| !service.is_headless) {
            let Some(addresses) = kube.addresses.get(id) else { continue };
            for port in &service.ports {
                let backends: Vec<SocketAddr> =
                    kube.endpoints(id, service).filter_map(|pod| pod.at(&port.target)).collect();
                let route = |address, network| Route {
                    address,
                    port: port.port,
                    protocol: port.protocol,
                    network,
                    backends: backends.clone(),
                };
                routes.push(route(addresses.cluster, Some(kube.pod_network())));
                routes.extend(addresses.balancer.map(|address| route(address, None)));
            }
        }
    }
    routes
}
