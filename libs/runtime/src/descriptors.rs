//! File descriptors: a role may open as many as the system permits, and its servers leave most of them to the rest.

use rustix::process::{Resource, getrlimit, setrlimit};
use tracing::{debug, warn};

/// With fewer descriptors, a busy role may run out of them.
const ENOUGH: u64 = 4096;
/// A server takes one of this many descriptors: files, connections to others and the renewal of certificates need theirs, too.
const SERVER_PART: u64 = 4;
/// Bounds of the connections of a server.
const CONNECTIONS: (u64, u64) = (16, 16 << 10);

/// Raises the limit of this process to the most that the system permits, and warns about a low one.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        debug!(%error, "the limit of file descriptors cannot be raised");
    }
    if let Some(limit) = getrlimit(Resource::Nofile).current.filter(|limit| *limit < ENOUGH) {
        warn!(limit, enough = ENOUGH, "few file descriptors: set LimitNOFILE (systemd) or ulimit -n");
    }
}

/// How many connections a server may have open.
pub(crate) fn connections_of_server() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit / SERVER_PART).clamp(CONNECTIONS.0, CONNECTIONS.1) as usize
}
