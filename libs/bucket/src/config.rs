//! Thanos' objstore YAML: `type`, `config`, `prefix`.
//!
//! Every field of Thanos is known here. A field that this program does not support is an error that says what to do
//! instead, or a warning if ignoring the field changes nothing that matters. No field is ignored silently. All mistakes
//! are reported together, each with its line.
//!
//! Reading order: [`BucketConfig`], then `fields.rs`, `http.rs`, and a file for each type.

mod answers;
mod azure;
mod fields;
mod filesystem;
mod gcs;
mod http;
mod listing;
mod s3;
mod served;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use runtime::yaml::{Mistake, Mistakes, YamlFields, YamlNode};

use self::fields::{ConfigNotes, text_or_empty};
use crate::bucket::{Bucket, WriteSettings};
use crate::error::{BucketError, ErrorKind};
use crate::metrics::BucketMetrics;

pub use self::served::ServedBucket;

/// Types of Thanos that this program does not support, with the S3-compatible endpoint that can be used instead.
const OTHER_TYPES: [(&str, &str); 6] = [
    ("SWIFT", "OpenStack's S3 API (s3api middleware)"),
    ("COS", "cos.<region>.myqcloud.com"),
    ("ALIYUNOSS", "oss-<region>.aliyuncs.com"),
    ("BOS", "s3.<region>.bcebos.com"),
    ("OCI", "<namespace>.compat.objectstorage.<region>.oraclecloud.com"),
    ("OBS", "obs.<region>.myhuaweicloud.com"),
];

/// A valid objstore configuration: where a bucket is and how to reach it.
///
/// ```
/// let config = bucket::BucketConfig::parse("type: FILESYSTEM\nconfig: {directory: /var/lib/blocks}").unwrap();
/// assert_eq!(config.bucket_name(), "/var/lib/blocks");
/// let error = bucket::BucketConfig::parse("type: S4\nconfg: {}").unwrap_err().to_string();
/// assert!(error.contains("line 1: type:") && error.contains("line 2: confg: unknown field"), "{error}");
/// ```
pub struct BucketConfig {
    provider: Provider,
    prefix: Path,
    warnings: Vec<Mistake>,
}

enum Provider {
    Filesystem(filesystem::FilesystemConfig),
    S3(Box<s3::S3Config>),
    Gcs(Box<gcs::GcsConfig>),
    Azure(Box<azure::AzureConfig>),
}

/// The mistakes in an objstore configuration; at least one.
#[derive(Debug, PartialEq, Eq)]
pub struct ObjstoreConfigError {
    origin: Option<String>,
    mistakes: Vec<Mistake>,
}

impl ObjstoreConfigError {
    fn new(mistakes: Vec<Mistake>) -> Self {
        Self { origin: None, mistakes }
    }

    /// The same mistakes with the place of the configuration, such as a flag and its file ([`runtime::config_origin`]).
    #[must_use]
    pub fn in_origin(self, origin: String) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// Where the configuration is, as far as it is known.
    pub fn origin(&self) -> &str {
        self.origin.as_deref().unwrap_or("objstore configuration")
    }

    /// All mistakes, in the order of their lines.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ObjstoreConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = self.origin();
        if let [mistake] = self.mistakes.as_slice() {
            return write!(f, "{origin}: {mistake}");
        }
        write!(f, "{origin}: {} mistakes", self.mistakes.len())?;
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ObjstoreConfigError {}

impl BucketConfig {
    /// Parses a configuration in which `$(NAME)` has been replaced already (see [`runtime::load_config`], or let [`ObjstoreArgs`](crate::ObjstoreArgs) do both).
    ///
    /// # Errors
    /// All mistakes.
    pub fn parse(yaml: &str) -> Result<Self, ObjstoreConfigError> {
        let root = YamlNode::parse(yaml).map_err(|mistake| ObjstoreConfigError::new(vec![mistake]))?;
        let (mistakes, warnings) = (Mistakes::default(), Mistakes::default());
        let parsed = read(&root, &ConfigNotes { mistakes: &mistakes, warnings: &warnings });
        let mistakes = mistakes.into_sorted();
        match parsed {
            Some((provider, prefix)) if mistakes.is_empty() => {
                Ok(Self { provider, prefix, warnings: warnings.into_sorted() })
            }
            _ => Err(ObjstoreConfigError::new(mistakes)),
        }
    }

    /// Fields that have no effect. [`BucketConfig::open`] logs them.
    pub fn warnings(&self) -> &[Mistake] {
        &self.warnings
    }

    /// The name of the bucket, container or folder.
    pub fn bucket_name(&self) -> &str {
        match &self.provider {
            Provider::Filesystem(config) => config.name(),
            Provider::S3(config) => &config.bucket,
            Provider::Gcs(config) => &config.bucket,
            Provider::Azure(config) => &config.container,
        }
    }

    /// Opens the bucket without a request to the store; [`Bucket::probe`] sends one.
    ///
    /// # Errors
    /// [`ErrorKind::NoBucket`] for a folder that does not exist, [`ErrorKind::Config`] for a value that the store's
    /// client rejects, such as a key that cannot be decoded.
    pub fn open(&self, metrics: &BucketMetrics) -> Result<Bucket, BucketError> {
        for warning in &self.warnings {
            tracing::warn!(%warning, "a field of the objstore configuration has no effect");
        }
        let (store, settings): (Arc<dyn ObjectStore>, WriteSettings) = match &self.provider {
            Provider::Filesystem(config) => config.open()?,
            Provider::S3(config) => config.open().map_err(|error| self.refused(error))?,
            Provider::Gcs(config) => config.open().map_err(|error| self.refused(error))?,
            Provider::Azure(config) => config.open().map_err(|error| self.refused(error))?,
        };
        let (name, prefix) = (self.bucket_name().to_owned(), self.prefix.clone());
        Ok(Bucket::open(store, name, self.service(), prefix, metrics, settings))
    }

    /// The kind of the store with its endpoint, which tells buckets of one name apart.
    fn service(&self) -> String {
        match &self.provider {
            Provider::Filesystem(_) => "FILESYSTEM".to_owned(),
            Provider::S3(config) => format!("S3 {}", config.endpoint),
            Provider::Gcs(config) => format!("GCS {}", config.base_url.as_deref().unwrap_or_default()),
            Provider::Azure(config) => format!("AZURE {} {}", config.endpoint, config.account),
        }
    }

    fn refused(&self, error: object_store::Error) -> BucketError {
        // The library's text: "Generic S3 error: reason".
        let text = error.to_string();
        let reason = text.split_once("error: ").map_or(text.as_str(), |(_, reason)| reason);
        let reason: Vec<&str> = reason.split_whitespace().collect();
        BucketError::new(ErrorKind::Config, self.bucket_name(), "open the store", reason.join(" "))
    }
}

impl fmt::Debug for BucketConfig {
    /// Prints the name only, because other fields are secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketConfig").field("bucket", &self.bucket_name()).finish_non_exhaustive()
    }
}

fn read(root: &YamlNode, notes: &ConfigNotes<'_>) -> Option<(Provider, Path)> {
    read_with("", root, notes, |_| {})
}

/// Reads the configuration at `path`; `more` reads fields in addition to those of Thanos.
fn read_with(
    path: &str,
    root: &YamlNode,
    notes: &ConfigNotes<'_>,
    more: impl FnOnce(&mut YamlFields<'_>),
) -> Option<(Provider, Path)> {
    let mut fields = YamlFields::new(path, root, notes.mistakes);
    more(&mut fields);
    let kind = fields.required("type", |node| known_type(node.text()?));
    let prefix = fields.optional("prefix", |node| {
        let text = text_or_empty(node)?;
        Path::parse(text.trim_matches('/'))
            .map_err(|error| format!("{text:?} is not a valid prefix of object names: {error}"))
    });
    let config = fields.node("config");
    if config.is_none() && kind.is_some() {
        fields.wrong("config", "is missing: put the fields of the type there");
    }
    let path = fields.path_of("config");
    fields.finish();
    let config = YamlFields::new(path, config?, notes.mistakes);
    let provider = match kind? {
        StoreType::Filesystem => filesystem::read(config).map(Provider::Filesystem),
        StoreType::S3 => s3::read(config, notes).map(Box::new).map(Provider::S3),
        StoreType::Gcs => gcs::read(config, notes).map(Box::new).map(Provider::Gcs),
        StoreType::Azure => azure::read(config, notes).map(Box::new).map(Provider::Azure),
    };
    Some((provider?, prefix.unwrap_or_default()))
}

enum StoreType {
    Filesystem,
    S3,
    Gcs,
    Azure,
}

fn known_type(text: &str) -> Result<StoreType, String> {
    let name = text.to_ascii_uppercase();
    match name.as_str() {
        "FILESYSTEM" => return Ok(StoreType::Filesystem),
        "S3" => return Ok(StoreType::S3),
        "GCS" => return Ok(StoreType::Gcs),
        "AZURE" => return Ok(StoreType::Azure),
        _ => {}
    }
    match OTHER_TYPES.iter().find(|(other, _)| *other == name) {
        Some((_, endpoint)) => Err(format!(
            "{name} is not supported: use type S3 with the S3-compatible endpoint of that store, {endpoint}"
        )),
        None => Err(format!("{text:?} is unknown, expected FILESYSTEM, S3, GCS or AZURE")),
    }
}
