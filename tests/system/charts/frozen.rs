//! What an upgrade cannot change: selectors, claims and the names of Services. A file says what they are, and only ever grows.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::charts::objects::{at, committed, list, of_kind, title, workloads};
use crate::charts::render::all;
use crate::frozen::only_grows;
use crate::workspace::root;

/// One line for each part of an object that cannot be changed while it is installed.
fn lines(chart: &str, set: &str) -> Vec<String> {
    let objects = committed(chart, set);
    let mut lines = Vec::new();
    let mut line = |object: &Value, what: &str, value: &Value| {
        lines.push(format!("{chart} {set}: {}: {what} {value}", title(object)));
    };
    for workload in workloads(&objects) {
        line(workload, "selector", at(workload, "spec.selector.matchLabels"));
        if workload["kind"] == "StatefulSet" {
            line(workload, "serviceName", at(workload, "spec.serviceName"));
            line(workload, "podManagementPolicy", at(workload, "spec.podManagementPolicy"));
        }
        for claim in list(workload, "spec.volumeClaimTemplates") {
            line(workload, "claim", &json!([claim["metadata"], claim["spec"]["accessModes"]]));
        }
    }
    for service in of_kind(&objects, "Service") {
        line(service, "clusterIP", at(service, "spec.clusterIP"));
        for port in list(service, "spec.ports") {
            line(service, "port", &json!([port["name"], port["protocol"], port["port"]]));
        }
    }
    lines
}

#[test]
fn a_release_can_be_upgraded_to_this_version() {
    let now: BTreeSet<String> = all().flat_map(|(chart, set)| lines(chart, set)).collect();
    let harm = "an installed release cannot be upgraded, because these have changed";
    only_grows(&root().join("deploy/charts/frozen.txt"), &now, harm);
}
