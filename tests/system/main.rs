//! Tests of the whole system, and of invariants of the workspace.
//!
//! They are one binary, so that it is linked only once. Some tests need a Prometheus program on the `PATH`, which `./tests/run`
//! installs. Without it, they print a line and are skipped.

mod agent;
mod answers;
mod budget;
mod charts;
mod circles;
mod clocks;
mod cluster;
mod cluster_bundles;
mod compactor;
mod compose;
mod containers;
mod dashboards;
mod dead_address;
mod descriptors;
mod docs;
mod doctor;
mod drain;
mod earlier_release;
mod end_to_end;
mod frozen;
mod install;
mod issuer_state;
mod meta_monitoring;
mod migration;
mod operator;
mod ports;
mod removal;
mod rendered_world;
mod restarts;
mod rolling_restarts;
mod ruler_over_mesh;
mod ruler_process;
mod rulers;
mod scraper;
mod shipped_rules;
mod slow_store;
mod store;
mod tools;
mod trust_kills;
mod units;
mod uploads;
mod workspace;
mod world;
