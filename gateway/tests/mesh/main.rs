//! Gateways of both roles in one process, over loopback, with real certificates and real gRPC stores.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test is a panic")]

mod audit;
mod copies;
mod delivered;
mod domains;
mod hostile;
mod joining;
mod limits;
mod members;
mod owner;
mod proxy;
mod refusals;
mod renewal;
mod requests;
mod restarts;
mod services;
mod stalled;
mod stores;
mod targets;
mod topology;
mod trust;
mod world;
