//! Opens the bucket of a command, and a second one for `replicate`.

use std::path::Path;

use ::bucket::{Bucket, BucketConfig, BucketMetrics, ObjstoreArgs};

use crate::error::{Result, ToolError};

/// Opens the bucket of the flags and sends it a request, so that a wrong credential or a missing bucket is reported at once,
/// in one line.
///
/// # Errors
/// Why the bucket cannot be used.
pub(crate) async fn open(flags: &ObjstoreArgs) -> Result<Bucket> {
    let config = flags.required().map_err(|error| ToolError::usage(error.to_string()))?;
    connect(&config).await
}

async fn connect(config: &BucketConfig) -> Result<Bucket> {
    let bucket = config.open(&BucketMetrics::default())?;
    bucket.probe(false).await?;
    Ok(bucket)
}

/// A second bucket with its own flags.
pub(crate) struct OtherBucket<'a> {
    /// The flag with the YAML; the flag with the file has the suffix `-file`.
    pub(crate) flag: &'a str,
    pub(crate) text: Option<&'a str>,
    pub(crate) file: Option<&'a Path>,
}

impl OtherBucket<'_> {
    /// Opens the bucket.
    ///
    /// # Errors
    /// Neither or both flags are given, the configuration is wrong, or the bucket cannot be used.
    pub(crate) async fn open(&self) -> Result<Bucket> {
        let flag = self.flag;
        let text = runtime::load_config(flag, self.text, self.file)
            .map_err(|error| ToolError::usage(error.to_string()))?
            .ok_or_else(|| {
                ToolError::usage(format!(
                    "no second bucket is configured: give --{flag}-file=FILE or --{flag}=YAML"
                ))
            })?;
        let config = BucketConfig::parse(&text).map_err(|error| {
            let origin = runtime::config_origin(flag, self.file);
            ToolError::usage(error.in_origin(origin).to_string())
        })?;
        connect(&config).await
    }
}
