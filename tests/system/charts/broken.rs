//! Each check sees the faults that it is for: an object of a chart is broken, and the check must name it.

use serde_json::{Value, json};

use crate::charts::checks::CHECKS;
use crate::charts::objects::committed;

/// Breaks an object of the large set of a chart, and expects a fault of `check` with this text.
fn expect(chart: &str, check: &str, object: &str, pointer: &str, value: Value, expected: &str) {
    let mut objects = committed(chart, "large");
    let (kind, name) = object.split_once(' ').expect("kind and name");
    let found = objects
        .iter_mut()
        .find(|it| it["kind"] == kind && it["metadata"]["name"] == format!("{chart}-{name}"));
    let found = found.unwrap_or_else(|| panic!("{chart} has no {object}"));
    let (parent, last) = pointer.rsplit_once('/').expect("a path");
    let last = &last.replace("~1", "/");
    let parent = found.pointer_mut(parent).unwrap_or_else(|| panic!("{object} has no {parent}"));
    match parent {
        Value::Object(fields) if value.is_null() => drop(fields.remove(last).expect("a field to remove")),
        Value::Object(fields) => drop(fields.insert(last.to_owned(), value)),
        Value::Array(items) if last == "-" => items.push(value),
        Value::Array(items) => items[last.parse::<usize>().expect("an index")] = value,
        _ => panic!("{object}: {pointer}"),
    }
    let (_, check) = CHECKS.iter().find(|(name, _)| *name == check).expect("a check");
    let faults = check(&objects);
    assert!(faults.iter().any(|fault| fault.contains(expected)), "{object} {pointer}: {faults:?}");
}

fn client(check: &str, object: &str, pointer: &str, value: Value, expected: &str) {
    expect("isthmus-client", check, object, pointer, value, expected);
}

const GATEWAY: &str = "StatefulSet gateway";
const SCRAPER: &str = "StatefulSet scraper";
const POD: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

fn in_container(field: &str) -> String {
    format!("{CONTAINER}/{field}")
}

fn in_pod(field: &str) -> String {
    format!("{POD}/{field}")
}

#[test]
fn unknown_kinds_and_objects_that_are_there_twice_are_seen() {
    client("kinds", GATEWAY, "/kind", json!("StatefulSets"), "kind StatefulSets");
    client("kinds", GATEWAY, "/apiVersion", json!("apps/v1beta1"), "\"apps/v1beta1\" is not known");
    client("kinds", "Service gateway", "/metadata/name", json!("isthmus-client-scraper"), "is there twice");
}

#[test]
fn selectors_that_match_nothing_or_too_much_are_seen() {
    let other = "app.kubernetes.io~1component";
    client(
        "selectors",
        "Service gateway",
        &format!("/spec/selector/{other}"),
        json!("gatewai"),
        "Service isthmus-client-gateway: selects no pods",
    );
    client(
        "selectors",
        "Service gateway",
        &format!("/spec/selector/{other}"),
        Value::Null,
        "selects pods of 3 workloads",
    );
    client(
        "selectors",
        GATEWAY,
        &format!("/spec/selector/matchLabels/{other}"),
        json!("x"),
        "does not select its own pods",
    );
    client(
        "selectors",
        GATEWAY,
        &format!("/spec/selector/matchLabels/{other}"),
        Value::Null,
        "selects the pods of",
    );
    client(
        "selectors",
        "PodDisruptionBudget scraper",
        &format!("/spec/selector/matchLabels/{other}"),
        json!("x"),
        "selects no pods",
    );
    client(
        "selectors",
        "NetworkPolicy gateway",
        "/spec/egress/1/to/0/podSelector/matchLabels/a",
        json!("b"),
        "names pods that do not exist",
    );
    client("selectors", GATEWAY, "/spec/serviceName", json!("nothing"), "Service \"nothing\" does not exist");
    client("selectors", "Service gateway", "/spec/clusterIP", Value::Null, "is not headless");
    client(
        "selectors",
        SCRAPER,
        &in_pod("topologySpreadConstraints/0/labelSelector/matchLabels/a"),
        json!("b"),
        "a spread constraint",
    );
}

#[test]
fn wrong_ports_are_seen() {
    client("ports", "Service gateway", "/spec/ports/0/targetPort", json!("htp"), "has no port");
    client("ports", "Service gateway", "/spec/ports/0/port", json!(80), "has no port");
    client("ports", "Service gateway-mesh", "/spec/ports/0/protocol", json!("TCP"), "has no port");
    let twice = json!({"name": "http", "containerPort": 1, "protocol": "TCP"});
    client("ports", GATEWAY, &in_container("ports/-"), twice, "port \"http\" is there twice");
    let twice = json!({"name": "web", "containerPort": 10942, "protocol": "TCP"});
    client("ports", GATEWAY, &in_container("ports/-"), twice, "port 10942 is there twice");
    client("ports", "Service gateway-mesh", "/spec/ports/1/name", json!("mesh-udp"), "is there twice");
    client(
        "probes",
        GATEWAY,
        &in_container("livenessProbe/httpGet/port"),
        json!("web"),
        "livenessProbe asks port \"web\"",
    );
    client("probes", GATEWAY, &in_container("readinessProbe"), Value::Null, "readinessProbe asks port null");
    client(
        "probes",
        GATEWAY,
        &in_container("livenessProbe/failureThreshold"),
        json!(1),
        "is ended after 30 s",
    );
}

#[test]
fn references_to_nothing_are_seen() {
    client(
        "references",
        GATEWAY,
        &in_pod("serviceAccountName"),
        json!("x"),
        "ServiceAccount \"x\" does not exist",
    );
    client(
        "references",
        GATEWAY,
        &in_pod("volumes/0/configMap/name"),
        json!("x"),
        "ConfigMap \"x\" does not exist",
    );
    client(
        "references",
        GATEWAY,
        &in_pod("volumes/1/secret/secretName"),
        json!("x"),
        "Secret \"x\" does not exist",
    );
    let key = json!([{"key": "other.yaml", "path": "gateway.yaml"}]);
    client("references", GATEWAY, &in_pod("volumes/0/configMap/items"), key, "has no key other.yaml");
    let variable =
        json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "isthmus-objstore", "key": "x"}}});
    client("references", GATEWAY, &in_container("env/-"), variable, "is not documented to have [\"x\"]");
    client(
        "references",
        "ClusterRoleBinding scraper",
        "/subjects/0/name",
        json!("x"),
        "ServiceAccount \"x\" does not exist",
    );
    client(
        "references",
        "ClusterRoleBinding scraper",
        "/roleRef/name",
        json!("x"),
        "ClusterRole \"x\" does not exist",
    );
}

#[test]
fn volumes_that_are_missing_are_seen() {
    client("volumes", GATEWAY, &in_container("volumeMounts/0/name"), json!("x"), "mounts volume x");
    client(
        "volumes",
        GATEWAY,
        &in_container("volumeMounts/0/mountPath"),
        json!("/etc/isthmus/join"),
        "mounts two volumes at",
    );
    client(
        "volumes",
        GATEWAY,
        &in_container("volumeMounts/1/mountPath"),
        json!("/etc/other"),
        "gateway.yaml is in no volume",
    );
    client(
        "volumes",
        GATEWAY,
        &in_pod("volumes/-"),
        json!({"name": "data", "emptyDir": {}}),
        "is declared twice",
    );
    client(
        "volumes",
        GATEWAY,
        &in_pod("volumes/-"),
        json!({"name": "x", "emptyDir": {}}),
        "volume x is not mounted",
    );
}

#[test]
fn quantities_that_are_none_are_seen() {
    client(
        "quantities",
        GATEWAY,
        &in_container("resources/limits/memory"),
        json!("12 gigs"),
        "is not a quantity",
    );
    client("quantities", GATEWAY, &in_container("resources/limits/memory"), json!("1Mi"), "memory: requests");
    client(
        "quantities",
        GATEWAY,
        "/spec/volumeClaimTemplates/0/spec/resources/requests/storage",
        json!("12 gigs"),
        "a claim of",
    );
    client("quantities", GATEWAY, &in_pod("terminationGracePeriodSeconds"), json!(30), "is ended after 30 s");
    let store = "StatefulSet store-recent-0";
    let limit = in_container("resources/limits/memory");
    expect("isthmus-observability", "quantities", store, &limit, json!("4Gi"), "do not fit into its memory");
}

#[test]
fn pods_that_may_do_more_are_seen() {
    let security =
        |field: &str, value: Value, expected: &str| client("security", GATEWAY, field, value, expected);
    security(&in_pod("securityContext/runAsNonRoot"), json!(false), "runAsNonRoot");
    security(&in_pod("securityContext/runAsUser"), json!(0), "not a number above 0");
    security(&in_pod("securityContext/seccompProfile"), Value::Null, "seccompProfile");
    security(&in_pod("hostNetwork"), json!(true), "hostNetwork");
    security(&in_pod("volumes/-"), json!({"name": "x", "hostPath": {"path": "/"}}), "is not permitted");
    security(
        &in_container("securityContext/allowPrivilegeEscalation"),
        Value::Null,
        "allowPrivilegeEscalation",
    );
    security(&in_container("securityContext/readOnlyRootFilesystem"), json!(false), "can be written");
    security(&in_container("securityContext/capabilities/add"), json!(["NET_ADMIN"]), "capabilities");
    security(&in_container("securityContext/privileged"), json!(true), "privileged");
    security(&in_container("ports/0/hostPort"), json!(1), "a port of the host");
    security(&in_pod("automountServiceAccountToken"), json!(true), "must be false");
    client("security", SCRAPER, &in_pod("automountServiceAccountToken"), json!(false), "must be true");
}

#[test]
fn monitors_with_unknown_fields_or_without_targets_are_seen() {
    // The monitor has the name of the release alone.
    let monitor = |pointer: &str, value: Value, expected: &str| {
        let mut objects = committed("isthmus-client", "large");
        let found = objects.iter_mut().find(|object| object["kind"] == "ServiceMonitor").expect("a monitor");
        let (parent, last) = pointer.rsplit_once('/').expect("a path");
        found.pointer_mut(parent).expect("a place")[last] = value;
        let (_, check) = CHECKS.iter().find(|(name, _)| *name == "monitors").expect("a check");
        let faults = check(&objects);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{pointer}: {faults:?}");
    };
    monitor("/spec/selectors", json!({}), "field selectors is not known");
    monitor("/spec/endpoints", json!([{"port": "http", "paths": "/metrics"}]), "field paths is not known");
    monitor("/spec/endpoints", json!([{"port": "web"}]), "0 times");
    monitor("/spec/endpoints", json!([]), "has no endpoints");
    monitor("/spec/selector/matchLabels/a", json!("b"), "0 times");
}

#[test]
fn arguments_that_the_program_refuses_are_seen() {
    let arg = |value: &str, expected: &str| {
        client("arguments", GATEWAY, &in_container("args/-"), json!(value), expected)
    };
    arg("--no-such-flag=1", "--no-such-flag");
    arg("--grpc-server-max-connection-age=soon", "soon");
    arg("--data-dir=$(NOTHING)", "the variable is not known");
    let args = in_container("args/-");
    let strict = json!("--endpoint-strict=dnssrv+_grpc._tcp.ruler");
    expect("isthmus-observability", "arguments", "Deployment query", &args, strict, "--endpoint-strict");
    client("arguments", GATEWAY, &in_container("image"), json!("nginx:1"), "is not known");
    client("arguments", "ConfigMap gateway", "/data/gateway.yaml", json!("role: cluster\n"), "data_dir");
    let rules = json!("groups: [{name: a, rules: [{record: b, expr: 'sum('}]}]");
    client("arguments", "ConfigMap scraper-rules", "/data/node.yaml", rules, "unclosed left parenthesis");
}
