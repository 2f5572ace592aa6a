//! Both sides of the mesh: forwards StoreAPI requests between the observability cluster and client clusters.
//!
//! A gateway has one of two roles. In the observability cluster it issues certificates, publishes the directory of
//! readable stores, and sends requests to clusters ([`config::ObservabilityRole`]). In a client cluster it joins with a
//! token, reports its targets, and serves requests within its owner's policy ([`config::ClusterRole`]).
//!
//! This crate decodes no answer except Info, and requests only where the owner limits or logs them; it does not evaluate queries. It has no key except that of its
//! own leaf; the issuing CA is in `pki`.
//!
//! Reading order: [`config`], `policy`, `directory`, `connections`, `control` (the session on each connection), `proxy`
//! (requests), `membership` (joining and renewal), `trust` (denylists, issued certificates), [`component`] (start-up of each role), [`cli`]; below them
//! [`transport`].

mod access_log;
mod admin;
pub mod cli;
mod clock;
pub mod component;
pub mod config;
mod connections;
mod control;
mod directory;
mod membership;
mod metrics;
mod peer_text;
mod policy;
mod proxy;
mod race;
mod serving;
mod slots;
mod task;
pub mod transport;
mod trust;

pub use access_log::AccessLogOptions;
pub use policy::{MeshMethod, Narrowing, Policy};
