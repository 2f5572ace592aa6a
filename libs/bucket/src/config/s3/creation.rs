//! An S3 client that sends further headers with the requests that create objects, such as those of access rights.
//!
//! S3 wants each `x-amz-` header signed, and rejects some of them on other requests. So there are two clients: one signs and
//! sends the headers with each of its requests, and is used only to create objects.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// Two clients of one bucket.
#[derive(Debug)]
pub(super) struct CreationHeaders {
    /// Sends the further headers.
    pub(super) creating: AmazonS3,
    pub(super) other: Arc<AmazonS3>,
}

impl fmt::Display for CreationHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.other.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for CreationHeaders {
    async fn put_opts(&self, name: &Path, content: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.creating.put_opts(name, content, options).await
    }

    async fn put_multipart_opts(
        &self,
        name: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let id = self.creating.create_multipart_opts(name, options).await?;
        let (store, name, id) = (Arc::clone(&self.other), name.clone(), Arc::new(id));
        Ok(Box::new(CreatedUpload { store, name, id, begun: 0, parts: Arc::default() }))
    }

    async fn get_opts(&self, name: &Path, options: GetOptions) -> Result<GetResult> {
        self.other.get_opts(name, options).await
    }

    async fn get_ranges(&self, name: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.other.get_ranges(name, ranges).await
    }

    fn delete_stream(&self, names: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.other.delete_stream(names)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.other.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.other.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.other.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.creating.copy_opts(from, to, options).await
    }
}

/// An upload in parts. The request that began it had the headers; those of the parts must not have them.
#[derive(Debug)]
struct CreatedUpload {
    store: Arc<AmazonS3>,
    name: Path,
    id: Arc<MultipartId>,
    /// Number of parts that were begun.
    begun: usize,
    /// The parts that were uploaded.
    parts: Arc<Mutex<BTreeMap<usize, PartId>>>,
}

#[async_trait]
impl MultipartUpload for CreatedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let number = self.begun;
        self.begun += 1;
        let (store, name) = (Arc::clone(&self.store), self.name.clone());
        let (id, parts) = (Arc::clone(&self.id), Arc::clone(&self.parts));
        Box::pin(async move {
            let part = store.put_part(&name, &id, number, data).await?;
            parts.lock().unwrap_or_else(PoisonError::into_inner).insert(number, part);
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        if parts.len() != self.begun {
            let source = format!("{} of {} parts of {} were uploaded", parts.len(), self.begun, self.name);
            return Err(Error::Generic { store: "S3", source: source.into() });
        }
        self.store.complete_multipart(&self.name, &self.id, parts.into_values().collect()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.store.abort_multipart(&self.name, &self.id).await
    }
}
