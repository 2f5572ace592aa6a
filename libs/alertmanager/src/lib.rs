//! Alertmanagers, as a sender: alerts go through a queue that survives a restart to every Alertmanager of every group.
//!
//! [`AlertmanagerArgs`] are the flags; [`NotifierConfig`] is what they say. A [`Notifier`] takes each [`Alert`] without waiting, and
//! sends it while [`Notifier::run`] runs.
//!
//! Not here: which alerts there are and when they are sent again (`rules`), their external labels and relabelling (the ruler).

mod alert;
mod args;
mod config;
mod journal;
mod keeper;
mod metrics;
mod notifier;
mod queue;
mod request;
mod sender;
mod shared;

pub use alert::Alert;
pub use args::AlertmanagerArgs;
pub use config::{AlertmanagerGroup, NotifierConfig};
pub use notifier::{Notifier, NotifierError};

/// What Alertmanagers see as the client.
const USER_AGENT: &str = concat!("isthmus/", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests;
