//! Pages of files in buckets on Redis or memcached, which several stores share.
//!
//! It is behind the cache in memory: pages that are missing there are looked up together, and pages that were read from a bucket
//! are written in the background. A server that is down, hangs or has garbage costs time and nothing else: every lookup ends
//! within the configured timeout, a server that fails is not asked for a while, and a value that is not whole is ignored.
//!
//! Reading order: `config`, `client`, `breaker`, `address`, `redis`, `memcached`, `wire`, `metrics`.

mod address;
mod breaker;
mod client;
mod config;
mod memcached;
mod metrics;
mod redis;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::page_item::{HEADER_BYTES, ObjectKey, open, seal};
use crate::shared_cache::client::Client;
use crate::shared_cache::metrics::{NamedMetrics, Operation};
pub(crate) use config::{SharedConfig, duration};
pub(crate) use metrics::SharedMetrics;

/// Most pages of one write: its bytes are copied.
const PAGES_OF_SET: usize = 16;

/// A shared cache.
pub(crate) struct SharedCache {
    client: Arc<Client>,
    prefix: String,
    queue: mpsc::Sender<(String, Bytes)>,
    limit_bytes: u64,
    metrics: NamedMetrics,
}

impl SharedCache {
    /// The cache `name`, in which at most `limit_bytes` of pages wait to be written. It connects when it is used.
    ///
    /// # Errors
    /// When a file of the TLS settings cannot be used.
    pub(crate) fn new(
        config: SharedConfig,
        name: &'static str,
        limit_bytes: u64,
        metrics: &SharedMetrics,
        runtime: &Handle,
    ) -> Result<Self, String> {
        let metrics = metrics.named(name);
        let (queue, waiting) = mpsc::channel(config.queued_items);
        let (prefix, sets_at_once) = (config.prefix.clone(), config.sets_at_once);
        let pages_of_set = config.items_of_set.min(PAGES_OF_SET);
        let client = Arc::new(Client::new(config, metrics.clone())?);
        runtime.spawn(Client::keep_resolved(Arc::downgrade(&client)));
        let writer = Writer { client: Arc::clone(&client), metrics: metrics.clone(), pages_of_set };
        runtime.spawn(writer.run(waiting, sets_at_once));
        Ok(Self { client, prefix, queue, limit_bytes, metrics })
    }

    /// The pages of an object that the cache has; each is wanted with its length.
    ///
    /// # Cancel safety
    /// Nothing but the connections that were in use is lost.
    pub(crate) async fn pages(&self, object: &ObjectKey, wanted: &[(u32, usize)]) -> BTreeMap<u32, Bytes> {
        let keys: Vec<String> = wanted.iter().map(|(page, _)| self.key(object, *page)).collect();
        let longest = wanted.iter().map(|(_, length)| *length).max().unwrap_or(0);
        let (mut found, mut rejected) = (BTreeMap::new(), 0);
        for (number, value) in self.client.get_many(&keys, longest + HEADER_BYTES).await {
            let (page, length) = wanted[number];
            match open(&keys[number], &value, length) {
                Some(bytes) => _ = found.insert(page, bytes),
                None => rejected += 1,
            }
        }
        self.metrics.looked_up(wanted.len(), found.len(), rejected);
        found
    }

    /// Writes a page in the background, unless too many wait.
    pub(crate) fn put_page(&self, object: &ObjectKey, page: u32, bytes: Bytes) {
        let length = bytes.len() as u64;
        if self.metrics.wait(length) <= self.limit_bytes
            && self.queue.try_send((self.key(object, page), bytes)).is_ok()
        {
            return;
        }
        self.metrics.waited(length);
        self.metrics.skipped(Operation::Set, "async-buffer-full", 1);
    }

    /// Bytes of pages that are not written yet.
    #[cfg(test)]
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.metrics.waiting_bytes()
    }

    fn key(&self, object: &ObjectKey, page: u32) -> String {
        [self.prefix.as_str(), &object.page(page)].concat()
    }
}

/// The shared caches of a store.
#[derive(Clone, Default)]
pub(crate) struct SharedCaches {
    /// For pages of indexes.
    pub(crate) index: Option<Arc<SharedCache>>,
    /// For pages of segments.
    pub(crate) chunks: Option<Arc<SharedCache>>,
}

impl SharedCaches {
    /// The cache for pages of a file: 0 is the index, others are segments.
    pub(crate) fn of_file(&self, file: u32) -> Option<&Arc<SharedCache>> {
        if file == 0 { self.index.as_ref() } else { self.chunks.as_ref() }
    }
}

/// Writes the pages that wait.
struct Writer {
    client: Arc<Client>,
    metrics: NamedMetrics,
    pages_of_set: usize,
}

impl Writer {
    async fn run(self, mut waiting: mpsc::Receiver<(String, Bytes)>, at_once: usize) {
        let gate = Arc::new(Semaphore::new(at_once));
        let mut pages = Vec::new();
        while waiting.recv_many(&mut pages, self.pages_of_set).await > 0 {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&gate).acquire_owned().await else { return };
            let taken = std::mem::take(&mut pages);
            let (client, metrics) = (Arc::clone(&self.client), self.metrics.clone());
            tokio::spawn(async move {
                let bytes: u64 = taken.iter().map(|(_, page)| page.len() as u64).sum();
                let sealed = taken.into_iter().map(|(key, page)| {
                    let value = seal(&key, &page);
                    (key, value)
                });
                client.set_many(sealed.collect()).await;
                metrics.waited(bytes);
                drop(permit);
            });
        }
    }
}
