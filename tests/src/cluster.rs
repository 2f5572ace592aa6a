//! Runs objects of Kubernetes on one machine, so that tests can start what a chart renders.
//!
//! [`World`] takes YAML as `helm template` and `kubectl kustomize` print it. Arguments, ports, probes, volumes and users are those of
//! the manifest; what the runner does not understand is refused by name, and kinds that start nothing are listed.
//!
//! * Each pod has a network namespace, an address, and a link to one router in a namespace of its own. The network of the machine is
//!   not touched, and nothing is left when the test ends or is killed: a namespace lives as long as a process in it.
//! * Services are rules of `nft` in the router, as kube-proxy writes them: a connection is translated to one of the ready pods, and
//!   ports may differ from those of the pods. A connection over UDP keeps its pod, also after the pod has ended. A service without a
//!   ready pod cannot be reached.
//! * The router has a DNS server with the names of services and pods. Each cluster sees its own names. Clusters reach each other only
//!   by load balancers.
//! * Network policies are rules of the router, too.
//! * Each container has its own mounts and processes, and runs as the user of the manifest, without capabilities.
//! * Images are programs of this machine: the program under test, and Prometheus, Pushgateway and Alertmanager as Debian has them.
//!
//! There is no API server, so pods that use its API cannot run. Limits on resources, disruption budgets and rules for nodes have
//! no effect. Waits before a restart are a tenth of those of the kubelet.

mod container;
mod controller;
mod environment;
mod firewall;
mod image;
mod names;
mod network;
mod objects;
mod pod;
mod pod_spec;
mod pod_view;
mod policy;
mod policy_spec;
mod probe;
mod runner;
mod service;
mod state;
mod volume_spec;
mod volumes;
mod world;

pub use image::Programs;
pub use objects::ObjectId;
pub use pod_view::{Deletion, PodView};
pub use world::World;
