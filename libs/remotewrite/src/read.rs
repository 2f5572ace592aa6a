//! How the settings are read from a file of Prometheus.

use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use httpclient::{HttpClientConfig, yaml_duration_if_any};
use runtime::yaml::{Mistakes, YamlFields, YamlNode, YamlValue, filled_text, read_relabel_rules};

use crate::config::{RemoteWriteConfig, RemoteWriteMessage, RemoteWriteQueue};

impl RemoteWriteConfig {
    /// Reads one item of `remote_write` in a file of Prometheus; `None` without a URL. Paths are relative to `folder`. With `legacy_names`,
    /// names that relabelling writes must be legal in Prometheus before 3.0.
    pub fn read(
        path: String,
        node: &YamlNode,
        legacy_names: bool,
        folder: &Path,
        mistakes: &Mistakes,
    ) -> Option<Self> {
        let mut fields = YamlFields::new(path, node, mistakes);
        for name in ["sigv4", "azuread", "google_iam"] {
            fields.refuse(name, "is not known here; take Prometheus with the sidecar");
        }
        let url = fields.required("url", |node| {
            let url = filled_text(node)?;
            match url.starts_with("http://") || url.starts_with("https://") {
                true => Ok(url),
                false => Err(format!("{url:?} is not of the form http://HOST:PORT/PATH")),
            }
        });
        let flag =
            |fields: &mut YamlFields<'_>, name| fields.optional(name, YamlNode::boolean).unwrap_or(false);
        if flag(&mut fields, "round_robin_dns") {
            fields.wrong("round_robin_dns", "is not known here; remove it");
        }
        let (metadata_interval, metadata_per_send) = read_metadata(&mut fields, mistakes);
        let config = Self {
            url: url.clone().unwrap_or_default(),
            name: fields.optional("name", filled_text),
            remote_timeout: fields
                .optional("remote_timeout", yaml_duration_if_any)
                .flatten()
                .unwrap_or(Duration::from_secs(30)),
            headers: read_headers(&mut fields, mistakes),
            write_relabel_configs: read_relabel_rules(
                &mut fields,
                "write_relabel_configs",
                legacy_names,
                mistakes,
            ),
            send_exemplars: flag(&mut fields, "send_exemplars"),
            send_native_histograms: flag(&mut fields, "send_native_histograms"),
            message: fields.optional("protobuf_message", message).unwrap_or_default(),
            http: HttpClientConfig::read(&mut fields, folder, mistakes),
            queue: read_queue(&mut fields, mistakes),
            metadata_interval,
            metadata_per_send,
        };
        fields.finish();
        url.map(|_| config)
    }
}

fn message(node: &YamlNode) -> Result<RemoteWriteMessage, String> {
    match filled_text(node)?.as_str() {
        "prometheus.WriteRequest" => Ok(RemoteWriteMessage::V1),
        "io.prometheus.write.v2.Request" => Ok(RemoteWriteMessage::V2),
        other => Err(format!(
            "{other:?} is not known; expected prometheus.WriteRequest or io.prometheus.write.v2.Request"
        )),
    }
}

/// A number of at least 1; 0 is as if it were not given.
fn count(fields: &mut YamlFields<'_>, name: &'static str, default: usize) -> usize {
    let given = fields.optional(name, |node| node.integer(0, 1 << 30));
    given.and_then(|given| usize::try_from(given).ok()).filter(|given| *given > 0).unwrap_or(default)
}

fn read_queue(fields: &mut YamlFields<'_>, mistakes: &Mistakes) -> RemoteWriteQueue {
    let default = RemoteWriteQueue::default();
    let path = fields.path_of("queue_config");
    let Some(node) = fields.node("queue_config") else { return default };
    let mut fields = YamlFields::new(path, node, mistakes);
    let duration = |fields: &mut YamlFields<'_>, name, default: Duration| {
        fields.optional(name, yaml_duration_if_any).flatten().unwrap_or(default)
    };
    let queue = RemoteWriteQueue {
        capacity: count(&mut fields, "capacity", default.capacity),
        max_shards: count(&mut fields, "max_shards", default.max_shards),
        min_shards: count(&mut fields, "min_shards", default.min_shards),
        max_samples_per_send: count(&mut fields, "max_samples_per_send", default.max_samples_per_send),
        batch_send_deadline: duration(&mut fields, "batch_send_deadline", default.batch_send_deadline),
        min_backoff: duration(&mut fields, "min_backoff", default.min_backoff),
        max_backoff: duration(&mut fields, "max_backoff", default.max_backoff),
        retry_on_http_429: fields.optional("retry_on_http_429", YamlNode::boolean).unwrap_or(false),
        sample_age_limit: fields.optional("sample_age_limit", yaml_duration_if_any).flatten(),
    };
    if queue.min_shards > queue.max_shards {
        fields.wrong("min_shards", "is greater than max_shards: make it smaller");
    }
    fields.finish();
    queue
}

fn read_metadata(fields: &mut YamlFields<'_>, mistakes: &Mistakes) -> (Option<Duration>, usize) {
    const INTERVAL: Duration = Duration::from_secs(60);
    let path = fields.path_of("metadata_config");
    let Some(node) = fields.node("metadata_config") else { return (Some(INTERVAL), 2_000) };
    let mut fields = YamlFields::new(path, node, mistakes);
    let is_sent = fields.optional("send", YamlNode::boolean).unwrap_or(true);
    let interval = fields.optional("send_interval", yaml_duration_if_any).flatten().unwrap_or(INTERVAL);
    let per_send = count(&mut fields, "max_samples_per_send", 2_000);
    fields.finish();
    (is_sent.then_some(interval), per_send)
}

/// Headers that the sender sets itself, or that have settings of their own.
const RESERVED: [&str; 8] = [
    "authorization",
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "x-prometheus-remote-write-version",
    "connection",
];

fn read_headers(fields: &mut YamlFields<'_>, mistakes: &Mistakes) -> Vec<(HeaderName, HeaderValue)> {
    let path = fields.path_of("headers");
    let Some(node) = fields.node("headers") else { return Vec::new() };
    let YamlValue::Map(entries) = &node.value else {
        mistakes.add(node.line, path, format!("expected a mapping of headers, found {}", node.kind()));
        return Vec::new();
    };
    let mut headers = Vec::new();
    for (key, node) in entries {
        let value = node.scalar().ok().and_then(|value| HeaderValue::try_from(value).ok());
        let why = match (key.name().parse::<HeaderName>(), value) {
            (Ok(name), _) if RESERVED.contains(&name.as_str()) => {
                "must not be set: the sender sets it itself"
            }
            (Ok(name), Some(value)) => {
                headers.push((name, value));
                continue;
            }
            (Err(_), _) => "is not the name of a header",
            (_, None) => "is not the value of a header",
        };
        mistakes.add(node.line, format!("{path}.{}", key.name()), why);
    }
    headers
}
