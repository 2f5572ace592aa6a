//! The configuration of a shared cache, with the fields and defaults of Thanos.

use std::path::Path;
use std::time::Duration;

use runtime::yaml::{Mistakes, YamlFields, YamlNode};
use runtime::{ClientTlsFields, parse_bytes, parse_duration, system_tls};
use tls::{ClientTlsOptions, TlsVersion};

use crate::shared_cache::address::CacheAddress;
use crate::shared_cache::breaker::BreakerOptions;
use crate::shared_cache::redis::RedisLogin;

/// Values that are stored: a page with its header.
const ITEM_BYTES: u64 = (16 << 10) + crate::page_item::HEADER_BYTES as u64;
/// Most operations or connections that can be configured.
const MOST: i64 = 1 << 20;

/// The kind of the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SharedKind {
    Redis { login: RedisLogin, tls: Option<Box<ClientTlsOptions>> },
    Memcached,
}

impl SharedKind {
    /// The name in metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Redis { .. } => "redis",
            Self::Memcached => "memcached",
        }
    }
}

/// The checked configuration of a shared cache.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SharedConfig {
    pub(crate) kind: SharedKind,
    /// At least one.
    pub(super) addresses: Vec<CacheAddress>,
    /// Before each key.
    pub(super) prefix: String,
    pub(crate) ttl: Duration,
    /// Limits the opening of a connection ...
    pub(super) dial_timeout: Duration,
    /// ... a lookup, its connection included ...
    pub(super) read_timeout: Duration,
    /// ... and a write.
    pub(super) write_timeout: Duration,
    /// `None` for any number.
    pub(super) gets_at_once: Option<usize>,
    pub(super) keys_of_get: usize,
    pub(super) sets_at_once: usize,
    pub(super) items_of_set: usize,
    pub(super) queued_items: usize,
    pub(super) idle_connections: usize,
    /// How often addresses are looked up in DNS.
    pub(super) dns_interval: Duration,
    pub(super) breaker: BreakerOptions,
}

impl SharedConfig {
    /// Reads `config` of `type: REDIS`; `None` after a mistake.
    pub(crate) fn redis(fields: &mut YamlFields<'_>, mistakes: &Mistakes) -> Option<Self> {
        let address = fields.required("addr", |node| match node.text()? {
            text if text.contains(',') => {
                Err("several addresses are a Redis cluster, which is not supported: give one".to_owned())
            }
            text if text.contains('+') => Err(format!("{text:?} is not of the form HOST:PORT")),
            text => text.parse::<CacheAddress>(),
        });
        let prefix = text(fields, "prefix");
        let login = RedisLogin {
            username: text(fields, "username"),
            password: text(fields, "password"),
            db: fields.optional("db", |node| node.integer(0, i64::from(u32::MAX))).unwrap_or(0) as u32,
        };
        if login.password.is_empty() && !login.username.is_empty() {
            fields.wrong("username", "has no password");
        }
        let dial = duration(fields, "dial_timeout", Duration::from_secs(5));
        let read = duration(fields, "read_timeout", Duration::from_secs(3));
        let write = duration(fields, "write_timeout", Duration::from_secs(3));
        let gets_at_once = number(fields, "max_get_multi_concurrency").unwrap_or(100);
        let keys_of_get = number(fields, "get_multi_batch_size").unwrap_or(100);
        // Writes are limited by `max_async_concurrency`.
        let _ = number(fields, "max_set_multi_concurrency");
        let items_of_set = number(fields, "set_multi_batch_size").unwrap_or(100);
        let tls = redis_tls(fields, mistakes);
        // The cache in memory is in front of every shared cache.
        let _ = fields.optional("cache_size", bytes);
        let _ = fields.optional("master_name", |node| match node.text_if_any()? {
            None => Ok(()),
            Some(_) => {
                Err("Redis Sentinel is not supported: give the address of the server as addr".to_owned())
            }
        });
        let common = Common::read(fields, mistakes);
        Some(Self {
            kind: SharedKind::Redis { login, tls: tls.map(Box::new) },
            addresses: vec![address?],
            prefix,
            ttl: Duration::ZERO,
            dial_timeout: dial,
            read_timeout: read,
            write_timeout: write,
            gets_at_once: Some(gets_at_once).filter(|limit| *limit > 0),
            keys_of_get: if keys_of_get == 0 { usize::MAX } else { keys_of_get },
            sets_at_once: common.sets_at_once,
            items_of_set: items_of_set.max(1),
            queued_items: common.queued_items,
            idle_connections: 100,
            dns_interval: Duration::from_secs(3600),
            breaker: common.breaker,
        })
    }

    /// Reads `config` of `type: MEMCACHED`; `None` after a mistake.
    pub(crate) fn memcached(fields: &mut YamlFields<'_>, mistakes: &Mistakes) -> Option<Self> {
        let addresses = fields.parsed_list::<CacheAddress>("addresses");
        if addresses.is_empty() {
            fields.wrong(
                "addresses",
                "is missing: give at least one HOST:PORT, dns+HOST:PORT, dnssrv+NAME or dnssrvnoa+NAME",
            );
        }
        let timeout = duration(fields, "timeout", Duration::from_millis(500));
        let idle_connections = number(fields, "max_idle_connections").unwrap_or(100);
        let gets_at_once = number(fields, "max_get_multi_concurrency").unwrap_or(100);
        let keys_of_get = number(fields, "max_get_multi_batch_size").unwrap_or(0);
        let _ = fields.optional("max_item_size", |node| match bytes(node)? {
            size if size != 0 && size < ITEM_BYTES => Err(format!(
                "pages need {ITEM_BYTES} bytes, so nothing would be stored: give more, or 0 for no limit"
            )),
            size => Ok(size),
        });
        let dns_interval = duration(fields, "dns_provider_update_interval", Duration::from_secs(10));
        let _ = fields.optional("auto_discovery", |node| match node.boolean()? {
            false => Ok(()),
            true => {
                Err("is not supported: list the servers as addresses, or give a name with dns+ or dnssrv+"
                    .to_owned())
            }
        });
        let common = Common::read(fields, mistakes);
        if addresses.is_empty() {
            return None;
        }
        Some(Self {
            kind: SharedKind::Memcached,
            addresses,
            prefix: String::new(),
            ttl: Duration::ZERO,
            dial_timeout: timeout,
            read_timeout: timeout,
            write_timeout: timeout,
            gets_at_once: Some(gets_at_once).filter(|limit| *limit > 0),
            keys_of_get: if keys_of_get == 0 { usize::MAX } else { keys_of_get },
            sets_at_once: common.sets_at_once,
            items_of_set: 100,
            queued_items: common.queued_items,
            idle_connections,
            dns_interval,
            breaker: common.breaker,
        })
    }
}

/// The fields of both kinds.
struct Common {
    sets_at_once: usize,
    queued_items: usize,
    breaker: BreakerOptions,
}

impl Common {
    fn read(fields: &mut YamlFields<'_>, mistakes: &Mistakes) -> Self {
        let sets_at_once =
            fields.optional("max_async_concurrency", |node| node.integer(1, MOST)).unwrap_or(20) as usize;
        let queued_items = number(fields, "max_async_buffer_size").unwrap_or(10_000).max(1);
        let mut breaker = BreakerOptions::ALWAYS;
        inner(fields, "set_async_circuit_breaker_config", mistakes, |fields| breaker = read_breaker(fields));
        Self { sets_at_once, queued_items, breaker }
    }
}

fn read_breaker(fields: &mut YamlFields<'_>) -> BreakerOptions {
    let is_enabled = fields.optional("enabled", YamlNode::boolean).unwrap_or(false);
    let count = |fields: &mut YamlFields<'_>, name, least, default| {
        fields.optional(name, |node| node.integer(least, i64::from(u32::MAX))).unwrap_or(default) as u32
    };
    let least = i64::from(is_enabled);
    let configured = BreakerOptions {
        half_open: count(fields, "half_open_max_requests", 0, 10),
        open: duration_or(fields, "open_duration", Duration::from_secs(5), Duration::from_secs(60)),
        min_requests: count(fields, "min_requests", 0, 50),
        consecutive_failures: count(fields, "consecutive_failures", least, 5),
        failure_percent: fields.optional("failure_percent", |node| part(node, is_enabled)).unwrap_or(0.05),
    };
    if is_enabled { configured } else { BreakerOptions::ALWAYS }
}

fn part(node: &YamlNode, is_enabled: bool) -> Result<f64, String> {
    let text = node.scalar()?;
    match text.parse::<f64>() {
        Ok(part) if (0.0..=1.0).contains(&part) && (part > 0.0 || !is_enabled) => Ok(part),
        _ => Err(format!("{text:?} is not more than 0 and at most 1")),
    }
}

fn redis_tls(fields: &mut YamlFields<'_>, mistakes: &Mistakes) -> Option<ClientTlsOptions> {
    let is_enabled = fields.optional("tls_enabled", YamlNode::boolean).unwrap_or(false);
    let mut read = ClientTlsFields::default();
    inner(fields, "tls_config", mistakes, |fields| read = ClientTlsFields::read(fields));
    match read.over(&system_tls(TlsVersion::Tls12, Vec::new()), Path::new("")) {
        Ok(options) => is_enabled.then_some(options),
        Err(text) => {
            fields.wrong("tls_config", text);
            None
        }
    }
}

/// Reads the fields of a field, if it is there.
fn inner(
    fields: &mut YamlFields<'_>,
    name: &'static str,
    mistakes: &Mistakes,
    read: impl FnOnce(&mut YamlFields<'_>),
) {
    if let Some(node) = fields.node(name) {
        let mut fields = YamlFields::new(fields.path_of(name), node, mistakes);
        read(&mut fields);
        fields.finish();
    }
}

fn text(fields: &mut YamlFields<'_>, name: &'static str) -> String {
    fields.optional(name, |node| Ok(node.text_if_any()?.unwrap_or_default().to_owned())).unwrap_or_default()
}

fn number(fields: &mut YamlFields<'_>, name: &'static str) -> Option<usize> {
    fields.optional(name, |node| node.integer(0, MOST)).map(|number| number as usize)
}

/// A size that may be 0.
fn bytes(node: &YamlNode) -> Result<u64, String> {
    match node.scalar()?.as_str() {
        "0" => Ok(0),
        text => parse_bytes(text),
    }
}

/// A duration, where 0 means `default` too.
pub(crate) fn duration(fields: &mut YamlFields<'_>, name: &'static str, default: Duration) -> Duration {
    duration_or(fields, name, default, default)
}

fn duration_or(
    fields: &mut YamlFields<'_>,
    name: &'static str,
    default: Duration,
    of_zero: Duration,
) -> Duration {
    let parsed =
        fields.optional(name, |node| parse_duration(&node.scalar()?).map_err(|error| error.to_string()));
    match parsed {
        Some(duration) if duration.is_zero() => of_zero,
        Some(duration) => duration,
        None => default,
    }
}
