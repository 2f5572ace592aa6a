//! Finds copies of a key: two processes that use one certificate, or two certificates of one line of renewals.
//!
//! Each process of a gateway sends a random number in its hello (`run`). The gateways of a cluster have joined with a token
//! each, so their certificates belong to different lines. When a process connects with a certificate whose line another
//! process uses, one of the two has a copy. It is not known which one, so the newcomer is refused and both are reported.
//!
//! After a crash, the session of the process before may stay open for some seconds. So the other process is asked first: it
//! answers, its connection ends, or nothing at all arrives from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::transport::{CloseReason, MeshLink};

/// Answers of the other process that prove that it runs. The first one may have been on its way when the process ended.
const ANSWERS: u64 = 2;
/// A QUIC connection from which no datagram arrives for this long has lost its peer: it is longer than the time between two
/// probes of an idle connection.
const SILENCE: Duration = Duration::from_secs(3);
/// Time limit for all answers. It is longer than the time after which a silent connection counts as lost, so a connection
/// that is open then has a peer, which may be too old to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The sessions of all clusters, by the id of their connection.
#[derive(Default)]
pub(crate) struct LiveProcesses {
    sessions: Mutex<BTreeMap<u64, Arc<KnownSession>>>,
}

/// A session that was admitted.
struct KnownSession {
    run: String,
    /// The serial number of its certificate.
    serial: String,
    /// The serial numbers of its certificate and of those before it.
    line: BTreeSet<String>,
    link: MeshLink,
    asked: watch::Sender<u64>,
    answered: watch::Sender<u64>,
}

/// The other process that uses a certificate of the same line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OtherProcess {
    /// Its address.
    pub(crate) remote: SocketAddr,
    /// The serial number of its certificate.
    pub(crate) serial: String,
}

/// An admitted session, until it is dropped.
pub(crate) struct LiveSession {
    processes: Arc<LiveProcesses>,
    known: Arc<KnownSession>,
}

impl LiveProcesses {
    /// Admits a new session, unless another living process uses a certificate of the same line. `line` has the serial numbers
    /// of its certificate and of those before it.
    ///
    /// # Errors
    /// The other process.
    ///
    /// # Cancel safety
    /// When the future is dropped, the session is not admitted. The connection of a process that has ended may be closed.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        link: &MeshLink,
        run: &str,
        mut line: BTreeSet<String>,
    ) -> Result<LiveSession, OtherProcess> {
        let serial = link.identity().serial.clone();
        line.insert(serial.clone());
        let (asked, answered) = (watch::Sender::new(0), watch::Sender::new(0));
        let run = run.to_owned();
        let new = Arc::new(KnownSession { run, serial, line, link: link.clone(), asked, answered });
        loop {
            let other = {
                let mut sessions = self.lock();
                let Some(other) = sessions.values().find(|other| other.shares_a_key_with(&new)).cloned()
                else {
                    sessions.insert(link.id(), new.clone());
                    return Ok(LiveSession { processes: self.clone(), known: new });
                };
                other
            };
            if other.is_alive().await {
                return Err(OtherProcess { remote: other.link.remote(), serial: other.serial.clone() });
            }
            other.link.close(CloseReason::Done);
            self.lock().remove(&other.link.id());
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<KnownSession>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownSession {
    /// Whether another process uses this certificate, one that it was renewed from, or one that it was renewed to.
    fn shares_a_key_with(&self, new: &Self) -> bool {
        self.run != new.run && (self.line.contains(&new.serial) || new.line.contains(&self.serial))
    }

    /// Asks the process at the other end, and waits until it is known whether it runs.
    async fn is_alive(&self) -> bool {
        let answers = async {
            for _ in 0..ANSWERS {
                let mut answered = self.answered.subscribe();
                let before = *answered.borrow_and_update();
                self.asked.send_modify(|number| *number += 1);
                // The sender exists as long as `self`.
                let _ = answered.wait_for(|number| *number > before).await;
            }
        };
        tokio::select! {
            () = answers => true,
            _ = self.link.closed() => false,
            () = silent(&self.link) => false,
            () = tokio::time::sleep(PATIENCE) => true,
        }
    }
}

/// Waits until nothing has arrived on a QUIC connection for a while. Pending on TCP, where the system of the other machine
/// reports that a process has ended.
async fn silent(link: &MeshLink) {
    loop {
        let Some(before) = link.datagrams_received() else { return std::future::pending().await };
        tokio::time::sleep(SILENCE).await;
        if link.datagrams_received() == Some(before) {
            return;
        }
    }
}

impl LiveSession {
    /// A number that grows each time that the process must be asked for a sign of life.
    pub(crate) fn questions(&self) -> watch::Receiver<u64> {
        self.known.asked.subscribe()
    }

    /// Records an answer of the process.
    pub(crate) fn answered(&self) {
        self.known.answered.send_modify(|number| *number += 1);
    }
}

impl Drop for LiveSession {
    fn drop(&mut self) {
        self.processes.lock().remove(&self.known.link.id());
    }
}
