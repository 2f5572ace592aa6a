//! Listings of a bucket.

use std::path::Path;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::UpdateVersion;

use crate::bucket::{Bucket, FolderListing, ObjectInfo, ObjectVersion};
use crate::error::{BucketError, ErrorKind};
use crate::local_list::{self, LocalEntry};
use crate::metrics::Operation;

impl Bucket {
    /// All objects below a folder, at any depth and in no promised order; `""` lists the whole bucket.
    pub fn list(&self, dir: &str) -> BoxStream<'static, Result<ObjectInfo, BucketError>> {
        let path = match self.path(dir) {
            Ok(path) => path,
            Err(error) => return futures::stream::once(async { Err(error) }).boxed(),
        };
        let bucket = self.clone();
        let watch = bucket.inner.counters.watch(Operation::Iter);
        let action = format!("list {dir:?}");
        if self.inner.settings.folder.is_some() {
            let work = async move {
                let found = bucket.list_local(path.as_ref().to_owned(), local_list::descendants).await;
                if found.is_err() {
                    bucket.inner.counters.failed(Operation::Iter);
                }
                let files = found?.into_iter().map(move |file| Ok(bucket.local_info(file)));
                Ok::<_, BucketError>(futures::stream::iter(files))
            };
            return futures::stream::once(work).try_flatten().inspect(move |_| _ = &watch).boxed();
        }
        let prefix = (!path.as_ref().is_empty()).then_some(path);
        let objects = self.inner.store.list(prefix.as_ref());
        objects
            .map(move |object| match object {
                Ok(meta) => Ok(bucket.info(meta)),
                Err(error) => {
                    bucket.inner.counters.failed(Operation::Iter);
                    Err(bucket.failed(action.clone(), error))
                }
            })
            // The timer of a listing stops when its stream is dropped.
            .inspect(move |_| _ = &watch)
            .boxed()
    }

    /// [`Bucket::list`], sorted by name.
    ///
    /// # Errors
    /// Any error of the store. A listing that failed half-way returns no objects.
    pub async fn list_all(&self, dir: &str) -> Result<Vec<ObjectInfo>, BucketError> {
        let mut objects: Vec<ObjectInfo> = self.list(dir).try_collect().await?;
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(objects)
    }

    /// The direct content of a folder; empty if there is no such folder.
    ///
    /// # Errors
    /// Any error of the store.
    pub async fn list_dir(&self, dir: &str) -> Result<FolderListing, BucketError> {
        let path = self.path(dir)?;
        if self.inner.settings.folder.is_some() {
            return self.list_local_dir(path.as_ref().to_owned()).await;
        }
        let prefix = (!path.as_ref().is_empty()).then_some(path);
        let work = async {
            let result = self.inner.store.list_with_delimiter(prefix.as_ref()).await;
            result.map_err(|error| self.failed(format!("list {dir:?}"), error))
        };
        let result = self.inner.counters.count(Operation::Iter, work).await?;
        let mut dirs: Vec<String> = result.common_prefixes.iter().map(|path| self.relative(path)).collect();
        dirs.sort_unstable();
        let mut objects: Vec<ObjectInfo> = result.objects.into_iter().map(|meta| self.info(meta)).collect();
        objects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(FolderListing { dirs, objects })
    }

    async fn list_local_dir(&self, dir: String) -> Result<FolderListing, BucketError> {
        let work = self.list_local(dir, local_list::children);
        let mut entries = self.inner.counters.count(Operation::Iter, work).await?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut listing = FolderListing::default();
        for entry in entries {
            if entry.is_folder {
                listing.dirs.push(self.relative_name(&entry.name).to_owned());
            } else {
                listing.objects.push(self.local_info(entry));
            }
        }
        Ok(listing)
    }

    async fn list_local(
        &self,
        dir: String,
        list: fn(&Path, &str) -> std::io::Result<Vec<LocalEntry>>,
    ) -> Result<Vec<LocalEntry>, BucketError> {
        let root = self.inner.settings.folder.clone().unwrap_or_default();
        let action = format!("list {dir:?}");
        let found = tokio::task::spawn_blocking(move || list(&root, &dir)).await;
        found
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| BucketError::new(ErrorKind::Unavailable, self.name(), action, error.to_string()))
    }

    fn local_info(&self, file: LocalEntry) -> ObjectInfo {
        ObjectInfo {
            name: self.relative_name(&file.name).to_owned(),
            size_bytes: file.size_bytes,
            last_modified: file.last_modified,
            version: ObjectVersion(UpdateVersion { e_tag: None, version: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BucketConfig, BucketMetrics};

    fn local(dir: &Path) -> Bucket {
        let yaml = format!("type: FILESYSTEM\nconfig: {{directory: {}}}\nprefix: p", dir.display());
        BucketConfig::parse(&yaml).unwrap().open(&BucketMetrics::default()).unwrap()
    }

    /// A disk that is not mounted any more must not look like a bucket without blocks.
    #[tokio::test]
    async fn a_local_directory_that_is_gone_is_neither_empty_nor_created_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("bucket");
        std::fs::create_dir(&root).unwrap();
        let bucket = local(&root);
        assert_eq!(bucket.list_dir("").await.unwrap(), FolderListing::default(), "the prefix has no objects");
        bucket.put("a/b", "text".into()).await.unwrap();
        bucket.delete("a/b").await.unwrap();
        assert_eq!(
            bucket.list_all("").await.unwrap(),
            [],
            "a removal of the last object leaves the directory"
        );
        std::fs::rename(&root, dir.path().join("away")).unwrap();
        let errors = [
            bucket.list_dir("").await.map(drop).unwrap_err(),
            bucket.list_dir("a").await.map(drop).unwrap_err(),
            bucket.list_all("").await.map(drop).unwrap_err(),
            bucket.put("a/c", "text".into()).await.map(drop).unwrap_err(),
            bucket.put_if_absent("a/c", "text".into()).await.map(drop).unwrap_err(),
            bucket.put_parts("a/c").await.map(drop).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("mount its disk"), "{error}");
        }
        assert!(!root.exists());
        std::fs::rename(dir.path().join("away"), &root).unwrap();
        assert_eq!(bucket.list_all("").await.unwrap(), []);
    }
}
