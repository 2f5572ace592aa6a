//! The flags of `isthmus rule`, with the names of Thanos, and their validation.

mod features;
mod source;
mod storage;
mod yaml_flag;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use alertmanager::{AlertmanagerArgs, NotifierConfig};
use httpclient::HttpEndpointsConfig;
use model::Labels;
use querier::{CheckedLocalQueryArgs, Feature, LocalQueryArgs, WebPaths};
use remotewrite::RemoteWriteConfig;
use rules::{GroupOptions, RestoreOptions, RuleFileOptions};
use runtime::{CommonArgs, ConfigMistakes, UnneededArgs, format_duration, parse_duration};
use storeapi::RequestLimits;

use crate::alert_labels::{AlertLabels, parse_relabeling};
use crate::alert_link::{AlertLink, DEFAULT_TEMPLATE};
use crate::external_labels::{external_labels, parse_label};
use crate::remote_write::parse_remote_write;
use crate::rule_files::{RuleFiles, read_rule_files};
use crate::unneeded::UnneededByRuler;
use crate::web::WebArgs;
use features::known_features;
use source::SourceArgs;
pub(crate) use source::SourceConfig;
pub(crate) use storage::CheckedStorage;
use storage::StorageArgs;
use yaml_flag::{folder_of, loaded, noted};

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

    #[command(flatten)]
    source: SourceArgs,

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

/// The HTTP servers of a ruler.
#[derive(Clone, Debug, Default)]
pub struct RulerServers {
    /// Those that answer expressions.
    pub queriers: Vec<HttpEndpointsConfig>,
    /// Those that receive alerts.
    pub alertmanagers: Vec<HttpEndpointsConfig>,
}

impl RuleArgs {
    /// The HTTP servers that the flags and the files of `--query.config-file` and `--alertmanagers.config-file` name. What is wrong is
    /// left out; [`RuleArgs::check`] reports it.
    pub fn servers(&self) -> RulerServers {
        let mut mistakes = ConfigMistakes::default();
        let groups = self.alertmanagers.check(&mut mistakes).groups;
        RulerServers {
            queriers: self.source.queriers(&mut mistakes),
            alertmanagers: groups.into_iter().flat_map(|group| group.members).collect(),
        }
    }

    /// Validates the flags and the files that they name.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub fn check(self) -> Result<RoleConfig, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        for (flag, length) in [
            ("--eval-interval", self.eval_interval),
            ("--query.sd-interval", self.source.query_files_interval),
            ("--query.sd-dns-interval", self.source.query_dns_interval),
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
        let source = self.source.check(&mut mistakes);
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
