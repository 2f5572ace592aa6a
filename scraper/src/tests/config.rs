//! Configurations: what is accepted, every mistake, and `promtool check config` (Debian package `prometheus`) on the same texts.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{DiscoveryConfig, NameEscaping, PrometheusConfig, ScrapeProtocol};

fn parse(text: &str) -> Result<PrometheusConfig, Vec<String>> {
    let parsed = PrometheusConfig::parse(text.to_owned(), Path::new("/etc/prometheus/p.yml"));
    parsed.map_err(|mistakes| mistakes.to_string().split("; /etc/").map(str::to_owned).collect())
}

/// What a configuration with one job has, which ends with these lines.
fn job(lines: &str) -> String {
    let lines: Vec<String> = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!("scrape_configs:\n- job_name: t\n{}", lines.concat())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// Both accept it.
    Good,
    /// Both refuse it.
    Bad,
    /// It is refused here and not there: it is not known here, or would fail in each scrape.
    OnlyTheirs,
    /// Prometheus 2.42 does not know it yet, later versions do.
    Newer,
}

use Expected::{Bad, Good, Newer, OnlyTheirs};

/// Texts below `scrape_configs`.
const JOBS: &[(Expected, &str)] = &[
    (Good, ""),
    (Good, "scrape_interval: 5s\nscrape_timeout: 5s"),
    (Good, "scrape_interval: 0s"),
    (Good, "scrape_interval: 1m30s"),
    (Good, "scrape_interval: '0'"),
    (Bad, "scrape_interval: 1.5s"),
    (Bad, "scrape_interval: 15"),
    (Bad, "scrape_interval: 30s1m"),
    (Bad, "scrape_interval: 5s\nscrape_timeout: 6s"),
    (Good, "scrape_interval: 5s"),
    (Bad, "scrape_interval: [5s]"),
    (Bad, "scrape_timeout: 2m"),
    (Good, "metrics_path: /other\nscheme: https\nparams: {a: [b, 'c'], d: []}"),
    (Good, "params: {a: [1, true]}"),
    (Bad, "params: {a: x}"),
    (Bad, "params: [a]"),
    (OnlyTheirs, "scheme: ftp"),
    (
        Good,
        "honor_labels: true\nhonor_timestamps: false\nbody_size_limit: 10MB\nsample_limit: 5\nlabel_limit: 3",
    ),
    (Good, "honor_labels: yes"),
    (Bad, "honor_labels: maybe"),
    (Bad, "sample_limit: -1"),
    (Bad, "sample_limit: many"),
    (Bad, "body_size_limit: 10"),
    (Bad, "body_size_limit: 10kB"),
    (Good, "body_size_limit: 0"),
    (Good, "label_name_length_limit: 3\nlabel_value_length_limit: 4\ntarget_limit: 5"),
    (Bad, "unknown: 1"),
    (Newer, "scrape_protocols: [PrometheusProto, OpenMetricsText1.0.0]"),
    (Bad, "scrape_protocols: [Text]"),
    (Bad, "scrape_protocols: []"),
    (Bad, "scrape_protocols: [PrometheusProto, PrometheusProto]"),
    (Newer, "fallback_scrape_protocol: PrometheusText0.0.4"),
    (Bad, "fallback_scrape_protocol: text"),
    (Newer, "scrape_native_histograms: true\nalways_scrape_classic_histograms: true"),
    (Newer, "native_histogram_bucket_limit: 100\nnative_histogram_min_bucket_factor: 1.1"),
    (Newer, "track_timestamps_staleness: true\nenable_compression: false\nkeep_dropped_targets: 5"),
    (Newer, "metric_name_validation_scheme: legacy"),
    (Newer, "metric_name_validation_scheme: utf8\nmetric_name_escaping_scheme: dots"),
    (Bad, "metric_name_validation_scheme: other"),
    (Bad, "metric_name_validation_scheme: legacy\nmetric_name_escaping_scheme: allow-utf-8"),
    (Good, "static_configs:\n- targets: [a:1, b]\n  labels: {x: y, n: 1.10, b: true}"),
    (Good, "static_configs:\n- {}"),
    (Good, "static_configs:\n- targets:"),
    (Bad, "static_configs:\n- targets: a:1"),
    (Bad, "static_configs:\n- targets: ['http://a:1/metrics']"),
    (
        Good,
        "static_configs:\n- targets: ['http://a:1/metrics']\nrelabel_configs:\n- {target_label: __address__, replacement: a}",
    ),
    (Bad, "static_configs:\n- target: [a:1]"),
    (Bad, "static_configs:\n- targets: [a:1]\n  labels: [x]"),
    (Good, "file_sd_configs:\n- files: [a.json, 'b/*.yml', c.YAML]\n  refresh_interval: 1m"),
    (Bad, "file_sd_configs:\n- files: []"),
    (Bad, "file_sd_configs:\n- refresh_interval: 1m"),
    (Bad, "file_sd_configs:\n- files: [a.txt]"),
    (Bad, "file_sd_configs:\n- files: ['*/b.yml']"),
    (Good, "dns_sd_configs:\n- names: [a.example]"),
    (Good, "dns_sd_configs:\n- names: [a.example]\n  type: a\n  port: 80"),
    (Bad, "dns_sd_configs:\n- names: [a.example]\n  type: A"),
    (Bad, "dns_sd_configs:\n- names: [a.example]\n  type: TXT\n  port: 1"),
    (Good, "dns_sd_configs:\n- names: [a.example]\n  type: MX\n  port: 1"),
    (Bad, "dns_sd_configs:\n- type: SRV"),
    (
        Good,
        "http_sd_configs:\n- url: http://a:1/list\n  basic_auth: {username: a, password: b}\n  refresh_interval: 5s",
    ),
    (Bad, "http_sd_configs:\n- url: a:1"),
    (Bad, "http_sd_configs:\n- refresh_interval: 5s"),
    // Debian builds its Prometheus without these, too.
    (Bad, "kubernetes_sd_configs:\n- role: pod"),
    (Bad, "consul_sd_configs:\n- server: a:1"),
    (Bad, "nonsense_sd_configs:\n- role: pod"),
    (Good, "basic_auth: {username: a, password: b}"),
    (Good, "basic_auth: {}"),
    (Bad, "basic_auth: {user: a}"),
    (Bad, "basic_auth: {username: a, password: b, password_file: c}"),
    (Bad, "basic_auth: {username: a}\nbearer_token: b"),
    (Good, "authorization: {credentials: a}"),
    (Good, "authorization: {type: Own, credentials: a}"),
    (Bad, "authorization: {type: basic, credentials: a}"),
    (Bad, "authorization: {credentials: a}\nbasic_auth: {username: a}"),
    (Good, "bearer_token: a"),
    (Good, "oauth2: {client_id: a, client_secret: b, token_url: 'http://c'}"),
    (
        Newer,
        "oauth2: {client_id: a, token_url: 'http://c', scopes: [x], endpoint_params: {y: z}, tls_config: {}}",
    ),
    (Bad, "oauth2: {client_id: a, client_secret: b}"),
    (Bad, "oauth2: {client_id: a, client_secret: b, client_secret_file: c, token_url: 'http://c'}"),
    (Bad, "oauth2: {client_id: a, token_url: 'http://c'}\nbasic_auth: {username: a}"),
    (Good, "tls_config: {insecure_skip_verify: true, server_name: a, min_version: TLS12}"),
    (Bad, "tls_config: {min_version: TLS9}"),
    (Bad, "tls_config: {certificate: a}"),
    (Good, "proxy_url: http://p:1\nfollow_redirects: false\nenable_http2: false"),
    (Newer, "proxy_url: http://p:1\nno_proxy: a"),
    (Newer, "proxy_from_environment: true"),
    (Bad, "no_proxy: a"),
    (Bad, "proxy_from_environment: true\nproxy_url: http://p:1"),
    (Newer, "http_headers: {X-A: {values: [b]}}"),
    (Bad, "http_headers: {Host: {values: [b]}}"),
    (Good, "relabel_configs:\n- {source_labels: [a, b], regex: '(.*)', target_label: c, replacement: '$1'}"),
    (Good, "relabel_configs:\n- {target_label: c, replacement: 5}"),
    (Good, "relabel_configs:\n- {action: Keep, source_labels: [a], regex: 1}"),
    (Good, "relabel_configs:\n- {action: hashmod, source_labels: [a], modulus: 3, target_label: c}"),
    (Bad, "relabel_configs:\n- {action: hashmod, source_labels: [a], target_label: c}"),
    (Bad, "relabel_configs:\n- {source_labels: [a]}"),
    (Bad, "relabel_configs:\n- {action: none, source_labels: [a]}"),
    (Bad, "relabel_configs:\n- {action: drop, source_labels: [a], regex: '('}"),
    (Bad, "relabel_configs:\n- {action: labeldrop, source_labels: [a], regex: b}"),
    (Bad, "relabel_configs:\n- {action: lowercase, source_labels: [a], target_label: b, replacement: c}"),
    (Good, "metric_relabel_configs:\n- {action: drop, source_labels: [__name__], regex: a}"),
    (Bad, "metric_relabel_configs:\n- {source: [a]}"),
    (Bad, "honor_labels: true\nhonor_labels: false"),
];

/// Whole files.
const FILES: &[(Expected, &str)] = &[
    (Good, ""),
    (Good, "global:\n"),
    (Good, "global: {scrape_interval: 5s, scrape_timeout: 1s, evaluation_interval: 3s}"),
    (Good, "global: {scrape_interval: 5s}"),
    (Bad, "global: {scrape_interval: 5s, scrape_timeout: 6s}"),
    (Bad, "global: {scrape: 5s}"),
    (Good, "global: {external_labels: {cluster: eu, replica: 1}}"),
    (Newer, "global: {external_labels: {'a-b': c}}"),
    (Bad, "global: {external_labels: [a]}"),
    (OnlyTheirs, "global: {query_log_file: /tmp/q}"),
    (Newer, "global: {sample_limit: 5, keep_dropped_targets: 3, body_size_limit: 5MB}"),
    (Newer, "global: {scrape_protocols: [PrometheusText0.0.4], scrape_native_histograms: true}"),
    (Newer, "global: {metric_name_validation_scheme: legacy}"),
    (
        Bad,
        "global: {metric_name_validation_scheme: legacy, metric_name_escaping_scheme: allow-utf-8}\nscrape_configs: [{job_name: a}]",
    ),
    (Bad, "scrape_configs: {}"),
    (Good, "scrape_configs: []"),
    (Bad, "scrape_configs:\n-"),
    (Bad, "scrape_configs:\n- job_name: ''"),
    (Good, "scrape_configs:\n- job_name: 5"),
    (Bad, "scrape_configs:\n- honor_labels: true"),
    (Bad, "scrape_configs:\n- job_name: a\n- job_name: a"),
    (Good, "rule_files: []\nalerting:\n  alertmanagers:\n  - static_configs:\n    - targets:\n"),
    (OnlyTheirs, "rule_files: ['missing/*.yml']"),
    (Good, "remote_write:\n- url: http://a:1/write"),
    (
        Good,
        "remote_write:\n- url: http://a:1/write\n  name: a\n  headers: {X-A: b}\n  queue_config: {max_shards: 5, capacity: 7}",
    ),
    (
        Good,
        "remote_write:\n- url: http://a\n  metadata_config: {send: false}\n  write_relabel_configs: [{action: drop, regex: a, source_labels: [b]}]",
    ),
    (Bad, "remote_write:\n- name: a"),
    (Bad, "remote_write:\n- {url: 'http://a', name: a}\n- {url: 'http://b', name: a}"),
    (Bad, "remote_write:\n- {url: 'http://a', headers: {Authorization: b}}"),
    (Newer, "remote_write:\n- {url: 'http://a', protobuf_message: io.prometheus.write.v2.Request}"),
    (OnlyTheirs, "remote_write:\n- {url: 'http://a', sigv4: {region: a}}"),
    (OnlyTheirs, "remote_read:\n- url: http://a"),
    (Good, "storage:\n  tsdb: {out_of_order_time_window: 30m}\n  exemplars: {max_exemplars: 5}"),
    (Newer, "storage:\n  tsdb: {retention: {time: 5d, size: 10GB}}"),
    (Bad, "storage: {tsdb: {window: 5m}}"),
    (OnlyTheirs, "tracing: {endpoint: 'a:1'}"),
    (Newer, "runtime: {gogc: 50}"),
    (Bad, "a: ["),
    (Bad, "other: 1"),
    (Bad, "- a"),
];

#[test]
fn what_promtool_accepts_is_accepted_unless_it_is_not_known_here() {
    let has_promtool = Command::new("promtool").arg("--version").output().is_ok();
    if !has_promtool {
        println!("skipped: promtool is not installed, only our side is checked");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yml");
    let jobs = JOBS.iter().map(|(expected, lines)| (*expected, job(lines)));
    let files = FILES.iter().map(|(expected, text)| (*expected, (*text).to_owned()));
    let mut wrong = Vec::new();
    for (expected, text) in jobs.chain(files) {
        let ours = parse(&text);
        if ours.is_ok() != matches!(expected, Good | Newer) {
            wrong.push(format!("{text}\nexpected {expected:?}: {:?}", ours.err()));
        }
        if !has_promtool {
            continue;
        }
        std::fs::write(&file, &text).unwrap();
        let out =
            Command::new("promtool").args(["check", "config", "--syntax-only"]).arg(&file).output().unwrap();
        if out.status.success() != matches!(expected, Good | OnlyTheirs) {
            let error = String::from_utf8_lossy(&out.stderr).into_owned();
            wrong.push(format!("{text}\nexpected {expected:?} of promtool: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_mistake_is_reported_with_file_line_field_and_remedy() {
    let text = "\
global:
  scrape_interval: 5 s
  query_log_file: q
scrape_configs:
- job_name: a
  kubernetes_sd_configs: [{role: pod}]
  static_configs: [{targets: ['http://x/']}]
- job_name: a
  scrape_timeout: 2m
  intervall: 5s
  relabel_configs:
  - {source_labels: [a], action: kepp}
rule_files: [a.yml]
remote_write: [{}]
";
    let mistakes = parse(text).unwrap_err();
    let expected = [
        "line 2: global.scrape_interval: \"5 s\" is not a duration: write whole numbers with units (y w d h m s ms), for example 1m30s",
        "line 3: global.query_log_file: is not known here; use --request.logging-config",
        "line 6: scrape_configs[0].kubernetes_sd_configs: is not known here; take Prometheus with the sidecar, or file_sd_configs or \
         http_sd_configs",
        "line 7: scrape_configs[0].static_configs: target \"http://x/\" is not of the form HOST:PORT; scheme and path have fields of their own",
        "line 8: scrape_configs[1].job_name: \"a\" is the name of another one: rename it",
        "line 9: scrape_configs[1].scrape_timeout: is longer than scrape_interval: make it shorter",
        "line 10: scrape_configs[1].intervall: unknown field; known fields: ",
        "line 12: scrape_configs[1].relabel_configs[0].action: \"kepp\" is not known; expected one of replace, keep, ",
        "line 12: scrape_configs[1].relabel_configs[0].target_label: is missing: the action replace needs it",
        "line 13: rule_files: rules are not evaluated here; remove it and give the rules to a ruler, or take Prometheus with the sidecar",
        "line 14: remote_write[0].url: is missing",
    ];
    for (mistake, expected) in mistakes.iter().zip(expected) {
        assert!(mistake.contains(&format!("prometheus/p.yml: {expected}")), "{mistake}\nexpected {expected}");
    }
    assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
}

#[test]
fn defaults_come_from_the_global_section() {
    let config = parse(
        "global: {scrape_interval: 4s, sample_limit: 5, label_limit: 6, metric_name_validation_scheme: legacy, external_labels: {a: $$x}}\n\
         scrape_configs: [{job_name: a}, {job_name: b, scrape_interval: 1m, sample_limit: 7, metric_name_validation_scheme: utf8, \
         scrape_native_histograms: true}]",
    )
    .unwrap();
    let [a, b] = config.scrape_configs.as_slice() else { panic!("two jobs") };
    assert_eq!((a.scrape_interval, a.scrape_timeout), (Duration::from_secs(4), Duration::from_secs(4)));
    assert_eq!((b.scrape_interval, b.scrape_timeout), (Duration::from_secs(60), Duration::from_secs(4)));
    assert_eq!((a.limits.samples, b.limits.samples, b.limits.labels), (5, 7, 6));
    assert_eq!((a.escaping, b.escaping), (NameEscaping::Underscores, NameEscaping::AllowUtf8));
    assert_eq!((a.protocols.len(), b.protocols[0]), (4, ScrapeProtocol::PrometheusProto));
    assert_eq!(config.global.external_labels.to_string(), "{a=\"$x\"}");
}

#[test]
fn paths_are_relative_to_the_file_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    write("jobs/a.yml", "scrape_configs: [{job_name: a, file_sd_configs: [{files: [t.json]}]}]");
    let main = write("p.yml", "scrape_config_files: ['jobs/*.yml']\nscrape_configs: [{job_name: b}]");
    let config = PrometheusConfig::load(&main).unwrap();
    let names: Vec<&str> = config.scrape_configs.iter().map(|config| config.job_name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    let DiscoveryConfig::File(files) = &config.scrape_configs[1].discoveries[0] else { panic!("files") };
    assert_eq!(files.files, [folder.path().join("jobs/t.json")]);
    let other = write("jobs/b.yml", "scrape_configs: [{job_name: b, honor: 1}]\nglobal: {}");
    let mistakes = PrometheusConfig::load(&main).unwrap_err().to_string();
    for expected in [
        format!(
            "{}: line 1: scrape_configs[0].job_name: \"b\" is the name of another one in {}",
            other.display(),
            main.display()
        ),
        format!("{}: line 1: scrape_configs[0].honor: unknown field", other.display()),
        format!("{}: line 2: global: unknown field", other.display()),
    ] {
        assert!(mistakes.contains(&expected), "{mistakes}\nexpected {expected}");
    }
    let missing = PrometheusConfig::load(&folder.path().join("none.yml")).unwrap_err().to_string();
    assert!(missing.contains("none.yml: cannot be read: No such file"), "{missing}");
}

#[test]
fn the_file_that_prometheus_comes_with_is_accepted() {
    let text = "\
global:
  scrape_interval: 15s # Set the scrape interval to every 15 seconds. Default is every 1 minute.
  evaluation_interval: 15s
alerting:
  alertmanagers:
    - static_configs:
        - targets:
          # - alertmanager:9093
rule_files:
  # - \"first_rules.yml\"
scrape_configs:
  - job_name: \"prometheus\"
    static_configs:
      - targets: [\"localhost:9090\"]
        labels:
          app: \"prometheus\"
";
    let config = parse(text).unwrap();
    assert_eq!(config.scrape_configs.len(), 1);
    assert_eq!(config.warnings, ["alerting: has no effect, because no rules are evaluated here"]);
}

#[test]
fn damaged_texts_never_panic() {
    let whole = job(
        "params: {a: [b]}\nstatic_configs:\n- targets: [a:1]\nrelabel_configs:\n- {target_label: c, replacement: ä}",
    );
    let chars: Vec<char> = whole.chars().collect();
    for at in 0..chars.len() {
        let cut: String = chars[..at].iter().collect();
        let _ = parse(&cut);
        for replacement in ['[', '{', ':', '-', '\n', '&', '*', '\0', '"'] {
            let mut changed = chars.clone();
            changed[at] = replacement;
            let _ = parse(&changed.iter().collect::<String>());
        }
    }
}
