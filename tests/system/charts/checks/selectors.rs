//! Selectors select pods: those of workloads their own, all others at least those of one workload.

use serde_json::Value;

use crate::charts::objects::{at, kind, list, name, of_kind, selected, selects, text, title, workloads};

pub(super) fn check(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in workloads(objects) {
        let labels = at(workload, "spec.template.metadata.labels");
        let selector = at(workload, "spec.selector.matchLabels");
        if !selects(selector, labels) {
            faults.push(format!("{}: does not select its own pods", title(workload)));
        }
        let others: Vec<_> =
            selected(objects, selector).filter(|other| title(other) != title(workload)).map(title).collect();
        if !others.is_empty() {
            faults.push(format!("{}: selects the pods of {others:?}, too", title(workload)));
        }
        for constraint in list(workload, "spec.template.spec.topologySpreadConstraints") {
            if !selects(at(constraint, "labelSelector.matchLabels"), labels) {
                faults.push(format!("{}: a spread constraint does not select its own pods", title(workload)));
            }
        }
        faults.extend(governing_service(objects, workload));
    }
    for (kind, path) in [
        ("Service", "spec.selector"),
        ("PodDisruptionBudget", "spec.selector.matchLabels"),
        ("NetworkPolicy", "spec.podSelector.matchLabels"),
    ] {
        for object in of_kind(objects, kind) {
            match selected(objects, at(object, path)).count() {
                0 => faults.push(format!("{}: selects no pods", title(object))),
                1 => {}
                count => faults.push(format!("{}: selects pods of {count} workloads", title(object))),
            }
        }
    }
    for policy in of_kind(objects, "NetworkPolicy") {
        let rules = list(policy, "spec.ingress").iter().flat_map(|rule| list(rule, "from"));
        let rules = rules.chain(list(policy, "spec.egress").iter().flat_map(|rule| list(rule, "to")));
        for peer in
            rules.filter(|peer| peer.get("podSelector").is_some() && peer.get("namespaceSelector").is_none())
        {
            if selected(objects, at(peer, "podSelector.matchLabels")).next().is_none() {
                faults.push(format!("{}: a rule names pods that do not exist", title(policy)));
            }
        }
    }
    faults
}

/// The pods of a StatefulSet have names in DNS only with a headless Service.
fn governing_service(objects: &[Value], workload: &Value) -> Option<String> {
    if kind(workload) != "StatefulSet" {
        return None;
    }
    let wanted = text(workload, "spec.serviceName");
    let service = of_kind(objects, "Service").find(|service| name(service) == wanted);
    let Some(service) = service else {
        return Some(format!("{}: Service {wanted:?} does not exist", title(workload)));
    };
    let fits = selects(at(service, "spec.selector"), at(workload, "spec.template.metadata.labels"));
    (text(service, "spec.clusterIP") != "None" || !fits)
        .then(|| format!("{}: Service {wanted} is not headless, or has other pods", title(workload)))
}
