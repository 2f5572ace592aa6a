//! Limits of scrapes.

use runtime::yaml::YamlFields;

use crate::config::values::{limit, size};

/// Limits of scrapes; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrapeLimits {
    /// Most bytes of an exposition, decompressed.
    pub body_bytes: u64,
    /// Most samples of a scrape, after relabelling.
    pub samples: u64,
    /// Most targets of a scrape configuration.
    pub targets: u64,
    /// Most labels of a series.
    pub labels: u64,
    /// Most bytes of the name of a label.
    pub label_name_bytes: u64,
    /// Most bytes of the value of a label.
    pub label_value_bytes: u64,
    /// Most targets that relabelling drops and that are still shown.
    pub kept_dropped_targets: u64,
}

impl ScrapeLimits {
    pub(crate) fn read(fields: &mut YamlFields<'_>) -> Self {
        let mut number = |name| fields.optional(name, limit).unwrap_or(0);
        let limits = Self {
            body_bytes: 0,
            samples: number("sample_limit"),
            targets: number("target_limit"),
            labels: number("label_limit"),
            label_name_bytes: number("label_name_length_limit"),
            label_value_bytes: number("label_value_length_limit"),
            kept_dropped_targets: number("keep_dropped_targets"),
        };
        Self { body_bytes: fields.optional("body_size_limit", size).unwrap_or(0), ..limits }
    }

    /// These limits, and those of `global` where there are none.
    pub(crate) fn or(self, global: Self) -> Self {
        let or = |own: u64, global: u64| if own == 0 { global } else { own };
        Self {
            body_bytes: or(self.body_bytes, global.body_bytes),
            samples: or(self.samples, global.samples),
            targets: or(self.targets, global.targets),
            labels: or(self.labels, global.labels),
            label_name_bytes: or(self.label_name_bytes, global.label_name_bytes),
            label_value_bytes: or(self.label_value_bytes, global.label_value_bytes),
            kept_dropped_targets: or(self.kept_dropped_targets, global.kept_dropped_targets),
        }
    }
}
