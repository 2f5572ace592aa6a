//! How quinn runs its tasks.

use std::{io, pin::Pin, sync::Arc, time::Instant};

use batching::BatchedTask;
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};

/// quinn's runtime, but the task of a connection lets requests that are ready run before it makes datagrams. Otherwise it is
/// woken by the first of them, and sends a datagram for each. The task that reads the socket waits in the same way, because
/// quinn does not say which of both it starts; it then reads more at once.
#[derive(Debug)]
pub(super) struct BatchingRuntime;

impl Runtime for BatchingRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(BatchedTask::new(future));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}
