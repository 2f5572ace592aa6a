//! The ruler: evaluates recording and alerting rules over all stores, stores and serves what they produce, and sends alerts.
//!
//! Reading order: `flags`, `rule_files`, `source` (who answers expressions), `storage`, `restoring`, `evaluation` (one evaluation of a
//! group), `group_loop` (when), `manager` (all groups), `component`.

mod alert_labels;
mod alert_link;
mod alert_sender;
mod component;
mod evaluation;
mod external_labels;
mod facts;
mod flags;
mod group_loop;
mod iteration;
mod last_reload;
mod manager;
mod metrics;
mod now;
mod path_pattern;
mod problems;
mod reloading;
mod remote_write;
mod restoring;
mod rule_files;
mod rules_only;
mod source;
mod storage;
mod stored_states;
mod unneeded;
mod web;

pub use component::{ROLE, run};
pub use flags::{RoleConfig, RuleArgs, RulerServers};

#[cfg(test)]
mod tests;
