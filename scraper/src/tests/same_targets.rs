//! The same targets, scraped by a real Prometheus (Debian package `prometheus`) and by this program at the same time, while targets and both
//! programs are killed and started again. Without Prometheus, a line says that the test was skipped.
//!
//! It takes 45 seconds; `ISTHMUS_SCRAPE_SECONDS=600` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use head::{Database, DatabaseOptions};
use runtime::Shutdown;

use crate::tests::prometheus::dumped;
use crate::tests::target::{Answer, Asked, TestTarget, text};
use crate::tests::{Floats, floats};
use crate::{PrometheusConfig, ScrapeManager, ScrapeOptions};

/// The interval of all scrapes, in milliseconds.
const INTERVAL: i64 = 1_000;
/// How far events of both may be apart: one interval, as they scrape at different times, and two more for a busy machine.
const TOLERANCE: i64 = 3 * INTERVAL;
/// Around the restart of both, in milliseconds: Prometheus needs some seconds to start.
const RESTART: std::ops::Range<i64> = -2_000..15_000;

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A target whose series come and go with the time of day, by cycles of 14 seconds.
fn changing(_: &Asked) -> Answer {
    let phase = now() / 1_000 % 14;
    let mut body = format!("# TYPE seconds counter\nseconds {}\nown_time 1 {}\n", now() / 1_000, now());
    if phase < 7 {
        body.push_str("sometimes{job=\"own\",x=\"1\"} 1\ndropped 1\n");
    }
    match phase {
        3 | 4 => Answer::Whole { head: "503 Service Unavailable".to_owned(), body: Vec::new() },
        // In front: of a scrape that fails in the middle, Prometheus forgets to mark the series before the mistake.
        10 | 11 => text(&format!("broken line\n{body}")),
        _ => text(&body),
    }
}

/// A target that is killed and comes back. It has no cycles of its own, because both together could be shorter than an interval, and be
/// seen by one program only.
fn steady(_: &Asked) -> Answer {
    text(&format!("# TYPE seconds counter\nseconds {}\nown_time 1 {}\n", now() / 1_000, now()))
}

/// The recorded expositions, each at a path of its own.
fn recorded(asked: &Asked) -> Answer {
    let folder = std::env::var("ISTHMUS_CONFORMANCE").map_or_else(
        |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        std::path::PathBuf::from,
    );
    let name = asked.line.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let Ok(body) = std::fs::read(folder.join("scrape").join(&name)) else {
        return Answer::Whole { head: "404 Not Found".to_owned(), body: Vec::new() };
    };
    let kind = match name.ends_with(".om.txt") {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4",
    };
    Answer::Whole { head: format!("200 OK\r\nContent-Type: {kind}"), body }
}

const RECORDED: [&str; 4] = [
    "1histogram.om.txt",
    "alltypes.237mfs.nometa.prom.txt",
    "alltypes.237mfs.prom.txt",
    "alltypes.5mfs.om.txt",
];

struct Ours {
    database: Arc<Database>,
    manager: ScrapeManager,
}

impl Ours {
    fn start(dir: &Path, config: &Path) -> Self {
        let (database, _) = Database::open(dir, DatabaseOptions::default()).unwrap();
        let database = Arc::new(database);
        let manager = ScrapeManager::new(Arc::clone(&database), ScrapeOptions::default());
        manager.apply(&PrometheusConfig::load(config).unwrap()).unwrap();
        Self { database, manager }
    }

    async fn stop(self) -> Floats {
        let shutdown = Shutdown::new();
        shutdown.trigger();
        self.manager.run(shutdown).await;
        floats(self.database.head())
    }
}

fn start_prometheus(dir: &Path, config: &Path) -> Child {
    Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", dir.display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Samples without staleness markers, and the markers.
fn split(samples: &BTreeMap<i64, String>) -> (Vec<i64>, Vec<i64>) {
    let is_marker = |value: &str| value == "stale" || value == "NaN";
    let of = |markers: bool| {
        samples.iter().filter(|(_, value)| is_marker(value) == markers).map(|(time, _)| *time).collect()
    };
    (of(false), of(true))
}

/// The times that have none of the others within the tolerance.
fn lonely(times: &[i64], others: &[i64], is_compared: &dyn Fn(i64) -> bool) -> Vec<i64> {
    let is_near = |time: &i64| others.iter().any(|other| (time - other).abs() <= TOLERANCE);
    times.iter().filter(|time| is_compared(**time) && !is_near(time)).copied().collect()
}

/// Compares all series, and returns what is different.
fn differences(ours: &Floats, theirs: &Floats, is_compared: &dyn Fn(i64) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let (Some(ours), Some(theirs)) = (ours.get(name), theirs.get(name)) else {
            wrong.push(format!(
                "{name} is only in one: ours {:?}, theirs {:?}",
                ours.get(name),
                theirs.get(name)
            ));
            continue;
        };
        let ((our_samples, our_markers), (their_samples, their_markers)) = (split(ours), split(theirs));
        for (what, one, other) in [
            ("our samples", &our_samples, &their_samples),
            ("their samples", &their_samples, &our_samples),
            ("our markers", &our_markers, &their_markers),
            ("their markers", &their_markers, &our_markers),
        ] {
            let lonely = lonely(one, other, is_compared);
            if !lonely.is_empty() {
                wrong.push(format!("{name}: {what} {lonely:?}\nours {ours:?}\ntheirs {theirs:?}"));
            }
        }
        let count = |times: &[i64]| times.iter().filter(|time| is_compared(**time)).count();
        for (what, one, other) in
            [("samples", &our_samples, &their_samples), ("markers", &our_markers, &their_markers)]
        {
            // Each begins and ends at its own place in the interval.
            if count(one).abs_diff(count(other)) > 2 + count(other) / 10 {
                wrong.push(format!("{name}: {} {what}, theirs {}", count(one), count(other)));
            }
        }
    }
    wrong
}

/// Values of a target that never changes are equal.
fn recorded_values(floats: &Floats) -> BTreeMap<String, String> {
    let own = floats
        .iter()
        .filter(|(series, _)| series.contains("job=\"recorded") && !series.starts_with("scrape_"));
    own.map(|(series, samples)| (series.clone(), samples.values().next().cloned().unwrap_or_default()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prometheus_beside_has_the_same_series_and_staleness() {
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
    let seconds =
        std::env::var("ISTHMUS_SCRAPE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(45u64);
    let dir = tempfile::tempdir().unwrap();
    let (config, list) = (dir.path().join("prometheus.yml"), dir.path().join("listed.json"));
    let stable = TestTarget::start(changing).await;
    let mut killed = Some(TestTarget::start(steady).await);
    let killed_at = killed.as_ref().unwrap().address.to_string();
    let listed = TestTarget::start(|_| text("a 1\nb 2\n")).await;
    let files = TestTarget::start(recorded).await;
    let write_list = |is_there: bool| {
        let targets = if is_there { format!("\"{}\"", listed.address) } else { String::new() };
        // Replaced at once, so that neither reads half of it.
        let new = dir.path().join("new");
        std::fs::write(&new, format!("[{{\"targets\": [{targets}]}}]")).unwrap();
        std::fs::rename(&new, &list).unwrap();
    };
    write_list(true);
    let mut text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: changing\n  static_configs: [{{targets: \
         ['{}', '{killed_at}', '127.0.0.1:1']}}]\n  metric_relabel_configs: [{{action: drop, source_labels: [__name__], regex: dropped}}]\n\
         - job_name: listed\n  file_sd_configs: [{{files: [listed.json]}}]\n",
        stable.address
    );
    for name in RECORDED {
        text.push_str(&format!(
            "- {{job_name: 'recorded {name}', metrics_path: /{name}, static_configs: [{{targets: ['{}']}}]}}\n",
            files.address
        ));
    }
    std::fs::write(&config, text).unwrap();
    let (our_dir, their_dir) = (dir.path().join("ours"), dir.path().join("theirs"));
    let mut prometheus = start_prometheus(&their_dir, &config);
    let mut ours = Ours::start(&our_dir, &config);
    let (begin, first) = (Instant::now(), now());
    let mut restarted = None;
    let mut tick = 0;
    while begin.elapsed() < Duration::from_secs(seconds) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        tick += 1;
        match tick % 21 {
            // Its connections end with it.
            7 => killed = None,
            12 => killed = Some(TestTarget::start_at(&killed_at, steady).await),
            9 => write_list(false),
            16 => write_list(true),
            _ => {}
        }
        if restarted.is_none() && begin.elapsed() > Duration::from_secs(seconds) / 2 {
            restarted = Some(now());
            prometheus.kill().unwrap();
            prometheus.wait().unwrap();
            drop(ours.stop().await);
            prometheus = start_prometheus(&their_dir, &config);
            ours = Ours::start(&our_dir, &config);
        }
    }
    drop(killed);
    let last = now();
    let ours = ours.stop().await;
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
    let theirs = dumped(&their_dir);
    let restarted = restarted.unwrap();
    // Prometheus looks for new lists each 5 seconds only.
    let begin_of_lists = first + 8_000;
    let is_compared = |time: i64| {
        time > begin_of_lists && time < last - 2 * TOLERANCE && !RESTART.contains(&(time - restarted))
    };
    let is_listed = |series: &str| series.contains("job=\"listed\"");
    let without_lists = |floats: &Floats| -> Floats {
        floats.iter().filter(|(series, _)| !is_listed(series)).map(|(s, f)| (s.clone(), f.clone())).collect()
    };
    let wrong = differences(&without_lists(&ours), &without_lists(&theirs), &is_compared);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(recorded_values(&ours), recorded_values(&theirs));
    assert!(recorded_values(&ours).len() > 1_000, "{}", recorded_values(&ours).len());
    let names =
        |floats: &Floats| floats.keys().filter(|series| is_listed(series)).cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    println!(
        "compared {} series over {} s, restarted after {} s",
        ours.len(),
        (last - first) / 1_000,
        (restarted - first) / 1_000
    );
}
