//! Thanos' objstore YAML: `type`, `config`, `prefix`.
//!
//! Every field that Thanos knows is known here. One that this program cannot honour is refused with what to do
//! instead, or taken with a warning where leaving it out changes nothing that matters; none is passed over in
//! silence. All mistakes are reported together, each with its line.
//!
//! Reading order: [`BucketConfig`], then `http.rs` and a file for each type.

mod args;
mod azure;
mod filesystem;
mod gcs;
mod http;
mod s3;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use runtime::yaml::{Mistake, Mistakes, YamlFields, YamlNode, YamlValue};

pub use self::args::{ArgsError, ObjstoreArgs};
use crate::bucket::{Bucket, Settings};
use crate::error::{BucketError, ErrorKind};
use crate::metrics::BucketMetrics;

/// Types of Thanos that this program does not speak, with the way to reach them all the same.
const OTHER_TYPES: [(&str, &str); 6] = [
    ("SWIFT", "OpenStack's S3 API (s3api middleware)"),
    ("COS", "cos.<region>.myqcloud.com"),
    ("ALIYUNOSS", "oss-<region>.aliyuncs.com"),
    ("BOS", "s3.<region>.bcebos.com"),
    ("OCI", "<namespace>.compat.objectstorage.<region>.oraclecloud.com"),
    ("OBS", "obs.<region>.myhuaweicloud.com"),
];

/// An objstore configuration without mistakes: where a bucket is and how to reach it.
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
    Filesystem(filesystem::Config),
    S3(Box<s3::Config>),
    Gcs(Box<gcs::Config>),
    Azure(Box<azure::Config>),
}

/// What is wrong with an objstore configuration; never empty.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    mistakes: Vec<Mistake>,
}

impl ConfigError {
    /// All mistakes, in the order of the text.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [mistake] = self.mistakes.as_slice() {
            return write!(f, "objstore configuration: {mistake}");
        }
        write!(f, "objstore configuration: {} mistakes", self.mistakes.len())?;
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigError {}

/// What the readers of the types note beside values: mistakes, and warnings about what has no effect.
struct Notes<'a> {
    mistakes: &'a Mistakes,
    warnings: &'a Mistakes,
}

impl BucketConfig {
    /// Reads the text of a configuration, in which `$(NAME)` has been replaced already (see
    /// [`runtime::load_config`], or let [`ObjstoreArgs`] do both).
    ///
    /// # Errors
    /// All mistakes.
    pub fn parse(yaml: &str) -> Result<Self, ConfigError> {
        let root = YamlNode::parse(yaml).map_err(|mistake| ConfigError { mistakes: vec![mistake] })?;
        let (mistakes, warnings) = (Mistakes::default(), Mistakes::default());
        let parsed = read(&root, &Notes { mistakes: &mistakes, warnings: &warnings });
        let mistakes = mistakes.into_sorted();
        match parsed {
            Some((provider, prefix)) if mistakes.is_empty() => {
                Ok(Self { provider, prefix, warnings: warnings.into_sorted() })
            }
            _ => Err(ConfigError { mistakes }),
        }
    }

    /// What the text asks for without effect. [`BucketConfig::open`] logs it.
    pub fn warnings(&self) -> &[Mistake] {
        &self.warnings
    }

    /// The bucket, container or folder that is meant.
    pub fn bucket_name(&self) -> &str {
        match &self.provider {
            Provider::Filesystem(config) => config.name(),
            Provider::S3(config) => &config.bucket,
            Provider::Gcs(config) => &config.bucket,
            Provider::Azure(config) => &config.container,
        }
    }

    /// Opens the bucket without asking the store anything; [`Bucket::probe`] does.
    ///
    /// # Errors
    /// [`ErrorKind::NoBucket`] for a folder that is not there, [`ErrorKind::Config`] for what the store's client
    /// refuses, such as a key that is no key.
    pub fn open(&self, metrics: &BucketMetrics) -> Result<Bucket, BucketError> {
        for warning in &self.warnings {
            tracing::warn!("objstore configuration: {warning}");
        }
        let (store, settings): (Arc<dyn ObjectStore>, Settings) = match &self.provider {
            Provider::Filesystem(config) => config.open()?,
            Provider::S3(config) => config.open().map_err(|error| self.refused(error))?,
            Provider::Gcs(config) => config.open().map_err(|error| self.refused(error))?,
            Provider::Azure(config) => config.open().map_err(|error| self.refused(error))?,
        };
        Ok(Bucket::open(store, self.bucket_name().to_owned(), self.prefix.clone(), metrics, settings))
    }

    fn refused(&self, error: object_store::Error) -> BucketError {
        // The library's text: "Generic S3 error: reason".
        let text = error.to_string();
        let reason = text.split_once("error: ").map_or(text.as_str(), |(_, reason)| reason);
        let reason: Vec<&str> = reason.split_whitespace().collect();
        BucketError::new(
            ErrorKind::Config,
            self.bucket_name(),
            "use the objstore configuration",
            reason.join(" "),
        )
    }
}

impl fmt::Debug for BucketConfig {
    /// Without the rest, which holds secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketConfig").field("bucket", &self.bucket_name()).finish_non_exhaustive()
    }
}

fn read(root: &YamlNode, notes: &Notes<'_>) -> Option<(Provider, Path)> {
    let mut fields = YamlFields::new("", root, notes.mistakes);
    let kind = fields.required("type", |node| known_type(node.text()?));
    let prefix = fields.optional("prefix", |node| {
        let text = text_or_empty(node)?;
        Path::parse(text.trim_matches('/'))
            .map_err(|error| format!("{text:?} is no prefix of names: {error}"))
    });
    let config = fields.node("config");
    if config.is_none() && kind.is_some() {
        fields.wrong("config", "is missing: it holds the fields of the type");
    }
    fields.finish();
    let config = YamlFields::new("config", config?, notes.mistakes);
    let provider = match kind? {
        Kind::Filesystem => filesystem::read(config).map(Provider::Filesystem),
        Kind::S3 => s3::read(config, notes).map(Box::new).map(Provider::S3),
        Kind::Gcs => gcs::read(config, notes).map(Box::new).map(Provider::Gcs),
        Kind::Azure => azure::read(config, notes).map(Box::new).map(Provider::Azure),
    };
    Some((provider?, prefix.unwrap_or_default()))
}

enum Kind {
    Filesystem,
    S3,
    Gcs,
    Azure,
}

fn known_type(text: &str) -> Result<Kind, String> {
    let name = text.to_ascii_uppercase();
    match name.as_str() {
        "FILESYSTEM" => return Ok(Kind::Filesystem),
        "S3" => return Ok(Kind::S3),
        "GCS" => return Ok(Kind::Gcs),
        "AZURE" => return Ok(Kind::Azure),
        _ => {}
    }
    match OTHER_TYPES.iter().find(|(other, _)| *other == name) {
        Some((_, endpoint)) => {
            Err(format!("{name} is not spoken here: use type S3 with its S3-compatible endpoint, {endpoint}"))
        }
        None => Err(format!("{text:?} is none of FILESYSTEM, S3, GCS and AZURE")),
    }
}

// --- what the types read alike -----------------------------------------------------------------------------------

/// Text that may be empty: Thanos' own examples write `field: ""` for "not set".
fn text_or_empty(node: &YamlNode) -> Result<&str, String> {
    match &node.value {
        YamlValue::Text(text) => Ok(text),
        _ => node.text(),
    }
}

/// A text field; `None` when it is absent, empty or wrong.
fn text(fields: &mut YamlFields<'_>, name: &'static str) -> Option<String> {
    fields.optional(name, |node| text_or_empty(node).map(str::to_owned)).filter(|text| !text.is_empty())
}

/// A text field that must have a value.
fn required_text(fields: &mut YamlFields<'_>, name: &'static str) -> Option<String> {
    fields.required(name, |node| node.text().map(str::to_owned))
}

fn boolean(fields: &mut YamlFields<'_>, name: &'static str) -> Option<bool> {
    fields.optional(name, YamlNode::boolean)
}

fn count(fields: &mut YamlFields<'_>, name: &'static str, max: i64) -> Option<usize> {
    // Not negative, and `max` is far below any usize.
    fields.optional(name, |node| node.integer(0, max)).map(|number| number as usize)
}

fn duration(fields: &mut YamlFields<'_>, name: &'static str) -> Option<std::time::Duration> {
    fields.optional(name, |node| match &node.value {
        YamlValue::Integer(0) => Ok(std::time::Duration::ZERO),
        _ => runtime::parse_duration(node.text()?).map_err(|error| error.to_string()),
    })
}

impl Notes<'_> {
    /// Says that a field which was given has no effect here.
    fn without_effect(&self, fields: &YamlFields<'_>, node: Option<&YamlNode>, name: &str, why: &str) {
        if let Some(node) = node {
            self.warnings.add(node.line, fields.path_of(name), format!("has no effect: {why}"));
        }
    }
}
