//! What system tests and benchmarks start and look at: the real program, real Prometheus servers, their cost.

mod http;
mod process;
mod prometheus;
mod trust;

pub use http::{get, percent_encode, post_form};
pub use process::{Process, Usage, free_port, isthmus, wait_for};
pub use prometheus::{Prometheus, openmetrics_blocks};
pub use trust::{Cluster, Mesh, Reach};
