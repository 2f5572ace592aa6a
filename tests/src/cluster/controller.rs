//! What a Deployment and a StatefulSet do next with their pods.
//!
//! The decisions are those of Kubernetes: a Deployment starts new pods before it ends old ones, within its limits; a StatefulSet
//! replaces one pod at a time, from the highest number down, and waits until each is available.

use crate::cluster::objects::{Controller, Workload};

/// A pod as its controller sees it.
#[derive(Clone, Debug)]
pub(crate) struct OwnedPod {
    /// The number of the pod in the world.
    pub(crate) number: u32,
    pub(crate) name: String,
    /// Whether it was made from the present template.
    pub(crate) is_current: bool,
    pub(crate) is_ready: bool,
    /// Whether it was ready for as long as the workload asks for (`minReadySeconds`).
    pub(crate) is_available: bool,
    pub(crate) is_terminating: bool,
}

/// One step of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Creates a pod; `Some`: with this ordinal number.
    Create(Option<usize>),
    /// Ends the pod with this number.
    End(u32),
}

/// What is done now. More may follow when this has happened.
pub(crate) fn steps(name: &str, workload: &Workload, pods: &[OwnedPod]) -> Vec<Step> {
    match &workload.controller {
        Controller::Deployment { max_surge, max_unavailable } => {
            deployment(workload.replicas, *max_surge, *max_unavailable, pods)
        }
        Controller::Recreate => recreate(workload.replicas, pods),
        Controller::StatefulSet { is_parallel, .. } => {
            stateful_set(name, workload.replicas, *is_parallel, pods)
        }
    }
}

/// Whether all replicas are ready and were made from the present template, and no other pod is left.
pub(crate) fn is_settled(workload: &Workload, pods: &[OwnedPod]) -> bool {
    pods.len() == workload.replicas
        && pods.iter().all(|pod| pod.is_current && pod.is_ready && !pod.is_terminating)
}

fn deployment(replicas: usize, max_surge: usize, max_unavailable: usize, pods: &[OwnedPod]) -> Vec<Step> {
    let live: Vec<&OwnedPod> = pods.iter().filter(|pod| !pod.is_terminating).collect();
    let (current, mut old): (Vec<&OwnedPod>, Vec<&OwnedPod>) = live.iter().partition(|pod| pod.is_current);
    let room = (replicas + max_surge).saturating_sub(live.len());
    let mut steps = vec![Step::Create(None); replicas.saturating_sub(current.len()).min(room)];
    // Pods that are not available are ended first: this makes nothing worse.
    old.sort_by_key(|pod| pod.is_available);
    let mut available = live.iter().filter(|pod| pod.is_available).count();
    let surplus = current.iter().rev().take(current.len().saturating_sub(replicas));
    for pod in old.iter().chain(surplus) {
        if pod.is_available {
            if available <= replicas.saturating_sub(max_unavailable) {
                continue;
            }
            available -= 1;
        }
        steps.push(Step::End(pod.number));
    }
    steps
}

fn recreate(replicas: usize, pods: &[OwnedPod]) -> Vec<Step> {
    if pods.iter().any(|pod| !pod.is_current) {
        let live = pods.iter().filter(|pod| !pod.is_current && !pod.is_terminating);
        return live.map(|pod| Step::End(pod.number)).collect();
    }
    deployment(replicas, 0, replicas, pods)
}

fn stateful_set(name: &str, replicas: usize, is_parallel: bool, pods: &[OwnedPod]) -> Vec<Step> {
    let of = |ordinal: usize| pods.iter().find(|pod| pod.name == format!("{name}-{ordinal}"));
    let mut steps = Vec::new();
    for ordinal in 0..replicas {
        match of(ordinal) {
            None => steps.push(Step::Create(Some(ordinal))),
            Some(pod) if pod.is_available && !pod.is_terminating => continue,
            Some(_) => {}
        }
        if !is_parallel {
            // The next pod waits for this one.
            return steps;
        }
    }
    let is_kept = |pod: &&OwnedPod| (0..replicas).any(|ordinal| pod.name == format!("{name}-{ordinal}"));
    let surplus: Vec<&OwnedPod> = pods.iter().filter(|pod| !is_kept(pod)).collect();
    if !surplus.is_empty() {
        let live = surplus.iter().rev().filter(|pod| !pod.is_terminating);
        steps.extend(live.take(if is_parallel { usize::MAX } else { 1 }).map(|pod| Step::End(pod.number)));
        return steps;
    }
    if !steps.is_empty() {
        return steps;
    }
    for ordinal in (0..replicas).rev() {
        match of(ordinal) {
            Some(pod) if !pod.is_current && !pod.is_terminating => return vec![Step::End(pod.number)],
            Some(pod) if pod.is_available && !pod.is_terminating => {}
            _ => return Vec::new(),
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pods by name, such as `a-0:+ready` (present template) or `b:-` (old template, not ready), `x` for one that ends, `new` for one
    /// that is ready, and not for long enough.
    fn pods(text: &str) -> Vec<OwnedPod> {
        text.split_whitespace()
            .enumerate()
            .map(|(at, pod)| {
                let (name, state) = pod.split_once(':').expect("a state");
                OwnedPod {
                    number: at as u32,
                    name: name.to_owned(),
                    is_current: state.contains('+'),
                    is_ready: state.contains("ready") || state.contains("new"),
                    is_available: state.contains("ready"),
                    is_terminating: state.contains('x'),
                }
            })
            .collect()
    }

    #[test]
    fn deployment_starts_new_pods_before_old_ones_end() {
        let check =
            |text: &str, expected: &[Step]| assert_eq!(deployment(2, 1, 0, &pods(text)), expected, "{text}");
        let create = Step::Create(None);
        check("", &[create.clone(), create.clone()]);
        check("a:-ready b:-ready", std::slice::from_ref(&create));
        check("a:-ready b:-ready c:+", &[]);
        check("a:-ready b:-ready c:+new", &[]);
        check("a:-ready b:-ready c:+ready", &[Step::End(0)]);
        check("a:-x b:-ready c:+ready", std::slice::from_ref(&create));
        check("a:- b:-ready c:+ready", &[Step::End(0)]);
        check("b:-ready c:+ready d:+ready", &[Step::End(0)]);
        check("c:+ready d:+ready e:+ready", &[Step::End(2)]);
        assert_eq!(
            deployment(1, 0, 1, &pods("a:-ready")),
            [Step::End(0)],
            "without a surge the old pod ends first"
        );
    }

    #[test]
    fn recreated_pods_start_after_the_old_ones_have_gone() {
        assert_eq!(recreate(1, &pods("a:-ready")), [Step::End(0)]);
        assert_eq!(recreate(1, &pods("a:-x")), []);
        assert_eq!(recreate(1, &pods("")), [Step::Create(None)]);
    }

    #[test]
    fn stateful_set_replaces_one_pod_at_a_time_from_the_last() {
        let check = |is_parallel, text: &str, expected: &[Step]| {
            assert_eq!(stateful_set("a", 2, is_parallel, &pods(text)), expected, "{text}");
        };
        check(true, "", &[Step::Create(Some(0)), Step::Create(Some(1))]);
        check(false, "", &[Step::Create(Some(0))]);
        check(false, "a-0:+", &[]);
        check(false, "a-0:+ready", &[Step::Create(Some(1))]);
        check(true, "a-0:-ready a-1:-ready", &[Step::End(1)]);
        check(true, "a-0:-ready a-1:-x", &[]);
        check(true, "a-0:-ready", &[Step::Create(Some(1))]);
        check(true, "a-0:-ready a-1:+", &[]);
        check(true, "a-0:-ready a-1:+new", &[]);
        check(false, "a-0:+new", &[]);
        check(true, "a-0:-ready a-1:+ready", &[Step::End(0)]);
        check(true, "a-0:+ready a-1:+ready a-2:+ready a-3:+ready", &[Step::End(3), Step::End(2)]);
        check(false, "a-0:+ready a-1:+ready a-2:+ready a-3:+ready", &[Step::End(3)]);
    }
}
