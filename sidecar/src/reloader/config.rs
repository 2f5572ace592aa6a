//! The flags of the reloader, with the names of Thanos.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use runtime::parse_duration;

/// How a reload is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReloadMethod {
    /// `POST /-/reload`; Prometheus must run with `--web.enable-lifecycle`
    Http,
    /// SIGHUP to the process; both containers must share their process ids
    Signal,
}

/// `--reloader.*`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReloaderArgs {
    /// Watch this configuration file of Prometheus, and reload it when it changes
    #[arg(long = "reloader.config-file", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Write the configuration to this file, with $(NAME) replaced from the environment, decompressed if it
    /// is gzip; make Prometheus read this file
    #[arg(long = "reloader.config-envsubst-file", value_name = "FILE")]
    output: Option<PathBuf>,

    /// Watch the rule files in this directory and its subdirectories; repeatable
    #[arg(long = "reloader.rule-dir", value_name = "DIR")]
    rule_dirs: Vec<PathBuf>,

    /// Check the files this often, in addition to file system events; 0 writes the output once and watches
    /// nothing
    #[arg(long = "reloader.watch-interval", value_name = "DURATION", default_value = "3m", value_parser = parse_duration)]
    watch_interval: Duration,

    /// Retry a failed reload after this time
    #[arg(long = "reloader.retry-interval", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    retry_interval: Duration,

    /// Select how a reload is requested
    #[arg(long = "reloader.method", value_name = "METHOD", value_enum, default_value_t = ReloadMethod::Http)]
    pub(crate) method: ReloadMethod,

    /// Send the signal to the process with this name; used with --reloader.method=signal
    #[arg(long = "reloader.process-name", value_name = "NAME", default_value = "prometheus")]
    pub(crate) process_name: String,
}

/// The validated configuration of the reloader.
#[derive(Clone, Debug)]
pub(crate) struct ReloaderConfig {
    pub(super) file: Option<PathBuf>,
    pub(super) output: Option<PathBuf>,
    pub(super) rule_dirs: Vec<PathBuf>,
    /// `None` if nothing is watched.
    pub(super) watch_interval: Option<Duration>,
    pub(super) retry_interval: Duration,
}

impl ReloaderArgs {
    /// Validates the flags; `None` if there is nothing to watch.
    ///
    /// # Errors
    /// Names the flag that is invalid.
    pub(crate) fn check(&self) -> Result<Option<ReloaderConfig>, String> {
        if self.output.is_some() && self.file.is_none() {
            return Err(
                "--reloader.config-envsubst-file requires --reloader.config-file, the file to expand"
                    .to_owned(),
            );
        }
        if self.output.is_some() && self.output == self.file {
            return Err("--reloader.config-envsubst-file must differ from --reloader.config-file".to_owned());
        }
        if self.retry_interval.is_zero() {
            return Err("--reloader.retry-interval must be greater than 0".to_owned());
        }
        if self.file.is_none() && self.rule_dirs.is_empty() {
            return Ok(None);
        }
        Ok(Some(ReloaderConfig {
            file: self.file.clone(),
            output: self.output.clone(),
            rule_dirs: self.rule_dirs.clone(),
            watch_interval: Some(self.watch_interval).filter(|interval| !interval.is_zero()),
            retry_interval: self.retry_interval,
        }))
    }
}

impl ReloaderConfig {
    /// The configuration file for log lines.
    pub(super) fn shown_file(&self) -> String {
        self.file.as_ref().map_or_else(|| "-".to_owned(), |file| file.display().to_string())
    }

    /// The rule directories for log lines.
    pub(super) fn shown_rules(&self) -> String {
        let names: Vec<String> = self.rule_dirs.iter().map(|dir| dir.display().to_string()).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(",") }
    }
}
