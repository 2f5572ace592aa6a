//! Flags of the reloader, with Thanos' names.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use runtime::parse_duration;

/// How Prometheus is told to reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// `POST /-/reload`; Prometheus needs `--web.enable-lifecycle`
    Http,
    /// SIGHUP to the process; both need one process id namespace
    Signal,
}

/// `--reloader.*`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReloaderArgs {
    /// Configuration file of Prometheus that is watched
    #[arg(long = "reloader.config-file", value_name = "FILE")]
    file: Option<PathBuf>,

    /// Where the configuration is written with $(NAME) replaced from the environment, unpacked if it is gzip;
    /// Prometheus then reads this file
    #[arg(long = "reloader.config-envsubst-file", value_name = "FILE")]
    output: Option<PathBuf>,

    /// Folder of rule files that is watched, with the folders in it; may be given again
    #[arg(long = "reloader.rule-dir", value_name = "DIR")]
    rule_dirs: Vec<PathBuf>,

    /// How often the files are looked at when no event tells of a change; 0 writes the output once and watches nothing
    #[arg(long = "reloader.watch-interval", value_name = "DURATION", default_value = "3m", value_parser = parse_duration)]
    watch_interval: Duration,

    /// How soon a failed reload is tried again
    #[arg(long = "reloader.retry-interval", value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    retry_interval: Duration,

    /// How Prometheus is told to reload
    #[arg(long = "reloader.method", value_name = "METHOD", value_enum, default_value_t = Method::Http)]
    pub(crate) method: Method,

    /// Name of the executable that gets the signal
    #[arg(long = "reloader.process-name", value_name = "NAME", default_value = "prometheus")]
    pub(crate) process_name: String,
}

/// What the reloader does, checked.
#[derive(Clone, Debug)]
pub(crate) struct ReloaderConfig {
    pub(super) file: Option<PathBuf>,
    pub(super) output: Option<PathBuf>,
    pub(super) rule_dirs: Vec<PathBuf>,
    /// `None`: nothing is watched.
    pub(super) watch_interval: Option<Duration>,
    pub(super) retry_interval: Duration,
}

impl ReloaderArgs {
    /// The checked form; `None` where there is nothing to watch.
    ///
    /// # Errors
    /// Says which flag makes no sense.
    pub(crate) fn check(&self) -> Result<Option<ReloaderConfig>, String> {
        if self.output.is_some() && self.file.is_none() {
            return Err(
                "--reloader.config-envsubst-file needs --reloader.config-file: name the file to expand"
                    .to_owned(),
            );
        }
        if self.output.is_some() && self.output == self.file {
            return Err(
                "--reloader.config-envsubst-file must not be --reloader.config-file itself".to_owned()
            );
        }
        if self.retry_interval.is_zero() {
            return Err("--reloader.retry-interval must be more than 0".to_owned());
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
    /// The configuration file as log lines name it.
    pub(super) fn shown_file(&self) -> String {
        self.file.as_ref().map_or_else(|| "-".to_owned(), |file| file.display().to_string())
    }

    /// The rule folders as log lines name them.
    pub(super) fn shown_rules(&self) -> String {
        let names: Vec<String> = self.rule_dirs.iter().map(|dir| dir.display().to_string()).collect();
        if names.is_empty() { "-".to_owned() } else { names.join(",") }
    }
}
