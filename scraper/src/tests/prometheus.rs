//! The same scrapes by a real Prometheus, Debian package `prometheus`. Without it, a line says that the test was skipped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::*;

const SCRAPES: usize = 48;

/// What the target answers to its scrapes: a status and a body. Series come and go, scrapes fail, and series are exposed twice.
///
/// Scrapes fail with their first line, and not by a limit: of a scrape that fails in the middle, Prometheus marks some series as stale
/// only in the next scrape, some twice, and some that it never had.
fn answer(number: usize) -> (u16, String) {
    let mut body = String::new();
    match number % 12 {
        3 => return (500, "broken".to_owned()),
        5 => body.push_str("half \n"),
        7 => return (200, String::new()),
        _ => {}
    }
    body.push_str(&format!("# TYPE scrapes counter\nscrapes {number}\nwith_nan NaN\n"));
    if number % 12 == 9 {
        body.push_str("scrapes 5\n");
    }
    if !number.is_multiple_of(3) {
        body.push_str("sometimes{job=\"own\",x=\"1\"} 1.5\n");
    }
    if !number.is_multiple_of(4) {
        body.push_str(&format!("dropped 1\nkept{{drop_me=\"{number}\",n=\"1\"}} {number}\n"));
    }
    // One series by two texts.
    let order = if number.is_multiple_of(2) { "a=\"1\",b=\"2\"" } else { "b=\"2\",a=\"1\"" };
    body.push_str(&format!("ordered{{{order}}} {number}\n"));
    (200, body)
}

/// Answers scrapes, one after the other.
fn serve(count: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { continue };
            let mut request = BufReader::new(connection.try_clone().unwrap());
            let mut line = String::new();
            while request.read_line(&mut line).is_ok_and(|read| read > 2) {
                line.clear();
            }
            let (status, body) = answer(count.fetch_add(1, Ordering::SeqCst));
            let head = format!(
                "HTTP/1.1 {status} x\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close"
            );
            let _ = write!(connection, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    address
}

/// The samples of a data folder by `promtool`, which prints staleness markers and other NaNs as NaN.
pub(super) fn dumped(dir: &Path) -> Floats {
    let out = Command::new("promtool").args(["tsdb", "dump"]).arg(dir).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut floats = Floats::new();
    for line in String::from_utf8(out.stdout).unwrap().lines() {
        let (series, rest) = line.rsplit_once("} ").unwrap();
        let (value, time) = rest.split_once(' ').unwrap();
        let series = series.trim_start_matches('{').strip_suffix('"').unwrap();
        let pairs = series.split("\", ").map(|pair| pair.split_once("=\"").unwrap());
        let series = Labels::from_pairs(pairs).unwrap().to_string();
        let value: f64 = value.parse().unwrap();
        floats.entry(series).or_default().insert(time.parse().unwrap(), value.to_string());
    }
    floats
}

#[test]
fn a_prometheus_that_scrapes_the_same_target_has_the_same_samples() {
    if Command::new("prometheus")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_err()
    {
        println!("skipped: prometheus is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let target = serve(Arc::clone(&count));
    let config = format!(
        "scrape_configs:\n- job_name: t\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n  sample_limit: 30\n  static_configs: [{{targets: \
         [\"{target}\"]}}]\n  metric_relabel_configs:\n  - {{action: drop, source_labels: [__name__], regex: dropped}}\n  - {{action: labeldrop, \
         regex: drop_me}}\n"
    );
    let (file, data) = (dir.path().join("prometheus.yml"), dir.path().join("data"));
    fs::write(&file, config).unwrap();
    let mut prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", data.display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while count.load(Ordering::SeqCst) < SCRAPES + 5 && begin.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(50));
    }
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
    let theirs = dumped(&data);

    let labels = Labels::from_pairs([("instance", target.as_str()), ("job", "t")]).unwrap();
    let of = |name: &str| {
        let mut builder = labels.to_builder();
        builder.set("__name__", name);
        builder.build().to_string()
    };
    let config = |action, source: &[&str], regex: &str| model::RelabelConfig {
        action,
        source_labels: source.iter().map(|&name| name.to_owned()).collect(),
        regex: regex.to_owned(),
        ..model::RelabelConfig::default()
    };
    let rules = ScrapeRules {
        sample_limit: 30,
        metric_relabeling: Relabeling::new(vec![
            config(model::RelabelAction::Drop, &["__name__"], "dropped"),
            config(model::RelabelAction::LabelDrop, &[], "drop_me"),
        ])
        .unwrap(),
        ..ScrapeRules::default()
    };
    let mut series = TargetSeries::new(labels.clone(), Arc::new(rules));
    let (head, _) = Head::open(&dir.path().join("ours"), HeadOptions::default()).unwrap();
    // The n-th answer was scraped at the time of the n-th `up`.
    let times: Vec<i64> = theirs[&of("up")].keys().copied().collect();
    assert!(times.len() >= SCRAPES, "{}", times.len());
    for (number, time) in times.iter().enumerate() {
        let (status, body) = answer(number);
        let fetched = match status {
            200 => text(&body),
            _ => Err(ScrapeFailure::Fetch("server returned HTTP status 500".to_owned())),
        };
        series.append(&head, Timestamp::from_millis(*time), fetched, &|| Duration::ZERO).unwrap();
    }
    let mut ours = floats(&head);
    for samples in ours.values_mut().flat_map(|samples| samples.values_mut()) {
        if samples == "stale" {
            *samples = "NaN".to_owned();
        }
    }
    let last = times[SCRAPES - 1];
    for (name, theirs) in &theirs {
        if *name == of("scrape_duration_seconds") {
            continue;
        }
        let until = |samples: &BTreeMap<i64, String>| -> Vec<(i64, String)> {
            samples.range(..=last).map(|(time, value)| (*time, value.clone())).collect()
        };
        let ours = ours.get(name).unwrap_or_else(|| panic!("{name} is missing in {:?}", ours.keys()));
        assert_eq!(until(ours), until(theirs), "{name}");
    }
    assert_eq!(ours.len(), theirs.len(), "{:?}", ours.keys());
}
