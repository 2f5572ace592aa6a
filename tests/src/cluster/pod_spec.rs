//! The part of a pod's specification that the runner understands.
//!
//! A field that is missing here is refused, so that nothing in a manifest is ignored in silence. Fields that only place a pod on a
//! node, or limit what it may use there, have no effect on one machine. They are accepted and named [`NoEffect`].

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::cluster::volume_spec::{Volume, VolumeMount};

/// A field that is accepted and has no effect.
type NoEffect = Option<serde::de::IgnoredAny>;

/// What a Deployment or a StatefulSet makes pods from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PodTemplate {
    pub(crate) metadata: TemplateMetadata,
    pub(crate) spec: PodSpec,
}

/// Labels and annotations of the pods.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct TemplateMetadata {
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PodSpec {
    pub(crate) containers: Vec<Container>,
    #[serde(default)]
    pub(crate) init_containers: Vec<Container>,
    #[serde(default)]
    pub(crate) volumes: Vec<Volume>,
    #[serde(default)]
    pub(crate) security_context: SecurityContext,
    #[serde(default = "thirty")]
    pub(crate) termination_grace_period_seconds: u64,
    #[serde(default)]
    pub(crate) service_account_name: String,
    pub(crate) hostname: Option<String>,
    pub(crate) subdomain: Option<String>,
    pub(crate) enable_service_links: Option<bool>,
    #[serde(default, rename = "restartPolicy")]
    _restart_policy: RestartPolicy,
    #[serde(rename = "affinity")]
    _affinity: NoEffect,
    #[serde(rename = "topologySpreadConstraints")]
    _spread: NoEffect,
    #[serde(rename = "tolerations")]
    _tolerations: NoEffect,
    #[serde(rename = "nodeSelector")]
    _node_selector: NoEffect,
    #[serde(rename = "priorityClassName")]
    _priority: NoEffect,
    #[serde(rename = "imagePullSecrets")]
    _pull_secrets: NoEffect,
    #[serde(rename = "automountServiceAccountToken")]
    _service_account_token: NoEffect,
}

/// Pods of the controllers here are always restarted.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) enum RestartPolicy {
    #[default]
    Always,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    #[serde(default)]
    pub(crate) command: Vec<String>,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    pub(crate) env: Vec<EnvVar>,
    #[serde(default)]
    pub(crate) env_from: Vec<EnvFrom>,
    #[serde(default)]
    pub(crate) ports: Vec<ContainerPort>,
    #[serde(default)]
    pub(crate) volume_mounts: Vec<VolumeMount>,
    pub(crate) startup_probe: Option<Probe>,
    pub(crate) readiness_probe: Option<Probe>,
    pub(crate) liveness_probe: Option<Probe>,
    #[serde(default)]
    pub(crate) security_context: SecurityContext,
    #[serde(rename = "resources")]
    _resources: NoEffect,
    #[serde(rename = "imagePullPolicy")]
    _pull_policy: NoEffect,
    #[serde(rename = "terminationMessagePolicy")]
    _termination_message_policy: NoEffect,
    #[serde(rename = "terminationMessagePath")]
    _termination_message_path: NoEffect,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ContainerPort {
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) container_port: u16,
    #[serde(default, rename = "protocol")]
    _protocol: Protocol,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    /// Its name in DNS and in rules of the firewall.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A number, or the name of a port of a container.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub(crate) enum Port {
    Number(u16),
    Name(String),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EnvVar {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) value: String,
    pub(crate) value_from: Option<EnvSource>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EnvSource {
    pub(crate) field_ref: Option<FieldRef>,
    pub(crate) config_map_key_ref: Option<KeyRef>,
    pub(crate) secret_key_ref: Option<KeyRef>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct FieldRef {
    pub(crate) field_path: String,
    #[serde(rename = "apiVersion")]
    _api_version: NoEffect,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct KeyRef {
    pub(crate) name: String,
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) optional: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EnvFrom {
    #[serde(default)]
    pub(crate) prefix: String,
    pub(crate) config_map_ref: Option<WholeRef>,
    pub(crate) secret_ref: Option<WholeRef>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WholeRef {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) optional: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Probe {
    pub(crate) http_get: Option<HttpGet>,
    pub(crate) tcp_socket: Option<TcpSocket>,
    pub(crate) grpc: Option<Grpc>,
    pub(crate) exec: Option<Exec>,
    #[serde(default)]
    pub(crate) initial_delay_seconds: u64,
    #[serde(default = "ten")]
    pub(crate) period_seconds: u64,
    #[serde(default = "one")]
    pub(crate) timeout_seconds: u64,
    #[serde(default = "once")]
    pub(crate) success_threshold: u32,
    #[serde(default = "three")]
    pub(crate) failure_threshold: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HttpGet {
    #[serde(default)]
    pub(crate) path: String,
    pub(crate) port: Port,
    #[serde(default, rename = "scheme")]
    _scheme: Scheme,
}

/// Probes over TLS are not supported.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) enum Scheme {
    #[default]
    #[serde(rename = "HTTP")]
    Http,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TcpSocket {
    pub(crate) port: Port,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grpc {
    /// Kubernetes allows only a number here.
    pub(crate) port: u16,
    #[serde(default)]
    pub(crate) service: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exec {
    pub(crate) command: Vec<String>,
}

/// The security settings of a pod or of a container; those of the container have precedence.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SecurityContext {
    pub(crate) run_as_user: Option<u32>,
    pub(crate) run_as_group: Option<u32>,
    #[serde(default)]
    pub(crate) run_as_non_root: Option<bool>,
    pub(crate) fs_group: Option<u32>,
    #[serde(default)]
    pub(crate) supplemental_groups: Vec<u32>,
    #[serde(default)]
    pub(crate) read_only_root_filesystem: bool,
    #[serde(rename = "fsGroupChangePolicy")]
    _fs_group_change: NoEffect,
    #[serde(rename = "seccompProfile")]
    _seccomp: NoEffect,
    /// Every container runs without capabilities and without new privileges, whatever these say.
    #[serde(rename = "allowPrivilegeEscalation")]
    _escalation: NoEffect,
    #[serde(rename = "capabilities")]
    _capabilities: NoEffect,
}

fn one() -> u64 {
    1
}

fn ten() -> u64 {
    10
}

fn thirty() -> u64 {
    30
}

fn once() -> u32 {
    1
}

fn three() -> u32 {
    3
}
