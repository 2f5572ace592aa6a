//! A file in a bucket, read in pages of 16 KiB and parts of them: from the caches in memory, on disk and on servers, else from the
//! bucket.
//!
//! What is missing is fetched together where it is near, several ranges at once, and each slow request is sent once more
//! ([`crate::hedge::Hedge`]). Only the bytes that are needed are read of a page, unless it is also kept outside of memory.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use bucket::{Bucket, BucketError, ErrorKind};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use tsdb::ReadAt;

use crate::cache::FileKey;
use crate::flights::Claimed;
use crate::page_item::{BucketId, ObjectKey};
use crate::page_part::{PagePart, ReadPages, WantedPages, page_of};
use crate::page_pool::PAGE_BYTES;
use crate::page_source::PageSource;
use crate::reading::{NO_ANSWER, ReadContext, ReadRefused, take_ahead_bytes};

/// Bytes that are not needed are fetched too where no more than these lie between two that are. A request costs about as much:
/// while as many as below are on their way, each has the time in which 48 KiB are transferred.
const GAP_BYTES: u64 = 48 << 10;
/// Most bytes of one request.
const REQUEST_BYTES: u64 = 2 << 20;
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

    /// The bytes of `ranges`, from the caches or the bucket.
    fn pages(&self, ranges: &[Range<u64>]) -> io::Result<ReadPages> {
        let mut wanted = WantedPages::of(ranges, self.size_bytes, self.keeps_whole_pages());
        let mut read = ReadPages::default();
        for (page, part) in &wanted.0 {
            if let Some(cached) = self.source.cache.page(self.key, *page, part) {
                read.cached.insert(*page, cached);
            }
        }
        let mut missing = self.missing(&wanted, &read);
        if !missing.is_empty() && missing.last() == wanted.0.keys().next_back() {
            let ahead = self.add_ahead(&mut wanted);
            read.is_ahead = !ahead.is_empty();
            missing.extend(ahead);
        }
        if self.source.doubted.contains(self.key.block) {
            // What another request reads may come from a cache.
            self.fetch(&wanted, &missing, None, &mut read)?;
            return Ok(read);
        }
        // A request that reads a page for this one may end without it, or read another part of it.
        while !missing.is_empty() {
            let (claimed, awaited) = self.source.flights.claim(self.key, &missing);
            self.read_claimed(&wanted, &claimed, missing, &mut read)?;
            drop(claimed);
            let own = awaited.iter().map(|page| page.page).collect();
            self.wait(async {
                for page in awaited {
                    let number = page.page;
                    let Some(part) = page.part().await else { continue };
                    read.cached.insert(number, part);
                }
                Ok(())
            })?;
            missing = own;
            missing.retain(|page| !wanted.0.get(page).is_some_and(|part| read.covers(*page, part)));
        }
        Ok(read)
    }

    /// Adds the pages that are to be read ahead, up to the first one that is cached, and returns them.
    fn add_ahead(&self, wanted: &mut WantedPages) -> Vec<u32> {
        let Some((&last, part)) = wanted.0.last_key_value() else { return Vec::new() };
        let left = ReadContext::current().map_or(u64::MAX, |context| context.left_bytes() / 2);
        let pages = (take_ahead_bytes().min(left) / PAGE_BYTES) as u32;
        let end = last.saturating_add(pages).min(page_of(self.size_bytes.saturating_sub(1)));
        let is_unknown = |page: &u32| self.source.cache.peek_page(self.key, *page).is_none();
        let ahead: Vec<u32> = (last + 1..=end).take_while(is_unknown).collect();
        if !ahead.is_empty() {
            let part = part.start..self.length_of(last) as u32;
            wanted.0.insert(last, part);
            wanted.0.extend(ahead.iter().map(|page| (*page, 0..self.length_of(*page) as u32)));
        }
        ahead
    }

    /// The pages of which some wanted bytes are not cached.
    fn missing(&self, wanted: &WantedPages, read: &ReadPages) -> Vec<u32> {
        let missing = wanted.0.iter().filter(|(page, part)| !read.covers(**page, part));
        missing.map(|(page, _)| *page).collect()
    }

    /// Whether whole pages are read, because caches outside of memory keep these.
    fn keeps_whole_pages(&self) -> bool {
        self.source.disk.is_some() || self.source.shared.of_file(self.key.file).is_some()
    }

    /// Reads those of the `missing` pages that are claimed.
    fn read_claimed(
        &self,
        wanted: &WantedPages,
        claimed: &Claimed,
        mut missing: Vec<u32>,
        read: &mut ReadPages,
    ) -> io::Result<()> {
        missing.retain(|page| claimed.contains(*page));
        for find in [Self::find_in_memory, Self::find_on_disk, Self::find_shared] {
            if missing.is_empty() {
                return Ok(());
            }
            read.cached.extend(find(self, &missing)?);
            missing.retain(|page| {
                let part = read.cached.get(page);
                let found = part.filter(|part| wanted.0.get(page).is_some_and(|wanted| part.covers(wanted)));
                found.inspect(|part| claimed.found(*page, part)).is_none()
            });
        }
        self.fetch(wanted, &missing, Some(claimed), read)
    }

    /// What another request has read of these pages since they were looked up.
    fn find_in_memory(&self, pages: &[u32]) -> io::Result<BTreeMap<u32, PagePart>> {
        let found = |page: &u32| Some((*page, self.source.cache.peek_page(self.key, *page)?));
        Ok(pages.iter().filter_map(found).collect())
    }

    /// The pages that the shared cache has. They are kept in memory.
    fn find_shared(&self, pages: &[u32]) -> io::Result<BTreeMap<u32, PagePart>> {
        let cache = self.source.shared.of_file(self.key.file).filter(|_| !pages.is_empty());
        let Some(cache) = cache else { return Ok(BTreeMap::new()) };
        let wanted: Vec<(u32, usize)> = pages.iter().map(|page| (*page, self.length_of(*page))).collect();
        let found = self.wait(async { Ok(cache.pages(&self.object, &wanted).await) })?;
        if let Some(disk) = &self.source.disk {
            found.iter().for_each(|(page, bytes)| disk.put_page(&self.object, *page, bytes.clone()));
        }
        Ok(self.keep_whole(found))
    }

    /// The pages that are on disk. They are kept in memory.
    fn find_on_disk(&self, pages: &[u32]) -> io::Result<BTreeMap<u32, PagePart>> {
        let Some(disk) = &self.source.disk else { return Ok(BTreeMap::new()) };
        let found = |page: &u32| Some((*page, disk.page(&self.object, *page, self.length_of(*page))?));
        Ok(self.keep_whole(pages.iter().filter_map(found).collect()))
    }

    /// Keeps whole pages in memory.
    fn keep_whole(&self, pages: BTreeMap<u32, Bytes>) -> BTreeMap<u32, PagePart> {
        let kept = |(page, bytes): (u32, Bytes)| {
            let part = PagePart { start: 0, bytes: self.source.pool.copy(&[&bytes]) };
            self.source.cache.put_page(self.key, page, part.clone());
            (page, part)
        };
        pages.into_iter().map(kept).collect()
    }

    fn length_of(&self, page: u32) -> usize {
        (self.size_bytes - u64::from(page) * PAGE_BYTES).min(PAGE_BYTES) as usize
    }

    /// Waits for `work` on this thread, unless the request is cancelled or its time is almost over.
    fn wait<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let context = ReadContext::current();
        self.source.runtime.block_on(async {
            let Some(context) = &context else { return work.await };
            tokio::select! {
                done = context.in_time(work) => done.unwrap_or_else(|| Err(self.no_answer())),
                () = context.cancelled() => Err(ReadRefused::Cancelled.into()),
            }
        })
    }

    fn no_answer(&self) -> io::Error {
        let text = format!("{}: bucket {} {NO_ANSWER}", self.name, self.bucket.name());
        io::Error::new(io::ErrorKind::TimedOut, text)
    }

    /// Fetches what is missing of pages from the bucket, and keeps it and what is between in the caches.
    fn fetch(
        &self,
        wanted: &WantedPages,
        pages: &[u32],
        claimed: Option<&Claimed>,
        read: &mut ReadPages,
    ) -> io::Result<()> {
        if pages.is_empty() {
            return Ok(());
        }
        let pieces = pages.iter().filter_map(|page| {
            let part = wanted.0.get(page)?;
            let part = read.cached.get(page).map_or(part.clone(), |cached| cached.missing(part));
            let begin = u64::from(*page) * PAGE_BYTES;
            Some(begin + u64::from(part.start)..begin + u64::from(part.end))
        });
        let ranges = spans(pieces);
        if let Some(context) = ReadContext::current() {
            context.admit(ranges.len(), ranges.iter().map(|range| range.end - range.start).sum())?;
        }
        let work = futures::stream::iter(ranges.iter().cloned().map(|range| self.fetch_range(range)))
            .buffered(CONCURRENT_REQUESTS)
            .try_collect::<Vec<Bytes>>();
        let fetched = self.wait(async { work.await.map_err(to_io) })?;
        for (range, bytes) in ranges.into_iter().zip(fetched) {
            self.keep_fetched(range.start, &bytes, claimed, read);
            // What is read ahead is not kept twice.
            if !read.is_ahead {
                read.fetched.insert(range.start, bytes);
            }
        }
        Ok(())
    }

    /// Keeps the pages of a range that was fetched, in one piece with what was cached of them.
    fn keep_fetched(&self, start: u64, bytes: &Bytes, claimed: Option<&Claimed>, read: &mut ReadPages) {
        let mut at = 0;
        while at < bytes.len() {
            let offset = start + at as u64;
            let (page, within) = (page_of(offset), (offset % PAGE_BYTES) as u32);
            let end = bytes.len().min(at + PAGE_BYTES as usize - within as usize);
            let content = &bytes[at..end];
            let place = within..within + content.len() as u32;
            let around =
                read.cached.get(&page).and_then(|cached| Some((cached.start, cached.around(&place)?)));
            let (first, [before, after]) = around.unwrap_or((within, [&[], &[]]));
            // A copy: a slice would keep the memory of the whole range.
            let kept = self.source.pool.copy(&[before, content, after]);
            let part = PagePart { start: first.min(within), bytes: kept.clone() };
            at = end;
            if let Some(claimed) = claimed {
                claimed.found(page, &part);
            }
            if read.is_ahead {
                read.cached.insert(page, part.clone());
            }
            self.source.cache.put_page(self.key, page, part);
            if kept.len() < self.length_of(page) {
                continue;
            }
            if let Some(disk) = &self.source.disk {
                disk.put_page(&self.object, page, kept.clone());
            }
            if let Some(shared) = self.source.shared.of_file(self.key.file) {
                shared.put_page(&self.object, page, kept);
            }
        }
    }

    async fn fetch_range(&self, range: Range<u64>) -> Result<Bytes, BucketError> {
        let request = || self.bucket.get_range(&self.name, range.clone());
        self.source.retry.run(|| self.source.hedge.run(request)).await
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

/// Pieces in ascending order as ranges to fetch.
fn spans(pieces: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut spans: Vec<Range<u64>> = Vec::new();
    for piece in pieces {
        match spans.last_mut() {
            Some(last) if piece.start - last.end <= GAP_BYTES && piece.end - last.start <= REQUEST_BYTES => {
                last.end = piece.end;
            }
            _ => spans.push(piece),
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
mod tests;
