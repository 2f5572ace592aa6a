//! Objects of Kubernetes, as `helm template` and `kubectl kustomize` print them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cluster::pod_spec::PodTemplate;
use crate::cluster::policy_spec::{Policy, policy};
use crate::cluster::service::{Service, service};

/// Kinds that start nothing and that no pod needs here. They are reported by name, so that it is visible what was not tried.
const NOT_RUN: [&str; 14] = [
    "HorizontalPodAutoscaler",
    "Ingress",
    "Namespace",
    "PodDisruptionBudget",
    "PodMonitor",
    "PrometheusRule",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "ServiceAccount",
    "ServiceMonitor",
    "StorageClass",
    "PriorityClass",
];

/// Kind, namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    /// Kind, such as `Secret`.
    pub kind: String,
    /// Namespace within its cluster.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// An object that the runner understands.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    Workload(Box<Workload>),
    Service(Service),
    /// The files of a ConfigMap or of a Secret.
    Files(BTreeMap<String, Vec<u8>>),
    Claim(Claim),
    Policy(Box<Policy>),
    /// A kind of [`NOT_RUN`].
    NotRun,
}

/// A Deployment or a StatefulSet.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) replicas: usize,
    pub(crate) template: PodTemplate,
    /// Changes when the template changes.
    pub(crate) revision: String,
    pub(crate) controller: Controller,
    /// How long a pod must be ready to count as available.
    pub(crate) min_ready: Duration,
    /// What cannot be changed once the object exists, as text.
    pub(crate) immutable: String,
}

#[derive(Clone, Debug)]
pub(crate) enum Controller {
    Deployment {
        max_surge: usize,
        max_unavailable: usize,
    },
    /// A Deployment whose old pods end before new ones start.
    Recreate,
    StatefulSet {
        is_parallel: bool,
        service: String,
        claims: Vec<(String, Claim)>,
    },
}

/// A claim of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// Whether several pods may use it at once.
    pub(crate) is_shared: bool,
}

/// Reads the objects of YAML documents. An object without a namespace belongs to `namespace`.
///
/// # Errors
/// If a document is not an object, or if it has something that the runner does not understand, with its kind and name.
pub(crate) fn parse(yaml: &str, namespace: &str) -> Result<Vec<(ObjectId, Object)>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(yaml).map_err(|cause| format!("not YAML: {cause}"))?;
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .map(|document| one(document, namespace))
        .collect()
}

fn one(mut document: Value, namespace: &str) -> Result<(ObjectId, Object), String> {
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let id = ObjectId {
        kind: text("/kind").ok_or("a document has no kind")?,
        namespace: text("/metadata/namespace").unwrap_or_else(|| namespace.to_owned()),
        name: text("/metadata/name").ok_or("a document has no name")?,
    };
    match document.pointer("/metadata/annotations/helm.sh~1hook").and_then(Value::as_str) {
        None => {}
        // Helm runs it on request.
        Some("test") => return Ok((id, Object::NotRun)),
        Some(hook) => return Err(format!("{} {}: hook {hook} of Helm is not supported", id.kind, id.name)),
    }
    let spec = document.get_mut("spec").map(Value::take).unwrap_or_default();
    let object = match &*id.kind {
        "Deployment" => deployment(spec).map(Box::new).map(Object::Workload),
        "StatefulSet" => stateful_set(spec).map(Box::new).map(Object::Workload),
        "Service" => service(spec).map(Object::Service),
        "ConfigMap" => config_map(document).map(Object::Files),
        "Secret" => secret(document).map(Object::Files),
        "PersistentVolumeClaim" => claim(spec).map(Object::Claim),
        "NetworkPolicy" => policy(spec).map(Box::new).map(Object::Policy),
        kind if NOT_RUN.contains(&kind) => Ok(Object::NotRun),
        _ => Err("is of a kind that the runner does not know".to_owned()),
    };
    let object = object.map_err(|error| format!("{} {}: {error}", id.kind, id.name))?;
    Ok((id, object))
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|cause| cause.to_string())
}

/// A field of a specification whose other fields do not matter.
fn field<T: DeserializeOwned>(spec: &Value, pointer: &str) -> Result<Option<T>, String> {
    let found = spec.pointer(pointer).filter(|value| !value.is_null());
    found.map(|value| read(value.clone()).map_err(|cause| format!("{pointer}: {cause}"))).transpose()
}

fn workload(spec: &Value, controller: Controller, fixed: &[&str]) -> Result<Workload, String> {
    let template = spec.get("template").cloned().unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    template.to_string().hash(&mut hasher);
    let fixed: Vec<String> = fixed.iter().map(|name| format!("{name}: {}", &spec[*name])).collect();
    let workload = Workload {
        replicas: field(spec, "/replicas")?.unwrap_or(1),
        template: read(template)?,
        revision: format!("{:08x}", hasher.finish() as u32),
        controller,
        min_ready: Duration::from_secs(field(spec, "/minReadySeconds")?.unwrap_or_default()),
        immutable: fixed.join("\n"),
    };
    let selector: BTreeMap<String, String> = field(spec, "/selector/matchLabels")?.unwrap_or_default();
    let labels = &workload.template.metadata.labels;
    if selector.is_empty() || !selects(&selector, labels) {
        return Err(format!("the selector {selector:?} does not select its own pods, which have {labels:?}"));
    }
    Ok(workload)
}

/// Whether `labels` have all labels of `selector`.
pub(crate) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn deployment(spec: Value) -> Result<Workload, String> {
    let replicas: usize = field(&spec, "/replicas")?.unwrap_or(1);
    let controller = match field::<String>(&spec, "/strategy/type")?.as_deref() {
        Some("Recreate") => Controller::Recreate,
        None | Some("RollingUpdate") => {
            let setting = |name: &str| spec.pointer(&format!("/strategy/rollingUpdate/{name}"));
            let max_surge = share(setting("maxSurge"), replicas, true)?;
            let max_unavailable = share(setting("maxUnavailable"), replicas, false)?;
            // Kubernetes reads two zeros as one pod that may be unavailable.
            let max_unavailable = if max_surge == 0 { max_unavailable.max(1) } else { max_unavailable };
            Controller::Deployment { max_surge, max_unavailable }
        }
        Some(other) => return Err(format!("strategy {other:?} is unknown")),
    };
    workload(&spec, controller, &["selector"])
}

/// A number of pods, or a percentage of `replicas`; by default a quarter of them.
fn share(setting: Option<&Value>, replicas: usize, is_rounded_up: bool) -> Result<usize, String> {
    let percent = match setting {
        Some(Value::Number(number)) => {
            return number
                .as_u64()
                .map(|number| number as usize)
                .ok_or_else(|| format!("{number} is not a number of pods"));
        }
        Some(Value::String(text)) => text
            .strip_suffix('%')
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| format!("{text:?} is not a percentage"))?,
        _ => 25usize,
    };
    let pods = replicas * percent;
    Ok(if is_rounded_up { pods.div_ceil(100) } else { pods / 100 })
}

fn stateful_set(spec: Value) -> Result<Workload, String> {
    let strategy = field::<String>(&spec, "/updateStrategy/type")?;
    if strategy.is_some_and(|strategy| strategy != "RollingUpdate") {
        return Err("only updateStrategy RollingUpdate is supported".to_owned());
    }
    let claims = spec.get("volumeClaimTemplates").and_then(Value::as_array).cloned().unwrap_or_default();
    let claims: Result<Vec<(String, Claim)>, String> = claims
        .into_iter()
        .map(|mut template| {
            let name = field(&template, "/metadata/name")?.ok_or("a claim template has no name")?;
            Ok((name, claim(template["spec"].take())?))
        })
        .collect();
    let controller = Controller::StatefulSet {
        is_parallel: field::<String>(&spec, "/podManagementPolicy")?.as_deref() == Some("Parallel"),
        service: field(&spec, "/serviceName")?.unwrap_or_default(),
        claims: claims?,
    };
    workload(&spec, controller, &["selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"])
}

fn claim(spec: Value) -> Result<Claim, String> {
    let modes: Vec<String> = field(&spec, "/accessModes")?.unwrap_or_default();
    match modes.first().map(String::as_str) {
        Some("ReadWriteMany") => Ok(Claim { is_shared: true }),
        Some("ReadWriteOnce" | "ReadWriteOncePod") => Ok(Claim { is_shared: false }),
        _ => Err(format!("accessModes {modes:?}: expected ReadWriteOnce or ReadWriteMany")),
    }
}

fn config_map(document: Value) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let data: BTreeMap<String, String> = field(&document, "/data")?.unwrap_or_default();
    let mut files: BTreeMap<String, Vec<u8>> =
        data.into_iter().map(|(key, text)| (key, text.into_bytes())).collect();
    files.extend(decoded(&document, "/binaryData")?);
    Ok(files)
}

fn secret(document: Value) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut files = decoded(&document, "/data")?;
    let plain: BTreeMap<String, String> = field(&document, "/stringData")?.unwrap_or_default();
    files.extend(plain.into_iter().map(|(key, text)| (key, text.into_bytes())));
    Ok(files)
}

fn decoded(document: &Value, pointer: &str) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let data: BTreeMap<String, String> = field(document, pointer)?.unwrap_or_default();
    data.into_iter()
        .map(|(key, text)| {
            let bytes = STANDARD.decode(text.trim()).map_err(|cause| format!("key {key}: {cause}"))?;
            Ok((key, bytes))
        })
        .collect()
}

/// Refuses changes of fields that cannot be changed, as the API server does.
///
/// # Errors
/// If such a field was changed.
pub(crate) fn check_change(id: &ObjectId, before: Option<&Object>, after: &Object) -> Result<(), String> {
    match (before, after) {
        (Some(Object::Workload(before)), Object::Workload(after)) if before.immutable != after.immutable => {
            Err(format!(
                "{} {}: a field that cannot be changed was changed:\n{}\nbecame\n{}",
                id.kind, id.name, before.immutable, after.immutable
            ))
        }
        (Some(Object::Service(before)), Object::Service(after))
            if before.is_headless != after.is_headless =>
        {
            Err(format!("Service {}: clusterIP cannot be changed", id.name))
        }
        (Some(Object::Claim(before)), Object::Claim(after)) if before != after => {
            Err(format!("PersistentVolumeClaim {}: cannot be changed", id.name))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_pods_are_rounded_as_in_kubernetes() {
        let check = |setting: Value, is_rounded_up, expected| {
            assert_eq!(share(Some(&setting), 3, is_rounded_up), Ok(expected), "{setting}");
        };
        check("25%".into(), true, 1);
        check("25%".into(), false, 0);
        check("100%".into(), false, 3);
        check(2.into(), false, 2);
        assert_eq!(share(None, 5, true), Ok(2));
        assert!(share(Some(&"some".into()), 3, true).is_err());
    }

    #[test]
    fn secrets_are_decoded_and_unknown_fields_are_refused_by_name() {
        let secret = "kind: Secret\nmetadata: {name: s}\ndata: {a: aGk=}\nstringData: {b: yo}\n";
        let objects = parse(secret, "own").expect("a Secret");
        let Object::Files(files) = &objects[0].1 else { panic!("{objects:?}") };
        assert_eq!((&*files["a"], &*files["b"]), (&b"hi"[..], &b"yo"[..]));
        let service = "kind: Service\nmetadata: {name: s}\nspec: {ports: [], sessionAffinity: ClientIP}\n";
        let error = parse(service, "own").expect_err("an unknown field");
        assert!(error.contains("Service s: unknown field `sessionAffinity`"), "{error}");
        assert!(parse("kind: [", "own").is_err());
    }
}
