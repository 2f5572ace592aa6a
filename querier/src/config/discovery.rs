//! The flags of discovery: groups of replicas, files, DNS.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use runtime::{ConfigMistakes, config_origin, format_duration, load_config, parse_duration};

use crate::endpoints::{
    ConfiguredEndpoints, EndpointAddress, EndpointSpec, FilePattern, StoreSelector, watch_endpoints,
};
use crate::grpc_client::GrpcClientConfig;

/// `--endpoint-group*`, `--endpoint.sd-config*` and `--store.sd-*`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DiscoveryArgs {
    /// Read the replicas of a store as one store: each request goes to one of the addresses of this name, and to
    /// another one if that is not available; dns+HOST:PORT or dnssrv+NAME; repeatable
    #[arg(long, value_name = "ADDRESS")]
    endpoint_group: Vec<EndpointAddress>,

    /// Like --endpoint-group, but /api/v1/stores always lists it, however long it has been unreachable;
    /// repeatable
    #[arg(long, value_name = "ADDRESS")]
    endpoint_group_strict: Vec<EndpointAddress>,

    /// Read these StoreAPIs: YAML in the form of Thanos, with TLS, server name and compression for each endpoint
    /// (default_client_config, and a list of endpoints with address, strict, group and client_config)
    #[arg(id = "endpoint_sd_config", long = "endpoint.sd-config", value_name = "YAML")]
    config: Option<String>,

    /// Read the YAML of --endpoint.sd-config from this file, and again when it changes
    #[arg(id = "endpoint_sd_config_file", long = "endpoint.sd-config-file", value_name = "FILE")]
    config_file: Option<String>,

    /// Read the StoreAPIs that this file lists, in the form of Prometheus' file discovery (a JSON or YAML list of
    /// groups with targets); the last part may contain * for any text; it is read again when it changes;
    /// repeatable
    #[arg(long = "store.sd-files", value_name = "PATH")]
    pub(crate) sd_files: Vec<FilePattern>,

    /// Read these files at least this often
    #[arg(long = "store.sd-interval", value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub(crate) sd_interval: Duration,

    /// Read only stores whose external labels these rules keep: a YAML list in the form of Prometheus'
    /// relabel_configs with the actions keep, drop and hashmod; $(NAME) is replaced by the environment variable
    /// NAME
    #[arg(long = "selector.relabel-config", value_name = "YAML")]
    relabel_config: Option<String>,

    /// Read the YAML of --selector.relabel-config from this file
    #[arg(long = "selector.relabel-config-file", value_name = "FILE")]
    relabel_config_file: Option<PathBuf>,

    /// Look names up in DNS this often; a lookup that failed is repeated after --endpoint.info-timeout
    #[arg(long = "store.sd-dns-interval", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub(crate) dns_interval: Duration,
}

impl DiscoveryArgs {
    /// The groups as endpoints.
    pub(crate) fn groups(&self) -> impl Iterator<Item = EndpointSpec> {
        let given = self.endpoint_group.iter().map(|address| (address, false));
        let strict = self.endpoint_group_strict.iter().map(|address| (address, true));
        let spec = |(address, strict): (&EndpointAddress, _)| EndpointSpec {
            address: address.clone(),
            strict,
            replicas: true,
        };
        given.chain(strict).map(spec)
    }

    /// The endpoints of `--endpoint.sd-config`; `flags` are the settings of those that have none of their own.
    ///
    /// # Errors
    /// All mistakes of the YAML, or a file of TLS that cannot be used.
    pub(crate) fn configured(
        &self,
        flags: &GrpcClientConfig,
    ) -> Result<Option<ConfiguredEndpoints>, ConfigMistakes> {
        let file = self.config_file.as_ref().map(PathBuf::from);
        watch_endpoints(self.config.clone(), file, flags.clone())
    }

    /// Which stores are read.
    ///
    /// # Errors
    /// The rules cannot be read.
    pub(crate) fn selector(&self) -> Result<Option<StoreSelector>, String> {
        let flag = "selector.relabel-config";
        let file = self.relabel_config_file.as_deref();
        let text = load_config(flag, self.relabel_config.as_deref(), file);
        let text = text.map_err(|mistake| mistake.to_string())?.unwrap_or_default();
        StoreSelector::parse(&text).map_err(|mistake| format!("{}: {mistake}", config_origin(flag, file)))
    }

    /// The intervals by flag.
    pub(crate) fn intervals(&self) -> [(&'static str, Duration); 2] {
        [("--store.sd-interval", self.sd_interval), ("--store.sd-dns-interval", self.dns_interval)]
    }

    /// The settings by flag.
    pub(crate) fn flags(&self) -> BTreeMap<String, String> {
        let list = |addresses: &[EndpointAddress]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let files: Vec<&str> = self.sd_files.iter().map(FilePattern::as_str).collect();
        let shown = [
            ("endpoint-group", list(&self.endpoint_group)),
            ("endpoint-group-strict", list(&self.endpoint_group_strict)),
            ("store.sd-files", files.join(",")),
            ("selector.relabel-config", self.relabel_config.clone().unwrap_or_default()),
            ("store.sd-interval", format_duration(self.sd_interval)),
            ("store.sd-dns-interval", format_duration(self.dns_interval)),
        ];
        shown.into_iter().map(|(flag, value)| (flag.to_owned(), value)).collect()
    }
}
