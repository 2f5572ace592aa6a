//! Buckets: opening the one that is worked on, and another beside it.

use std::path::Path;

use ::bucket::{Bucket, BucketConfig, BucketMetrics, ObjstoreArgs};

use crate::error::{Result, ToolError};

/// Opens the bucket that the flags name and asks it something, so that a wrong credential or a bucket that is not
/// there is found now, in one line.
///
/// # Errors
/// What keeps the bucket from being used.
pub(crate) async fn open(flags: &ObjstoreArgs) -> Result<Bucket> {
    let config = flags.required().map_err(|error| ToolError::usage(error.to_string()))?;
    connect(&config).await
}

async fn connect(config: &BucketConfig) -> Result<Bucket> {
    let bucket = config.open(&BucketMetrics::default())?;
    bucket.probe(false).await?;
    Ok(bucket)
}

/// A second bucket, named by flags of its own.
pub(super) struct OtherBucket<'a> {
    /// The flag with the content; that with the file ends in `-file`.
    pub(super) flag: &'a str,
    pub(super) text: Option<&'a str>,
    pub(super) file: Option<&'a Path>,
}

impl OtherBucket<'_> {
    /// Opens the bucket.
    ///
    /// # Errors
    /// Neither flag or both, a wrong configuration, or what keeps the bucket from being used.
    pub(super) async fn open(&self) -> Result<Bucket> {
        let flag = self.flag;
        let usage = |error: &dyn std::fmt::Display| ToolError::usage(format!("--{flag}: {error}"));
        let text = runtime::load_config(flag, self.text, self.file)
            .map_err(|error| ToolError::usage(error.to_string()))?
            .ok_or_else(|| {
                ToolError::usage(format!("no bucket is given: write --{flag}-file=FILE or --{flag}=YAML"))
            })?;
        let config = BucketConfig::parse(&text).map_err(|error| usage(&error))?;
        connect(&config).await
    }
}
