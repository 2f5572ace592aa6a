//! The two flags that every role has for its bucket.

use std::path::PathBuf;

use crate::config::{BucketConfig, ObjstoreConfigError, ServedBucket};

/// The flag with the text, without dashes; the one with the file has the suffix `-file`.
const FLAG: &str = "objstore.config";

/// `--objstore.config` and `--objstore.config-file`. Flatten it into a role's arguments.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ObjstoreArgs {
    /// Object storage configuration as YAML, in Thanos' format; $(NAME) is replaced by the environment variable NAME
    #[arg(long = "objstore.config", value_name = "YAML")]
    pub objstore_config: Option<String>,

    /// File with the YAML of --objstore.config; give only one of the two flags
    #[arg(long = "objstore.config-file", value_name = "FILE")]
    pub objstore_config_file: Option<PathBuf>,
}

/// Why the flags give no usable configuration. The exit code is always [`runtime::EXIT_USAGE`].
#[derive(Debug, thiserror::Error)]
pub enum ObjstoreArgsError {
    /// The text cannot be read: both flags are given, the file does not exist, or an environment variable is not set.
    #[error(transparent)]
    Load(#[from] runtime::LoadConfigError),
    /// The configuration has mistakes.
    #[error(transparent)]
    Config(#[from] ObjstoreConfigError),
    /// Neither flag is given, but the role needs a bucket.
    #[error("no bucket is configured: give --objstore.config-file=FILE or --objstore.config=YAML")]
    Missing,
}

impl From<ObjstoreArgsError> for runtime::ConfigMistakes {
    fn from(error: ObjstoreArgsError) -> Self {
        match error {
            ObjstoreArgsError::Config(error) => {
                error.mistakes().iter().map(|mistake| format!("{}: {mistake}", error.origin())).collect()
            }
            other => other.to_string().into(),
        }
    }
}

impl ObjstoreArgs {
    /// The configuration from the flags; `None` if neither is given.
    ///
    /// # Errors
    /// See [`ObjstoreArgsError`].
    pub fn load(&self) -> Result<Option<BucketConfig>, ObjstoreArgsError> {
        let parsed = self.text()?.map(|text| BucketConfig::parse(&text)).transpose();
        Ok(parsed.map_err(|error| error.in_origin(self.origin()))?)
    }

    /// The buckets of a role that serves one or several; see [`ServedBucket::parse_all`].
    ///
    /// # Errors
    /// See [`ObjstoreArgsError`].
    pub fn served(&self) -> Result<Vec<ServedBucket>, ObjstoreArgsError> {
        let text = self.text()?.ok_or(ObjstoreArgsError::Missing)?;
        Ok(ServedBucket::parse_all(&text).map_err(|error| error.in_origin(self.origin()))?)
    }

    fn text(&self) -> Result<Option<String>, runtime::LoadConfigError> {
        runtime::load_config(FLAG, self.objstore_config.as_deref(), self.objstore_config_file.as_deref())
    }

    /// The flag with the text, for errors about it.
    fn origin(&self) -> String {
        runtime::config_origin(FLAG, self.objstore_config_file.as_deref())
    }

    /// The configuration, for a role that needs a bucket.
    ///
    /// # Errors
    /// See [`ObjstoreArgsError`].
    pub fn required(&self) -> Result<BucketConfig, ObjstoreArgsError> {
        self.load()?.ok_or(ObjstoreArgsError::Missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_double_and_unset_configurations_are_errors() {
        let args = |config: Option<&str>, file: Option<&str>| ObjstoreArgs {
            objstore_config: config.map(str::to_owned),
            objstore_config_file: file.map(PathBuf::from),
        };
        assert!(args(None, None).load().unwrap().is_none());
        let error = args(None, None).required().unwrap_err().to_string();
        assert!(error.contains("--objstore.config-file=FILE"), "{error}");
        let text = "type: FILESYSTEM\nconfig: {directory: $(CARGO_MANIFEST_DIR)}";
        let config = args(Some(text), None).required().unwrap();
        assert_eq!(config.bucket_name(), env!("CARGO_MANIFEST_DIR"));
        let unset =
            args(Some("type: S3\nconfig: {access_key: $(ISTHMUS_NOT_SET)}"), None).load().unwrap_err();
        assert!(unset.to_string().contains("ISTHMUS_NOT_SET"), "{unset}");
        assert!(args(Some(text), Some("x")).load().is_err());
        // A mistake names the flag, and the file.
        let unknown = args(Some("type: S4"), None).served().unwrap_err().to_string();
        assert!(unknown.starts_with("--objstore.config: line 1: type: \"S4\""), "{unknown}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("bucket.yaml").display().to_string();
        std::fs::write(&file, "type: FILESYSTEM\nconfig: {directory: a, mode: b, size: c}\n").unwrap();
        let mistakes = runtime::ConfigMistakes::from(args(None, Some(&file)).load().unwrap_err());
        let expected =
            |field: &str| format!("--objstore.config-file={file}: line 2: config.{field}: unknown field");
        let [mode, size] = mistakes.lines() else { panic!("{mistakes}") };
        assert!(mode.starts_with(&expected("mode")) && size.starts_with(&expected("size")), "{mistakes}");
        std::fs::write(&file, "type: S3\nconfig: {access_key: $(ISTHMUS_NOT_SET)}").unwrap();
        let unset = args(None, Some(&file)).load().unwrap_err().to_string();
        assert!(unset.starts_with(&format!("--objstore.config-file={file}: contains $(ISTHMUS")), "{unset}");
    }
}
