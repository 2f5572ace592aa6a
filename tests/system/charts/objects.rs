//! Kubernetes objects as trees, and the parts of them that checks need.

use std::fs;

use serde_json::Value;

use crate::charts::render::{documents, kustomize_folder};

/// The objects of a text with several documents.
pub(super) fn parse(text: &str) -> Vec<Value> {
    documents(text)
        .map(|document| {
            runtime::yaml::from_str(&document).unwrap_or_else(|error| panic!("{error}: {document}"))
        })
        .collect()
}

/// The objects of a chart with a set of values, as they are committed.
pub(super) fn committed(chart: &str, set: &str) -> Vec<Value> {
    let folder = kustomize_folder(chart, set);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}; run ISTHMUS_REGENERATE=1 ./tests/run", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name != "kustomization.yaml"))
        .collect();
    files.sort();
    files.iter().flat_map(|path| parse(&fs::read_to_string(path).expect("a file"))).collect()
}

/// The value at a path such as `spec.template`; null if a part is missing.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, part| &value[part])
}

/// The text at a path; empty if there is none.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The list at a path; empty if there is none.
pub(super) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(super) fn kind(object: &Value) -> &str {
    text(object, "kind")
}

pub(super) fn name(object: &Value) -> &str {
    text(object, "metadata.name")
}

/// Kind and name, for a message.
pub(super) fn title(object: &Value) -> String {
    format!("{} {}", kind(object), name(object))
}

/// The objects of a kind.
pub(super) fn of_kind<'a>(objects: &'a [Value], wanted: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| kind(object) == wanted)
}

/// The objects that start pods.
pub(super) fn workloads(objects: &[Value]) -> impl Iterator<Item = &Value> {
    objects.iter().filter(|object| matches!(kind(object), "Deployment" | "StatefulSet"))
}

/// The specification of the pods of a workload.
pub(super) fn pod(workload: &Value) -> &Value {
    at(workload, "spec.template.spec")
}

/// The containers of a workload, those that run first included.
pub(super) fn containers(workload: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|field| list(pod(workload), field))
}

/// Whether labels have all that a selector asks for. An empty selector is none.
pub(super) fn selects(selector: &Value, labels: &Value) -> bool {
    let Some(selector) = selector.as_object() else { return false };
    !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// The workloads whose pods a selector selects.
pub(super) fn selected<'a>(objects: &'a [Value], selector: &'a Value) -> impl Iterator<Item = &'a Value> {
    workloads(objects)
        .filter(move |workload| selects(selector, at(workload, "spec.template.metadata.labels")))
}
