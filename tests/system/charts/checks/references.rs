//! What objects name exists: ConfigMaps, Secrets, claims and accounts, and the volumes of containers.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::charts::objects::{at, containers, kind, list, name, of_kind, pod, text, title, workloads};

/// Secrets and ConfigMaps that users create before they install a chart, and the key of each that is used. docs/install-kubernetes.md
/// lists them.
const OF_THE_USER: [(&str, &str, &[&str]); 6] = [
    ("Secret", "isthmus-join", &[]),
    ("Secret", "isthmus-issuer", &["issuer.pem", "bundle.pem"]),
    ("Secret", "isthmus-objstore", &["objstore.yml"]),
    ("Secret", "isthmus-cache", &["index.yml", "chunks.yml"]),
    ("Secret", "isthmus-alertmanagers", &["alertmanagers.yml"]),
    ("ConfigMap", "team-rules", &[]),
];

/// Every object that a pod, a binding or an environment variable names is there, or is one of the user's.
pub(super) fn check(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in workloads(objects) {
        let mut missing = |kind: &str, name: &str, keys: &[&str]| {
            if let Some(fault) = missing(objects, kind, name, keys) {
                faults.push(format!("{}: {fault}", title(workload)));
            }
        };
        missing("ServiceAccount", text(pod(workload), "serviceAccountName"), &[]);
        for volume in list(pod(workload), "volumes") {
            for (field, kind, of_name) in [
                ("configMap", "ConfigMap", "name"),
                ("secret", "Secret", "secretName"),
                ("persistentVolumeClaim", "PersistentVolumeClaim", "claimName"),
            ] {
                let Some(source) = volume.get(field) else { continue };
                let keys: Vec<&str> = list(source, "items").iter().map(|item| text(item, "key")).collect();
                missing(kind, text(source, of_name), &keys);
            }
        }
        for variable in containers(workload).flat_map(|container| list(container, "env")) {
            for (field, kind) in [("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")] {
                let source = at(variable, &format!("valueFrom.{field}"));
                if !source.is_null() {
                    missing(kind, text(source, "name"), &[text(source, "key")]);
                }
            }
        }
    }
    for binding in objects.iter().filter(|object| kind(object).ends_with("RoleBinding")) {
        let subjects =
            list(binding, "subjects").iter().map(|subject| (text(subject, "kind"), text(subject, "name")));
        for (kind, name) in subjects.chain([(text(binding, "roleRef.kind"), text(binding, "roleRef.name"))]) {
            faults.extend(
                missing(objects, kind, name, &[]).map(|fault| format!("{}: {fault}", title(binding))),
            );
        }
    }
    faults
}

/// Why an object with these keys is missing.
fn missing(objects: &[Value], kind: &str, wanted: &str, keys: &[&str]) -> Option<String> {
    let of_the_user =
        OF_THE_USER.iter().find(|(its_kind, its_name, _)| (*its_kind, *its_name) == (kind, wanted));
    if let Some((_, _, known)) = of_the_user {
        let unknown: Vec<_> = keys.iter().filter(|key| !known.contains(key)).collect();
        return (!unknown.is_empty())
            .then(|| format!("{kind} {wanted} is not documented to have {unknown:?}"));
    }
    let Some(object) = of_kind(objects, kind).find(|object| name(object) == wanted) else {
        return Some(format!("{kind} {wanted:?} does not exist"));
    };
    let key = keys.iter().find(|key| object["data"].get(**key).is_none())?;
    Some(format!("{kind} {wanted} has no key {key}"))
}

/// Containers mount the volumes of their pod, each of which is mounted, at paths that are there once. Files under `/etc` that arguments
/// name are in a volume that is mounted there.
pub(super) fn check_volumes(objects: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for workload in workloads(objects) {
        let claims = list(workload, "spec.volumeClaimTemplates").iter().map(name);
        let volumes = list(pod(workload), "volumes").iter().map(|volume| text(volume, "name"));
        let declared: Vec<&str> = claims.chain(volumes).collect();
        let known: BTreeSet<&str> = declared.iter().copied().collect();
        if known.len() < declared.len() {
            faults.push(format!("{}: a volume is declared twice: {declared:?}", title(workload)));
        }
        let mut mounted = BTreeSet::new();
        for container in containers(workload) {
            let mut paths = BTreeSet::new();
            for mount in list(container, "volumeMounts") {
                let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
                mounted.insert(name);
                if !known.contains(name) {
                    faults.push(format!("{}: mounts volume {name}, which is not declared", title(workload)));
                }
                if !paths.insert(path) {
                    faults.push(format!("{}: mounts two volumes at {path}", title(workload)));
                }
            }
            let files = list(container, "args").iter().filter_map(Value::as_str);
            let files = files.filter_map(|arg| arg.split_once('=')).map(|(_, value)| value);
            for file in files.filter(|value| value.starts_with("/etc/") || value.starts_with("/var/")) {
                if !paths.iter().any(|path| file.starts_with(path))
                    && !paths.iter().any(|path| is_pattern_of(file, path))
                {
                    faults.push(format!("{}: {file} is in no volume", title(workload)));
                }
            }
        }
        for unused in known.difference(&mounted) {
            faults.push(format!("{}: volume {unused} is not mounted", title(workload)));
        }
    }
    faults
}

/// Whether a pattern such as `/etc/rules/*/*.yaml` covers a folder.
fn is_pattern_of(pattern: &str, folder: &str) -> bool {
    pattern.split_once('*').is_some_and(|(before, _)| folder.starts_with(before))
}
