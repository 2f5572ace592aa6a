//! Queues over real sockets.

mod receivers;
mod resends;
mod with_prometheus;
