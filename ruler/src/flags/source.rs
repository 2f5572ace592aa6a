//! The flags that say who answers expressions.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use httpclient::{HttpEndpointsConfig, HttpFilesConfig};
use querier::{CheckedGlobalQueryArgs, GlobalQueryArgs};
use runtime::{ConfigMistakes, parse_duration};

use crate::flags::yaml_flag::{folder_of, loaded, noted};
use crate::source::{HttpMethod, HttpQueriersOptions, parse_queriers};

/// Who answers expressions.
pub(crate) enum SourceConfig {
    Http(Vec<HttpEndpointsConfig>, HttpQueriersOptions),
    Global(Box<CheckedGlobalQueryArgs>),
}

/// The flags for queriers, and those for stores over which rules are evaluated here.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SourceArgs {
    /// Ask this querier, or any server with the API of Prometheus: http://HOST:PORT/PREFIX; dns+http://HOST:PORT for
    /// each address of the name, and dnssrv+http://NAME for each host of the service; of several queriers, one is
    /// asked, and another one if it does not answer; repeatable
    #[arg(long = "query", value_name = "URL")]
    query_urls: Vec<String>,

    /// Queriers as YAML, in the form of Thanos, instead of --query; $(NAME) is replaced by the environment variable
    /// NAME
    #[arg(long = "query.config", value_name = "YAML")]
    query_config: Option<String>,

    /// File with the YAML of --query.config; give only one of the two flags
    #[arg(long = "query.config-file", value_name = "FILE")]
    query_config_file: Option<PathBuf>,

    /// Ask the queriers that this file lists, in the form of Prometheus' file discovery; the last part may contain *
    /// for any text; it is read again when it changes; repeatable
    #[arg(long = "query.sd-files", value_name = "PATH")]
    query_files: Vec<PathBuf>,

    /// Read these files at least this often
    #[arg(long = "query.sd-interval", value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(super) query_files_interval: Duration,

    /// Look the names of queriers up in DNS this often
    #[arg(long = "query.sd-dns-interval", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(super) query_dns_interval: Duration,

    /// Send queries with this HTTP method; long queries are sent with POST
    #[arg(long = "query.http-method", value_name = "METHOD", default_value = "POST", value_enum)]
    http_method: HttpMethod,

    /// Send only parameters that Prometheus knows, for servers that refuse others
    #[arg(long = "query.only-prometheus-params")]
    only_prometheus_params: bool,

    #[command(flatten)]
    global: GlobalQueryArgs,
}

impl SourceArgs {
    pub(super) fn check(&self, mistakes: &mut ConfigMistakes) -> Option<SourceConfig> {
        const NO_STORES: &str = "no source of data is given: give --query=URL or --query.config-file=FILE for queriers, or \
             --endpoint=HOST:PORT or --gateway=HOST:PORT for stores";
        let queriers = self.queriers(mistakes);
        if !self.global.is_empty() {
            if !queriers.is_empty() {
                mistakes.push(
                    "--query and --endpoint or --gateway are both given: rules are evaluated by queriers, or here over stores; give one",
                );
            }
            return mistakes.note(self.global.check()).map(|global| SourceConfig::Global(Box::new(global)));
        }
        if queriers.is_empty() {
            if mistakes.is_empty() {
                mistakes.push(NO_STORES);
            }
            return None;
        }
        let options = HttpQueriersOptions {
            method: self.http_method,
            is_plain: self.only_prometheus_params,
            dns_interval: self.query_dns_interval,
        };
        Some(SourceConfig::Http(queriers, options))
    }

    /// The queriers of `--query`, `--query.sd-files` and `--query.config`.
    pub(super) fn queriers(&self, mistakes: &mut ConfigMistakes) -> Vec<HttpEndpointsConfig> {
        let mut queriers = Vec::new();
        for url in self.query_urls.iter().collect::<BTreeSet<_>>() {
            let parsed = HttpEndpointsConfig::from_url(url, 80);
            queriers.extend(mistakes.note(parsed.map_err(|why| format!("--query={url}: {why}"))));
        }
        if !self.query_files.is_empty() {
            let files = HttpFilesConfig {
                patterns: self.query_files.clone(),
                refresh_interval: self.query_files_interval,
            };
            // Only its files matter.
            let base = HttpEndpointsConfig::from_url("http://localhost", 80);
            let base = mistakes.note(base.map_err(|why| format!("--query.sd-files: {why}")));
            queriers.extend(base.map(|base| HttpEndpointsConfig {
                addresses: Vec::new(),
                files: vec![files],
                ..base
            }));
        }
        let has_flags = !queriers.is_empty();
        queriers.extend(self.configured(mistakes, has_flags));
        queriers
    }

    fn configured(&self, mistakes: &mut ConfigMistakes, has_flags: bool) -> Vec<HttpEndpointsConfig> {
        let (flag, file) = ("query.config", self.query_config_file.as_deref());
        let Some(text) = loaded(flag, self.query_config.as_deref(), file, mistakes) else {
            return Vec::new();
        };
        let configured = parse_queriers(&text, folder_of(file));
        let configured = noted(configured, flag, file, mistakes).unwrap_or_default();
        if has_flags && !configured.is_empty() {
            mistakes.push("--query or --query.sd-files and --query.config are both given: give one of them");
        }
        configured
    }
}
