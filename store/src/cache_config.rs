//! The flags of the caches, in Thanos' format.
//!
//! Thanos has one cache for indexes (`--index-cache.config`) and one for chunks (`--store.caching-bucket.config`). Here one cache in
//! memory has the pages of both, and behind it, each of the two flags may name a shared cache: for the pages of indexes, and for
//! those of chunks.

use std::path::PathBuf;
use std::time::Duration;

use runtime::yaml::{Mistakes, YamlFields, YamlNode};
use runtime::{config_origin, load_config, parse_bytes};

use crate::shared_cache::{SharedConfig, duration};

/// How long pages stay on servers, if the configuration does not say it: as in Thanos.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// What `enabled_items` may have.
const ITEMS: [&str; 3] = ["Postings", "Series", "ExpandedPostings"];

/// `--index-cache-size`, `--index-cache.config`, `--store.caching-bucket.config`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CacheArgs {
    /// Most bytes of the cache in memory of postings, series and chunks; three eighths of --store.max-memory if not set
    #[arg(long = "index-cache-size", value_name = "BYTES", value_parser = parse_bytes)]
    index_cache_size: Option<u64>,

    /// Configuration of the cache of indexes as YAML, in Thanos' format: type IN-MEMORY with config.max_size, which replaces
    /// --index-cache-size, or a shared cache behind the one in memory with type REDIS or MEMCACHED
    #[arg(long = "index-cache.config", value_name = "YAML")]
    index_cache_config: Option<String>,

    /// File with the YAML of --index-cache.config; give only one of the two flags
    #[arg(long = "index-cache.config-file", value_name = "FILE")]
    index_cache_config_file: Option<PathBuf>,

    /// Configuration of the cache of chunks as YAML, in Thanos' format: a shared cache behind the one in memory with type REDIS or
    /// MEMCACHED; type IN-MEMORY has no effect
    #[arg(long = "store.caching-bucket.config", value_name = "YAML")]
    caching_bucket_config: Option<String>,

    /// File with the YAML of --store.caching-bucket.config; give only one of the two flags
    #[arg(long = "store.caching-bucket.config-file", value_name = "FILE")]
    caching_bucket_config_file: Option<PathBuf>,

    /// Most bytes of the cache of pages in --data-dir, behind the one in memory; for example 100GiB; no pages are kept on disk if not
    /// set
    #[arg(long = "store.page-cache-disk-limit", value_name = "BYTES", value_parser = parse_bytes)]
    disk_limit: Option<u64>,
}

/// The checked configuration of the caches.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CacheSettings {
    /// Size of the cache in memory; `None` if it follows from the memory of the store.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) shared: SharedSettings,
    /// Size of the cache on disk.
    pub(crate) disk_bytes: Option<u64>,
}

/// The shared caches.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SharedSettings {
    /// For pages of indexes.
    pub(crate) index: Option<SharedConfig>,
    /// For pages of chunks.
    pub(crate) chunks: Option<SharedConfig>,
}

impl SharedSettings {
    /// Number of shared caches.
    pub(crate) fn count(&self) -> u64 {
        u64::from(self.index.is_some()) + u64::from(self.chunks.is_some())
    }
}

impl CacheArgs {
    /// Validates the flags.
    ///
    /// # Errors
    /// The mistakes of the configuration, one line each.
    pub(crate) fn check(&self) -> Result<CacheSettings, String> {
        let load = |flag, text: &Option<String>, file: &Option<PathBuf>| {
            load_config(flag, text.as_deref(), file.as_deref()).map_err(|error| error.to_string())
        };
        let index = load("index-cache.config", &self.index_cache_config, &self.index_cache_config_file)?;
        let chunks = load(
            "store.caching-bucket.config",
            &self.caching_bucket_config,
            &self.caching_bucket_config_file,
        )?;
        let origin = |flag, file: &Option<PathBuf>| config_origin(flag, file.as_deref());
        let origin_of_index = origin("index-cache.config", &self.index_cache_config_file);
        let origin_of_chunks = origin("store.caching-bucket.config", &self.caching_bucket_config_file);
        let index = index.map(|text| parse(&origin_of_index, &text, index_fields)).transpose();
        let chunks = chunks.map(|text| parse(&origin_of_chunks, &text, chunk_fields)).transpose();
        let (index, chunks) = match (index, chunks) {
            (Ok(index), Ok(chunks)) => (index.unwrap_or_default(), chunks.unwrap_or_default()),
            (Err(one), Err(other)) => return Err([one, other].join("\n")),
            (Err(error), Ok(_)) | (Ok(_), Err(error)) => return Err(error),
        };
        Ok(CacheSettings {
            memory_bytes: index.memory_bytes.or(self.index_cache_size),
            shared: SharedSettings { index: index.shared, chunks: chunks.shared },
            disk_bytes: self.disk_limit,
        })
    }
}

/// What one configuration says.
#[derive(Debug, Default, PartialEq)]
struct Parsed {
    memory_bytes: Option<u64>,
    shared: Option<SharedConfig>,
}

#[derive(Clone, Copy)]
enum Kind {
    Memory,
    Redis,
    Memcached,
}

/// Reads a configuration. `more` reads the fields beside `type` and `config`, and returns how long pages stay on servers.
fn parse(
    origin: &str,
    text: &str,
    more: fn(&mut YamlFields<'_>, &Mistakes) -> Duration,
) -> Result<Parsed, String> {
    let mistakes = Mistakes::default();
    let root = YamlNode::parse(text).map_err(|mistake| format!("{origin}: {mistake}"))?;
    let mut fields = YamlFields::new("", &root, &mistakes);
    let kind = fields.required("type", |node| match node.text()?.to_ascii_uppercase().as_str() {
        "IN-MEMORY" => Ok(Kind::Memory),
        "REDIS" => Ok(Kind::Redis),
        "MEMCACHED" => Ok(Kind::Memcached),
        "GROUPCACHE" => Err("GROUPCACHE is not supported, expected IN-MEMORY, REDIS or MEMCACHED".to_owned()),
        _ => Err(format!("{:?} is unknown, expected IN-MEMORY, REDIS or MEMCACHED", node.text()?)),
    });
    let ttl = more(&mut fields, &mistakes);
    let nothing = YamlNode::nothing(root.line);
    let mut config = YamlFields::new("config", fields.node("config").unwrap_or(&nothing), &mistakes);
    let mut parsed = Parsed::default();
    match kind {
        Some(Kind::Memory) => {
            parsed.memory_bytes = config.optional("max_size", |node| parse_bytes(&node.scalar()?));
            // The largest item follows from the format: a page, or a list of series.
            let _ = config.optional("max_item_size", |node| parse_bytes(&node.scalar()?));
        }
        Some(Kind::Redis) => parsed.shared = SharedConfig::redis(&mut config, &mistakes),
        Some(Kind::Memcached) => parsed.shared = SharedConfig::memcached(&mut config, &mistakes),
        None => {}
    }
    if kind.is_some() {
        config.finish();
    }
    fields.finish();
    if let Some(shared) = &mut parsed.shared {
        shared.ttl = ttl;
    }
    let found = mistakes.into_sorted();
    let lines: Vec<String> = found.iter().map(|mistake| format!("{origin}: {mistake}")).collect();
    if lines.is_empty() { Ok(parsed) } else { Err(lines.join("\n")) }
}

fn index_fields(fields: &mut YamlFields<'_>, mistakes: &Mistakes) -> Duration {
    // Pages have items of all kinds.
    let _ = fields.list("enabled_items", |path, node| match node.text() {
        Ok(item) if ITEMS.contains(&item) => Some(()),
        Ok(item) => {
            mistakes.add(node.line, path, format!("{item:?} is unknown, expected {}", ITEMS.join(", ")));
            None
        }
        Err(text) => {
            mistakes.add(node.line, path, text);
            None
        }
    });
    duration(fields, "ttl", TTL)
}

fn chunk_fields(fields: &mut YamlFields<'_>, _: &Mistakes) -> Duration {
    // Pages have one size, and what is known of blocks is in the data folder and the catalog.
    for name in ["chunk_subrange_size", "max_chunks_get_range_requests"] {
        let _ = fields.optional(name, |node| node.integer(i64::MIN, i64::MAX));
    }
    let _ = fields.optional("metafile_max_size", |node| parse_bytes(&node.scalar()?));
    for name in [
        "chunk_object_attrs_ttl",
        "blocks_iter_ttl",
        "metafile_exists_ttl",
        "metafile_doesnt_exist_ttl",
        "metafile_content_ttl",
    ] {
        duration(fields, name, TTL);
    }
    duration(fields, "chunk_subrange_ttl", TTL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Result<Parsed, String> {
        parse("index-cache.config", text, index_fields)
    }

    fn chunks(text: &str) -> Result<Parsed, String> {
        parse("store.caching-bucket.config", text, chunk_fields)
    }

    #[test]
    fn the_configuration_of_thanos_gives_the_size() {
        let size = |text: &str| index(text).map(|parsed| (parsed.memory_bytes, parsed.shared));
        assert_eq!(
            size("type: IN-MEMORY\nconfig: {max_size: 250MB, max_item_size: 125MB}"),
            Ok((Some(250_000_000), None))
        );
        assert_eq!(size("type: in-memory"), Ok((None, None)));
    }

    #[test]
    fn every_field_of_thanos_is_known() {
        let redis = "
type: REDIS
config:
  addr: \"redis.svc:6379\"
  prefix: \"thanos-\"
  username: \"u\"
  password: \"p\"
  db: 3
  dial_timeout: 5s
  read_timeout: 3s
  write_timeout: 3s
  max_get_multi_concurrency: 100
  get_multi_batch_size: 100
  max_set_multi_concurrency: 100
  set_multi_batch_size: 100
  tls_enabled: false
  tls_config: {ca_file: \"\", cert_file: \"\", key_file: \"\", server_name: \"\", insecure_skip_verify: false, min_version: \"\"}
  cache_size: 0
  master_name: \"\"
  max_async_buffer_size: 10000
  max_async_concurrency: 20
  set_async_circuit_breaker_config: {enabled: false, half_open_max_requests: 10, open_duration: 5s, min_requests: 50, consecutive_failures: 5, failure_percent: 0.05}
enabled_items: [Postings]
ttl: 0s
";
        let parsed = index(redis).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parsed.shared.map(|shared| shared.ttl), Some(TTL));
        let memcached = "
type: memcached
config:
  addresses: [\"dnssrvnoa+_m._tcp.cache.svc\", \"localhost:11211\"]
  timeout: 0s
  max_idle_connections: 0
  max_async_concurrency: 20
  max_async_buffer_size: 0
  max_get_multi_concurrency: 0
  max_item_size: 1MiB
  max_get_multi_batch_size: 0
  dns_provider_update_interval: 10s
  auto_discovery: false
  set_async_circuit_breaker_config: {enabled: true, failure_percent: 0.5}
chunk_subrange_size: 16000
max_chunks_get_range_requests: 3
chunk_object_attrs_ttl: 24h
chunk_subrange_ttl: 6h
blocks_iter_ttl: 5m
metafile_exists_ttl: 2h
metafile_doesnt_exist_ttl: 15m
metafile_content_ttl: 24h
metafile_max_size: 1MiB
";
        let parsed = chunks(memcached).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(parsed.shared.map(|shared| shared.ttl), Some(Duration::from_secs(6 * 3600)));
    }

    #[test]
    fn the_examples_in_the_documentation_have_no_mistakes() {
        let page = include_str!("../../docs/store.md");
        let examples = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let examples: Vec<&str> = examples
            .filter(|text| text.contains("type: REDIS") || text.contains("type: MEMCACHED"))
            .collect();
        assert_eq!(examples.len(), 2);
        for example in examples {
            let text = runtime::expand_env(example, |_| Some("x".to_owned())).unwrap();
            for parsed in [index(&text), chunks(&text)] {
                assert!(parsed.as_ref().is_ok_and(|parsed| parsed.shared.is_some()), "{example}: {parsed:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_unknown_or_not_supported_is_named() {
        for (text, words) in [
            ("type: DISK", "type: \"DISK\" is unknown"),
            ("type: IN-MEMORY\nconfig: {max_size: lots}", "config.max_size"),
            ("type: IN-MEMORY\nconfig: {addr: x}", "config.addr: unknown field"),
            ("config: {}", "type: is missing"),
            ("type: REDIS", "config.addr: is missing"),
            ("type: REDIS\nconfig: {addr: localhost}", "config.addr"),
            ("type: REDIS\nconfig: {addr: 'a:1,b:1'}", "Redis cluster, which is not supported"),
            ("type: REDIS\nconfig: {addr: 'a:1', master_name: m}", "config.master_name: Redis Sentinel"),
            ("type: REDIS\nconfig: {addr: 'a:1', dial_timeout: soon}", "config.dial_timeout"),
            ("type: REDIS\nconfig: {addr: 'a:1', addresses: []}", "config.addresses: unknown field"),
            (
                "type: REDIS\nconfig: {addr: 'a:1', tls_config: {ca: x}}",
                "config.tls_config.ca: unknown field",
            ),
            ("type: REDIS\nconfig: {addr: 'a:1', tls_config: {cert_file: x}}", "give both"),
            ("type: REDIS\nconfig: {addr: 'a:1', username: u}", "config.username: has no password"),
            ("type: MEMCACHED\nconfig: {addresses: []}", "config.addresses: is missing"),
            ("type: MEMCACHED\nconfig: {addresses: [x]}", "config.addresses[0]"),
            ("type: MEMCACHED\nconfig: {addresses: ['a:1'], max_item_size: 1KiB}", "config.max_item_size"),
            ("type: MEMCACHED\nconfig: {addresses: ['a:1'], auto_discovery: true}", "config.auto_discovery"),
            (
                "type: MEMCACHED\nconfig: {addresses: ['a:1'], max_async_concurrency: 0}",
                "max_async_concurrency",
            ),
            (
                "type: MEMCACHED\nconfig: {addresses: ['a:1'], set_async_circuit_breaker_config: {enabled: true, failure_percent: 2}}",
                "failure_percent",
            ),
            (
                "type: REDIS\nconfig: {addr: 'a:1'}\nenabled_items: [Chunks]",
                "enabled_items[0]: \"Chunks\" is unknown",
            ),
            (
                "type: REDIS\nconfig: {addr: 'a:1'}\nchunk_subrange_ttl: 1h",
                "chunk_subrange_ttl: unknown field",
            ),
        ] {
            let error = index(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        let error = chunks("type: GROUPCACHE\nconfig: {self_url: x}").unwrap_err();
        assert!(error.contains("GROUPCACHE is not supported") && !error.contains("self_url"), "{error}");
    }
}
