//! Service monitors have the fields of prometheus-operator's type, and select Services with their port.

use serde_json::Value;

use crate::charts::objects::{at, list, of_kind, selects, text, title};

/// Fields of `spec` in monitoring.coreos.com/v1, those that the charts may use.
const SPEC: [&str; 6] =
    ["endpoints", "jobLabel", "namespaceSelector", "sampleLimit", "selector", "targetLabels"];

/// Fields of an endpoint.
const ENDPOINT: [&str; 9] = [
    "honorLabels",
    "interval",
    "metricRelabelings",
    "path",
    "port",
    "relabelings",
    "scheme",
    "scrapeTimeout",
    "tlsConfig",
];

/// Fields of a rule in `relabelings`.
const RELABELING: [&str; 7] =
    ["action", "modulus", "regex", "replacement", "separator", "sourceLabels", "targetLabel"];

pub(super) fn check(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for monitor in of_kind(objects, "ServiceMonitor") {
        let mut unknown = |value: &Value, known: &[&str]| {
            for field in value.as_object().into_iter().flatten().map(|(field, _)| field) {
                if !known.contains(&field.as_str()) {
                    faults.push(format!("{}: field {field} is not known", title(monitor)));
                }
            }
        };
        unknown(&monitor["spec"], &SPEC);
        for endpoint in list(monitor, "spec.endpoints") {
            unknown(endpoint, &ENDPOINT);
            list(endpoint, "relabelings").iter().for_each(|rule| unknown(rule, &RELABELING));
        }
        let services: Vec<&Value> = of_kind(objects, "Service")
            .filter(|service| {
                selects(at(monitor, "spec.selector.matchLabels"), at(service, "metadata.labels"))
            })
            .collect();
        for port in list(monitor, "spec.endpoints").iter().map(|endpoint| text(endpoint, "port")) {
            // Each workload is scraped, and once.
            for workload in crate::charts::objects::workloads(objects) {
                let times = services.iter().filter(|service| {
                    selects(at(service, "spec.selector"), at(workload, "spec.template.metadata.labels"))
                        && list(service, "spec.ports").iter().any(|known| text(known, "name") == port)
                });
                let times = times.count();
                if times != 1 {
                    faults.push(format!("{}: scrapes {} {times} times", title(monitor), title(workload)));
                }
            }
        }
        if list(monitor, "spec.endpoints").is_empty() {
            faults.push(format!("{}: has no endpoints", title(monitor)));
        }
    }
    faults
}
