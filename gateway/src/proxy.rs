//! Forwards requests: out of the observability cluster ([`local`]) and into a client cluster ([`inbound`]).

pub(crate) mod grpc;
pub(crate) mod inbound;
pub(crate) mod local;
mod messages;
pub(crate) mod relay;
pub(crate) mod target;
