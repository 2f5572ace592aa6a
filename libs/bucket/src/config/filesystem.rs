//! `type: FILESYSTEM`: a local directory.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use runtime::yaml::YamlFields;

use crate::bucket::WriteSettings;
use crate::config::fields::required_text;
use crate::error::{BucketError, ErrorKind};

pub(super) struct FilesystemConfig {
    directory: String,
}

pub(super) fn read(mut fields: YamlFields<'_>) -> Option<FilesystemConfig> {
    let directory = required_text(&mut fields, "directory");
    fields.finish();
    Some(FilesystemConfig { directory: directory? })
}

impl FilesystemConfig {
    pub(super) fn name(&self) -> &str {
        &self.directory
    }

    /// An object is written to a temporary file, flushed, and renamed; then its folders are flushed. After a power cut the
    /// object is the old one or the new one.
    pub(super) fn open(&self) -> Result<(Arc<dyn ObjectStore>, WriteSettings), BucketError> {
        let folder = PathBuf::from(&self.directory);
        let refused = |kind, reason: String| {
            let action = "open the objstore directory";
            Err(BucketError::new(kind, &self.directory, action, reason))
        };
        match std::fs::metadata(&folder) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return refused(ErrorKind::Config, "it is a file, expected a directory".to_owned()),
            // It is not created: often the directory is missing because a disk is not mounted.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let reason = "it does not exist: create it, or mount its disk";
                return refused(ErrorKind::NoBucket, reason.to_owned());
            }
            Err(error) => return refused(ErrorKind::Denied, error.to_string()),
        }
        let store = match LocalFileSystem::new_with_prefix(&folder) {
            Ok(store) => store.with_fsync(true).with_automatic_cleanup(true),
            Err(error) => return refused(ErrorKind::Config, error.to_string()),
        };
        Ok((Arc::new(store), WriteSettings { folder: Some(folder), ..WriteSettings::default() }))
    }
}
