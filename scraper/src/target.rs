//! Targets: what a discovery found, after relabelling.

use std::fmt::Write;
use std::time::Duration;

use model::{Labels, Relabeling};
use runtime::format_duration;

use crate::config::ScrapeConfig;

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PARAM: &str = "__param_";
const META: &str = "__meta_";

/// A target that is scraped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// Its labels before relabelling.
    pub(crate) discovered: Labels,
    /// The labels that its series get.
    pub(crate) labels: Labels,
    pub(crate) url: String,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    /// Of all labels after relabelling, and the URL. Targets with the same are one target.
    pub(crate) hash: u64,
}

/// What becomes of a target that a discovery found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Populated {
    Kept(Box<Target>),
    /// Relabelling drops it.
    Dropped,
}

/// The labels of a target before relabelling: its own, those of its group, and those of the scrape configuration.
pub(crate) fn discovered_labels(config: &ScrapeConfig, own: &Labels, group: &Labels) -> Labels {
    let mut builder = own.to_builder();
    for label in group.iter().filter(|label| own.get(label.name).is_none()) {
        builder.set(label.name, label.value);
    }
    let so_far = builder.build();
    let (interval, timeout) =
        (format_duration(config.scrape_interval), format_duration(config.scrape_timeout));
    let defaults: [(&str, &str); 5] = [
        ("job", &config.job_name),
        (INTERVAL, &interval),
        (TIMEOUT, &timeout),
        (METRICS_PATH, &config.metrics_path),
        (SCHEME, &config.scheme),
    ];
    for (name, value) in defaults {
        if so_far.value(name).is_empty() {
            builder.set(name, value);
        }
    }
    for (name, values) in &config.params {
        let name = format!("{PARAM}{name}");
        if let Some(first) = values.first()
            && so_far.value(&name).is_empty()
        {
            builder.set(&name, first);
        }
    }
    builder.build()
}

/// Relabels a target and checks what is left.
///
/// # Errors
/// It cannot be scraped.
pub(crate) fn populate(
    config: &ScrapeConfig,
    relabeling: &Relabeling,
    discovered: Labels,
) -> Result<Populated, String> {
    let Some(labels) = relabeling.apply(&discovered) else { return Ok(Populated::Dropped) };
    let address = labels.value(ADDRESS).to_owned();
    if address.is_empty() {
        return Err("no address".to_owned());
    }
    if address.contains('/') {
        return Err(format!("address {address:?} is not of the form HOST:PORT"));
    }
    let time = |name: &str, what: &str| {
        let text = labels.value(name);
        match promapi::parse_prometheus_duration(text) {
            Ok(time) if time.is_zero() => Err(format!("scrape {what} cannot be 0")),
            Ok(time) => Ok(time),
            Err(_) => Err(format!("scrape {what} {text:?} is not a duration")),
        }
    };
    let (interval, timeout) = (time(INTERVAL, "interval")?, time(TIMEOUT, "timeout")?);
    if timeout > interval {
        return Err(format!(
            "scrape timeout {} is longer than the interval {}",
            labels.value(TIMEOUT),
            labels.value(INTERVAL)
        ));
    }
    let mut builder = labels.without(|name| name.starts_with(META)).to_builder();
    if labels.value("instance").is_empty() {
        builder.set("instance", &address);
    }
    let labels = builder.build();
    let public = labels.without(|name| name.starts_with("__"));
    // As in Prometheus, a target without any label is dropped.
    if public.is_empty() {
        return Ok(Populated::Dropped);
    }
    let url = url(config, &labels);
    let hash = hash(&labels, &url);
    let target = Target { discovered, labels: public, url, interval, timeout, hash };
    Ok(Populated::Kept(Box::new(target)))
}

fn hash(labels: &Labels, url: &str) -> u64 {
    let text = format!("{:016}{url}", labels.shard_hash(|_| true));
    fnv(text.as_bytes())
}

/// FNV-1a with 64 bits, which Prometheus spreads its targets by.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn url(config: &ScrapeConfig, labels: &Labels) -> String {
    let mut params = config.params.clone();
    for label in labels {
        let Some(name) = label.name.strip_prefix(PARAM) else { continue };
        let values = params.entry(name.to_owned()).or_default();
        match values.first_mut() {
            Some(first) => label.value.clone_into(first),
            None => values.push(label.value.to_owned()),
        }
    }
    let mut url = format!("{}://{}", labels.value(SCHEME), labels.value(ADDRESS));
    let path = labels.value(METRICS_PATH);
    if !path.is_empty() && !path.starts_with('/') {
        url.push('/');
    }
    escape(&mut url, path, b"-_.~$&+,/:;=@");
    let pairs = params.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    for (at, (name, value)) in pairs.enumerate() {
        url.push(if at == 0 { '?' } else { '&' });
        for (text, end) in [(name, "="), (value, "")] {
            escape(&mut url, text, b"-_.~ ");
            url.push_str(end);
        }
    }
    url
}

/// Writes a text with `%XX` for all but letters, digits and `kept`. A space that is kept is a `+`, as in parameters.
fn escape(url: &mut String, text: &str, kept: &[u8]) {
    for byte in text.bytes() {
        match byte {
            b' ' if kept.contains(&b' ') => url.push('+'),
            _ if byte.is_ascii_alphanumeric() || kept.contains(&byte) => url.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(url, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::PrometheusConfig;

    fn config(job: &str) -> ScrapeConfig {
        let text = format!("scrape_configs:\n- {job}");
        let parsed = PrometheusConfig::parse(text, Path::new("p.yml")).unwrap();
        (*parsed.scrape_configs[0]).clone()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    fn target(job: &str, own: &[(&str, &str)], group: &[(&str, &str)]) -> Result<Populated, String> {
        let config = config(job);
        let relabeling = Relabeling::new(config.relabel_configs.clone()).unwrap();
        populate(&config, &relabeling, discovered_labels(&config, &labels(own), &labels(group)))
    }

    fn kept(job: &str, own: &[(&str, &str)], group: &[(&str, &str)]) -> Target {
        match target(job, own, group).unwrap() {
            Populated::Kept(target) => *target,
            Populated::Dropped => panic!("dropped"),
        }
    }

    #[test]
    fn a_target_has_the_labels_of_itself_its_group_and_its_job() {
        let own = [(ADDRESS, "a:1"), ("x", "own"), ("__meta_dns_name", "n")];
        let found = kept(
            "{job_name: j, scrape_interval: 90s}",
            &own,
            &[("x", "group"), ("y", "group"), ("job", "g")],
        );
        assert_eq!(found.labels.to_string(), r#"{instance="a:1", job="g", x="own", y="group"}"#);
        assert_eq!(found.url, "http://a:1/metrics");
        assert_eq!((found.interval.as_secs(), found.timeout.as_secs()), (90, 10));
        assert_eq!(
            found.discovered.to_string(),
            r#"{__address__="a:1", __meta_dns_name="n", __metrics_path__="/metrics", __scheme__="http", __scrape_interval__="1m30s", __scrape_timeout__="10s", job="g", x="own", y="group"}"#
        );
    }

    #[test]
    fn urls_are_those_of_prometheus() {
        let check = |job: &str, own: &[(&str, &str)], expected: &str| {
            let own = [&[(ADDRESS, "a:1")], own].concat();
            assert_eq!(kept(job, &own, &[]).url, expected);
        };
        let job = "{job_name: j, scheme: https, metrics_path: 'a b?c*é', params: {q: [x y, z&], 'p=': ['']}}";
        check(job, &[], "https://a:1/a%20b%3Fc%2A%C3%A9?p%3D=&q=x+y&q=z%26");
        check(
            job,
            &[("__param_q", "first"), ("__param_new", "n")],
            "https://a:1/a%20b%3Fc%2A%C3%A9?new=n&p%3D=&q=first&q=z%26",
        );
        check("{job_name: j}", &[("__scheme__", "https"), ("__metrics_path__", "/m")], "https://a:1/m");
    }

    #[test]
    fn relabelling_drops_and_changes_targets() {
        let drop =
            "{job_name: j, relabel_configs: [{action: drop, source_labels: [__address__], regex: 'a:.*'}]}";
        assert_eq!(target(drop, &[(ADDRESS, "a:1")], &[]).unwrap(), Populated::Dropped);
        let change = "{job_name: j, relabel_configs: [{source_labels: [__meta_filepath], target_label: file}, {target_label: __address__, \
                      replacement: 'b:2'}]}";
        let found = kept(change, &[(ADDRESS, "a:1"), ("__meta_filepath", "/f")], &[]);
        assert_eq!(found.labels.to_string(), r#"{file="/f", instance="b:2", job="j"}"#);
        let check = |own: &[(&str, &str)], expected: &str| {
            assert_eq!(target("{job_name: j}", own, &[]).unwrap_err(), expected);
        };
        check(&[], "no address");
        check(&[(ADDRESS, "http://a")], "address \"http://a\" is not of the form HOST:PORT");
        check(&[(ADDRESS, "a"), (INTERVAL, "0s")], "scrape interval cannot be 0");
        check(&[(ADDRESS, "a"), (INTERVAL, "x")], "scrape interval \"x\" is not a duration");
        check(&[(ADDRESS, "a"), (TIMEOUT, "2m")], "scrape timeout 2m is longer than the interval 1m");
    }

    #[test]
    fn equal_targets_have_equal_hashes() {
        let one = kept("{job_name: j}", &[(ADDRESS, "a:1"), ("__meta_a", "1")], &[]);
        let same = kept("{job_name: j}", &[(ADDRESS, "a:1"), ("__meta_a", "2")], &[]);
        let other = kept("{job_name: j, params: {a: [b]}}", &[(ADDRESS, "a:1")], &[]);
        assert_eq!(one.hash, same.hash);
        assert_ne!(one.hash, other.hash);
        assert_eq!(fnv(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
