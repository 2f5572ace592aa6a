//! Both ends of the mesh: carries StoreAPI between the observability cluster and client clusters.
//!
//! One program, two roles. In the observability cluster a gateway issues certificates, keeps the directory of what can
//! be read, and sends requests to clusters ([`config::Observability`]). In a client cluster it joins with a token, says
//! what can be read there, and serves requests within the policy of its owner ([`config::Cluster`]).
//!
//! What this crate is not: it decodes no StoreAPI message but Info, decides nothing about queries, and holds no key but
//! its own leaf's (the issuing CA belongs to `pki`).
//!
//! Reading order: [`config`], `policy`, `directory`, `connections`, `control` (the session on each connection),
//! `proxy` (a request on its way), `renewal` and `credentials`, `join` and `enrolment`, [`component`] (which wires it
//! all), [`cli`]; below them [`transport`].

pub mod cli;
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
pub mod transport;

pub use policy::{MeshMethod, Policy};
