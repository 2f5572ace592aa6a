//! How the memory of the store is divided.

/// Less than this is not enough for the process and one request.
const LEAST_BYTES: u64 = 128 << 20;
/// The default is at most this.
const DEFAULT_BYTES: u64 = 2 << 30;
/// What a Series request needs at least of the memory of answers, with its connection.
const REQUEST_BYTES: u64 = 5 << 19;

/// The process, its connections and what its allocator keeps take this much, however little memory there is.
const LEAST_REST: u64 = 56 << 20;

/// The parts of `--store.max-memory`. The rest, a quarter or [`LEAST_REST`], is for the process, connections and metas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPlan {
    /// The cache of postings, series and chunks.
    pub(crate) cache_bytes: u64,
    /// Indexes of open blocks.
    pub(crate) index_bytes: u64,
    /// Answers that are not sent yet.
    pub(crate) answers_bytes: u64,
    /// Entries of series that are sorted.
    pub(crate) sort_bytes: u64,
    /// What is read ahead and on its way into the cache, which then has room for it.
    pub(crate) ahead_bytes: u64,
    /// Pages that wait to be written to each shared cache, each of which is copied twice while it is written, and to disk.
    pub(crate) write_back_bytes: u64,
}

impl MemoryPlan {
    /// Half of the memory of the machine or the control group, at most 2 GiB.
    pub(crate) fn default_limit() -> u64 {
        (runtime::available_memory() / 2).clamp(LEAST_BYTES, DEFAULT_BYTES)
    }

    /// Series requests that may run at once: `most`, or fewer where the memory of answers is little.
    pub(crate) fn requests_at_once(&self, most: usize) -> usize {
        usize::try_from(self.answers_bytes / REQUEST_BYTES).unwrap_or(usize::MAX).clamp(1, most.max(1))
    }

    /// The parts of `limit` bytes with `shared_caches` shared caches and a cache on disk that takes `disk_cache_bytes` of
    /// memory. `cache_bytes` is the size of the cache if it is configured.
    ///
    /// # Errors
    /// When the limit is too small, or the cache leaves too little of it.
    pub(crate) fn new(
        limit: u64,
        cache_bytes: Option<u64>,
        shared_caches: u64,
        disk_cache_bytes: Option<u64>,
    ) -> Result<Self, String> {
        if limit < LEAST_BYTES {
            return Err(format!("--store.max-memory: {limit} bytes are too few, at least 128MiB are needed"));
        }
        let (index_bytes, answers_bytes) = (limit / 8, limit / 4);
        let sort_bytes = answers_bytes / 4;
        let write_back_bytes = limit / 96;
        let outside = 3 * write_back_bytes * shared_caches
            + disk_cache_bytes.map_or(0, |bytes| bytes.saturating_add(write_back_bytes));
        let most =
            (limit - index_bytes - answers_bytes - (limit / 4).max(LEAST_REST)).saturating_sub(outside);
        if most < limit / 16 {
            return Err(format!(
                "--store.page-cache-disk-limit: the cache on disk needs {outside} bytes of memory, too many of --store.max-memory={limit}"
            ));
        }
        let cache_bytes = match cache_bytes {
            Some(bytes) if bytes > most => {
                return Err(format!(
                    "--index-cache-size: {bytes} bytes are more than the {most} bytes that --store.max-memory={limit} leaves for the cache"
                ));
            }
            bytes => bytes.unwrap_or(most),
        };
        let ahead_bytes = (limit / 32).min(cache_bytes / 4);
        Ok(Self {
            cache_bytes,
            index_bytes,
            answers_bytes: answers_bytes - sort_bytes - ahead_bytes,
            sort_bytes,
            ahead_bytes,
            write_back_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_less_than_the_whole() {
        let plan = MemoryPlan::new(512 << 20, None, 0, None).unwrap();
        let parts =
            [plan.cache_bytes, plan.index_bytes, plan.answers_bytes, plan.sort_bytes, plan.ahead_bytes];
        assert_eq!(parts.iter().sum::<u64>(), 384 << 20);
        let shared = MemoryPlan::new(512 << 20, None, 2, None).unwrap();
        assert_eq!(shared.cache_bytes + 6 * shared.write_back_bytes, plan.cache_bytes);
        assert_eq!(MemoryPlan::new(512 << 20, Some(1000), 0, None).unwrap().cache_bytes, 1000);
        assert!(
            MemoryPlan::new(512 << 20, Some(400 << 20), 0, None).unwrap_err().contains("--index-cache-size")
        );
        assert!(MemoryPlan::new(1 << 20, None, 0, None).unwrap_err().contains("128MiB"));
        assert!(MemoryPlan::new(512 << 20, None, 0, Some(180 << 20)).unwrap_err().contains("disk-limit"));
        assert!(MemoryPlan::default_limit() >= LEAST_BYTES);
        assert_eq!(MemoryPlan::new(LEAST_BYTES, None, 0, None).unwrap().cache_bytes, 24 << 20);
        let at_once =
            |mib: u64, most| MemoryPlan::new(mib << 20, None, 0, None).unwrap().requests_at_once(most);
        assert_eq!([at_once(128, 20), at_once(256, 20), at_once(512, 20), at_once(512, 5)], [8, 16, 20, 5]);
    }
}
