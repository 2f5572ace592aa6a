//! The compactors of a simulation: each has a name, a clock, a path to the store that fails, and may be killed or paused.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bucket::Bucket;
use bucket::fault::FaultyStore;
use object_store::ObjectStore;
use tokio::sync::Notify;
use tsdb::BlockMeta;

use super::super::clocks::Clocks;
use super::super::{layout, worker};
use super::{FLAGS, REPLICA_LABEL};
use crate::group::GroupKey;
use crate::worker::BucketWorker;

/// A machine that runs a compactor.
pub(super) struct Machine {
    pub(super) ahead: Arc<AtomicI64>,
    pub(super) store: Arc<FaultyStore>,
    pub(super) worker: BucketWorker,
    pub(super) pause: Arc<Pause>,
    /// Blocks that were published by a process that did not have the lease.
    pub(super) unfenced: Arc<Mutex<Vec<String>>>,
}

/// Stops a compactor between the answer to a request and what it does next.
#[derive(Default)]
pub(super) struct Pause {
    /// Whole objects that are read or written before; 0 for no pause.
    left: AtomicUsize,
    pub(super) begins: Notify,
    pub(super) ends: Notify,
}

impl Pause {
    pub(super) fn after(&self, objects: usize) {
        self.left.store(objects, Ordering::SeqCst);
    }

    async fn count(&self) {
        let before = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if before == Ok(1) {
            self.begins.notify_one();
            self.ends.notified().await;
        }
    }
}

impl Machine {
    /// Starts a compactor; again with the clock of the machine that was there before.
    pub(super) fn start(
        plain: &Bucket,
        inner: Arc<dyn ObjectStore>,
        clocks: &Clocks,
        dir: &std::path::Path,
        name: &'static str,
        ahead: Arc<AtomicI64>,
    ) -> Self {
        let store = FaultyStore::new(inner, 1);
        let worker = clocks.set(worker(&Bucket::new(store.clone()), dir, name, &FLAGS), &ahead);
        let machine = Self { ahead, store, worker, pause: Arc::default(), unfenced: Arc::default() };
        let pause = Arc::clone(&machine.pause);
        machine.store.after_read(move |_| {
            let pause = Arc::clone(&pause);
            Box::pin(async move { pause.count().await })
        });
        let (pause, unfenced, plain) =
            (Arc::clone(&machine.pause), Arc::clone(&machine.unfenced), plain.clone());
        machine.store.after_write(move |object| {
            let (pause, unfenced, plain) = (Arc::clone(&pause), Arc::clone(&unfenced), plain.clone());
            Box::pin(async move {
                if object.to_string().ends_with("/meta.json") && !is_held(&plain, object.as_ref(), name).await
                {
                    unfenced.lock().unwrap().push(format!("{name} published {object} without the lease"));
                }
                pause.count().await;
            })
        });
        machine
    }
}

/// Whether the lease of the group of a new block names this compactor.
async fn is_held(bucket: &Bucket, object: &str, name: &str) -> bool {
    let Some((block, _)) = layout::split(object) else { return true };
    let meta = BlockMeta::parse(&bucket.get(&layout::meta(block)).await.unwrap()).unwrap();
    let key = GroupKey::of(&meta, &[REPLICA_LABEL.to_owned()]);
    let lease = format!("isthmus/lease/compact-{}.json", key.id().replace('@', "-"));
    let lease: serde_json::Value = serde_json::from_slice(&bucket.get(&lease).await.unwrap()).unwrap();
    lease["holder"] == name
}
