//! Ports of Services and probes are ports of containers.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::charts::objects::{at, containers, list, of_kind, selected, text, title, workloads};

/// Ports of Services name ports of containers with their protocol and number; names and numbers are there once.
pub(super) fn check(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in workloads(objects) {
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for port in containers(workload).flat_map(|container| list(container, "ports")) {
            let (name, number) = (text(port, "name"), &port["containerPort"]);
            if name.is_empty() || name.len() > 15 || !names.insert(name) {
                faults
                    .push(format!("{}: port {name:?} is there twice, or has no valid name", title(workload)));
            }
            if !numbers.insert((number.as_u64(), text(port, "protocol"))) {
                faults.push(format!("{}: port {number} is there twice", title(workload)));
            }
        }
    }
    for service in of_kind(objects, "Service") {
        let mut names = BTreeSet::new();
        for port in list(service, "spec.ports") {
            let name = text(port, "name");
            if name.is_empty() || !names.insert(name) {
                faults.push(format!("{}: port {name:?} is there twice, or has no name", title(service)));
            }
            for workload in selected(objects, at(service, "spec.selector")) {
                if !has_port(workload, port) {
                    faults.push(format!("{}: {} has no port {port}", title(service), title(workload)));
                }
            }
        }
    }
    faults
}

/// Whether a workload has the port of a Service. All ports of the charts have the same number on both sides, so that a client outside of
/// the cluster's proxies, such as one that reads SRV records, uses the number that is documented.
fn has_port(workload: &Value, wanted: &Value) -> bool {
    containers(workload).flat_map(|container| list(container, "ports")).any(|port| {
        port["name"] == wanted["targetPort"]
            && port["protocol"] == wanted["protocol"]
            && port["containerPort"] == wanted["port"]
    })
}

/// Every container has the three probes, and they ask ports of the same container.
pub(super) fn check_probes(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for (workload, container) in
        workloads(objects).flat_map(|it| containers(it).map(move |container| (it, container)))
    {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let port = at(container, &format!("{probe}.httpGet.port"));
            let ports = list(container, "ports");
            if !ports.iter().any(|known| known["name"] == *port || known["containerPort"] == *port) {
                let container = text(container, "name");
                faults.push(format!("{}: {container}: {probe} asks port {port}", title(workload)));
            }
        }
        let seconds = |path: &str| at(container, path).as_u64().unwrap_or_default();
        let start = seconds("startupProbe.periodSeconds") * seconds("startupProbe.failureThreshold");
        let alive = seconds("livenessProbe.periodSeconds") * seconds("livenessProbe.failureThreshold");
        if start < 60 || alive < 120 {
            faults.push(format!(
                "{}: may start for {start} s, and is ended after {alive} s without an answer",
                title(workload)
            ));
        }
    }
    faults
}
