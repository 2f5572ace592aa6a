//! The pair of flags with which every role is told its bucket.

use std::path::PathBuf;

use crate::config::{BucketConfig, ConfigError};

/// `--objstore.config` and `--objstore.config-file`, to be flattened into a role's arguments.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ObjstoreArgs {
    /// Object storage as YAML, in Thanos' form; $(NAME) is replaced from the environment
    #[arg(long = "objstore.config", value_name = "YAML")]
    pub objstore_config: Option<String>,

    /// File with the YAML of --objstore.config
    #[arg(long = "objstore.config-file", value_name = "FILE")]
    pub objstore_config_file: Option<PathBuf>,
}

/// Why the flags name no bucket. Always a matter of exit code [`runtime::EXIT_USAGE`].
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// The text cannot be had: both flags, no such file, an environment variable that is not set.
    #[error(transparent)]
    Load(#[from] runtime::LoadConfigError),
    /// The text has mistakes.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Neither flag was given where a bucket is needed.
    #[error("no bucket is given: write --objstore.config-file=FILE or --objstore.config=YAML")]
    Missing,
}

impl From<ArgsError> for runtime::ConfigMistakes {
    fn from(error: ArgsError) -> Self {
        match error {
            ArgsError::Config(error) => {
                error.mistakes().iter().map(|mistake| format!("objstore configuration: {mistake}")).collect()
            }
            other => other.to_string().into(),
        }
    }
}

impl ObjstoreArgs {
    /// The configuration that the flags give; `None` where neither was given.
    ///
    /// # Errors
    /// See [`ArgsError`].
    pub fn load(&self) -> Result<Option<BucketConfig>, ArgsError> {
        let file = self.objstore_config_file.as_deref();
        let text = runtime::load_config("objstore.config", self.objstore_config.as_deref(), file)?;
        Ok(text.map(|text| BucketConfig::parse(&text)).transpose()?)
    }

    /// The configuration, for a role that cannot do without.
    ///
    /// # Errors
    /// See [`ArgsError`].
    pub fn required(&self) -> Result<BucketConfig, ArgsError> {
        self.load()?.ok_or(ArgsError::Missing)
    }
}
