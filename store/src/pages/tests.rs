use std::sync::Arc;
use std::time::Duration;

use bucket::Retry;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use tokio::runtime::Handle;
use tsdb::Ulid;

use super::*;
use crate::cache::{BlockKey, Cache};
use crate::cache_metrics::CacheMetrics;
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
async fn blocking<T: Send + 'static>(context: &ReadContext, work: impl FnOnce() -> T + Send + 'static) -> T {
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
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
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
    // Parts begin and end at multiples of 512.
    let first = 90_112 + 512;
    read(vec![1000..1010, 30_000..30_010, 60_000..60_010, 90_000..90_100, 90_200..90_300]).await;
    assert_eq!((context.requests(), context.bytes()), (1, first - 512));
    read(vec![1005..50_000, 90_000..90_005]).await;
    assert_eq!(context.requests(), 1);
    read(vec![1 << 20..1 << 21, 600..601]).await;
    assert_eq!((context.requests(), context.bytes()), (2, first - 512 + (1 << 20)));
    // What is missing of a page is read alone.
    read(vec![0..10, 3..5]).await;
    assert_eq!((context.requests(), context.bytes()), (3, first + (1 << 20)));
    // Far apart: only the parts.
    let before = context.bytes();
    read(vec![200_000..200_100, 400_000..400_100, 600_000..600_100]).await;
    assert_eq!((context.requests(), context.bytes() - before), (6, 4 * 512));
}

#[tokio::test]
async fn a_read_over_the_limit_or_of_a_cancelled_request_is_not_sent() {
    let (file, _) = file(16 << 20).await;
    let file = Arc::new(file);
    let context = ReadContext::new(1024);
    let read = |range: Range<u64>| {
        let file = Arc::clone(&file);
        let context = context.clone();
        async move { blocking(&context, move || file.read_at(range)).await }
    };
    assert!(read(0..20).await.is_ok());
    let error = read(PAGE_BYTES..4 * PAGE_BYTES).await.unwrap_err();
    assert!(error.to_string().contains("more than 1024 bytes"), "{error}");
    assert_eq!(context.bytes(), 512);
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
    assert_eq!(context.bytes(), SIZE / 2 + 7_168);
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
