//! `storage`: how samples are kept.

use std::time::Duration;

use runtime::yaml::{Mistakes, YamlFields, YamlNode};

use crate::config::values::{duration, duration_if_any, limit, size};

/// How samples are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageConfig {
    /// How late a sample may be, compared with the last one of its series: not at all by default.
    pub out_of_order_time_window: Duration,
    /// How long samples are kept, if the file says it.
    pub retention_time: Option<Duration>,
    /// How many bytes are kept, if the file says it.
    pub retention_bytes: Option<u64>,
    /// Most exemplars in memory: 100,000 by default.
    pub max_exemplars: u64,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            out_of_order_time_window: Duration::ZERO,
            retention_time: None,
            retention_bytes: None,
            max_exemplars: 100_000,
        }
    }
}

impl StorageConfig {
    pub(crate) fn read(node: &YamlNode, mistakes: &Mistakes) -> Self {
        let mut config = Self::default();
        let mut fields = YamlFields::new("storage", node, mistakes);
        if let Some(node) = fields.node("tsdb") {
            let mut fields = YamlFields::new("storage.tsdb", node, mistakes);
            config.out_of_order_time_window =
                fields.optional("out_of_order_time_window", duration).unwrap_or_default();
            if let Some(node) = fields.node("retention") {
                let mut fields = YamlFields::new("storage.tsdb.retention", node, mistakes);
                config.retention_time = fields.optional("time", duration_if_any).flatten();
                config.retention_bytes = fields.optional("size", size).filter(|size| *size > 0);
                fields.finish();
            }
            fields.finish();
        }
        if let Some(node) = fields.node("exemplars") {
            let mut fields = YamlFields::new("storage.exemplars", node, mistakes);
            if let Some(most) = fields.optional("max_exemplars", limit) {
                config.max_exemplars = most;
            }
            fields.finish();
        }
        fields.finish();
        config
    }
}
