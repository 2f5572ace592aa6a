//! Which peers are refused although their certificate is valid, now and at any later time.

use std::sync::Arc;

use identity::{Denylist, Expectations, NoDenylist, PeerIdentity};
use tokio::sync::watch;

/// Decides about the peers of a node: at each handshake, and again each time that the decisions have changed. Clones are
/// the same guard.
#[derive(Clone)]
pub struct PeerGuard {
    denylist: Arc<dyn Denylist>,
    version: Arc<watch::Sender<u64>>,
}

impl PeerGuard {
    /// A guard that denies what `denylist` denies.
    pub fn new(denylist: Arc<dyn Denylist>) -> Self {
        Self { denylist, version: Arc::new(watch::Sender::new(0)) }
    }

    /// Checks every open connection again. Call it after the denylist has changed.
    pub fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// A number that changes with each call of [`PeerGuard::changed`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Adds the denylist to what a side expects of its peers.
    pub(super) fn of_peers(&self, expectations: Expectations) -> Expectations {
        Expectations { denylist: self.denylist.clone(), ..expectations }
    }

    /// Waits until a peer is denied, and returns why.
    ///
    /// # Cancel safety
    /// The future changes nothing and can be dropped at any time.
    pub async fn denied(&self, peer: &PeerIdentity) -> String {
        let mut version = self.version.subscribe();
        loop {
            version.borrow_and_update();
            if let Some(why) = self.denylist.denies(peer) {
                return why;
            }
            if version.changed().await.is_err() {
                // The sender exists as long as `self`.
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Default for PeerGuard {
    /// Denies no peer.
    fn default() -> Self {
        Self::new(Arc::new(NoDenylist))
    }
}
