//! Kinds exist in the versions that are named, and no object is there twice.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::charts::objects::{text, title};

/// The kinds that the charts use.
const KINDS: [(&str, &str); 15] = [
    ("v1", "ConfigMap"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Secret"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
];

pub(super) fn check(objects: &[Value]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for object in objects {
        let (version, kind) = (text(object, "apiVersion"), text(object, "kind"));
        if !KINDS.contains(&(version, kind)) {
            faults.push(format!("{}: kind {kind} of {version:?} is not known", title(object)));
        }
        if !seen.insert((title(object), text(object, "metadata.namespace"))) {
            faults.push(format!("{}: is there twice", title(object)));
        }
        let name = text(object, "metadata.name");
        if name.is_empty() || name.len() > 63 {
            faults.push(format!("{}: the name has {} characters", title(object), name.len()));
        }
    }
    faults
}
