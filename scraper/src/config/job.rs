//! `scrape_configs`: which targets are scraped, and how.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use httpclient::HttpClientConfig;
use model::RelabelConfig;
use runtime::yaml::{Mistakes, YamlFields, YamlNode, YamlValue, read_relabel_rules};

use crate::config::discovery::{DiscoveryConfig, read_discoveries};
use crate::config::global::GlobalConfig;
use crate::config::limits::ScrapeLimits;
use crate::config::protocol::{NameEscaping, NameValidation, ScrapeProtocol, read_protocols};
use crate::config::values::{duration_if_any, limit, text};

/// A scrape configuration. All defaults are filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeConfig {
    /// Its name, and the default of the label `job`.
    pub job_name: String,
    /// The time between two scrapes of a target.
    pub scrape_interval: Duration,
    /// The most time that a scrape may take.
    pub scrape_timeout: Duration,
    /// The path of targets.
    pub metrics_path: String,
    /// `http` or `https`.
    pub scheme: String,
    /// Parameters of the URL.
    pub params: BTreeMap<String, Vec<String>>,
    /// Whether labels that a target exposes win over its own.
    pub honor_labels: bool,
    /// Whether timestamps that a target exposes are used.
    pub honor_timestamps: bool,
    /// Whether series with such timestamps become stale.
    pub track_timestamps_staleness: bool,
    /// The formats that are asked for, the preferred first.
    pub protocols: Vec<ScrapeProtocol>,
    /// The format of a target that does not name a known one.
    pub fallback_protocol: Option<ScrapeProtocol>,
    /// Whether native histograms are scraped.
    pub native_histograms: bool,
    /// Whether classic histograms are kept beside native ones.
    pub always_classic: bool,
    /// Whether targets may compress what they send.
    pub enable_compression: bool,
    /// Limits.
    pub limits: ScrapeLimits,
    /// Most buckets of a native histogram, which is reduced until it has no more; 0 is no limit.
    pub bucket_limit: u64,
    /// The least factor between the buckets of a native histogram; 0 is no limit.
    pub min_bucket_factor: f64,
    /// Which names are accepted.
    pub validation: NameValidation,
    /// How names are asked for.
    pub escaping: NameEscaping,
    /// The client.
    pub http: HttpClientConfig,
    /// Where targets come from.
    pub discoveries: Vec<DiscoveryConfig>,
    /// Relabelling of targets.
    pub relabel_configs: Vec<RelabelConfig>,
    /// Relabelling of samples.
    pub metric_relabel_configs: Vec<RelabelConfig>,
}

impl ScrapeConfig {
    /// Reads one item of `scrape_configs`; `None` without a name.
    pub(crate) fn read(
        path: String,
        node: &YamlNode,
        global: &GlobalConfig,
        folder: &Path,
        mistakes: &Mistakes,
    ) -> Option<Self> {
        let mut fields = YamlFields::new(path, node, mistakes);
        let job_name = fields.required("job_name", text);
        let (scrape_interval, scrape_timeout) = read_times(&mut fields, global);
        let (validation, escaping) = read_names(&mut fields, global);
        let flag = |fields: &mut YamlFields<'_>, name, default| {
            fields.optional(name, YamlNode::boolean).unwrap_or(default)
        };
        let native_histograms = flag(&mut fields, "scrape_native_histograms", global.native_histograms);
        let (bucket_limit, min_bucket_factor) = read_buckets(&mut fields);
        fields.refuse(
            "scrape_failure_log_file",
            "is not known here; failed scrapes are in the log with --log.level=debug",
        );
        let own_protocols = read_protocols(&mut fields, mistakes);
        let protocols = own_protocols.or_else(|| global.protocols.clone()).unwrap_or_else(|| {
            let default: &[ScrapeProtocol] =
                if native_histograms { &ScrapeProtocol::WITH_NATIVE } else { &ScrapeProtocol::DEFAULT };
            default.to_vec()
        });
        let legacy_names = validation == NameValidation::Legacy;
        let relabel_configs = read_relabel_rules(&mut fields, "relabel_configs", legacy_names, mistakes);
        let config = Self {
            job_name: job_name.clone().unwrap_or_default(),
            scrape_interval,
            scrape_timeout,
            metrics_path: fields.optional("metrics_path", text).unwrap_or_else(|| "/metrics".to_owned()),
            scheme: fields.optional("scheme", scheme).unwrap_or_else(|| "http".to_owned()),
            params: read_params(&mut fields, mistakes),
            honor_labels: flag(&mut fields, "honor_labels", false),
            honor_timestamps: flag(&mut fields, "honor_timestamps", true),
            track_timestamps_staleness: flag(&mut fields, "track_timestamps_staleness", false),
            protocols,
            fallback_protocol: fields.optional("fallback_scrape_protocol", ScrapeProtocol::read),
            native_histograms,
            always_classic: flag(&mut fields, "always_scrape_classic_histograms", global.always_classic),
            enable_compression: flag(&mut fields, "enable_compression", true),
            limits: ScrapeLimits::read(&mut fields).or(global.limits),
            bucket_limit,
            min_bucket_factor,
            validation,
            escaping,
            http: HttpClientConfig::read(&mut fields, folder, mistakes),
            discoveries: read_discoveries(&mut fields, folder, mistakes),
            metric_relabel_configs: read_relabel_rules(
                &mut fields,
                "metric_relabel_configs",
                legacy_names,
                mistakes,
            ),
            relabel_configs,
        };
        check_addresses(&fields, &config);
        fields.finish();
        job_name.map(|_| config)
    }
}

fn scheme(node: &YamlNode) -> Result<String, String> {
    match text(node)?.as_str() {
        scheme @ ("http" | "https") => Ok(scheme.to_owned()),
        other => Err(format!("{other:?} must be http or https")),
    }
}

fn read_times(fields: &mut YamlFields<'_>, global: &GlobalConfig) -> (Duration, Duration) {
    let interval = fields.optional("scrape_interval", duration_if_any).flatten();
    let interval = interval.unwrap_or(global.scrape_interval);
    let timeout = fields.optional("scrape_timeout", duration_if_any).flatten();
    if timeout.is_some_and(|timeout| timeout > interval) {
        fields.wrong("scrape_timeout", "is longer than scrape_interval: make it shorter");
    }
    (interval, timeout.unwrap_or(global.scrape_timeout.min(interval)))
}

fn read_names(fields: &mut YamlFields<'_>, global: &GlobalConfig) -> (NameValidation, NameEscaping) {
    let own = fields.optional("metric_name_validation_scheme", NameValidation::read).flatten();
    let validation = own.unwrap_or(global.validation);
    let of_global = global.escaping.unwrap_or(NameEscaping::with(global.validation));
    let default = if own.is_some() { NameEscaping::with(validation) } else { of_global };
    let escaping = fields.optional("metric_name_escaping_scheme", NameEscaping::read).flatten();
    let escaping = escaping.unwrap_or(default);
    if escaping == NameEscaping::AllowUtf8 && validation == NameValidation::Legacy {
        fields.wrong(
            "metric_name_escaping_scheme",
            "is allow-utf-8, but metric_name_validation_scheme is legacy: take underscores, dots or values",
        );
    }
    (validation, escaping)
}

fn read_buckets(fields: &mut YamlFields<'_>) -> (u64, f64) {
    if fields.optional("convert_classic_histograms_to_nhcb", YamlNode::boolean) == Some(true) {
        fields.wrong(
            "convert_classic_histograms_to_nhcb",
            "is not known here; take Prometheus with the sidecar",
        );
    }
    let factor = fields.optional("native_histogram_min_bucket_factor", |node| {
        let text = node.scalar()?;
        text.parse::<f64>().map_err(|_| format!("{text:?} is not a number"))
    });
    (fields.optional("native_histogram_bucket_limit", limit).unwrap_or(0), factor.unwrap_or(0.0))
}

fn read_params(fields: &mut YamlFields<'_>, mistakes: &Mistakes) -> BTreeMap<String, Vec<String>> {
    let path = fields.path_of("params");
    let Some(node) = fields.node("params") else { return BTreeMap::new() };
    let YamlValue::Map(entries) = &node.value else {
        mistakes.add(node.line, path, format!("expected a mapping of lists, found {}", node.kind()));
        return BTreeMap::new();
    };
    let mut params = BTreeMap::new();
    for (key, node) in entries {
        let path = format!("{path}.{}", key.name());
        let read: Result<Vec<String>, String> = match &node.value {
            YamlValue::List(items) => items.iter().map(YamlNode::scalar).collect(),
            YamlValue::Null => Ok(Vec::new()),
            _ => Err(format!("expected a list of values, found {}", node.kind())),
        };
        match read {
            Ok(values) => drop(params.insert(key.name().to_owned(), values)),
            Err(why) => mistakes.add(node.line, path, why),
        }
    }
    params
}

/// URLs as targets are a common mistake. Relabelling could make addresses of them.
fn check_addresses(fields: &YamlFields<'_>, config: &ScrapeConfig) {
    if !config.relabel_configs.is_empty() {
        return;
    }
    let groups = config.discoveries.iter().filter_map(|discovery| match discovery {
        DiscoveryConfig::Static(groups) => Some(groups),
        _ => None,
    });
    for target in groups.flatten().flat_map(|group| &group.targets) {
        let address = target.value("__address__");
        if address.contains('/') {
            fields.wrong(
                "static_configs",
                format!("target {address:?} is not of the form HOST:PORT; scheme and path have fields of their own"),
            );
        }
    }
}
