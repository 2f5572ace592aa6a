//! Pages in a file in the data folder, behind the cache in memory: optional, and of a fixed size.
//!
//! ```text
//! <data-dir>/pages.cache: slots of 16,404 bytes, in sets of eight
//! slot   be64 hash of the key, then the value as on a shared cache (`page_item`): magic, length, checksum of key and page, the page
//! ```
//!
//! The hash of a key names its set, and within a set the page that was not used for the longest time makes room. In memory are eight
//! bytes for each slot. A slot that is damaged, half written or of another key is not found, because the checksum covers the key.
//! After a restart the hashes are read again in the background. Writes that fail, such as on a full disk, cost hits and nothing else.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use runtime::Registry;
use xxhash_rust::xxh64::xxh64;

use crate::page_item::{HEADER_BYTES, ObjectKey, open, seal};

const FILE: &str = "pages.cache";
/// Bytes of the hash at the begin of a slot.
const HASH_BYTES: usize = 8;
const SLOT_BYTES: usize = HASH_BYTES + HEADER_BYTES + (16 << 10);
/// Slots of a set.
const WAYS: usize = 8;
/// Most slots: about 4 TiB.
const MAX_SLOTS: u64 = 1 << 28;
/// Memory of a slot.
const MEMORY_OF_SLOT: u64 = size_of::<Slot>() as u64;

/// What is known of a slot. A tag of 0 is an empty one.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// A part of the hash of the key.
    tag: u32,
    /// When it was last used, as a count of uses.
    used: u32,
}

/// The cache on disk.
pub(crate) struct DiskCache {
    file: File,
    slots: Mutex<Vec<Slot>>,
    uses: AtomicU64,
    queue: SyncSender<(String, Bytes)>,
    /// Whether the last write failed; logged once until one succeeds.
    is_failing: AtomicBool,
    metrics: DiskMetrics,
}

impl DiskCache {
    /// Bytes of memory that a cache of `limit_bytes` on disk takes.
    pub(crate) fn memory_bytes(limit_bytes: u64) -> u64 {
        slots_of(limit_bytes) * MEMORY_OF_SLOT
    }

    /// Opens the cache in `folder`. At most `waiting` pages wait to be written.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(
        folder: &Path,
        limit_bytes: u64,
        waiting: usize,
        metrics: DiskMetrics,
    ) -> io::Result<Arc<Self>> {
        let path = folder.join(FILE);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(named)?;
        let count = slots_of(limit_bytes);
        let known = file.metadata().map_err(named)?.len();
        if known > count * SLOT_BYTES as u64 {
            file.set_len(count * SLOT_BYTES as u64).map_err(named)?;
        }
        let (queue, pages) = sync_channel(waiting.max(1));
        let cache = Arc::new(Self {
            file,
            slots: Mutex::new(vec![Slot::default(); count as usize]),
            uses: AtomicU64::new(1),
            queue,
            is_failing: AtomicBool::new(false),
            metrics,
        });
        let weak = Arc::downgrade(&cache);
        std::thread::Builder::new()
            .name("page cache".to_owned())
            .spawn(move || write_pages(&weak, &pages))
            .map_err(named)?;
        let weak = Arc::downgrade(&cache);
        let scan = move || read_hashes(&weak);
        std::thread::Builder::new().name("page cache scan".to_owned()).spawn(scan).map_err(named)?;
        Ok(cache)
    }

    /// Removes the file of a cache that is switched off.
    pub(crate) fn remove(folder: &Path) {
        // What cannot be removed stays as it is.
        let _ = std::fs::remove_file(folder.join(FILE));
    }

    /// A page of `length` bytes.
    pub(crate) fn page(&self, object: &ObjectKey, page: u32, length: usize) -> Option<Bytes> {
        let key = object.page(page);
        self.metrics.requests.inc();
        let hash = xxh64(key.as_bytes(), 0);
        let set = self.set_of(hash);
        let at = {
            let mut slots = self.slots();
            let way = slots[set..set + WAYS].iter().position(|slot| slot.tag == tag_of(hash))?;
            slots[set + way].used = self.next_use();
            set + way
        };
        let mut bytes =
            vec![0; HASH_BYTES + HEADER_BYTES + length.min(SLOT_BYTES - HASH_BYTES - HEADER_BYTES)];
        let read = self.file.read_exact_at(&mut bytes, offset_of(at));
        let found = read.ok().and_then(|()| open(&key, &Bytes::from(bytes).slice(HASH_BYTES..), length));
        if found.is_some() {
            self.metrics.hits.inc();
        } else {
            self.metrics.rejected.inc();
            self.forget(at, tag_of(hash));
        }
        found
    }

    /// Writes a page in the background, unless too many wait.
    pub(crate) fn put_page(&self, object: &ObjectKey, page: u32, bytes: Bytes) {
        if self.queue.try_send((object.page(page), bytes)).is_err() {
            self.metrics.skipped.inc();
        }
    }

    /// Bytes of the slots that are used.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.slots().iter().filter(|slot| slot.tag != 0).count() as u64 * SLOT_BYTES as u64
    }

    fn write(&self, key: &str, page: &[u8]) {
        if page.len() > SLOT_BYTES - HASH_BYTES - HEADER_BYTES {
            return;
        }
        let hash = xxh64(key.as_bytes(), 0);
        let at = self.make_room(hash);
        let mut bytes = Vec::with_capacity(SLOT_BYTES);
        bytes.extend_from_slice(&hash.to_be_bytes());
        bytes.extend_from_slice(&seal(key, page));
        match self.file.write_all_at(&bytes, offset_of(at)) {
            Ok(()) => {
                self.slots()[at] = Slot { tag: tag_of(hash), used: self.next_use() };
                if self.is_failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("pages can be written to disk again");
                }
            }
            Err(error) => {
                self.metrics.failures.inc();
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "pages cannot be written to disk and are read from the bucket");
                }
            }
        }
    }

    /// The slot for a key, which is empty until it is written.
    fn make_room(&self, hash: u64) -> usize {
        let set = self.set_of(hash);
        let mut slots = self.slots();
        let of_set = &slots[set..set + WAYS];
        let same = of_set.iter().position(|slot| slot.tag == tag_of(hash));
        let oldest = || of_set.iter().enumerate().min_by_key(|(_, slot)| (slot.tag != 0, slot.used));
        let way = same.or_else(|| oldest().map(|(way, _)| way)).unwrap_or(0);
        slots[set + way] = Slot::default();
        set + way
    }

    fn forget(&self, at: usize, tag: u32) {
        let slot = &mut self.slots()[at];
        if slot.tag == tag {
            *slot = Slot::default();
        }
    }

    /// The first slot of the set of a key.
    fn set_of(&self, hash: u64) -> usize {
        let sets = (self.slots().len() / WAYS) as u64;
        (hash % sets.max(1)) as usize * WAYS
    }

    fn next_use(&self) -> u32 {
        // After four billion uses the order is wrong for a while.
        self.uses.fetch_add(1, Ordering::Relaxed) as u32
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of slots of a cache, in whole sets.
fn slots_of(limit_bytes: u64) -> u64 {
    (limit_bytes / SLOT_BYTES as u64).clamp(WAYS as u64, MAX_SLOTS) / WAYS as u64 * WAYS as u64
}

fn offset_of(slot: usize) -> u64 {
    slot as u64 * SLOT_BYTES as u64
}

/// The tag of a key, which is never 0. The set follows from the low bits of the hash.
fn tag_of(hash: u64) -> u32 {
    ((hash >> 32) as u32).max(1)
}

/// Writes the pages that wait, until the cache is dropped.
fn write_pages(cache: &Weak<DiskCache>, pages: &Receiver<(String, Bytes)>) {
    while let Ok((key, page)) = pages.recv() {
        let Some(cache) = cache.upgrade() else { return };
        cache.write(&key, &page);
    }
}

/// Finds the pages of an earlier run.
fn read_hashes(cache: &Weak<DiskCache>) {
    let mut at = 0;
    while let Some(cache) = cache.upgrade() {
        let mut hash = [0; HASH_BYTES];
        // The file ends where nothing was written yet.
        if at >= cache.slots().len() || cache.file.read_exact_at(&mut hash, offset_of(at)).is_err() {
            return;
        }
        let hash = u64::from_be_bytes(hash);
        if hash != 0 && cache.set_of(hash) == at / WAYS * WAYS {
            let slot = &mut cache.slots()[at];
            if slot.tag == 0 {
                *slot = Slot { tag: tag_of(hash), used: 0 };
            }
        }
        at += 1;
    }
}

/// Metrics of the cache on disk. The default belongs to no registry.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskMetrics {
    requests: Counter,
    hits: Counter,
    rejected: Counter,
    skipped: Counter,
    failures: Counter,
}

impl DiskMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for (name, help, counter) in [
            ("requests", "Pages that were looked up in the cache on disk", &metrics.requests),
            ("hits", "Pages that the cache on disk had", &metrics.hits),
            (
                "rejected",
                "Pages on disk that were damaged or of another object, and were ignored",
                &metrics.rejected,
            ),
            (
                "writes_skipped",
                "Pages that were not written to disk because too many waited",
                &metrics.skipped,
            ),
            ("write_failures", "Pages that could not be written to disk", &metrics.failures),
        ] {
            registry.register(format!("isthmus_store_disk_cache_{name}"), help, counter.clone());
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tsdb::Ulid;

    use super::*;
    use crate::page_item::BucketId;

    fn object(number: u64) -> ObjectKey {
        ObjectKey::new(&BucketId::new("b"), Ulid::from_parts(number, 1), 1, 1 << 30)
    }

    fn page_of(number: u32) -> Bytes {
        (0..16_384_u32).map(|n| (n.wrapping_mul(number) >> 3) as u8).collect::<Vec<u8>>().into()
    }

    fn opened(folder: &Path, limit_bytes: u64) -> Arc<DiskCache> {
        DiskCache::open(folder, limit_bytes, 1_000, DiskMetrics::default()).unwrap()
    }

    fn wait_for(what: &str, condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn pages_are_found_also_after_a_restart_and_the_file_stays_within_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let limit = 100 * SLOT_BYTES as u64;
        let cache = opened(dir.path(), limit);
        for number in 0..40 {
            cache.put_page(&object(1), number, page_of(number));
        }
        wait_for("40 pages are written", || {
            cache.size_bytes() >= 30 * SLOT_BYTES as u64 && cache.page(&object(1), 39, 16_384).is_some()
        });
        let count = |cache: &DiskCache| {
            let found = (0..40).filter_map(|number| Some((number, cache.page(&object(1), number, 16_384)?)));
            found.map(|(number, page)| assert_eq!(page, page_of(number))).count()
        };
        let before = count(&cache);
        assert!(before >= 30, "{before} pages");
        assert_eq!(cache.page(&object(2), 1, 16_384), None);
        drop(cache);
        let cache = opened(dir.path(), limit);
        wait_for("the pages are found again", || count(&cache) == before);
        for number in 0..1_000 {
            cache.put_page(&object(3), number, page_of(number));
        }
        wait_for("the last page is written", || cache.page(&object(3), 999, 16_384).is_some());
        let size = std::fs::metadata(dir.path().join(FILE)).unwrap().len();
        assert!(size <= limit && cache.size_bytes() <= limit, "{size} bytes");
        drop(cache);
        let smaller = opened(dir.path(), limit / 2);
        assert!(std::fs::metadata(dir.path().join(FILE)).unwrap().len() <= limit / 2);
        drop(smaller);
        DiskCache::remove(dir.path());
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn pages_that_were_used_stay() {
        let dir = tempfile::tempdir().unwrap();
        // One set.
        let cache = opened(dir.path(), 1);
        for number in 0..8 {
            cache.write(&object(1).page(number), &page_of(number));
        }
        assert!(cache.page(&object(1), 0, 16_384).is_some());
        for number in 8..15 {
            cache.write(&object(1).page(number), &page_of(number));
        }
        let found: Vec<u32> = (0..15).filter(|n| cache.page(&object(1), *n, 16_384).is_some()).collect();
        assert_eq!(found, [0, 8, 9, 10, 11, 12, 13, 14]);
    }

    #[test]
    fn damaged_pages_are_not_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = opened(dir.path(), 1);
        let file = OpenOptions::new().write(true).open(dir.path().join(FILE)).unwrap();
        for at in [8, 12, 16, 20, 5_000, SLOT_BYTES as u64 - 1] {
            cache.write(&object(1).page(1), &page_of(1));
            let slot = cache.slots().iter().position(|slot| slot.tag != 0).unwrap();
            assert!(cache.page(&object(1), 1, 16_384).is_some());
            let mut byte = [0];
            cache.file.read_exact_at(&mut byte, offset_of(slot) + at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], offset_of(slot) + at).unwrap();
            assert_eq!(cache.page(&object(1), 1, 16_384), None, "byte {at}");
            assert_eq!(cache.size_bytes(), 0, "a damaged page makes room");
        }
        cache.write(&object(1).page(1), &page_of(1));
        file.set_len(100).unwrap();
        assert_eq!(cache.page(&object(1), 1, 16_384), None);
        std::fs::write(dir.path().join(FILE), vec![0xAB; 3 * SLOT_BYTES]).unwrap();
        drop(cache);
        let cache = opened(dir.path(), 1);
        wait_for("the file is scanned", || Arc::weak_count(&cache) < 2);
        assert!((0..100).all(|number| cache.page(&object(1), number, 16_384).is_none()));
    }
}
