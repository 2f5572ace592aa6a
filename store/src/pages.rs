//! A file in a bucket, read in pages of 16 KiB: from the caches in memory, on disk and on servers, else from the bucket.
//!
//! Pages that are missing are fetched together where they are near each other, several ranges at once, and each slow request is
//! sent once more ([`crate::hedge::Hedge`]).

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use bucket::{Bucket, BucketError, ErrorKind};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use tsdb::ReadAt;

use crate::cache::FileKey;
use crate::flights::Claimed;
use crate::page_item::{BucketId, ObjectKey};
use crate::page_pool::PAGE_BYTES;
use crate::page_source::PageSource;
use crate::reading::{ReadContext, ReadRefused};

/// Pages that are not needed are fetched too where no more than this many lie between two that are. A request costs about as much:
/// while as many as below are on their way, each has the time in which 32 KiB are transferred.
const GAP_PAGES: u32 = 2;
/// Most pages of one request: 1 MiB.
const REQUEST_PAGES: u32 = 64;
/// Requests for one read that are sent at once.
const CONCURRENT_REQUESTS: usize = 32;

/// A file of a block in a bucket, of known size.
///
/// Every read blocks its thread until the bucket has answered, and counts for the request of the thread ([`ReadContext`]).
pub(crate) struct PagedFile {
    source: PageSource,
    bucket: Bucket,
    name: String,
    key: FileKey,
    size_bytes: u64,
    object: ObjectKey,
}

/// The pages of one read: those that were cached, and the ranges that were fetched.
#[derive(Default)]
struct ReadPages {
    cached: BTreeMap<u32, Bytes>,
    /// By the number of the first page.
    fetched: BTreeMap<u32, Bytes>,
}

impl PagedFile {
    pub(crate) fn new(
        source: &PageSource,
        bucket: &Bucket,
        name: String,
        key: FileKey,
        size_bytes: u64,
    ) -> Self {
        let location = BucketId::new(&bucket.location());
        let object = ObjectKey::new(&location, key.block.block, key.file, size_bytes);
        Self { source: source.clone(), bucket: bucket.clone(), name, key, size_bytes, object }
    }

    fn check(&self, range: &Range<u64>) -> io::Result<()> {
        if range.start <= range.end && range.end <= self.size_bytes {
            return Ok(());
        }
        let text =
            format!("{}: bytes {range:?} were requested, the object has {}", self.name, self.size_bytes);
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
    }

    /// The pages of `ranges`, from the caches or the bucket.
    fn pages(&self, ranges: &[Range<u64>]) -> io::Result<ReadPages> {
        let mut read = ReadPages::default();
        let mut missing: Vec<u32> = Vec::new();
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            for page in page_of(range.start)..=page_of(range.end - 1) {
                if read.cached.contains_key(&page) {
                    continue;
                }
                match self.source.cache.page(self.key, page) {
                    Some(bytes) => _ = read.cached.insert(page, bytes),
                    None => missing.push(page),
                }
            }
        }
        missing.sort_unstable();
        missing.dedup();
        if self.source.doubted.contains(self.key.block) {
            // What another request reads may come from a cache.
            self.fetch(&missing, None, &mut read)?;
            return Ok(read);
        }
        // A request that reads a page for this one may end without it.
        while !missing.is_empty() {
            let (claimed, awaited) = self.source.flights.claim(self.key, &missing);
            self.read_claimed(&claimed, &mut missing, &mut read)?;
            drop(claimed);
            if awaited.is_empty() {
                break;
            }
            self.wait(async {
                for page in awaited {
                    let number = page.page;
                    let Some(bytes) = page.bytes().await else { continue };
                    read.cached.insert(number, bytes);
                }
                Ok(())
            })?;
            missing.retain(|page| !read.cached.contains_key(page));
        }
        Ok(read)
    }

    /// Reads the pages that are claimed. They are no longer `missing` then.
    fn read_claimed(
        &self,
        claimed: &Claimed,
        missing: &mut Vec<u32>,
        read: &mut ReadPages,
    ) -> io::Result<()> {
        let (mut own, others) =
            missing.iter().copied().partition::<Vec<u32>, _>(|page| claimed.contains(*page));
        *missing = others;
        for find in [Self::find_in_memory, Self::find_on_disk, Self::find_shared] {
            if own.is_empty() {
                return Ok(());
            }
            let found = find(self, &own)?;
            found.iter().for_each(|(page, bytes)| claimed.found(*page, bytes));
            own.retain(|page| !found.contains_key(page));
            read.cached.extend(found);
        }
        self.fetch(&own, Some(claimed), read)
    }

    /// The pages that another request has read since they were looked up.
    fn find_in_memory(&self, pages: &[u32]) -> io::Result<BTreeMap<u32, Bytes>> {
        let found = |page: &u32| Some((*page, self.source.cache.peek_page(self.key, *page)?));
        Ok(pages.iter().filter_map(found).collect())
    }

    /// The pages that the shared cache has. They are kept in memory.
    fn find_shared(&self, pages: &[u32]) -> io::Result<BTreeMap<u32, Bytes>> {
        let cache = self.source.shared.of_file(self.key.file).filter(|_| !pages.is_empty());
        let Some(cache) = cache else { return Ok(BTreeMap::new()) };
        let wanted: Vec<(u32, usize)> = pages.iter().map(|page| (*page, self.length_of(*page))).collect();
        let found = self.wait(async { Ok(cache.pages(&self.object, &wanted).await) })?;
        for (page, bytes) in &found {
            self.source.cache.put_page(self.key, *page, self.source.pool.copy(bytes));
            if let Some(disk) = &self.source.disk {
                disk.put_page(&self.object, *page, bytes.clone());
            }
        }
        Ok(found)
    }

    /// The pages that are on disk. They are kept in memory.
    fn find_on_disk(&self, pages: &[u32]) -> io::Result<BTreeMap<u32, Bytes>> {
        let Some(disk) = &self.source.disk else { return Ok(BTreeMap::new()) };
        let found = |page: &u32| Some((*page, disk.page(&self.object, *page, self.length_of(*page))?));
        let found: BTreeMap<u32, Bytes> = pages.iter().filter_map(found).collect();
        for (page, bytes) in &found {
            self.source.cache.put_page(self.key, *page, self.source.pool.copy(bytes));
        }
        Ok(found)
    }

    fn length_of(&self, page: u32) -> usize {
        let bytes = self.bytes_of(&(page..page + 1));
        (bytes.end - bytes.start) as usize
    }

    /// Waits for `work` on this thread, unless the request is cancelled.
    fn wait<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let context = ReadContext::current();
        self.source.runtime.block_on(async {
            let Some(context) = &context else { return work.await };
            tokio::select! {
                done = work => done,
                () = context.cancelled() => Err(ReadRefused::Cancelled.into()),
            }
        })
    }

    /// Fetches pages from the bucket, and keeps them and those between them in the caches.
    fn fetch(&self, pages: &[u32], claimed: Option<&Claimed>, read: &mut ReadPages) -> io::Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let spans = spans(pages);
        let ranges: Vec<Range<u64>> = spans.iter().map(|span| self.bytes_of(span)).collect();
        if let Some(context) = ReadContext::current() {
            context.admit(ranges.len(), ranges.iter().map(|range| range.end - range.start).sum())?;
        }
        let work = futures::stream::iter(ranges.into_iter().map(|range| self.fetch_range(range)))
            .buffered(CONCURRENT_REQUESTS)
            .try_collect::<Vec<Bytes>>();
        let fetched = self.wait(async { work.await.map_err(to_io) })?;
        for (span, bytes) in spans.into_iter().zip(fetched) {
            for (page, content) in span.clone().zip(bytes.chunks(PAGE_BYTES as usize)) {
                if read.cached.contains_key(&page) {
                    continue;
                }
                // A copy: a slice would keep the memory of the whole range.
                let content = self.source.pool.copy(content);
                if let Some(claimed) = claimed {
                    claimed.found(page, &content);
                }
                self.source.cache.put_page(self.key, page, content.clone());
                if let Some(disk) = &self.source.disk {
                    disk.put_page(&self.object, page, content.clone());
                }
                if let Some(shared) = self.source.shared.of_file(self.key.file) {
                    shared.put_page(&self.object, page, content);
                }
            }
            read.fetched.insert(span.start, bytes);
        }
        Ok(())
    }

    async fn fetch_range(&self, range: Range<u64>) -> Result<Bytes, BucketError> {
        let request = || self.bucket.get_range(&self.name, range.clone());
        self.source.retry.run(|| self.source.hedge.run(request)).await
    }

    fn bytes_of(&self, pages: &Range<u32>) -> Range<u64> {
        u64::from(pages.start) * PAGE_BYTES..(u64::from(pages.end) * PAGE_BYTES).min(self.size_bytes)
    }
}

impl ReadPages {
    /// The bytes of one range. They are shared where they are in one page or one fetched range.
    fn assemble(&self, range: &Range<u64>) -> io::Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let first = self.from(range.start)?;
        let length = (range.end - range.start) as usize;
        if first.len() >= length {
            return Ok(first.slice(..length));
        }
        let mut out = BytesMut::with_capacity(length);
        out.extend_from_slice(&first);
        while out.len() < length {
            let part = self.from(range.start + out.len() as u64)?;
            out.extend_from_slice(&part[..part.len().min(length - out.len())]);
        }
        Ok(out.freeze())
    }

    /// The bytes from `offset` on that are together in memory; at least one.
    fn from(&self, offset: u64) -> io::Result<Bytes> {
        let page = page_of(offset);
        let within = |first: u32, bytes: &Bytes| {
            let at = (offset - u64::from(first) * PAGE_BYTES) as usize;
            (at < bytes.len()).then(|| bytes.slice(at..))
        };
        let fetched = self.fetched.range(..=page).next_back();
        let found = fetched.and_then(|(first, bytes)| within(*first, bytes));
        let found = found.or_else(|| self.cached.get(&page).and_then(|bytes| within(page, bytes)));
        // The sizes of all answers were checked, so this is a mistake of this program.
        found.ok_or_else(|| io::Error::other(format!("internal error: no bytes at {offset} after a read")))
    }
}

impl ReadAt for PagedFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.check(&range)?;
        self.pages(std::slice::from_ref(&range))?.assemble(&range)
    }

    fn read_many(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        ranges.iter().try_for_each(|range| self.check(range))?;
        let pages = self.pages(ranges)?;
        ranges.iter().map(|range| pages.assemble(range)).collect()
    }
}

fn page_of(offset: u64) -> u32 {
    // Files of blocks have at most 64 GiB in practice; larger ones are refused when a block is opened.
    (offset / PAGE_BYTES) as u32
}

/// Pages in ascending order as ranges to fetch.
fn spans(pages: &[u32]) -> Vec<Range<u32>> {
    let mut spans: Vec<Range<u32>> = Vec::new();
    for &page in pages {
        match spans.last_mut() {
            Some(last) if page - last.end <= GAP_PAGES && page - last.start < REQUEST_PAGES => {
                last.end = page + 1
            }
            _ => spans.push(page..page + 1),
        }
    }
    spans
}

/// An error of a bucket as one of a file; the kinds are those of `bucket::BucketFile`.
pub(crate) fn to_io(error: BucketError) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NoBucket => io::ErrorKind::NotFound,
        ErrorKind::Denied => io::ErrorKind::PermissionDenied,
        ErrorKind::Corrupt | ErrorKind::TooLarge => io::ErrorKind::UnexpectedEof,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bucket::Retry;
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    use tokio::runtime::Handle;
    use tsdb::Ulid;

    use super::*;
    use crate::cache::{BlockKey, Cache, CacheMetrics};
    use crate::flights::Flights;
    use crate::hedge::Hedge;
    use crate::page_pool::PagePool;
    use crate::page_source::Doubted;
    use crate::shared_cache::SharedCaches;

    const SIZE: u64 = 3 << 20;

    async fn file(cache_bytes: u64) -> (PagedFile, Bytes) {
        file_in(Bucket::new(Arc::new(InMemory::new())), cache_bytes).await
    }

    /// A file in a bucket that takes `wait` for each answer.
    async fn slow_file(wait: Duration) -> (PagedFile, Bytes) {
        let config = ThrottleConfig { wait_get_per_call: wait, ..ThrottleConfig::default() };
        file_in(Bucket::new(Arc::new(ThrottledStore::new(InMemory::new(), config))), 16 << 20).await
    }

    async fn file_in(bucket: Bucket, cache_bytes: u64) -> (PagedFile, Bytes) {
        let content = Bytes::from((0..SIZE).map(|n| (n * 7 / 3) as u8).collect::<Vec<u8>>());
        bucket.put("file", content.clone()).await.unwrap();
        let source = PageSource {
            cache: Arc::new(Cache::new(cache_bytes, CacheMetrics::default())),
            disk: None,
            shared: SharedCaches::default(),
            doubted: Doubted::default(),
            flights: Flights::default(),
            pool: PagePool::default(),
            hedge: Arc::new(Hedge::default()),
            retry: Retry { attempts: 1, delay: Duration::ZERO },
            runtime: Handle::current(),
        };
        let key = FileKey { block: BlockKey { bucket: 0, block: Ulid::nil() }, file: 1 };
        (PagedFile::new(&source, &bucket, "file".to_owned(), key, SIZE), content)
    }

    /// Runs `work` on a thread that may block, as a request.
    async fn blocking<T: Send + 'static>(
        context: &ReadContext,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let context = context.clone();
        tokio::task::spawn_blocking(move || context.enter(work)).await.unwrap()
    }

    #[tokio::test]
    async fn ranges_of_every_shape_are_the_bytes_of_the_file() {
        for cache_bytes in [0, 1 << 17, 16 << 20] {
            let (file, content) = file(cache_bytes).await;
            let work = move || {
                let mut random = 1_u64;
                let mut below = |bound: u64| {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    (random >> 33) % bound
                };
                for round in 0..200 {
                    let ranges: Vec<Range<u64>> = (0..1 + below(6))
                        .map(|_| {
                            let start = below(SIZE);
                            let longest = [10, 20_000, 2 << 20][below(3) as usize];
                            start..(start + below(longest)).min(SIZE)
                        })
                        .collect();
                    let read = file.read_many(&ranges).unwrap();
                    for (range, bytes) in ranges.iter().zip(read) {
                        let expected = &content[range.start as usize..range.end as usize];
                        assert!(bytes == expected, "round {round}: {range:?} with a cache of {cache_bytes}");
                    }
                }
                let end = file.read_at(SIZE - 1..SIZE + 1).unwrap_err();
                assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
            };
            blocking(&ReadContext::new(u64::MAX), work).await;
        }
    }

    #[tokio::test]
    async fn neighbours_share_a_request_and_cached_pages_need_none() {
        let (file, _) = file(16 << 20).await;
        let context = ReadContext::new(u64::MAX);
        let file = Arc::new(file);
        let read = |ranges: Vec<Range<u64>>| {
            let file = Arc::clone(&file);
            let counted = context.clone();
            async move {
                blocking(&counted, move || file.read_many(&ranges).unwrap()).await;
            }
        };
        read(vec![0..10, 40_000..40_010, 90_000..90_100]).await;
        assert_eq!((context.requests(), context.bytes()), (1, 6 * PAGE_BYTES));
        read(vec![5..50_000, 90_000..90_005]).await;
        assert_eq!(context.requests(), 1);
        read(vec![1 << 20..1 << 21, 0..1]).await;
        assert_eq!((context.requests(), context.bytes()), (2, 6 * PAGE_BYTES + (1 << 20)));
    }

    #[tokio::test]
    async fn a_read_over_the_limit_or_of_a_cancelled_request_is_not_sent() {
        let (file, _) = file(16 << 20).await;
        let file = Arc::new(file);
        let context = ReadContext::new(2 * PAGE_BYTES);
        let read = |range: Range<u64>| {
            let file = Arc::clone(&file);
            let context = context.clone();
            async move { blocking(&context, move || file.read_at(range)).await }
        };
        assert!(read(0..20).await.is_ok());
        let error = read(PAGE_BYTES..4 * PAGE_BYTES).await.unwrap_err();
        assert!(error.to_string().contains("more than 32768 bytes"), "{error}");
        assert_eq!(context.bytes(), PAGE_BYTES);
        context.cancel();
        assert!(read(PAGE_BYTES..PAGE_BYTES + 1).await.unwrap_err().to_string().contains("cancelled"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn requests_that_want_the_same_pages_at_once_read_them_once() {
        let (file, content) = slow_file(Duration::from_millis(50)).await;
        let file = Arc::new(file);
        let context = ReadContext::new(u64::MAX);
        let at_once = (0..8_u64).map(|number| {
            let (file, content, context) = (Arc::clone(&file), content.clone(), context.clone());
            let range = number * 1_000..SIZE / 2 + number * 1_000;
            async move {
                let expected = content.slice(range.start as usize..range.end as usize);
                let read = blocking(&context, move || file.read_at(range)).await;
                assert!(read.unwrap() == expected, "request {number}");
            }
        });
        futures::future::join_all(at_once).await;
        assert_eq!(context.bytes(), SIZE / 2 + PAGE_BYTES);
        assert_eq!(file.source.flights.count(), 0);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_page_of_a_cancelled_request_is_read_by_the_one_that_waits_for_it() {
        // No request is answered while the test runs.
        let (file, _) = slow_file(Duration::from_secs(3600)).await;
        let file = Arc::new(file);
        let read = |context: &ReadContext| {
            let (file, context) = (Arc::clone(&file), context.clone());
            tokio::spawn(async move { blocking(&context, move || file.read_at(0..100)).await })
        };
        let asks = async |context: &ReadContext| {
            while context.requests() == 0 {
                tokio::task::yield_now().await;
            }
        };
        let (first, second) = (ReadContext::new(u64::MAX), ReadContext::new(u64::MAX));
        let cancelled = read(&first);
        asks(&first).await;
        let waiting = read(&second);
        first.cancel();
        assert!(cancelled.await.unwrap().is_err());
        asks(&second).await;
        second.cancel();
        assert!(waiting.await.unwrap().is_err());
        assert_eq!(file.source.flights.count(), 0);
    }
}
