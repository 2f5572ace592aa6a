//! Random expressions over random series, compared with a slow evaluator, with a real Prometheus and, where
//! `ISTHMUS_PEER` names one, with a peer process.
//!
//! `cargo test` asks a few thousand. For more: `ISTHMUS_DIFFERENTIAL=100000 cargo test --release -p promql --test
//! differential`; `ISTHMUS_SEED=7` takes other ones. A failure prints the seed, the expression and the data as a test script.
//!
//! Reading order: `random`, `data`, `histogram`, `expression`, `oracle/` (the slow evaluator), `compare`, `engine`,
//! `against_oracle`, `trimmed`, `prometheus`, `against_prometheus`; `wild`, `grammar`, `whole_language`, `peer`, `agreement`,
//! `against_peer`.

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
/// When it is set to something else.
fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; it has to be a number")),
        Err(_) => default,
    }
}
