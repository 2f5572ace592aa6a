//! The environment and the arguments of a container, as the kubelet makes them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::cluster::pod_spec::{Container, EnvSource, KeyRef};
use crate::cluster::state::{Kube, Pod, ROUTER_ADDRESS};

/// The path for programs in images that set none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Environment variables by name.
pub(crate) type Environment = BTreeMap<String, String>;

/// The environment of a container.
///
/// # Errors
/// If a ConfigMap or a Secret lacks what is needed, or if a field of the pod is not known.
pub(crate) fn environment(kube: &Kube, pod: &Pod, container: &Container) -> Result<Environment, String> {
    let mut all = Environment::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOSTNAME".to_owned(), pod.hostname().to_owned()),
    ]);
    if pod.spec.enable_service_links.unwrap_or(true) {
        all.extend(service_links(kube, &pod.namespace));
    }
    for source in &container.env_from {
        let references = [("ConfigMap", &source.config_map_ref), ("Secret", &source.secret_ref)];
        for (kind, reference) in references {
            let Some(reference) = reference else { continue };
            match kube.files(kind, &pod.namespace, &reference.name) {
                Some(files) => all.extend(
                    files.iter().map(|(key, bytes)| (format!("{}{key}", source.prefix), text(bytes))),
                ),
                None if reference.optional => {}
                None => return Err(format!("{kind} {} does not exist", reference.name)),
            }
        }
    }
    for variable in &container.env {
        let value = match &variable.value_from {
            Some(source) => from_source(kube, pod, source)
                .map_err(|error| format!("variable {}: {error}", variable.name))?,
            None => Some(expand(&variable.value, &all)),
        };
        all.extend(value.map(|value| (variable.name.clone(), value)));
    }
    Ok(all)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn from_source(kube: &Kube, pod: &Pod, source: &EnvSource) -> Result<Option<String>, String> {
    let key = |kind: &str, reference: &KeyRef| {
        let files = kube.files(kind, &pod.namespace, &reference.name);
        match files.and_then(|files| files.get(&reference.key)) {
            Some(bytes) => Ok(Some(text(bytes))),
            None if reference.optional => Ok(None),
            None => Err(format!("{kind} {} has no key {}", reference.name, reference.key)),
        }
    };
    match (&source.field_ref, &source.config_map_key_ref, &source.secret_key_ref) {
        (Some(field), None, None) => field_of(pod, &field.field_path).map(Some),
        (None, Some(reference), None) => key("ConfigMap", reference),
        (None, None, Some(reference)) => key("Secret", reference),
        _ => Err("valueFrom needs exactly one source".to_owned()),
    }
}

/// A field of the pod for the downward API.
fn field_of(pod: &Pod, path: &str) -> Result<String, String> {
    let entry = |map: &BTreeMap<String, String>, prefix: &str| {
        let name = path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
        // A label that is missing is an empty value.
        Some(map.get(name).cloned().unwrap_or_default())
    };
    let value = match path {
        "metadata.name" => pod.name.clone(),
        "metadata.namespace" => pod.namespace.clone(),
        "metadata.uid" => format!("00000000-0000-0000-0000-{:012x}", pod.number),
        "spec.nodeName" => "node".to_owned(),
        "spec.serviceAccountName" => pod.spec.service_account_name.clone(),
        "status.podIP" | "status.podIPs" => pod.address.to_string(),
        "status.hostIP" => ROUTER_ADDRESS.to_string(),
        _ => entry(&pod.labels, "metadata.labels")
            .or_else(|| entry(&pod.annotations, "metadata.annotations"))
            .ok_or_else(|| format!("the pod has no field {path}"))?,
    };
    Ok(value)
}

/// The variables that name the services of a namespace. They can collide with variables that a program reads.
fn service_links(kube: &Kube, namespace: &str) -> Environment {
    let mut all = Environment::new();
    for (id, service) in kube.services().filter(|(id, _)| id.namespace == namespace) {
        let (Some(addresses), Some(first)) = (kube.addresses.get(id), service.ports.first()) else {
            continue;
        };
        if service.is_headless {
            continue;
        }
        let upper = |name: &str| name.to_uppercase().replace('-', "_");
        let (name, address): (String, Ipv4Addr) = (upper(&id.name), addresses.cluster);
        let url = |port: u16, protocol: &str| format!("{protocol}://{address}:{port}");
        all.insert(format!("{name}_SERVICE_HOST"), address.to_string());
        all.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
        all.insert(format!("{name}_PORT"), url(first.port, first.protocol.name()));
        for port in &service.ports {
            let protocol = port.protocol.name();
            if !port.name.is_empty() {
                all.insert(format!("{name}_SERVICE_PORT_{}", upper(&port.name)), port.port.to_string());
            }
            let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
            all.insert(prefix.clone(), url(port.port, protocol));
            all.insert(format!("{prefix}_PROTO"), protocol.to_owned());
            all.insert(format!("{prefix}_PORT"), port.port.to_string());
            all.insert(format!("{prefix}_ADDR"), address.to_string());
        }
    }
    all
}

/// Replaces `$(NAME)` by the variable of this name. A name that is unknown stays as it is, and `$$` is a `$`.
pub(crate) fn expand(text: &str, variables: &Environment) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        result.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix('(').and_then(|inner| Some(&inner[..inner.find(')')?]));
        match name.and_then(|name| Some((name, variables.get(name)?))) {
            Some((name, value)) => {
                result.push_str(value);
                rest = &rest[name.len() + 2..];
            }
            None => result.push('$'),
        }
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_as_by_the_kubelet() {
        let variables = Environment::from([("POD".to_owned(), "a-0".to_owned())]);
        let check = |text: &str, expected: &str| assert_eq!(expand(text, &variables), expected, "{text}");
        check("--name=$(POD).x", "--name=a-0.x");
        check("$$(POD)", "$(POD)");
        check("$$$(POD)", "$a-0");
        check("$(MISSING) $POD $(", "$(MISSING) $POD $(");
        check("$(PO$(POD)", "$(POa-0");
        check("5$", "5$");
    }
}
