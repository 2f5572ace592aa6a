//! The rules of the router between the pods, as text for `nft`.
//!
//! They are those of kube-proxy: the address of a service is replaced by that of one of its pods when a connection begins. A
//! connection over UDP keeps its pod while packets flow, also after the pod has ended, as with a load balancer of a cloud.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

use crate::cluster::policy::policy_rules;
use crate::cluster::state::{DNS_ADDRESS, OUTSIDE_ADDRESS, Route, State, routes};

/// All rules. They replace those before in one step.
pub(crate) fn rules(state: &State) -> String {
    let routes = routes(state);
    let policies = policy_rules(state);
    // A table must exist to be deleted.
    let mut text = format!("table ip pods {{}}\ndelete table ip pods\ntable ip pods {{\n{}", policies.chains);
    text.push_str("chain prerouting {\ntype nat hook prerouting priority dstnat; policy accept;\n");
    routes.iter().filter_map(translation).for_each(|line| text.push_str(&line));
    text.push_str("}\nchain postrouting {\ntype nat hook postrouting priority srcnat; policy accept;\n");
    // A pod that reaches itself through a service would drop packets that seem to come from itself.
    let pods: BTreeSet<IpAddr> =
        routes.iter().flat_map(|route| &route.backends).map(|backend| backend.ip()).collect();
    for pod in pods {
        let _ = writeln!(text, "ip saddr {pod} ip daddr {pod} masquerade");
    }
    text.push_str("}\nchain forward {\ntype filter hook forward priority filter; policy drop;\n");
    let _ = writeln!(text, "ct state established,related accept\n{}ct status dnat accept", policies.forward);
    let _ = writeln!(text, "ip daddr {OUTSIDE_ADDRESS} accept");
    for kube in &state.kubes {
        // Clusters reach each other only by load balancers.
        let network = kube.pod_network();
        let _ = writeln!(text, "ip saddr {network} ip daddr {network} accept");
    }
    let _ =
        writeln!(text, "reject\n}}\nchain input {{\ntype filter hook input priority filter; policy drop;");
    let _ = writeln!(
        text,
        "ct state established,related accept\n{}icmp type echo-request accept",
        policies.input
    );
    let _ = writeln!(text, "ip daddr {DNS_ADDRESS} accept\nreject\n}}\n}}");
    text
}

fn translation(route: &Route) -> Option<String> {
    let Route { address, port, protocol, network, backends } = route;
    let from = network.as_ref().map(|network| format!("ip saddr {network} ")).unwrap_or_default();
    let to = |backend: &std::net::SocketAddr| format!("{} . {}", backend.ip(), backend.port());
    let target = match &backends[..] {
        // Nothing answers there: the router knows no way to the address, and says so.
        [] => return None,
        [one] => format!("dnat to {one}"),
        many => {
            let choices: Vec<String> =
                many.iter().enumerate().map(|(at, backend)| format!("{at} : {}", to(backend))).collect();
            format!(
                "dnat ip addr . port to numgen random mod {} map {{ {} }}",
                many.len(),
                choices.join(", ")
            )
        }
    };
    Some(format!("{from}ip daddr {address} {} dport {port} {target}\n", protocol.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_translated_to_their_pods() {
        let route = |backends: &[&str]| Route {
            address: "10.128.0.1".parse().expect("an address"),
            port: 80,
            protocol: crate::cluster::pod_spec::Protocol::Tcp,
            network: Some("10.64.0.0/16".to_owned()),
            backends: backends.iter().map(|backend| backend.parse().expect("an address")).collect(),
        };
        let check = |backends: &[&str], expected: Option<&str>| {
            let expected =
                expected.map(|to| format!("ip saddr 10.64.0.0/16 ip daddr 10.128.0.1 tcp dport 80 {to}\n"));
            assert_eq!(translation(&route(backends)), expected);
        };
        check(&[], None);
        check(&["10.64.0.1:8080"], Some("dnat to 10.64.0.1:8080"));
        let both =
            "dnat ip addr . port to numgen random mod 2 map { 0 : 10.64.0.1 . 8080, 1 : 10.64.0.2 . 8080 }";
        check(&["10.64.0.1:8080", "10.64.0.2:8080"], Some(both));
    }
}
