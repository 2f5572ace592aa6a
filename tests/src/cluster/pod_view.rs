//! Pods as a test sees them.

use std::net::Ipv4Addr;

use crate::cluster::state::{Phase, Pod};

/// How a pod is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// As by `kubectl delete`: SIGTERM, and SIGKILL after the time that the pod asks for.
    Graceful,
    /// As if its machine were lost: it is killed at once.
    Sudden,
}

/// A pod as a test sees it.
#[derive(Clone, Debug)]
pub struct PodView {
    /// Name.
    pub name: String,
    /// Namespace within its cluster.
    pub namespace: String,
    /// A number that no other pod has, also not the next one of this name.
    pub number: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// Whether all of its containers are ready.
    pub is_ready: bool,
    /// Whether it was asked to end.
    pub is_terminating: bool,
    /// How often its containers were started again.
    pub restarts: u32,
    /// What it does, or waits for, and its last fault.
    pub state: String,
}

/// What a test sees of a pod.
pub(crate) fn view(pod: &Pod) -> PodView {
    let phase = match &pod.phase {
        Phase::Pending(reason) => format!("waits: {reason}"),
        Phase::Init(container) => format!("runs {container}"),
        Phase::Running if pod.is_ready() => "is ready".to_owned(),
        Phase::Running => "runs".to_owned(),
    };
    let ends = if pod.is_terminating { ", ends" } else { "" };
    let fault =
        if pod.last_fault.is_empty() { String::new() } else { format!(" (last fault: {})", pod.last_fault) };
    PodView {
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        number: pod.number,
        address: pod.address,
        is_ready: pod.is_ready(),
        is_terminating: pod.is_terminating,
        restarts: pod.restarts,
        state: phase + ends + &fault,
    }
}
