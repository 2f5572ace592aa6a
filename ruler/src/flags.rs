//! The flags of `isthmus rule`, with the names of Thanos, and their validation.

mod features;
mod storage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use alertmanager::{AlertmanagerArgs, NotifierConfig};
use httpclient::{HttpEndpointsConfig, HttpFilesConfig};
use model::Labels;
use querier::{
    CheckedGlobalQueryArgs, CheckedLocalQueryArgs, Feature, GlobalQueryArgs, LocalQueryArgs, WebPaths,
};
use remotewrite::RemoteWriteConfig;
use rules::{GroupOptions, RestoreOptions, RuleFileOptions};
use runtime::{
    CommonArgs, ConfigMistakes, UnneededArgs, config_origin, format_duration, load_config, parse_duration,
};
use storeapi::RequestLimits;

use crate::alert_labels::{AlertLabels, parse_relabeling};
use crate::alert_link::{AlertLink, DEFAULT_TEMPLATE};
use crate::external_labels::{external_labels, parse_label};
use crate::remote_write::parse_remote_write;
use crate::rule_files::{RuleFiles, read_rule_files};
use crate::source::{HttpMethod, HttpQueriersOptions, parse_queriers};
use crate::unneeded::UnneededByRuler;
use crate::web::WebArgs;
use features::known_features;
pub(crate) use storage::CheckedStorage;
use storage::StorageArgs;

/// Flags of `isthmus rule`.
#[derive(Clone, Debug, clap::Args)]
pub struct RuleArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// Evaluate the rules of this file; a pattern may have * in any part; of a folder, the files *.yaml and *.yml are
    /// read; SIGHUP and POST /-/reload read the files again; repeatable
    #[arg(long = "rule-file", value_name = "PATH", default_value = "rules/")]
    rule_files: Vec<String>,

    /// Attach this external label, NAME="VALUE", to series and alerts; replicas have different values of one label;
    /// repeatable
    #[arg(long = "label", value_name = "LABEL", value_parser = parse_label)]
    labels: Vec<(String, String)>,

    /// Evaluate groups without an interval this often
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    eval_interval: Duration,

    /// Evaluate groups without a query_offset this long before the present, so that late samples have arrived
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    rule_query_offset: Duration,

    /// Evaluate up to this many rules beside others of their groups, where they do not depend on each other; at 1,
    /// the rules of a group are evaluated one after the other
    #[arg(long, value_name = "N", default_value_t = 1)]
    rule_concurrent_evaluation: usize,

    /// Send an alert that fires again after this time
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    resend_delay: Duration,

    /// Restore alerts that were stored at most this long ago
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
    for_outage_tolerance: Duration,

    /// Let a restored alert that was pending be pending for at least this long before it fires; of rules with a
    /// shorter for, only alerts that fired are restored
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    for_grace_period: Duration,

    /// Ignore this label of stored alerts when they are restored, besides external labels; repeatable
    #[arg(long = "restore-ignored-label", value_name = "LABEL")]
    restore_ignored_labels: Vec<String>,

    /// Ask this querier, or any server with the API of Prometheus: http://HOST:PORT/PREFIX; dns+http://HOST:PORT for
    /// each address of the name, and dnssrv+http://NAME for each host of the service; of several queriers, one is
    /// asked, and another one if it does not answer; repeatable
    #[arg(long = "query", value_name = "URL")]
    queriers: Vec<String>,

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
    query_files_interval: Duration,

    /// Look the names of queriers up in DNS this often
    #[arg(long = "query.sd-dns-interval", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    query_dns_interval: Duration,

    /// Send queries with this HTTP method; long queries are sent with POST
    #[arg(long = "query.http-method", value_name = "METHOD", default_value = "POST", value_enum)]
    http_method: HttpMethod,

    /// Send only parameters that Prometheus knows, for servers that refuse others
    #[arg(long = "query.only-prometheus-params")]
    only_prometheus_params: bool,

    #[command(flatten)]
    global: GlobalQueryArgs,

    #[command(flatten)]
    queries: LocalQueryArgs,

    /// Enable a language feature that is not stable yet, such as promql-experimental-functions; repeatable
    #[arg(long = "enable-feature", value_name = "FEATURE", value_delimiter = ',')]
    features: Vec<String>,

    /// Enable the functions xrate, xincrease and xdelta; the same as --enable-feature=promql-x-functions
    #[arg(long = "query.enable-x-functions")]
    enable_x_functions: bool,

    #[command(flatten)]
    alertmanagers: AlertmanagerArgs,

    /// Link alerts to --alert.query-url and this text, in which {{.Expr}} is the expression
    #[arg(long = "alert.query-template", value_name = "TEXT", default_value = DEFAULT_TEMPLATE)]
    query_template: String,

    /// Remove this label from alerts before they are sent, such as the label of replicas; repeatable
    #[arg(long = "alert.label-drop", value_name = "LABEL")]
    label_drop: Vec<String>,

    /// Relabel alerts before they are sent: a YAML list in the form of Prometheus' alert_relabel_configs; $(NAME) is
    /// replaced by the environment variable NAME
    #[arg(long = "alert.relabel-config", value_name = "YAML")]
    relabel_config: Option<String>,

    /// File with the YAML of --alert.relabel-config; give only one of the two flags
    #[arg(long = "alert.relabel-config-file", value_name = "FILE")]
    relabel_config_file: Option<PathBuf>,

    /// Send samples to other databases and announce none: remote_write as YAML in the form of Prometheus; $(NAME) is
    /// replaced by the environment variable NAME
    #[arg(long = "remote-write.config", value_name = "YAML")]
    remote_write: Option<String>,

    /// File with the YAML of --remote-write.config; give only one of the two flags
    #[arg(long = "remote-write.config-file", value_name = "FILE")]
    remote_write_file: Option<PathBuf>,

    #[command(flatten)]
    storage: StorageArgs,

    #[command(flatten)]
    pub(crate) web: WebArgs,

    #[command(flatten)]
    pub(crate) unneeded: UnneededArgs<UnneededByRuler>,
}

/// Who answers expressions.
pub(crate) enum SourceConfig {
    Http(Vec<HttpEndpointsConfig>, HttpQueriersOptions),
    Global(Box<CheckedGlobalQueryArgs>),
}

/// The checked configuration of the role.
pub struct RoleConfig {
    pub(crate) patterns: Vec<String>,
    pub(crate) file_options: RuleFileOptions,
    /// What the files said at the start.
    pub(crate) files: RuleFiles,
    pub(crate) external: Labels,
    pub(crate) groups: GroupOptions,
    pub(crate) concurrency: usize,
    pub(crate) source: SourceConfig,
    pub(crate) queries: CheckedLocalQueryArgs,
    pub(crate) query_limit: Duration,
    pub(crate) notifier: NotifierConfig,
    pub(crate) alert_labels: AlertLabels,
    pub(crate) alert_link: AlertLink,
    pub(crate) external_url: String,
    /// Empty if samples are kept and announced.
    pub(crate) remote_write: Vec<RemoteWriteConfig>,
    pub(crate) storage: CheckedStorage,
    pub(crate) limits: RequestLimits,
    pub(crate) web: WebPaths,
    pub(crate) cors: bool,
    /// The effective settings by flag.
    pub(crate) shown: BTreeMap<String, String>,
    pub(crate) unneeded: UnneededArgs<UnneededByRuler>,
    /// Values of `--enable-feature` that have no effect.
    pub(crate) ignored_features: Vec<String>,
}

impl RuleArgs {
    /// Validates the flags and the files that they name.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub fn check(self) -> Result<RoleConfig, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        for (flag, length) in [
            ("--eval-interval", self.eval_interval),
            ("--query.sd-interval", self.query_files_interval),
            ("--query.sd-dns-interval", self.query_dns_interval),
        ] {
            if length.is_zero() {
                mistakes.push(format!("{flag}=0s: must be greater than zero"));
            }
        }
        let (mut features, ignored_features) = known_features(&self.features);
        features.extend(self.enable_x_functions.then_some(Feature::XFunctions));
        let file_options =
            RuleFileOptions { parse: querier::parse_options(&features), ..RuleFileOptions::default() };
        let files = mistakes.note(read_rule_files(&self.rule_files, &file_options));
        let external = mistakes.note(external_labels(&self.labels)).unwrap_or_else(Labels::empty);
        let source = self.source(&mut mistakes);
        let queries = mistakes.note(self.queries.check(features));
        let notifier = self.alertmanagers.check(&mut mistakes);
        let relabeling = self.relabeling(&mut mistakes);
        let alert_link = AlertLink::new(&self.web.query_url, &self.query_template);
        let alert_link = mistakes.note(alert_link.map_err(|why| format!("--alert.query-template: {why}")));
        let remote_write = self.remote_write(&mut mistakes);
        let storage = mistakes.note(self.storage.check(&external));
        let web = mistakes.note(self.web.check());
        let shown = self.shown(queries.as_ref(), source.as_ref());
        let (Some(files), Some(source), Some(queries), Some(alert_link), Some(storage), Some(web)) =
            (files, source, queries, alert_link, storage, web)
        else {
            return Err(mistakes);
        };
        mistakes.or_ok(RoleConfig {
            patterns: self.rule_files.clone(),
            file_options,
            files,
            groups: self.group_options(&external),
            concurrency: self.rule_concurrent_evaluation,
            source,
            query_limit: queries.timeout(),
            queries,
            notifier,
            alert_labels: AlertLabels::new(external.clone(), self.label_drop.clone(), relabeling),
            alert_link,
            external_url: self.web.query_url.clone(),
            remote_write,
            limits: self.storage.limits(),
            storage,
            web,
            cors: !self.web.disable_cors,
            shown,
            external,
            unneeded: self.unneeded,
            ignored_features,
        })
    }

    fn group_options(&self, external: &Labels) -> GroupOptions {
        let names = external.iter().map(|label| label.name.to_owned());
        GroupOptions {
            interval: self.eval_interval,
            query_offset: self.rule_query_offset,
            resend_delay: self.resend_delay,
            restore: RestoreOptions {
                outage_tolerance: self.for_outage_tolerance,
                grace_period: self.for_grace_period,
                keeps_firing: true,
                ignored_labels: names.chain(self.restore_ignored_labels.iter().cloned()).collect(),
            },
            restored: false,
        }
    }

    fn source(&self, mistakes: &mut ConfigMistakes) -> Option<SourceConfig> {
        const NO_STORES: &str = "no source of data is given: give --query=URL or --query.config-file=FILE for queriers, or \
             --endpoint=HOST:PORT or --gateway=HOST:PORT for stores";
        let mut queriers = Vec::new();
        for url in self.queriers.iter().collect::<std::collections::BTreeSet<_>>() {
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
        queriers.extend(self.configured_queriers(mistakes, has_flags));
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

    fn configured_queriers(
        &self,
        mistakes: &mut ConfigMistakes,
        has_flags: bool,
    ) -> Vec<HttpEndpointsConfig> {
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

    fn relabeling(&self, mistakes: &mut ConfigMistakes) -> model::Relabeling {
        let (flag, file) = ("alert.relabel-config", self.relabel_config_file.as_deref());
        let text = loaded(flag, self.relabel_config.as_deref(), file, mistakes);
        text.and_then(|text| noted(parse_relabeling(&text), flag, file, mistakes)).unwrap_or_default()
    }

    fn remote_write(&self, mistakes: &mut ConfigMistakes) -> Vec<RemoteWriteConfig> {
        let (flag, file) = ("remote-write.config", self.remote_write_file.as_deref());
        let text = loaded(flag, self.remote_write.as_deref(), file, mistakes);
        let configs =
            text.and_then(|text| noted(parse_remote_write(&text, folder_of(file)), flag, file, mistakes));
        configs.unwrap_or_default()
    }

    /// The settings as `/api/v1/status/flags` shows them. Texts that may have secrets are not shown.
    fn shown(
        &self,
        queries: Option<&CheckedLocalQueryArgs>,
        source: Option<&SourceConfig>,
    ) -> BTreeMap<String, String> {
        let labels: Vec<String> =
            self.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let own = [
            ("rule-file", self.rule_files.join(",")),
            ("label", labels.join(",")),
            ("eval-interval", format_duration(self.eval_interval)),
            ("rule-query-offset", format_duration(self.rule_query_offset)),
            ("rule-concurrent-evaluation", self.rule_concurrent_evaluation.to_string()),
            ("resend-delay", format_duration(self.resend_delay)),
            ("for-outage-tolerance", format_duration(self.for_outage_tolerance)),
            ("for-grace-period", format_duration(self.for_grace_period)),
            ("restore-ignored-label", self.restore_ignored_labels.join(",")),
            ("alert.query-url", self.web.query_url.clone()),
            ("alert.query-template", self.query_template.clone()),
            ("alert.label-drop", self.label_drop.join(",")),
            ("enable-feature", self.features.join(",")),
            ("http-address", self.common.http_address.to_string()),
            ("grpc-address", self.common.grpc_address.to_string()),
        ];
        let own = own.into_iter().map(|(flag, value)| (flag.to_owned(), value));
        let mut all: BTreeMap<String, String> =
            own.chain(queries.map(CheckedLocalQueryArgs::flags).unwrap_or_default()).collect();
        all.extend(self.storage.shown());
        if let Some(SourceConfig::Global(global)) = source {
            all.extend(global.flags());
        }
        all
    }
}

/// The text of a pair of flags; `None` if it is not given, or empty.
fn loaded(
    flag: &str,
    content: Option<&str>,
    file: Option<&Path>,
    mistakes: &mut ConfigMistakes,
) -> Option<String> {
    // Operators give both flags, of which one is empty.
    let content = content.filter(|content| !content.is_empty());
    let file = file.filter(|file| !file.as_os_str().is_empty());
    let loaded = mistakes.note(load_config(flag, content, file).map_err(|why| why.to_string())).flatten();
    loaded.filter(|text| !text.trim().is_empty())
}

/// What was parsed, with mistakes that name their flag.
fn noted<T>(
    parsed: Result<T, Vec<String>>,
    flag: &str,
    file: Option<&Path>,
    mistakes: &mut ConfigMistakes,
) -> Option<T> {
    let origin = config_origin(flag, file);
    let in_origin = |found: Vec<String>| {
        found.iter().map(|mistake| format!("{origin}: {mistake}")).collect::<ConfigMistakes>()
    };
    mistakes.note(parsed.map_err(in_origin))
}

fn folder_of(file: Option<&Path>) -> &Path {
    file.and_then(Path::parent).unwrap_or(Path::new(""))
}
