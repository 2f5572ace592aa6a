//! `type: FILESYSTEM`: a local directory.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use runtime::yaml::YamlFields;

use crate::bucket::Settings;
use crate::config::required_text;
use crate::error::{BucketError, ErrorKind};

pub(super) struct Config {
    directory: String,
}

pub(super) fn read(mut fields: YamlFields<'_>) -> Option<Config> {
    let directory = required_text(&mut fields, "directory");
    fields.finish();
    Some(Config { directory: directory? })
}

impl Config {
    pub(super) fn name(&self) -> &str {
        &self.directory
    }

    /// Objects are written beside their place, flushed with their folders, and renamed: a power cut leaves the old
    /// state or the new one.
    pub(super) fn open(&self) -> Result<(Arc<dyn ObjectStore>, Settings), BucketError> {
        let folder = PathBuf::from(&self.directory);
        let refused = |kind, reason: String| {
            let action = "open the objstore directory";
            Err(BucketError::new(kind, &self.directory, action, reason))
        };
        match std::fs::metadata(&folder) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return refused(ErrorKind::Config, "it is a file: name a directory".to_owned()),
            // A directory that is missing is more often a disk that is not mounted than a bucket to begin.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let reason = "it does not exist: create it, or mount the disk that holds it";
                return refused(ErrorKind::NoBucket, reason.to_owned());
            }
            Err(error) => return refused(ErrorKind::Denied, error.to_string()),
        }
        let store = match LocalFileSystem::new_with_prefix(&folder) {
            Ok(store) => store.with_fsync(true).with_automatic_cleanup(true),
            Err(error) => return refused(ErrorKind::Config, error.to_string()),
        };
        Ok((Arc::new(store), Settings { folder: Some(folder), ..Settings::default() }))
    }
}
