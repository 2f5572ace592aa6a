//! Shared by system tests and benchmarks: processes of the real program and of Prometheus, and their resource usage.

mod alertmanager;
mod cluster;
pub mod container;
mod control_group;
mod gateway;
mod http;
mod network;
mod pki_commands;
mod process;
mod prometheus;
mod seeded;
mod service_manager;
mod trust;

pub use alertmanager::{AlertLabels, Fault, FaultyAlertmanager, Notifications, alertmanager};
pub use cluster::{Deletion, ObjectId, PodView, Programs, World};
pub use control_group::ControlGroup;
pub use gateway::GatewayCommand;
pub use http::{get, percent_encode, post_form};
pub use network::{Network, Switch};
pub use pki_commands::PkiCommands;
pub use process::{Process, Usage, free_port, isthmus, wait_for};
pub use prometheus::{Prometheus, openmetrics_blocks};
pub use seeded::{Seeded, number};
pub use service_manager::ServiceManager;
pub use trust::{Cluster, Mesh, Reach, create_named_token, create_token, create_trust_domain};
