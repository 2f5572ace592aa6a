//! Flags that choose blocks by their times and labels.

use std::path::PathBuf;

use ::bucket::{FetchOptions, parse_selector};
use model::Relabeling;
use runtime::TimeArg;

use crate::bucket::view;
use crate::error::{Result, ToolError};

/// Times and labels of blocks.
#[derive(Debug, clap::Args)]
pub(super) struct SelectFlags {
    /// Only blocks that end at or after this time: RFC 3339, or relative to now, such as -2w
    #[arg(long, value_name = "TIME", default_value = "0000-01-01T00:00:00Z", allow_hyphen_values = true)]
    min_time: TimeArg,

    /// Only blocks that begin at or before this time
    #[arg(long, value_name = "TIME", default_value = "9999-12-31T23:59:59Z", allow_hyphen_values = true)]
    max_time: TimeArg,

    #[command(flatten)]
    relabel: RelabelFlags,
}

/// Relabel rules that keep or drop blocks.
#[derive(Debug, clap::Args)]
pub(super) struct RelabelFlags {
    /// Only blocks that these relabel rules keep, as YAML; the rules see the external labels and __block_id
    #[arg(long = "selector.relabel-config", value_name = "YAML", allow_hyphen_values = true)]
    config: Option<String>,

    /// File with the YAML of --selector.relabel-config
    #[arg(long = "selector.relabel-config-file", value_name = "FILE")]
    config_file: Option<PathBuf>,
}

impl SelectFlags {
    /// The options of a fetch with these flags.
    ///
    /// # Errors
    /// Rules that cannot be parsed.
    pub(super) fn options(&self, exclude_marked: bool) -> Result<FetchOptions> {
        let mut options = view::all(exclude_marked);
        options.filters.time = Some((self.min_time, self.max_time));
        options.filters.selector = self.relabel.load()?;
        Ok(options)
    }
}

impl RelabelFlags {
    /// The rules; empty if the flags are not given.
    ///
    /// # Errors
    /// Rules that cannot be parsed.
    pub(super) fn load(&self) -> Result<Relabeling> {
        let flag = "selector.relabel-config";
        let file = self.config_file.as_deref();
        let text = runtime::load_config(flag, self.config.as_deref(), file)
            .map_err(|error| ToolError::usage(error.to_string()))?;
        let rules = text.map(|text| parse_selector(&text)).transpose();
        let origin = runtime::config_origin(flag, file);
        Ok(rules.map_err(|error| ToolError::usage(format!("{origin}: {error}")))?.unwrap_or_default())
    }
}
