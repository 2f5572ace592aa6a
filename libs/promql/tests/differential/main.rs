//! Compares the results of random expressions over random series with those of a slow evaluator, of a real
//! Prometheus and, if `ISTHMUS_PEER` is set, of a peer process.
//!
//! `cargo test` runs a few thousand expressions. To run more: `ISTHMUS_DIFFERENTIAL=100000 cargo test
//! --release -p promql --test differential`. `ISTHMUS_SEED=7` runs different ones. A failure prints the seed,
//! the expression and the data as a test script.
//!
//! Reading order: `random`, `data`, `histogram`, `expression`, `oracle/` (the slow evaluator), `compare`, `engine`,
//! `against_oracle`, `trimmed`, `prometheus`, `against_prometheus`; `wild`, `grammar`, `whole_language`, `peer`, `agreement`,
//! `against_peer`.

#![allow(
    clippy::disallowed_methods,
    reason = "the crate has no clock and starts no process; its tests run a real Prometheus"
)]

mod against_oracle;
mod against_peer;
mod against_prometheus;
mod agreement;
mod compare;
mod data;
mod engine;
mod expression;
mod grammar;
mod histogram;
mod oracle;
mod peer;
mod prometheus;
mod random;
mod trimmed;
mod whole_language;
mod wild;

/// A number from the environment.
///
/// # Panics
/// If the variable is set but is not a number.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; expected a number")),
        Err(_) => default,
    }
}
