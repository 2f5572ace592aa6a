//! The flags of the cache, in Thanos' format.

use std::path::PathBuf;

use runtime::yaml::{Mistakes, YamlFields, YamlNode};
use runtime::{load_config, parse_bytes};

/// `--index-cache-size`, `--index-cache.config`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CacheArgs {
    /// Most bytes of the cache in memory of postings, series and chunks; three eighths of --store.max-memory if not set
    #[arg(long = "index-cache-size", value_name = "BYTES", value_parser = parse_bytes)]
    index_cache_size: Option<u64>,

    /// Configuration of the cache as YAML, in Thanos' format: type IN-MEMORY with config.max_size; replaces --index-cache-size
    #[arg(long = "index-cache.config", value_name = "YAML")]
    index_cache_config: Option<String>,

    /// File with the YAML of --index-cache.config; give only one of the two flags
    #[arg(long = "index-cache.config-file", value_name = "FILE")]
    index_cache_config_file: Option<PathBuf>,
}

/// The checked configuration of the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheSettings {
    /// Size of the cache in memory; `None` if it follows from the memory of the store.
    pub(crate) memory_bytes: Option<u64>,
}

impl CacheArgs {
    /// Validates the flags.
    ///
    /// # Errors
    /// The mistakes of the configuration, one line each.
    pub(crate) fn check(&self) -> Result<CacheSettings, String> {
        let (text, file) = (self.index_cache_config.as_deref(), self.index_cache_config_file.as_deref());
        let text = load_config("index-cache.config", text, file).map_err(|error| error.to_string())?;
        match text {
            Some(text) => parse(&text),
            None => Ok(CacheSettings { memory_bytes: self.index_cache_size }),
        }
    }
}

fn parse(text: &str) -> Result<CacheSettings, String> {
    let mistakes = Mistakes::default();
    let settings =
        YamlNode::parse(text).map_err(|mistake| format!("--index-cache.config: {mistake}")).map(|root| {
            let mut fields = YamlFields::new("", &root, &mistakes);
            let kind = fields.required("type", |node| match node.text()?.to_ascii_uppercase().as_str() {
                "IN-MEMORY" => Ok(()),
                _ => Err(format!("{:?} is unknown, expected IN-MEMORY", node.text()?)),
            });
            let mut memory_bytes = None;
            if let Some(config) = fields.node("config") {
                let mut config = YamlFields::new("config", config, &mistakes);
                memory_bytes = config.optional("max_size", |node| parse_bytes(&node.scalar()?));
                // The largest item follows from the format: a page, or a list of series.
                let _ = config.optional("max_item_size", |node| parse_bytes(&node.scalar()?));
                config.finish();
            }
            let _ = fields.node("enabled_items");
            let _ = fields.node("ttl");
            fields.finish();
            kind.map(|()| CacheSettings { memory_bytes })
        })?;
    let found = mistakes.into_sorted();
    let lines: Vec<String> = found.iter().map(|mistake| format!("--index-cache.config: {mistake}")).collect();
    settings.filter(|_| lines.is_empty()).ok_or_else(|| lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_of_thanos_gives_the_size() {
        let size = |text: &str| parse(text).map(|settings| settings.memory_bytes);
        assert_eq!(
            size("type: IN-MEMORY\nconfig: {max_size: 250MB, max_item_size: 125MB}"),
            Ok(Some(250_000_000))
        );
        assert_eq!(size("type: in-memory"), Ok(None));
        for (text, words) in [
            ("type: DISK", "type: \"DISK\" is unknown"),
            ("type: IN-MEMORY\nconfig: {max_size: lots}", "config.max_size"),
            ("type: IN-MEMORY\nconfig: {addr: x}", "config.addr: unknown field"),
            ("config: {}", "type: is missing"),
        ] {
            let error = size(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
