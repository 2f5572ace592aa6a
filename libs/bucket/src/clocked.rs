//! An object store with a clock that tests set: each object has the time at which it was written by that clock.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use model::Timestamp;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// The time of a store.
type StoreClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// An [`ObjectStore`] around another one, whose objects have times by another clock. Objects that are written in parts get the time at
/// which their upload began.
pub struct ClockedStore {
    inner: Arc<dyn ObjectStore>,
    clock: StoreClock,
    written: Arc<Mutex<BTreeMap<Path, SystemTime>>>,
}

impl ClockedStore {
    /// A store around `inner`, where it is `clock()`.
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { inner, clock: Arc::new(clock), written: Arc::default() })
    }

    fn write(&self, name: &Path) {
        let millis = u64::try_from((self.clock)().as_millis()).unwrap_or(0);
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), at);
    }
}

/// Sets the time of an object that was written through this store.
fn date(written: &Mutex<BTreeMap<Path, SystemTime>>, meta: &mut ObjectMeta) {
    if let Some(at) = written.lock().unwrap_or_else(PoisonError::into_inner).get(&meta.location) {
        meta.last_modified = (*at).into();
    }
}

impl fmt::Debug for ClockedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClockedStore").field("now", &(self.clock)()).finish_non_exhaustive()
    }
}

impl fmt::Display for ClockedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "clocked({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for ClockedStore {
    async fn put_opts(&self, name: &Path, content: PutPayload, options: PutOptions) -> Result<PutResult> {
        let result = self.inner.put_opts(name, content, options).await?;
        self.write(name);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        name: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.write(name);
        self.inner.put_multipart_opts(name, options).await
    }

    async fn get_opts(&self, name: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.inner.get_opts(name, options).await?;
        date(&self.written, &mut result.meta);
        Ok(result)
    }

    async fn get_ranges(&self, name: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(name, ranges).await
    }

    fn delete_stream(&self, names: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(names)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let written = Arc::clone(&self.written);
        let dated = move |mut meta| {
            date(&written, &mut meta);
            meta
        };
        self.inner.list(prefix).map_ok(dated).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut result = self.inner.list_with_delimiter(prefix).await?;
        result.objects.iter_mut().for_each(|meta| date(&self.written, meta));
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.write(to);
        Ok(())
    }
}
