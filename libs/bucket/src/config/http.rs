//! `http_config`: how the stores that speak HTTP are reached.

use std::path::PathBuf;
use std::time::Duration;

use object_store::{BackoffConfig, Certificate, ClientOptions, HeaderValue, RetryConfig};
use runtime::yaml::{YamlFields, YamlNode};

use crate::config::fields::{ConfigNotes, boolean, count, duration, text, text_or_empty};

/// Default number of retries of a request. Uploads and listings are retried as a whole as well, so this number is small
/// and an unreachable store is reported within seconds.
const DEFAULT_MAX_RETRIES: usize = 5;
/// A request is not retried later than this after its first attempt.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// The checked form of `http_config`, with Thanos' defaults.
pub(super) struct HttpConfig {
    idle_timeout: Duration,
    answer_timeout: Duration,
    connect_timeout: Duration,
    max_idle: usize,
    accept_any_certificate: bool,
    ca: Vec<Certificate>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(90),
            answer_timeout: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(10),
            max_idle: 100,
            accept_any_certificate: false,
            ca: Vec::new(),
        }
    }
}

/// Reads the field `http_config` of a type.
pub(super) fn read(outer: &mut YamlFields<'_>, path: &str, notes: &ConfigNotes<'_>) -> HttpConfig {
    let mut config = HttpConfig::default();
    let Some(node) = outer.node("http_config") else { return config };
    let mut fields = YamlFields::new(format!("{path}.http_config"), node, notes.mistakes);
    let nonzero = |length: Option<Duration>, default| length.filter(|l| !l.is_zero()).unwrap_or(default);
    config.idle_timeout = nonzero(duration(&mut fields, "idle_conn_timeout"), config.idle_timeout);
    config.answer_timeout = nonzero(duration(&mut fields, "response_header_timeout"), config.answer_timeout);
    // One limit covers the connection and the TLS handshake on it.
    config.connect_timeout = nonzero(duration(&mut fields, "tls_handshake_timeout"), config.connect_timeout);
    // The older of two fields for this setting.
    config.accept_any_certificate = boolean(&mut fields, "insecure_skip_verify").unwrap_or(false);
    let per_host = count(&mut fields, "max_idle_conns_per_host", 1_000_000);
    let all = count(&mut fields, "max_idle_conns", 1_000_000);
    // There is one host, so the lower of the two bounds applies; 0 means no bound, as in Go.
    let bounds = [per_host, all].into_iter().flatten().filter(|bound| *bound > 0);
    config.max_idle = bounds.min().unwrap_or(config.max_idle);
    for (name, why) in [
        ("max_conns_per_host", "the concurrency of uploads and downloads bounds the connections"),
        ("expect_continue_timeout", "requests do not wait for \"100 Continue\""),
        ("disable_compression", "compressed answers are never requested"),
    ] {
        let node = fields.node(name);
        notes.without_effect(&fields, node, name, why);
    }
    if let Some(node) = fields.node("tls_config") {
        read_tls(&mut config, &fields.path_of("tls_config"), node, notes);
    }
    fields.finish();
    config
}

fn read_tls(config: &mut HttpConfig, path: &str, node: &YamlNode, notes: &ConfigNotes<'_>) {
    let mut fields = YamlFields::new(path, node, notes.mistakes);
    let ca = fields.optional("ca_file", |node| {
        let text = text_or_empty(node)?;
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let file = PathBuf::from(text);
        let pem = std::fs::read(&file).map_err(|error| format!("read {}: {error}", file.display()))?;
        match Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(format!("{} has no certificate in PEM format", file.display())),
            Err(error) => {
                Err(format!("{} is not a list of certificates in PEM format: {error}", file.display()))
            }
        }
    });
    config.ca = ca.unwrap_or_default();
    config.accept_any_certificate |= boolean(&mut fields, "insecure_skip_verify").unwrap_or(false);
    for name in ["cert_file", "key_file", "server_name"] {
        if text(&mut fields, name).is_some() {
            fields.wrong(
                name,
                "is not supported: run a proxy that presents the certificate, and give the proxy as the endpoint",
            );
        }
    }
    fields.finish();
}

impl HttpConfig {
    /// The options of the HTTP client. There is no timeout for a whole request, because a part of an upload may take
    /// long. There is one for each wait for an answer or for the next piece of it.
    pub(super) fn client_options(&self, allow_http: bool) -> ClientOptions {
        let options = ClientOptions::new()
            .with_user_agent(HeaderValue::from_static(concat!("isthmus/", env!("CARGO_PKG_VERSION"))))
            .with_allow_http(allow_http)
            .with_timeout_disabled()
            .with_read_timeout(self.answer_timeout)
            .with_connect_timeout(self.connect_timeout)
            .with_pool_idle_timeout(self.idle_timeout)
            .with_pool_max_idle_per_host(self.max_idle)
            .with_allow_invalid_certificates(self.accept_any_certificate);
        self.ca
            .iter()
            .fold(options, |options, certificate| options.with_root_certificate(certificate.clone()))
    }
}

/// The retries of a failed request; 0 means the default number, as in Thanos.
pub(super) fn retry(max_retries: Option<usize>) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: max_retries.filter(|retries| *retries > 0).unwrap_or(DEFAULT_MAX_RETRIES),
        retry_timeout: RETRY_TIMEOUT,
    }
}
