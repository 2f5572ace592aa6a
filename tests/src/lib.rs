//! What system tests and benchmarks start and look at: the real program, real Prometheus servers, their cost.

mod process;
mod trust;

pub use process::{Process, Usage, free_port, isthmus, wait_for};
pub use trust::{Cluster, Mesh, Reach};
