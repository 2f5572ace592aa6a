//! The flags by which store and compactor select blocks.

use std::path::PathBuf;

use model::Relabeling;
use runtime::{ConfigMistakes, TimeArg};

use crate::fetch::parse_selector;

/// Times, relabel rules, and how metas are read. Flatten it into a role's arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct BlockSelectionArgs {
    /// Requests for meta.json files that are sent at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub block_meta_fetch_concurrency: usize,

    /// Use only blocks with data at or after this time, and serve no older samples: RFC 3339, or a duration relative to now such
    /// as -2w
    #[arg(long, value_name = "TIME", default_value = "0000-01-01T00:00:00Z", allow_hyphen_values = true)]
    pub min_time: TimeArg,

    /// Use only blocks with data at or before this time, and serve no later samples: RFC 3339, or a duration relative to now such
    /// as -2h
    #[arg(long, value_name = "TIME", default_value = "9999-12-31T23:59:59Z", allow_hyphen_values = true)]
    pub max_time: TimeArg,

    /// Use only blocks that these relabel rules keep by their external labels and __block_id; actions keep, drop, hashmod
    #[arg(long = "selector.relabel-config", value_name = "YAML")]
    pub selector: Option<String>,

    /// File with the YAML of --selector.relabel-config; give only one of the two flags
    #[arg(long = "selector.relabel-config-file", value_name = "FILE")]
    pub selector_file: Option<PathBuf>,
}

impl BlockSelectionArgs {
    /// Checks the flags, and returns the relabel rules; `None` if they have mistakes, which are noted with all others.
    pub fn check(&self, mistakes: &mut ConfigMistakes) -> Option<Relabeling> {
        if self.block_meta_fetch_concurrency == 0 {
            mistakes.push("--block-meta-fetch-concurrency must be greater than 0".to_owned());
        }
        if let (TimeArg::Absolute(min), TimeArg::Absolute(max)) = (self.min_time, self.max_time)
            && min > max
        {
            mistakes.push(format!("--min-time={} is after --max-time={}", self.min_time, self.max_time));
        }
        let (flag, file) = ("selector.relabel-config", self.selector_file.as_deref());
        let text = runtime::load_config(flag, self.selector.as_deref(), file);
        let text = mistakes.note(text.map_err(|error| error.to_string()))?;
        let selector = parse_selector(text.as_deref().unwrap_or(""));
        mistakes.note(selector.map_err(|error| format!("{}: {error}", runtime::config_origin(flag, file))))
    }
}
