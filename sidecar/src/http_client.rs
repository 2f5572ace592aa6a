//! `--prometheus.http-client`, which prometheus-operator always passes, as far as it can mean something here.
//!
//! Prometheus is asked over plain HTTP on the sidecar's own host. Settings of TLS and of connections have no effect on that;
//! those that would change who asks, or by which way, are refused rather than ignored.

use std::path::PathBuf;

use runtime::yaml::{Node, Value};

/// Settings that change nothing for plain HTTP on the same host.
const WITHOUT_EFFECT: [&str; 2] = ["tls_config", "transport_config"];

/// The pair of flags.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HttpClientArgs {
    /// HTTP settings towards Prometheus as YAML, in Thanos' form; Prometheus is asked over plain HTTP, so that
    /// tls_config and transport_config change nothing, and others are refused
    #[arg(long = "prometheus.http-client", value_name = "YAML")]
    http_client: Option<String>,

    /// File with the YAML of --prometheus.http-client
    #[arg(long = "prometheus.http-client-file", value_name = "FILE")]
    http_client_file: Option<PathBuf>,
}

impl HttpClientArgs {
    /// The settings that are given and have no effect, by name.
    ///
    /// # Errors
    /// Names a setting that would have to have one.
    pub(crate) fn check(&self) -> Result<Vec<String>, String> {
        let flag = "prometheus.http-client";
        let text = runtime::load_config(flag, self.http_client.as_deref(), self.http_client_file.as_deref());
        let text = text.map_err(|mistake| mistake.to_string())?.unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let node = Node::parse(&text).map_err(|mistake| format!("--{flag}: {mistake}"))?;
        let Value::Map(settings) = node.value else {
            return Err(format!("--{flag}: {} where settings are expected", node.kind()));
        };
        match settings.iter().find(|(key, _)| !WITHOUT_EFFECT.contains(&key.name())) {
            None => Ok(settings.iter().map(|(key, _)| key.name().to_owned()).collect()),
            Some((key, _)) => Err(format!(
                "--{flag}: {} is not supported; Prometheus is asked over plain HTTP, without a login or a proxy",
                key.name()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_nothing_is_taken() {
        let check = |text: &str| {
            HttpClientArgs { http_client: Some(text.to_owned()), http_client_file: None }.check()
        };
        for (fine, without_effect) in [
            ("", &[][..]),
            ("{}", &[]),
            (r#"{"tls_config": {"insecure_skip_verify":true}}"#, &["tls_config"]),
            ("transport_config: {}", &["transport_config"]),
        ] {
            assert_eq!(check(fine).expect(fine), without_effect, "{fine}");
        }
        for (refused, named) in [
            ("basic_auth: {username: a}", "basic_auth is not supported"),
            ("tls_config: {}\nproxy_url: http://x", "proxy_url"),
            ("[1]", "where settings are expected"),
            ("{", "--prometheus.http-client: "),
        ] {
            let error = check(refused).expect_err(refused);
            assert!(error.contains(named), "{error}");
        }
    }
}
