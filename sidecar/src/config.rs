//! The flags of the sidecar, with the names of Thanos, and their validation.

use std::path::PathBuf;
use std::time::Duration;

use bucket::{BucketConfig, ObjstoreArgs};
use promapi::PrometheusClient;
use runtime::{CommonArgs, ConfigMistakes, TimeArg, UnneededArgs, parse_duration};
use storeapi::RequestLimits;

use crate::http_client::HttpClientArgs;
use crate::reloader::{ReloaderArgs, ReloaderConfig, Trigger};
use crate::unneeded::UnneededBySidecar;
use crate::uploads::{CheckedShipperArgs, ShipperArgs};

/// Flags of `isthmus sidecar`.
#[derive(Clone, Debug, clap::Args)]
pub struct SidecarArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// Serve the Prometheus at this URL; include its route prefix as the path
    #[arg(long = "prometheus.url", value_name = "URL", default_value = "http://localhost:9090")]
    prometheus_url: String,

    #[command(flatten)]
    http_client: HttpClientArgs,

    /// Ask Prometheus for its external labels and time range this often
    #[arg(long = "prometheus.get_config_interval", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    get_config_interval: Duration,

    /// Wait at most this long for these answers
    #[arg(long = "prometheus.get_config_timeout", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    get_config_timeout: Duration,

    /// With uploads, exit with an error if Prometheus is not ready this long after the start; 0 to wait forever
    #[arg(long = "prometheus.ready_timeout", value_name = "DURATION", default_value = "10m", value_parser = parse_duration)]
    ready_timeout: Duration,

    /// Data directory of Prometheus
    #[arg(long = "tsdb.path", value_name = "DIR", default_value = "./data")]
    tsdb_path: PathBuf,

    /// Serve no older data than this: an RFC 3339 time, or a duration before now such as -2w
    #[arg(long, value_name = "TIME", default_value = "0000-01-01T00:00:00Z", allow_hyphen_values = true)]
    min_time: TimeArg,

    /// Limit the series in one answer; 0 for no limit
    #[arg(long = "store.limits.request-series", value_name = "N", default_value_t = 0)]
    limit_series: u64,

    /// Limit the samples in one answer, counting 120 per chunk; 0 for no limit
    #[arg(long = "store.limits.request-samples", value_name = "N", default_value_t = 0)]
    limit_samples: u64,

    #[command(flatten)]
    objstore: ObjstoreArgs,

    #[command(flatten)]
    shipper: ShipperArgs,

    #[command(flatten)]
    reloader: ReloaderArgs,

    #[command(flatten)]
    unneeded: UnneededArgs<UnneededBySidecar>,
}

/// The validated configuration of the sidecar.
pub(crate) struct Config {
    /// The client of Prometheus.
    pub(crate) client: PrometheusClient,
    pub(crate) get_config_interval: Duration,
    pub(crate) get_config_timeout: Duration,
    pub(crate) tsdb_path: PathBuf,
    pub(crate) min_time: TimeArg,
    pub(crate) limits: RequestLimits,
    /// `None` if nothing is uploaded.
    pub(crate) uploads: Option<Uploads>,
    /// `None` if no files are watched.
    pub(crate) reloads: Option<(ReloaderConfig, Trigger)>,
    /// Settings in `--prometheus.http-client` that have no effect.
    pub(crate) without_effect: Vec<String>,
    /// Flags of Thanos that have no effect.
    pub(crate) unneeded: UnneededArgs<UnneededBySidecar>,
}

/// Configuration of the uploads.
pub(crate) struct Uploads {
    pub(crate) bucket: BucketConfig,
    pub(crate) checked: CheckedShipperArgs,
    /// Zero for no limit.
    pub(crate) ready_timeout: Duration,
}

impl SidecarArgs {
    /// All mistakes in the flags and in the files that they name, one line each; empty if the role would start with them.
    pub fn mistakes(self) -> ConfigMistakes {
        self.check().err().unwrap_or_default()
    }

    /// Validates the flags.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub(crate) fn check(self) -> Result<Config, ConfigMistakes> {
        let mut mistakes = ConfigMistakes::default();
        let http_client = mistakes.note(self.http_client.check(&self.prometheus_url)).unwrap_or_default();
        let client = PrometheusClient::new(&self.prometheus_url, http_client.options);
        let client = mistakes.note(client.map_err(|mistake| format!("--prometheus.url: {mistake}")));
        let without_effect = http_client.without_effect;
        let bucket = mistakes.note(self.objstore.load());
        let uploads = bucket.flatten().and_then(|bucket| {
            let checked = mistakes.note(self.shipper.check(&self.tsdb_path))?;
            Some(Uploads { bucket, checked, ready_timeout: self.ready_timeout })
        });
        let reloader = mistakes.note(self.reloader.check()).flatten();
        let client = match client {
            Some(client) if mistakes.is_empty() => client,
            _ => return Err(mistakes),
        };
        let trigger = Trigger::new(self.reloader.method, &self.reloader.process_name, client.clone());
        let some = |limit: u64| Some(limit).filter(|n| *n > 0);
        Ok(Config {
            client,
            get_config_interval: self.get_config_interval,
            get_config_timeout: self.get_config_timeout,
            tsdb_path: self.tsdb_path,
            min_time: self.min_time,
            limits: RequestLimits { series: some(self.limit_series), samples: some(self.limit_samples) },
            uploads,
            reloads: reloader.map(|reloader| (reloader, trigger)),
            without_effect,
            unneeded: self.unneeded,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct SidecarCommand {
        #[command(flatten)]
        args: SidecarArgs,
    }

    fn check(flags: &[&str]) -> Result<Config, ConfigMistakes> {
        let all = ["sidecar"].iter().chain(flags);
        SidecarCommand::try_parse_from(all).map_err(|error| error.to_string())?.args.check()
    }

    #[test]
    fn uploads_and_reloads_are_off_by_default() {
        let config = check(&[]).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert!(config.uploads.is_none() && config.reloads.is_none());
    }

    #[test]
    fn flags_of_thanos_are_accepted() {
        let config = check(&[
            "--prometheus.http-client={\"tls_config\": {\"insecure_skip_verify\":true}}",
            "--grpc-address=:10901",
            "--prometheus.ready_timeout=5m",
            "--tsdb.path=/tmp",
            "--objstore.config=type: FILESYSTEM\nconfig: {directory: /tmp/bucket}",
            "--shipper.upload-compacted",
            "--shipper.meta-file-name=uploaded.json",
            "--shipper.ignore-unequal-block-size",
            "--shipper.allow-out-of-order-uploads",
            "--shipper.skip-corrupted-blocks",
            "--shipper.upload-concurrency=8",
            "--hash-func=SHA256",
            "--reloader.config-file=/etc/prometheus.yaml.gz",
            "--reloader.config-envsubst-file=/etc/out.yaml",
            "--reloader.rule-dir=/etc/rules",
            "--reloader.rule-dir=/etc/more",
            "--reloader.watch-interval=1m",
            "--reloader.retry-interval=1s",
            "--reloader.method=signal",
            "--reloader.process-name=prometheus",
        ]);
        let config = config.unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert!(config.uploads.is_some() && config.reloads.is_some());
        assert!(config.without_effect[0].starts_with("tls_config"), "the URL begins with http:");
        let unneeded: Vec<&str> = config.unneeded.given().iter().map(|flag| flag.name).collect();
        assert_eq!(unneeded, ["shipper.skip-corrupted-blocks", "hash-func"]);
        assert!(check(&["--hash-func="]).is_ok(), "the default of Thanos");
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let mistakes = check(&[
            "--prometheus.url=ftp://x",
            "--tsdb.path=/no/such/folder",
            "--objstore.config=type: FILESYSTEM\nconfig: {directory: /tmp/bucket}",
            "--reloader.config-envsubst-file=/etc/out.yaml",
        ]);
        let mistakes = mistakes.err().expect("mistakes");
        assert_eq!(mistakes.lines().len(), 3, "{mistakes:?}");
        for (mistake, flag) in
            mistakes.lines().iter().zip(["--prometheus.url", "--tsdb.path", "--reloader.config-file"])
        {
            assert!(mistake.contains(flag), "{mistake}");
        }
        for (flags, named) in [
            (
                &[
                    "--shipper.meta-file-name=a/b",
                    "--tsdb.path=/tmp",
                    "--objstore.config=type: FILESYSTEM\nconfig: {directory: /b}",
                ][..],
                "--shipper.meta-file-name",
            ),
            (&["--objstore.config=type: FTP"], "FTP"),
            (&["--objstore.config-file=/no/such/file"], "/no/such/file"),
        ] {
            let mistakes = check(flags).err().expect(named);
            assert!(mistakes.lines().iter().any(|mistake| mistake.contains(named)), "{mistakes:?}");
        }
    }
}
