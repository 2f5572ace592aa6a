//! The flags of Thanos' ruler for Alertmanagers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use httpclient::HttpEndpointsConfig;
use runtime::{ConfigMistakes, config_origin, load_config, parse_duration};

use crate::config::{AlertmanagerGroup, DEFAULT_PORT, NotifierConfig};

/// The flag with the text, without dashes; the one with the file has the suffix `-file`.
const FLAG: &str = "alertmanagers.config";

/// The flags `--alertmanagers.*`. Flatten them into the arguments of a role.
#[derive(Clone, Debug, clap::Args)]
pub struct AlertmanagerArgs {
    /// Send alerts to this Alertmanager: http://HOST:PORT/PREFIX, or https; dns+http://HOST:PORT for each address of the name, and
    /// dnssrv+http://NAME for each host of the service, are looked up in DNS; user and password are those of basic authentication.
    /// Can be repeated: all of them are replicas, and an alert is sent when one of them has it
    #[arg(long = "alertmanagers.url", value_name = "URL")]
    pub urls: Vec<String>,

    /// Alertmanagers as YAML, in Thanos' format, instead of --alertmanagers.url; $(NAME) is replaced by the environment variable
    /// NAME. Each entry of the list is a group of replicas, and an alert is sent when one Alertmanager of each group has it
    #[arg(long = "alertmanagers.config", value_name = "YAML")]
    pub config: Option<String>,

    /// File with the YAML of --alertmanagers.config; give only one of the two flags
    #[arg(long = "alertmanagers.config-file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// Longest wait for the answer of an Alertmanager of --alertmanagers.url; the alerts are then sent again
    #[arg(long = "alertmanagers.send-timeout", value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub send_timeout: Duration,

    /// Look the names of Alertmanagers up in DNS at this interval
    #[arg(long = "alertmanagers.sd-dns-interval", value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub dns_interval: Duration,
}

impl AlertmanagerArgs {
    /// What the flags say. Mistakes are added to `mistakes`, and what is wrong is left out.
    pub fn check(&self, mistakes: &mut ConfigMistakes) -> NotifierConfig {
        let mut config = NotifierConfig::default();
        for (flag, value) in [("send-timeout", self.send_timeout), ("sd-dns-interval", self.dns_interval)] {
            if value.is_zero() {
                mistakes.push(format!("--alertmanagers.{flag}=0s: must be greater than 0"));
            }
        }
        config.dns_interval = self.dns_interval;
        let text = mistakes.note(
            load_config(FLAG, self.config.as_deref(), self.config_file.as_deref())
                .map_err(|why| why.to_string()),
        );
        if let Some(text) = text.flatten() {
            if !self.urls.is_empty() {
                mistakes.push(format!("--alertmanagers.url and --{FLAG} are both given: give one of them"));
            }
            let folder = self.config_file.as_deref().and_then(|path| path.parent());
            let groups = AlertmanagerGroup::parse_all(&text, folder.unwrap_or_else(|| "".as_ref()));
            let origin = config_origin(FLAG, self.config_file.as_deref());
            let in_origin = |found: Vec<String>| -> ConfigMistakes {
                found.iter().map(|mistake| format!("{origin}: {mistake}")).collect()
            };
            config.groups = mistakes.note(groups.map_err(in_origin)).unwrap_or_default();
        }
        let urls: BTreeSet<&String> = self.urls.iter().collect();
        let members = urls.into_iter().filter_map(|url| {
            let endpoints = HttpEndpointsConfig::from_url(url, DEFAULT_PORT);
            mistakes.note(endpoints.map_err(|why| format!("--alertmanagers.url: {why}")))
        });
        let members: Vec<HttpEndpointsConfig> = members.collect();
        if !members.is_empty() {
            config.groups.push(AlertmanagerGroup { members, timeout: self.send_timeout });
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        alertmanagers: AlertmanagerArgs,
    }

    fn check(flags: &[&str]) -> Result<NotifierConfig, Vec<String>> {
        let flags = Flags::try_parse_from([&["x"], flags].concat()).unwrap();
        let mut mistakes = ConfigMistakes::default();
        let config = flags.alertmanagers.check(&mut mistakes);
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes.lines().to_vec()) }
    }

    #[test]
    fn urls_are_replicas_and_entries_of_the_file_are_groups() {
        assert_eq!(check(&[]).unwrap(), NotifierConfig::default());
        let urls = check(&[
            "--alertmanagers.url=http://b:1",
            "--alertmanagers.url=dns+http://u:p@a/x",
            "--alertmanagers.url=http://b:1",
            "--alertmanagers.send-timeout=3s",
        ])
        .unwrap();
        assert_eq!((urls.groups.len(), urls.groups[0].members.len()), (1, 2));
        assert_eq!(urls.groups[0].timeout, Duration::from_secs(3));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("am.yml");
        std::fs::write(
            &file,
            "alertmanagers: [{static_configs: [a]}, {file_sd_configs: [{files: [b.yml]}]}]",
        )
        .unwrap();
        let groups = check(&[&format!("--alertmanagers.config-file={}", file.display())]).unwrap().groups;
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[1].members[0].files[0].patterns, [folder.path().join("b.yml")]);
    }

    #[test]
    fn all_mistakes_are_reported_without_passwords() {
        let mistakes = check(&[
            "--alertmanagers.url=ftp://u:secret@a",
            "--alertmanagers.config=alertmanagers: [{api_version: v1, static_configs: [a]}]",
            "--alertmanagers.send-timeout=0s",
        ])
        .unwrap_err();
        let expected = [
            "--alertmanagers.send-timeout=0s: must be greater than 0",
            "--alertmanagers.url and --alertmanagers.config are both given: give one of them",
            "--alertmanagers.config: line 1: alertmanagers[0].api_version: v1 was removed from Alertmanager in version 0.27; remove the field or write v2",
            "--alertmanagers.url: scheme \"ftp\" is not known, expected http, https or dns+http",
        ];
        assert_eq!(mistakes, expected);
    }
}
