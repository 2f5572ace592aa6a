//! Services: names and addresses that lead to pods.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::cluster::pod_spec::{Container, Port, Protocol};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) is_headless: bool,
    pub(crate) is_load_balancer: bool,
    pub(crate) publish_not_ready: bool,
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) target: Port,
    pub(crate) protocol: Protocol,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    publish_not_ready_addresses: bool,
    #[serde(default)]
    selector: BTreeMap<String, String>,
    ports: Vec<ServicePortSpec>,
    /// Source addresses are always kept.
    #[serde(rename = "externalTrafficPolicy")]
    _external_traffic: Option<IgnoredAny>,
    #[serde(rename = "loadBalancerClass")]
    _balancer_class: Option<IgnoredAny>,
    #[serde(rename = "loadBalancerSourceRanges")]
    _balancer_sources: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServicePortSpec {
    #[serde(default)]
    name: String,
    port: u16,
    target_port: Option<Port>,
    #[serde(default)]
    protocol: Protocol,
    #[serde(rename = "appProtocol")]
    _app_protocol: Option<IgnoredAny>,
}

/// Reads the specification of a service.
///
/// # Errors
/// If it has something that the runner does not understand.
pub(crate) fn service(spec: Value) -> Result<Service, String> {
    let spec: ServiceSpec = serde_json::from_value(spec).map_err(|cause| cause.to_string())?;
    let kind = spec.kind.as_deref().unwrap_or("ClusterIP");
    if !["ClusterIP", "LoadBalancer", "NodePort"].contains(&kind) {
        return Err(format!("type {kind} is not supported"));
    }
    let port = |port: ServicePortSpec| ServicePort {
        name: port.name,
        port: port.port,
        target: port.target_port.unwrap_or(Port::Number(port.port)),
        protocol: port.protocol,
    };
    Ok(Service {
        is_headless: spec.cluster_ip.as_deref() == Some("None"),
        is_load_balancer: kind == "LoadBalancer",
        publish_not_ready: spec.publish_not_ready_addresses,
        selector: spec.selector,
        ports: spec.ports.into_iter().map(port).collect(),
    })
}

/// The number of a port of one of these containers.
pub(crate) fn port_number<'a>(
    port: &Port,
    mut containers: impl Iterator<Item = &'a Container>,
) -> Option<u16> {
    match port {
        Port::Number(number) => Some(*number),
        Port::Name(name) => containers.find_map(|container| {
            container.ports.iter().find(|port| port.name == *name).map(|port| port.container_port)
        }),
    }
}
