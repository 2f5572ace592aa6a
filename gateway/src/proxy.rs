//! Requests on their way through: out of the observability cluster ([`local`]), into a client cluster ([`inbound`]).

pub(crate) mod grpc;
pub(crate) mod inbound;
pub(crate) mod local;
pub(crate) mod relay;
pub(crate) mod target;
