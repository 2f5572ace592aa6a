//! The formats that are asked for, and how names are written in them.

use runtime::yaml::{Mistakes, YamlFields, YamlNode};

use crate::config::values::text;

/// A format of expositions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeProtocol {
    /// Protobuf, the only one with native histograms.
    PrometheusProto,
    /// Prometheus' text format.
    PrometheusText004,
    /// The same with names in UTF-8.
    PrometheusText100,
    /// OpenMetrics before it was final.
    OpenMetricsText001,
    /// OpenMetrics.
    OpenMetricsText100,
}

const PROTOCOLS: [(&str, ScrapeProtocol, &str); 5] = [
    (
        "PrometheusProto",
        ScrapeProtocol::PrometheusProto,
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
    ),
    ("PrometheusText0.0.4", ScrapeProtocol::PrometheusText004, "text/plain;version=0.0.4"),
    ("PrometheusText1.0.0", ScrapeProtocol::PrometheusText100, "text/plain;version=1.0.0"),
    (
        "OpenMetricsText0.0.1",
        ScrapeProtocol::OpenMetricsText001,
        "application/openmetrics-text;version=0.0.1",
    ),
    (
        "OpenMetricsText1.0.0",
        ScrapeProtocol::OpenMetricsText100,
        "application/openmetrics-text;version=1.0.0",
    ),
];

impl ScrapeProtocol {
    /// What is asked for by default.
    pub(crate) const DEFAULT: [Self; 4] = [
        Self::OpenMetricsText100,
        Self::OpenMetricsText001,
        Self::PrometheusText100,
        Self::PrometheusText004,
    ];

    /// What is asked for with native histograms.
    pub(crate) const WITH_NATIVE: [Self; 5] = [
        Self::PrometheusProto,
        Self::OpenMetricsText100,
        Self::OpenMetricsText001,
        Self::PrometheusText100,
        Self::PrometheusText004,
    ];

    /// The media type with its parameters.
    pub fn media_type(self) -> &'static str {
        PROTOCOLS.iter().find(|(_, protocol, _)| *protocol == self).map_or("text/plain", |(.., media)| media)
    }

    pub(crate) fn read(node: &YamlNode) -> Result<Self, String> {
        let name = text(node)?;
        let known = PROTOCOLS.iter().find(|(known, ..)| *known == name);
        known.map(|(_, protocol, _)| *protocol).ok_or_else(|| {
            let names: Vec<&str> = PROTOCOLS.iter().map(|(name, ..)| *name).collect();
            format!("{name:?} is not known; expected one of {}", names.join(", "))
        })
    }
}

/// Reads `scrape_protocols`; `None` if it is not there.
pub(crate) fn read_protocols(
    fields: &mut YamlFields<'_>,
    mistakes: &Mistakes,
) -> Option<Vec<ScrapeProtocol>> {
    fields.node("scrape_protocols")?;
    let read = fields.list("scrape_protocols", |path, item| {
        ScrapeProtocol::read(item).map_err(|why| mistakes.add(item.line, path, why)).ok()
    });
    let is_doubled = |(at, protocol): (usize, &ScrapeProtocol)| read[..at].contains(protocol);
    if read.is_empty() {
        fields.wrong("scrape_protocols", "must not be empty: remove it or list protocols");
    } else if read.iter().enumerate().any(is_doubled) {
        fields.wrong("scrape_protocols", "has a protocol twice: remove one");
    }
    Some(read)
}

/// Which names of metrics and labels are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameValidation {
    /// Any text in UTF-8.
    #[default]
    Utf8,
    /// Letters, digits, underscores, and colons in metrics.
    Legacy,
}

impl NameValidation {
    pub(crate) fn read(node: &YamlNode) -> Result<Option<Self>, String> {
        match node.scalar()?.as_str() {
            "" => Ok(None),
            "utf8" => Ok(Some(Self::Utf8)),
            "legacy" => Ok(Some(Self::Legacy)),
            other => Err(format!("{other:?} is not known; expected utf8 or legacy")),
        }
    }
}

/// How a target is asked to write names that older versions do not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NameEscaping {
    /// As they are.
    #[default]
    AllowUtf8,
    /// With underscores.
    Underscores,
    /// With dots as `_dot_`.
    Dots,
    /// With each character as its number.
    Values,
}

const ESCAPINGS: [(&str, NameEscaping); 4] = [
    ("allow-utf-8", NameEscaping::AllowUtf8),
    ("underscores", NameEscaping::Underscores),
    ("dots", NameEscaping::Dots),
    ("values", NameEscaping::Values),
];

impl NameEscaping {
    /// The name in configurations and in headers.
    pub fn as_str(self) -> &'static str {
        ESCAPINGS.iter().find(|(_, escaping)| *escaping == self).map_or("allow-utf-8", |(name, _)| name)
    }

    pub(crate) fn read(node: &YamlNode) -> Result<Option<Self>, String> {
        let name = node.scalar()?;
        if name.is_empty() {
            return Ok(None);
        }
        let known = ESCAPINGS.iter().find(|(known, _)| *known == name);
        known.map(|(_, escaping)| Some(*escaping)).ok_or_else(|| {
            format!("{name:?} is not known; expected allow-utf-8, underscores, dots or values")
        })
    }

    /// The default with a validation.
    pub(crate) fn with(validation: NameValidation) -> Self {
        match validation {
            NameValidation::Utf8 => Self::AllowUtf8,
            NameValidation::Legacy => Self::Underscores,
        }
    }
}
