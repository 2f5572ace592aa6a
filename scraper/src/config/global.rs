//! `global`: what holds for all scrape configurations.

use std::time::Duration;

use model::Labels;
use runtime::yaml::{Mistakes, YamlFields, YamlNode, YamlValue};

use crate::config::environment::expand;
use crate::config::limits::ScrapeLimits;
use crate::config::protocol::{NameEscaping, NameValidation, ScrapeProtocol, read_protocols};
use crate::config::values::{duration_if_any, labels};

/// What holds for all scrape configurations that do not say it themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalConfig {
    /// The time between two scrapes of a target: 1 minute by default.
    pub scrape_interval: Duration,
    /// The most time that a scrape may take: 10 seconds by default.
    pub scrape_timeout: Duration,
    /// Attached to all series that leave the program.
    pub external_labels: Labels,
    /// Their names and lines in the file, for mistakes that are found later.
    pub external_label_lines: Vec<(String, u64)>,
    /// The formats that are asked for.
    pub(crate) protocols: Option<Vec<ScrapeProtocol>>,
    /// Whether native histograms are scraped.
    pub(crate) native_histograms: bool,
    /// Whether classic histograms are kept beside native ones.
    pub(crate) always_classic: bool,
    /// Which names are accepted.
    pub(crate) validation: NameValidation,
    /// How names are asked for.
    pub(crate) escaping: Option<NameEscaping>,
    /// Limits.
    pub(crate) limits: ScrapeLimits,
}

impl Default for GlobalConfig {
    fn default() -> Self {
        Self {
            scrape_interval: Duration::from_secs(60),
            scrape_timeout: Duration::from_secs(10),
            external_labels: Labels::empty(),
            external_label_lines: Vec::new(),
            protocols: None,
            native_histograms: false,
            always_classic: false,
            validation: NameValidation::default(),
            escaping: None,
            limits: ScrapeLimits::default(),
        }
    }
}

impl GlobalConfig {
    /// Reads the section. `warnings` gets what is accepted and may surprise.
    pub(crate) fn read(node: &YamlNode, mistakes: &Mistakes, warnings: &mut Vec<String>) -> Self {
        let mut fields = YamlFields::new("global", node, mistakes);
        let default = Self::default();
        let interval = fields.optional("scrape_interval", duration_if_any).flatten();
        let interval = interval.unwrap_or(default.scrape_interval);
        let timeout = fields.optional("scrape_timeout", duration_if_any).flatten();
        if timeout.is_some_and(|timeout| timeout > interval) {
            fields.wrong("scrape_timeout", "is longer than scrape_interval: make it shorter");
        }
        // Without rules, they have nothing to hold for.
        let _ = fields.optional("evaluation_interval", duration_if_any);
        let _ = fields.optional("rule_query_offset", duration_if_any);
        fields.refuse("query_log_file", "is not known here; use --request.logging-config");
        fields.refuse(
            "scrape_failure_log_file",
            "is not known here; failed scrapes are in the log with --log.level=debug",
        );
        let flag =
            |fields: &mut YamlFields<'_>, name| fields.optional(name, YamlNode::boolean).unwrap_or(false);
        if flag(&mut fields, "convert_classic_histograms_to_nhcb") {
            fields.wrong(
                "convert_classic_histograms_to_nhcb",
                "is not known here; take Prometheus with the sidecar",
            );
        }
        let config = Self {
            scrape_interval: interval,
            scrape_timeout: timeout.unwrap_or(default.scrape_timeout.min(interval)),
            external_label_lines: fields.node("external_labels").map(lines).unwrap_or_default(),
            external_labels: read_external_labels(&mut fields, mistakes, warnings),
            protocols: read_protocols(&mut fields, mistakes),
            native_histograms: flag(&mut fields, "scrape_native_histograms"),
            always_classic: flag(&mut fields, "always_scrape_classic_histograms"),
            validation: fields
                .optional("metric_name_validation_scheme", NameValidation::read)
                .flatten()
                .unwrap_or_default(),
            escaping: fields.optional("metric_name_escaping_scheme", NameEscaping::read).flatten(),
            limits: ScrapeLimits::read(&mut fields),
        };
        fields.finish();
        config
    }
}

/// The lines of the fields of a mapping.
fn lines(node: &YamlNode) -> Vec<(String, u64)> {
    let YamlValue::Map(entries) = &node.value else { return Vec::new() };
    entries.iter().filter_map(|(key, value)| Some((key.name().to_owned(), value.line?))).collect()
}

fn read_external_labels(
    fields: &mut YamlFields<'_>,
    mistakes: &Mistakes,
    warnings: &mut Vec<String>,
) -> Labels {
    let Some(node) = fields.node("external_labels") else { return Labels::empty() };
    let written = labels("global.external_labels", node, mistakes);
    let mut builder = written.to_builder();
    for label in &written {
        let value = expand(
            label.value,
            |name| std::env::var(name).ok(),
            |name| {
                warnings.push(format!(
                "global.external_labels.{}: the environment variable {name} is not set, its value is empty",
                label.name
            ));
            },
        );
        builder.set(label.name, &value);
    }
    builder.build()
}
