//! Two gateways in one process, over loopback. Each scenario runs on QUIC and TCP, with either side dialling.

mod datagrams;
mod links;
mod streams;
mod support;
