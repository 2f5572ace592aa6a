//! `--tracing.config`, in the form of Thanos.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tls::{ClientTls, TlsVersion};

use crate::client_tls::{ClientTlsFields, system_tls};
use crate::config::{config_origin, load_config};
use crate::duration::parse_duration;
use crate::role_error::ConfigMistakes;
use crate::trace::sampler::Sampler;
use crate::yaml::{Mistake, Mistakes, YamlFields, YamlNode, YamlValue};

const FLAG: &str = "tracing.config";

/// The flags of tracing.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TracingArgs {
    /// Send spans of requests to a collector: YAML in Thanos' form with `type: OTLP`; $(NAME) is replaced by the
    /// environment variable NAME
    #[arg(long = "tracing.config", value_name = "YAML")]
    tracing_config: Option<String>,

    /// Read the YAML of --tracing.config from this file
    #[arg(long = "tracing.config-file", value_name = "FILE")]
    tracing_config_file: Option<PathBuf>,
}

/// The protocol below OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CollectorProtocol {
    Grpc,
    Http,
}

impl CollectorProtocol {
    /// The name of the protocol in TLS.
    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Grpc => b"h2",
            Self::Http => b"http/1.1",
        }
    }
}

/// Where spans are sent, and which.
#[derive(Clone, Debug)]
pub(crate) struct TracingConfig {
    pub(crate) protocol: CollectorProtocol,
    /// `host:port`.
    pub(crate) endpoint: String,
    /// The path of HTTP.
    pub(crate) path: String,
    pub(crate) service_name: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) headers: HeaderMap,
    /// How long one message may take.
    pub(crate) timeout: Duration,
    /// `None` without TLS.
    pub(crate) tls: Option<ClientTls>,
    pub(crate) sampler: Sampler,
    /// Settings without effect.
    pub(crate) without_effect: Vec<String>,
}

impl TracingArgs {
    /// Reads the configuration; `None` if there is none. `role` is the name of the service if the configuration has none.
    ///
    /// # Errors
    /// All mistakes, each with its line.
    pub(crate) fn load(&self, role: &str) -> Result<Option<TracingConfig>, ConfigMistakes> {
        let file = self.tracing_config_file.as_deref();
        let text = load_config(FLAG, self.tracing_config.as_deref(), file);
        let Some(text) = text.map_err(|mistake| mistake.to_string())?.filter(|text| !text.trim().is_empty())
        else {
            return Ok(None);
        };
        let origin = config_origin(FLAG, file);
        let said = |mistake: &Mistake| format!("{origin}: {mistake}");
        let node = YamlNode::parse(&text).map_err(|mistake| said(&mistake))?;
        let parsed = parse(&node, role);
        parsed.map(Some).map_err(|mistakes| mistakes.iter().map(said).collect())
    }
}

fn parse(node: &YamlNode, role: &str) -> Result<TracingConfig, Vec<Mistake>> {
    let mistakes = Mistakes::default();
    let mut top = YamlFields::new("", node, &mistakes);
    let kind = top.required("type", YamlNode::scalar).unwrap_or_default();
    if !kind.is_empty() && !kind.eq_ignore_ascii_case("otlp") {
        let text = format!(
            "{kind:?} is not supported, use OTLP, which Jaeger, Tempo and the OpenTelemetry Collector receive"
        );
        top.wrong("type", text);
    }
    let config =
        top.node("config").map(|node| collector(YamlFields::new("config", node, &mistakes), &mistakes, role));
    if config.is_none() {
        top.wrong("config", "is missing");
    }
    top.finish();
    let mistakes = mistakes.into_sorted();
    match config.flatten() {
        Some(config) if mistakes.is_empty() => Ok(config),
        _ => Err(mistakes),
    }
}

/// `config` of the type OTLP.
fn collector(mut fields: YamlFields<'_>, mistakes: &Mistakes, role: &str) -> Option<TracingConfig> {
    let mut text = |name| fields.optional(name, YamlNode::scalar).filter(|text| !text.is_empty());
    let protocol = match text("client_type").as_deref() {
        Some("grpc") => Some((CollectorProtocol::Grpc, "localhost:4317")),
        Some("http") => Some((CollectorProtocol::Http, "localhost:4318")),
        _ => None,
    };
    let (service_name, url_path) = (text("service_name"), text("url_path"));
    let (endpoint, timeout) = (text("endpoint"), text("timeout"));
    let sampler = (text("sampler_type").unwrap_or_default(), text("sampler_param").unwrap_or_default());
    let attributes = texts(&mut fields, "resource_attributes", mistakes);
    let headers = texts(&mut fields, "headers", mistakes);
    let is_plain = fields.optional("insecure", YamlNode::boolean).unwrap_or(false);
    let base = system_tls(TlsVersion::Tls12, protocol.map_or(Vec::new(), |(p, _)| vec![p.alpn()]));
    let section = fields.node("tls_config").map(|node| {
        let mut tls = YamlFields::new("config.tls_config", node, mistakes);
        let section = ClientTlsFields::read(&mut tls);
        tls.finish();
        section
    });
    let tls = section.unwrap_or_default().over(&base, Path::new(""));
    let unused = ["reconnection_period", "compression", "retry_config"];
    let unused = unused.into_iter().filter(|name| fields.node(name).is_some_and(has_value));
    let without_effect = unused.map(str::to_owned).collect();
    if protocol.is_none() {
        fields.wrong("client_type", "must be grpc or http");
    }
    let parsed = timeout.map(|text| parse_duration(&text));
    let timeout = match parsed {
        Some(Err(why)) => {
            fields.wrong("timeout", why.to_string());
            None
        }
        Some(Ok(length)) if !length.is_zero() => Some(length),
        Some(Ok(_)) | None => Some(Duration::from_secs(10)),
    };
    let sampler = Sampler::new(&sampler.0, &sampler.1);
    let sampler = sampler.map_err(|why| mistakes.add(None, "config", why)).ok();
    let headers = header_map(&headers).map_err(|why| fields.wrong("headers", why)).ok();
    let tls = match is_plain {
        true => None,
        false => {
            let loaded = tls.and_then(|tls| ClientTls::load("--tracing.config", tls));
            loaded.map_err(|why| fields.wrong("tls_config", why)).ok()
        }
    };
    fields.finish();
    let (protocol, default_endpoint) = protocol?;
    Some(TracingConfig {
        protocol,
        endpoint: endpoint.unwrap_or_else(|| default_endpoint.to_owned()),
        path: url_path.unwrap_or_else(|| "/v1/traces".to_owned()),
        service_name: service_name.unwrap_or_else(|| format!("isthmus-{role}")),
        attributes,
        headers: headers?,
        timeout: timeout?,
        tls,
        sampler: sampler?,
        without_effect,
    })
}

/// Whether a setting is more than the empty value that examples show.
fn has_value(node: &YamlNode) -> bool {
    !matches!(node.scalar().as_deref(), Ok("" | "0s" | "0"))
}

fn texts(fields: &mut YamlFields<'_>, name: &'static str, mistakes: &Mistakes) -> BTreeMap<String, String> {
    let path = fields.path_of(name);
    match fields.node(name).map(|node| (node, &node.value)) {
        Some((_, YamlValue::Map(entries))) => {
            let read = |(key, node): &(crate::yaml::YamlKey, YamlNode)| {
                let value = node.scalar().map_err(|why| mistakes.add(node.line, &path, why)).ok()?;
                Some((key.name().to_owned(), value))
            };
            entries.iter().filter_map(read).collect()
        }
        Some((node, _)) => {
            mistakes.add(
                node.line,
                path,
                format!("expected a mapping of names to text, found {}", node.kind()),
            );
            BTreeMap::new()
        }
        None => BTreeMap::new(),
    }
}

fn header_map(headers: &BTreeMap<String, String>) -> Result<HeaderMap, String> {
    let header = |(name, value): (&String, &String)| {
        let key = HeaderName::try_from(name).map_err(|_| format!("{name:?} is not the name of a header"))?;
        let mut value =
            HeaderValue::try_from(value).map_err(|_| format!("{name}: is not the value of a header"))?;
        value.set_sensitive(true);
        Ok((key, value))
    };
    headers.iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Option<TracingConfig>, ConfigMistakes> {
        TracingArgs { tracing_config: Some(text.to_owned()), tracing_config_file: None }.load("querier")
    }

    #[test]
    fn configuration_of_thanos_is_read() {
        assert!(load("").unwrap().is_none());
        let config = load(
            "type: OTLP\nconfig:\n  client_type: grpc\n  service_name: \"\"\n  resource_attributes: {env: prod, zone: 1}\n  \
             reconnection_period: 0s\n  compression: gzip\n  insecure: true\n  endpoint: otel:4317\n  url_path: \"\"\n  \
             timeout: 3s\n  retry_config:\n    retry_enabled: true\n  headers: {x-key: secret}\n  tls_config:\n    ca_file: \"\"\n  \
             sampler_type: traceidratiobased\n  sampler_param: 0.25\n",
        );
        let config = config.unwrap().unwrap();
        assert_eq!((config.protocol, config.endpoint.as_str()), (CollectorProtocol::Grpc, "otel:4317"));
        assert_eq!(
            (config.service_name.as_str(), config.timeout),
            ("isthmus-querier", Duration::from_secs(3))
        );
        assert_eq!(config.attributes["zone"], "1");
        assert_eq!(config.headers["x-key"], "secret");
        assert_eq!(config.sampler, Sampler::new("traceidratiobased", "0.25").unwrap());
        assert_eq!(config.without_effect, ["compression", "retry_config"]);
        let config = load("type: otlp\nconfig: {client_type: http, insecure: true}").unwrap().unwrap();
        assert_eq!((config.endpoint.as_str(), config.path.as_str()), ("localhost:4318", "/v1/traces"));
    }

    #[test]
    fn mistakes_are_reported_with_their_lines() {
        let said = |text: &str| load(text).unwrap_err().to_string();
        let jaeger = said("type: JAEGER\nconfig: {}\n");
        assert!(jaeger.contains("line 1: type: \"JAEGER\" is not supported, use OTLP"), "{jaeger}");
        let text = "type: OTLP\nconfig:\n  client_type: udp\n  insecure: true\n  sampler_type: often\n  endpont: x\n  headers: {\"a b\": c}\n  timeout: soon\n";
        let all = said(text);
        for part in [
            "line 3: config.client_type: must be grpc or http",
            "sampler_type: \"often\" is unknown",
            "line 6: config.endpont: unknown field",
            "line 7: config.headers: \"a b\" is not the name of a header",
            "line 8: config.timeout: ",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        assert!(said("type: OTLP").contains("config: is missing"));
    }
}
