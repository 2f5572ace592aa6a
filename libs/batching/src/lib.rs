//! Lets a connection do once what many tasks have for it.
//!
//! The task of an HTTP/2 or QUIC connection is woken by the first frame that a request has for it, and would send it alone:
//! the requests that are ready, too, have theirs a moment later. Here the connection waits until the other ready tasks of its
//! thread have run. One system call, and one record of TLS or one datagram, then carries the frames of all of them. No timer
//! is involved: a connection that is alone continues at once.
//!
//! Reading order: `turn`, `writes`, `task`.

mod task;
mod turn;
mod writes;

pub use task::BatchedTask;
pub use writes::BatchedWrites;
