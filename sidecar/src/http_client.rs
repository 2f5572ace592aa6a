//! `--prometheus.http-client`, which prometheus-operator always sets.
//!
//! The sidecar asks Prometheus over plain HTTP on the same host. TLS and connection settings have no effect
//! on that. Settings that would change the identity or the route of the request are rejected.

use std::path::PathBuf;

use runtime::yaml::{YamlNode, YamlValue};

/// Settings without effect on plain HTTP on the same host.
const WITHOUT_EFFECT: [&str; 2] = ["tls_config", "transport_config"];

/// The flags.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HttpClientArgs {
    /// Set HTTP options for requests to Prometheus as YAML, in the form of Thanos; Prometheus is asked over
    /// plain HTTP, so tls_config and transport_config have no effect, and other settings are rejected
    #[arg(long = "prometheus.http-client", value_name = "YAML")]
    http_client: Option<String>,

    /// Read the YAML of --prometheus.http-client from this file
    #[arg(long = "prometheus.http-client-file", value_name = "FILE")]
    http_client_file: Option<PathBuf>,
}

impl HttpClientArgs {
    /// The names of the settings that have no effect.
    ///
    /// # Errors
    /// Names a setting that is not supported.
    pub(crate) fn check(&self) -> Result<Vec<String>, String> {
        let flag = "prometheus.http-client";
        let text = runtime::load_config(flag, self.http_client.as_deref(), self.http_client_file.as_deref());
        let text = text.map_err(|mistake| mistake.to_string())?.unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let node = YamlNode::parse(&text).map_err(|mistake| format!("--{flag}: {mistake}"))?;
        let YamlValue::Map(settings) = node.value else {
            return Err(format!("--{flag}: found {}, expected a map of settings", node.kind()));
        };
        match settings.iter().find(|(key, _)| !WITHOUT_EFFECT.contains(&key.name())) {
            None => Ok(settings.iter().map(|(key, _)| key.name().to_owned()).collect()),
            Some((key, _)) => Err(format!(
                "--{flag}: {} is not supported; remove it, Prometheus is asked over plain HTTP without credentials or a proxy",
                key.name()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_without_effect_are_accepted() {
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
            ("[1]", "expected a map of settings"),
            ("{", "--prometheus.http-client: "),
        ] {
            let error = check(refused).expect_err(refused);
            assert!(error.contains(named), "{error}");
        }
    }
}
