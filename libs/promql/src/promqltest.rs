//! Test scripts for PromQL, in the language of Prometheus' `promqltest`: load series, evaluate queries, check
//! the results.
//!
//! ```text
//! load 1m
//!   requests{job="api"} 0+10x10
//!
//! eval instant at 10m rate(requests[5m])
//!   {job="api"} 0.16666666666666666
//! ```
//!
//! The language is described in Prometheus' `promql/promqltest/README.md`. Prometheus' scripts run here
//! unchanged: with the same engine settings, the same additional runs of each instant query (with all
//! selectors pinned by `@` to its instant and evaluated at other instants, and as the middle of a range
//! query) and the same tolerance. Other crates can run their own scripts:
//!
//! ```
//! let script = promql::promqltest::Script::parse("eval instant at 0 1 + 1\n  2\n")?;
//! let report = script.run();
//! assert!(report.failures.is_empty() && report.evaluations == 1);
//! # Ok::<(), promql::promqltest::ScriptError>(())
//! ```
//!
//! Reading order: `script`, `scanner`, `sequence`, `starts`, `histogram`, `storage`, `classic`, `run`, `compare`.

mod classic;
mod compare;
mod histogram;
mod run;
mod scanner;
mod script;
mod sequence;
mod starts;
mod storage;
#[cfg(test)]
mod tests;

pub use compare::almost_equal;
pub use run::{ScriptFailure, ScriptReport};
pub use script::{Script, ScriptError};
pub use sequence::{SequenceValue, parse_series};
pub use storage::{Storage, StorageError};
