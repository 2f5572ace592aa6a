//! HTTP/3 over QUIC: the h3 crate on both sides, with our own adapter to quinn.

mod adapter;
mod body;
mod client;
mod frames;
mod server;

pub(super) use client::client;
pub(super) use server::serve;
