//! `--prometheus.http-client`: how Prometheus is asked, in the form of Thanos.

use std::path::{Path, PathBuf};
use std::time::Duration;

use promapi::{Authorization, ClientOptions, Credential, ProxyUrl};
use runtime::yaml::{Mistakes, YamlFields, YamlNode};
use runtime::{ClientTlsFields, ConfigMistakes, system_tls};
use tls::{ClientTls, ClientTlsOptions, TlsVersion};

/// The name of the flag, without dashes.
const FLAG: &str = "prometheus.http-client";

/// Settings of `transport_config` that have no effect.
const WITHOUT_EFFECT: [&str; 7] = [
    "max_idle_conns",
    "max_idle_conns_per_host",
    "max_conns_per_host",
    "response_header_timeout",
    "expect_continue_timeout",
    "tls_handshake_timeout",
    "disable_compression",
];

/// The flags.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HttpClientArgs {
    /// Set HTTP options for requests to Prometheus as YAML, in the form of Thanos: basic_auth, bearer_token,
    /// bearer_token_file, proxy_url, tls_config, transport_config; files are read again when they change
    #[arg(long = "prometheus.http-client", value_name = "YAML")]
    http_client: Option<String>,

    /// Read the YAML of --prometheus.http-client from this file
    #[arg(long = "prometheus.http-client-file", value_name = "FILE")]
    http_client_file: Option<PathBuf>,
}

/// The checked settings.
#[derive(Debug, Default)]
pub(crate) struct HttpClientConfig {
    /// The options of the client.
    pub(crate) options: ClientOptions,
    /// Settings that have no effect, for the log.
    pub(crate) without_effect: Vec<String>,
}

impl HttpClientArgs {
    /// Reads the settings and the files that they name. `url` is that of Prometheus.
    ///
    /// # Errors
    /// All mistakes, or a file that cannot be used.
    pub(crate) fn check(&self, url: &str) -> Result<HttpClientConfig, ConfigMistakes> {
        let file = self.http_client_file.as_deref();
        let text = runtime::load_config(FLAG, self.http_client.as_deref(), file);
        let text = text.map_err(|mistake| ConfigMistakes::from(mistake.to_string()))?.unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(HttpClientConfig::default());
        }
        let origin = runtime::config_origin(FLAG, file);
        let in_flag = |mistake: &dyn std::fmt::Display| format!("{origin}: {mistake}");
        let root = YamlNode::parse(&text).map_err(|mistake| ConfigMistakes::from(in_flag(&mistake)))?;
        let mistakes = Mistakes::default();
        let config = read(&root, url, &mistakes);
        let mistakes = mistakes.into_sorted();
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes.iter().map(|m| in_flag(m)).collect()) }
    }
}

fn read(root: &YamlNode, url: &str, mistakes: &Mistakes) -> HttpClientConfig {
    let mut config = HttpClientConfig::default();
    let mut fields = YamlFields::new("", root, mistakes);
    let basic = fields.node("basic_auth").and_then(|node| read_basic_auth(node, mistakes));
    let token =
        fields.optional("bearer_token", text_or_empty).flatten().map(|token| Credential::Text(token.into()));
    let token_file = fields.optional("bearer_token_file", credential_file).flatten();
    if token.is_some() && token_file.is_some() {
        fields.wrong("bearer_token", "and bearer_token_file are both given: give one of them");
    }
    let bearer = token.or(token_file).map(Authorization::Bearer);
    if basic.is_some() && bearer.is_some() {
        fields.wrong("basic_auth", "and a bearer token are both given: give one of them");
    }
    config.options.authorization = basic.or(bearer);
    config.options.proxy = fields
        .optional("proxy_url", |node| match text_or_empty(node)? {
            Some(text) => text.parse::<ProxyUrl>().map(Some),
            None => Ok(None),
        })
        .flatten();
    if let Some(node) = fields.node("tls_config") {
        let tls = read_tls(node, mistakes);
        let is_secure = url.starts_with("https:");
        let load = |options| ClientTls::load(&format!("--{FLAG}"), options);
        match tls.filter(|_| is_secure).map(load).transpose() {
            Ok(tls) => config.options.tls = tls,
            Err(mistake) => fields.wrong("tls_config", mistake),
        }
        if !is_secure {
            config
                .without_effect
                .push("tls_config, because --prometheus.url does not begin with https:".to_owned());
        }
    }
    if let Some(node) = fields.node("transport_config") {
        read_transport(node, mistakes, &mut config);
    }
    fields.finish();
    config
}

fn read_basic_auth(node: &YamlNode, mistakes: &Mistakes) -> Option<Authorization> {
    let mut fields = YamlFields::new("basic_auth", node, mistakes);
    let username = fields.optional("username", text_or_empty).flatten();
    let password =
        fields.optional("password", text_or_empty).flatten().map(|text| Credential::Text(text.into()));
    let password_file = fields.optional("password_file", credential_file).flatten();
    if password.is_some() && password_file.is_some() {
        fields.wrong("password", "and password_file are both given: give one of them");
    }
    fields.finish();
    let password = password.or(password_file);
    if username.is_none() && password.is_none() {
        return None;
    }
    let password = password.unwrap_or_else(|| Credential::Text("".into()));
    Some(Authorization::Basic { username: username.unwrap_or_default(), password })
}

fn read_tls(node: &YamlNode, mistakes: &Mistakes) -> Option<ClientTlsOptions> {
    let mut fields = YamlFields::new("tls_config", node, mistakes);
    let base = system_tls(TlsVersion::Tls12, vec![b"http/1.1"]);
    let options = ClientTlsFields::read(&mut fields).over(&base, Path::new(""));
    let options = options.map_err(|mistake| fields.wrong("cert_file", mistake)).ok();
    fields.finish();
    options
}

fn read_transport(node: &YamlNode, mistakes: &Mistakes, config: &mut HttpClientConfig) {
    let mut fields = YamlFields::new("transport_config", node, mistakes);
    let nanoseconds =
        |node: &YamlNode| node.integer(0, i64::MAX).map(|number| Duration::from_nanos(number.unsigned_abs()));
    if let Some(limit) = fields.optional("dialer_timeout", nanoseconds).filter(|limit| !limit.is_zero()) {
        config.options.connect_timeout = limit;
    }
    if let Some(limit) = fields.optional("idle_conn_timeout", nanoseconds).filter(|limit| !limit.is_zero()) {
        config.options.idle_timeout = limit;
    }
    for name in WITHOUT_EFFECT {
        if fields.node(name).is_some() {
            config.without_effect.push(format!("transport_config.{name}"));
        }
    }
    fields.finish();
}

fn text_or_empty(node: &YamlNode) -> Result<Option<String>, String> {
    match &node.value {
        runtime::yaml::YamlValue::Text(text) if text.is_empty() => Ok(None),
        _ => node.text().map(|text| Some(text.to_owned())),
    }
}

fn credential_file(node: &YamlNode) -> Result<Option<Credential>, String> {
    text_or_empty(node)?.map(|path| Credential::file(Path::new(&path))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<HttpClientConfig, ConfigMistakes> {
        let args = HttpClientArgs { http_client: Some(text.to_owned()), http_client_file: None };
        args.check("https://prometheus:9090")
    }

    #[test]
    fn settings_of_thanos_are_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let token = folder.path().join("token");
        std::fs::write(&token, "t0ken\n").expect("a file");
        for fine in ["", "{}", "basic_auth: {username: a, password: b}", "proxy_url: http://proxy:3128"] {
            assert!(check(fine).expect(fine).without_effect.is_empty(), "{fine}");
        }
        let config =
            check(r#"{"tls_config": {"insecure_skip_verify":true}}"#).expect("of prometheus-operator");
        assert!(config.options.tls.is_some() && config.without_effect.is_empty());
        let config = check(&format!("bearer_token_file: {}", token.display())).expect("a token file");
        assert!(matches!(config.options.authorization, Some(Authorization::Bearer(_))));
        let config =
            check("transport_config: {dialer_timeout: 1000000000, max_idle_conns: 100}").expect("transport");
        assert_eq!(config.options.connect_timeout, Duration::from_secs(1));
        assert_eq!(config.without_effect, ["transport_config.max_idle_conns"]);
        let plain = HttpClientArgs { http_client: Some("tls_config: {}".to_owned()), http_client_file: None };
        let config = plain.check("http://localhost:9090").expect("plain HTTP");
        assert!(config.without_effect[0].starts_with("tls_config, because"));
    }

    #[test]
    fn mistakes_name_the_setting_and_what_is_wrong() {
        for (wrong, named) in [
            ("basic_auth: {user: a}", "basic_auth.user: unknown field"),
            ("authorization: {}", "authorization: unknown field"),
            ("basic_auth: {username: a}\nbearer_token: x", "basic_auth: and a bearer token are both given"),
            ("bearer_token: x\nbearer_token_file: /no/such", "/no/such: cannot be read"),
            ("basic_auth: {username: a, password: 7}", "put it in quotes"),
            ("proxy_url: https://x", "proxy_url: is a proxy with TLS"),
            ("tls_config: {cert_file: x}", "tls_config.cert_file: only one of cert_file and key_file"),
            ("tls_config: {ca_file: /no/such}", "tls_config: /no/such: cannot be read"),
            ("[1]", "expected a mapping"),
            ("{", "--prometheus.http-client: "),
        ] {
            let mistakes = check(wrong).expect_err(wrong);
            assert!(mistakes.lines().iter().any(|line| line.contains(named)), "{wrong}: {mistakes:?}");
        }
    }
}
