//! Network policies: which pods may connect to which.
//!
//! A pod that a policy selects may only do what some policy allows. What is already connected goes on. The DNS server counts as a pod
//! of the namespace `kube-system`, and the machine from which tests connect as a pod of the namespace `machine`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::cluster::objects::{Object, selects};
use crate::cluster::pod_spec::Port;
use crate::cluster::policy_spec::{Block, Direction, Peer, Policy, PolicyPort, Rule};
use crate::cluster::state::{DNS_ADDRESS, Kube, Pod, State};

/// The label with the name of a namespace, the only label that namespaces have here.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// A place that a peer of a rule may mean.
struct Place<'a> {
    namespace: &'a str,
    labels: &'a BTreeMap<String, String>,
    address: Ipv4Addr,
    pod: Option<&'a Pod>,
}

/// Chains of rules for the pods that policies select.
#[derive(Default)]
pub(crate) struct PolicyRules {
    /// The chains.
    pub(crate) chains: String,
    /// Lines that jump to them, for connections to other pods.
    pub(crate) forward: String,
    /// The same for connections to the router itself.
    pub(crate) input: String,
}

/// The rules of all network policies.
pub(crate) fn policy_rules(state: &State) -> PolicyRules {
    let mut rules = PolicyRules::default();
    for kube in &state.kubes {
        let places = places(state, kube);
        for pod in &kube.pods {
            let selected: Vec<&Policy> = policies(kube, pod).collect();
            for direction in [Direction::Ingress, Direction::Egress] {
                let isolating = selected.iter().filter(|policy| policy.isolates(direction));
                let allowed: Vec<&Rule> =
                    isolating.clone().flat_map(|policy| policy.rules(direction)).collect();
                if isolating.count() > 0 {
                    isolate(&mut rules, pod, direction, &allowed, &places);
                }
            }
        }
    }
    rules
}

fn policies<'a>(kube: &'a Kube, pod: &'a Pod) -> impl Iterator<Item = &'a Policy> {
    kube.objects.iter().filter_map(|(id, applied)| match &applied.object {
        Object::Policy(policy)
            if id.namespace == pod.namespace && selects(&policy.pod_selector.match_labels, &pod.labels) =>
        {
            Some(&**policy)
        }
        _ => None,
    })
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

fn places<'a>(state: &State, kube: &'a Kube) -> Vec<Place<'a>> {
    let pods = kube.pods.iter().map(|pod| Place {
        namespace: &pod.namespace,
        labels: &pod.labels,
        address: pod.address,
        pod: Some(pod),
    });
    let other = |namespace, address| Place { namespace, labels: &NO_LABELS, address, pod: None };
    let machines = state.machines.iter().filter(|machine| machine.kube.as_ref() == Some(&kube.name));
    let machines = machines.map(|machine| other("machine", machine.address));
    pods.chain(machines).chain([other("kube-system", DNS_ADDRESS)]).collect()
}

fn isolate(
    rules: &mut PolicyRules,
    pod: &Pod,
    direction: Direction,
    allowed: &[&Rule],
    places: &[Place<'_>],
) {
    let (own, other, name) = match direction {
        Direction::Ingress => ("daddr", "saddr", "ingress"),
        Direction::Egress => ("saddr", "daddr", "egress"),
    };
    let chain = format!("{name}_{}", pod.number);
    let jump = format!("ip {own} {} jump {chain}\n", pod.address);
    rules.forward.push_str(&jump);
    if direction == Direction::Egress {
        rules.input.push_str(&jump);
    }
    let _ = writeln!(rules.chains, "chain {chain} {{");
    for rule in allowed {
        let mut add = |peer: &str, listening: Option<&Pod>| {
            for port in ports(rule, listening) {
                let _ = writeln!(rules.chains, "{peer} {port} return");
            }
        };
        if rule.peers.is_empty() {
            add("", Some(pod));
        }
        for peer in &rule.peers {
            if let Some(Block { cidr, except }) = &peer.ip_block {
                let except: String = except.iter().map(|cidr| format!("ip {other} != {cidr} ")).collect();
                add(&format!("ip {other} {cidr} {except}"), Some(pod));
                if direction == Direction::Egress {
                    // The address before it was translated to that of a pod of another cluster.
                    add(&format!("ct original ip daddr {cidr}"), Some(pod));
                }
                continue;
            }
            for place in places.iter().filter(|place| peer.means(place, &pod.namespace)) {
                let listening = if direction == Direction::Ingress { Some(pod) } else { place.pod };
                add(&format!("ip {other} {}", place.address), listening);
            }
        }
    }
    rules.chains.push_str("reject\n}\n");
}

/// The ports of a rule as matches; a port with a name is that of the pod that listens.
fn ports(rule: &Rule, listening: Option<&Pod>) -> Vec<String> {
    if rule.ports.is_empty() {
        return vec![String::new()];
    }
    let number = |port: &PolicyPort| {
        let protocol = port.protocol.name();
        match &port.port {
            None => Some(format!("meta l4proto {protocol}")),
            Some(Port::Number(number)) => Some(format!("{protocol} dport {number}")),
            Some(name) => Some(format!("{protocol} dport {}", listening?.at(name)?.port())),
        }
    };
    rule.ports.iter().filter_map(number).collect()
}

impl Peer {
    /// Whether the peer, in a policy of `namespace`, means a place.
    fn means(&self, place: &Place<'_>, namespace: &str) -> bool {
        let is_namespace = match &self.namespace_selector {
            Some(selector) => {
                let labels = BTreeMap::from([(NAMESPACE_LABEL.to_owned(), place.namespace.to_owned())]);
                selects(&selector.match_labels, &labels)
            }
            None => place.namespace == namespace,
        };
        let is_pod =
            self.pod_selector.as_ref().is_none_or(|selector| selects(&selector.match_labels, place.labels));
        is_namespace && is_pod
    }
}
