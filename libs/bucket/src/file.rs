//! An object as bytes at offsets, for the block reader, which does not use an async runtime.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use tokio::runtime::Handle;
use tsdb::ReadAt;

use crate::bucket::Bucket;
use crate::error::{BucketError, ErrorKind};
use crate::retry::Retry;

/// An object of known size that is read by ranges.
///
/// Every read blocks its thread until the store has answered. Do not read on a worker thread of the runtime: use
/// `spawn_blocking`, or a thread of your own. [`ReadAt::read_many`] fetches ranges near each other with one request, and
/// sends several requests at once.
#[derive(Clone, Debug)]
pub struct BucketFile {
    bucket: Bucket,
    name: String,
    size_bytes: u64,
    runtime: Handle,
    retry: Retry,
}

impl BucketFile {
    /// Gets the size of an object. Later reads use the runtime on which this was called.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or another error of the store.
    pub async fn open(bucket: &Bucket, name: &str) -> Result<Self, BucketError> {
        let retry = Retry::default();
        let size_bytes = retry.run(|| bucket.head(name)).await?.size_bytes;
        Ok(Self::with_size(bucket, name, size_bytes))
    }

    /// An object whose size is known from a listing or a manifest. Must be called on a runtime, which later reads use.
    pub fn with_size(bucket: &Bucket, name: &str, size_bytes: u64) -> Self {
        let runtime = Handle::current();
        Self { bucket: bucket.clone(), name: name.to_owned(), size_bytes, runtime, retry: Retry::default() }
    }

    /// The same object, whose reads are repeated as `retry` says.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    fn check(&self, range: &Range<u64>) -> io::Result<()> {
        if range.start <= range.end && range.end <= self.size_bytes {
            return Ok(());
        }
        let text =
            format!("{}: bytes {range:?} were requested, the object has {}", self.name, self.size_bytes);
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
    }
}

impl ReadAt for BucketFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, range: Range<u64>) -> io::Result<Bytes> {
        self.check(&range)?;
        let read = self.retry.run(|| self.bucket.get_range(&self.name, range.clone()));
        self.runtime.block_on(read).map_err(to_io)
    }

    fn read_many(&self, ranges: &[Range<u64>]) -> io::Result<Vec<Bytes>> {
        ranges.iter().try_for_each(|range| self.check(range))?;
        if ranges.is_empty() {
            return Ok(Vec::new());
        }
        let read = self.retry.run(|| self.bucket.get_ranges(&self.name, ranges));
        self.runtime.block_on(read).map_err(to_io)
    }
}

fn to_io(error: BucketError) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NoBucket => io::ErrorKind::NotFound,
        ErrorKind::Denied => io::ErrorKind::PermissionDenied,
        ErrorKind::Corrupt | ErrorKind::TooLarge => io::ErrorKind::UnexpectedEof,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
