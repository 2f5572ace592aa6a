//! The rules in `deploy/rules` with real processes: each cause is made to happen, its alert fires, and ends when it is healed.
//!
//! One cluster with a scraper, a bucket with a store and a compactor, a scraper that scrapes all processes, two rulers, and a real
//! Alertmanager where it is installed (Debian package `prometheus-alertmanager`). Times in the rules are made short.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Cluster, Mesh, Process, Reach, free_port, get, isthmus, percent_encode, post_form, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);
/// A file of rules that cannot be evaluated, because both sides have several series.
const FAILING: &str = "groups: [{name: failing, rules: [{record: x, expr: up * on () up}]}]\n";

/// A process that can be started again.
struct Part {
    name: &'static str,
    args: Vec<String>,
    http: SocketAddr,
    grpc: SocketAddr,
    log: PathBuf,
    process: Option<Process>,
}

impl Part {
    fn new(dir: &Path, name: &'static str) -> Self {
        let (http, grpc) = (free_port(), free_port());
        Self { name, args: Vec::new(), http, grpc, log: dir.join(format!("{name}.log")), process: None }
    }

    fn start(&mut self, args: &[String]) {
        self.args = args.to_vec();
        self.args.push(format!("--http-address={}", self.http));
        self.args.push(format!("--grpc-address={}", self.grpc));
        self.start_again();
    }

    fn start_again(&mut self) {
        let mut process = Process::start(&isthmus(), &self.args, &self.log);
        process.wait_ready(self.name, self.http);
        self.process = Some(process);
    }

    fn kill(&mut self) {
        self.process = None;
    }
}

/// All processes.
struct World {
    dir: PathBuf,
    mesh: Mesh,
    scraper: Part,
    /// Scrapes all processes.
    _observer: Part,
    querier: Part,
    rulers: [Part; 2],
    _store: Part,
    _compactor: Part,
    alertmanager: Option<(Process, SocketAddr)>,
}

impl World {
    /// Starts everything. The scraper has a damaged block.
    fn start(dir: &Path) -> Self {
        let part = |name| Part::new(dir, name);
        let (mut scraper, mut observer, mut querier) = (part("scraper"), part("observer"), part("querier"));
        let (mut store, mut compactor) = (part("store"), part("compactor"));
        let mut rulers = [part("ruler-a"), part("ruler-b")];
        let bucket = dir.join("bucket");
        fs::create_dir_all(&bucket).expect("a folder");
        let objstore =
            format!("--objstore.config=type: FILESYSTEM\nconfig: {{directory: {}}}", bucket.display());
        damaged_block(&dir.join("scraper-data"));
        scraper.start(&scrape(
            dir,
            "scraper",
            "eu-1",
            &[("self", &[scraper.http])],
            std::slice::from_ref(&objstore),
        ));
        let targets = vec![("scraper-0".to_owned(), scraper.grpc)];
        let eu_1 = Cluster { name: "eu-1", reach: Reach::DialsOut, targets };
        let mesh = Mesh::start(&dir.join("mesh"), "auto", &[eu_1]);
        store.start(&[
            "store".into(),
            objstore.clone(),
            "--sync-block-duration=1s".into(),
            data(dir, "store"),
        ]);
        compactor.start(&[
            "compact".into(),
            objstore,
            "--wait".into(),
            "--wait-interval=1s".into(),
            data(dir, "compactor"),
        ]);
        let jobs: [(&str, &[SocketAddr]); 6] = [
            ("gateway", &[mesh.http, mesh.cluster_http(0)]),
            ("scraper", &[scraper.http, observer.http]),
            ("querier", &[querier.http]),
            ("store", &[store.http]),
            ("compactor", &[compactor.http]),
            ("ruler", &[rulers[0].http, rulers[1].http]),
        ];
        observer.start(&scrape(dir, "observer", "observability", &jobs, &[]));
        let mut args = vec![
            "query".to_owned(),
            "--query.replica-label=replica".into(),
            format!("--gateway={}", mesh.grpc),
        ];
        let stores = [&observer, &store, &rulers[0], &rulers[1]];
        args.extend(stores.iter().map(|part| format!("--endpoint-strict={}", part.grpc)));
        querier.start(&args);
        let at = free_port();
        let alertmanager = alertmanager(dir, at).map(|process| (process, at));
        write_rules(dir, &quick_rules());
        for (ruler, replica) in rulers.iter_mut().zip(["a", "b"]) {
            ruler.start(&ruler_args(dir, replica, querier.http, alertmanager.as_ref().map(|own| own.1)));
        }
        let (_store, _compactor) = (store, compactor);
        Self {
            dir: dir.to_owned(),
            mesh,
            scraper,
            _observer: observer,
            querier,
            rulers,
            _store,
            _compactor,
            alertmanager,
        }
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        let (status, body) = get(self.querier.http, path)?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if status == 200 { Ok(answer["data"].clone()) } else { Err(body) }
    }

    /// The alerts that fire, by the series that rulers record.
    fn firing(&self) -> Result<BTreeSet<String>, String> {
        let query = percent_encode(r#"group by (alertname) (ALERTS{alertstate="firing"})"#);
        let answer = self.ask(&format!("/api/v1/query?query={query}"))?;
        let series = answer["result"].as_array().ok_or_else(|| answer.to_string())?;
        Ok(series.iter().filter_map(|one| one["metric"]["alertname"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until exactly these alerts fire, besides the one that always fires.
    fn wait_for_alerts(&self, expected: &[&str]) {
        let expected: BTreeSet<String> =
            expected.iter().chain(&["Watchdog"]).map(|name| format!("Isthmus{name}")).collect();
        wait_for(&format!("{expected:?} to fire"), PATIENCE, || {
            let firing = self.firing()?;
            if firing == expected { Ok(()) } else { Err(format!("{firing:?}")) }
        });
    }

    /// The value of a label of an alert that fires.
    fn label(&self, alert: &str, label: &str) -> String {
        let query = percent_encode(&format!(r#"ALERTS{{alertname="Isthmus{alert}"}}"#));
        let answer = self.ask(&format!("/api/v1/query?query={query}")).expect("an answer");
        answer["result"][0]["metric"][label].as_str().unwrap_or_default().to_owned()
    }

    /// Lets both rulers read other rules.
    fn reload(&self, rules: &str) {
        write_rules(&self.dir, rules);
        for ruler in &self.rulers {
            let (status, body) = post_form(ruler.http, "/-/reload", "").expect("an answer");
            assert!(matches!(status, 200 | 500), "{status} {body}");
        }
    }
}

fn data(dir: &Path, name: &str) -> String {
    format!("--data-dir={}", dir.join(format!("{name}-data")).display())
}

/// The command line of a scraper, whose file it writes.
fn scrape(
    dir: &Path,
    name: &str,
    cluster: &str,
    jobs: &[(&str, &[SocketAddr])],
    more: &[String],
) -> Vec<String> {
    let mut text = format!(
        "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  external_labels: {{cluster: {cluster}, \
         environment: testing, replica: scraper-0}}\nscrape_configs:\n"
    );
    for (job, targets) in jobs {
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let targets = targets.join(", ");
        text.push_str(&format!("- job_name: {job}\n  static_configs: [{{targets: [{targets}]}}]\n"));
    }
    let file = dir.join(format!("{name}.yml"));
    fs::write(&file, text).expect("a file");
    let mut args = vec!["scrape".to_owned(), format!("--config.file={}", file.display()), data(dir, name)];
    args.extend_from_slice(more);
    args
}

fn ruler_args(
    dir: &Path,
    replica: &str,
    querier: SocketAddr,
    alertmanager: Option<SocketAddr>,
) -> Vec<String> {
    let mut args = vec![
        "rule".to_owned(),
        format!("--rule-file={}", dir.join("rules/*.yaml").display()),
        format!("--query=http://{querier}"),
        format!("--label=replica=\"{replica}\""),
        "--alert.label-drop=replica".to_owned(),
        "--eval-interval=500ms".to_owned(),
        "--resend-delay=1s".to_owned(),
        data(dir, &format!("ruler-{replica}")),
    ];
    args.extend(alertmanager.map(|at| format!("--alertmanagers.url=http://{at}")));
    args
}

/// A block of which a chunk is damaged, in a data folder.
fn damaged_block(data: &Path) {
    let output = Command::new(isthmus())
        .args(["tools", "block", "generate", "--series=10", "--output-dir"])
        .arg(data)
        .output()
        .expect("isthmus runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    flip_bit(&damaged_segment(data));
}

/// Gives each of two files the name of the other one, at once.
fn exchange(one: &Path, other: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("two files");
}

/// The segment of the only block in a folder.
fn damaged_segment(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let blocks: Vec<PathBuf> = entries.filter(|path| path.join("meta.json").exists()).collect();
    assert_eq!(blocks.len(), 1, "{blocks:?}");
    blocks[0].join("chunks/000001")
}

/// Damages a segment, or repairs it. The file is the same, because the block that is to be uploaded shares it.
fn flip_bit(segment: &Path) {
    let mut bytes = fs::read(segment).expect("a segment");
    bytes[200] ^= 1;
    fs::write(segment, bytes).expect("a segment");
}

/// Starts a real Alertmanager at this address; none, after a line, if it is not installed.
fn alertmanager(dir: &Path, at: SocketAddr) -> Option<Process> {
    let program = Path::new("prometheus-alertmanager");
    if Command::new(program).arg("--version").output().is_err() {
        println!("skipped: alerts are not sent (no prometheus-alertmanager on the PATH)");
        return None;
    }
    let config = dir.join("alertmanager.yml");
    fs::write(&config, "route: {receiver: none}\nreceivers: [{name: none}]\n").expect("a file");
    let args = [
        format!("--config.file={}", config.display()),
        format!("--storage.path={}", dir.join("alertmanager-data").display()),
        format!("--web.listen-address={at}"),
        "--cluster.listen-address=".to_owned(),
    ];
    let mut process = Process::start(program, &args, &dir.join("alertmanager.log"));
    process.wait_ready("alertmanager", at);
    Some(process)
}

/// Replaces texts that must be there.
fn replaced(rules: &str, pairs: &[(&str, &str)]) -> String {
    pairs.iter().fold(rules.to_owned(), |rules, (from, to)| {
        assert!(rules.contains(from), "the rules do not contain {from:?}");
        rules.replace(from, to)
    })
}

/// The shipped rules with short times.
fn quick_rules() -> String {
    let file = crate::workspace::root().join("deploy/rules/isthmus.yaml");
    let rules = fs::read_to_string(file).expect("the rules");
    let pairs = [
        ("for: 5m", "for: 1s"),
        ("for: 15m", "for: 1s"),
        ("[5m]", "[4s]"),
        ("[10m]", "[4s]"),
        ("[1h:1m]", "[1m:1s]"),
        ("> 30 * 60", "> 5"),
        ("> 6 * 3600", "> 5"),
    ];
    replaced(&rules, &pairs)
}

fn write_rules(dir: &Path, rules: &str) {
    fs::create_dir_all(dir.join("rules")).expect("a folder");
    fs::write(dir.join("rules/isthmus.yaml"), rules).expect("a file");
}

/// The metrics in the expressions of the shipped rules.
fn metrics(rules: &str) -> BTreeSet<&str> {
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let prefixes = ["isthmus_", "thanos_", "prometheus_"];
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).collect()
}

#[test]
fn shipped_alerts_fire_when_their_cause_happens_and_end_when_it_is_healed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut world = World::start(dir.path());

    println!("the scraper has a damaged block, which is old");
    world.wait_for_alerts(&["BucketGap", "UploadBehind"]);
    println!("the scraper is killed");
    world.scraper.kill();
    world.wait_for_alerts(&["ProcessDown", "ScraperUnreachable"]);
    assert_eq!(world.label("ScraperUnreachable", "cluster"), "eu-1");
    println!("the block is repaired, and it is started again");
    flip_bit(&damaged_segment(&dir.path().join("scraper-data")));
    world.scraper.start_again();
    world.wait_for_alerts(&[]);

    println!("the gateway of the cluster is killed");
    world.mesh.clusters[0].kill();
    world.wait_for_alerts(&["ProcessDown", "ClusterDisconnected"]);
    assert_eq!(world.label("ClusterDisconnected", "cluster"), "eu-1");
    world.mesh.start_again(0);
    world.wait_for_alerts(&[]);

    println!("the bucket is away");
    // In its place is a link to itself, which cannot be read. A folder that is missing would be created.
    let (bucket, away) = (dir.path().join("bucket"), dir.path().join("away"));
    std::os::unix::fs::symlink(&bucket, &away).expect("a link");
    exchange(&bucket, &away);
    world.wait_for_alerts(&["StoreOutOfSync", "CompactorStuck"]);
    exchange(&bucket, &away);
    world.wait_for_alerts(&[]);

    println!("each ruler is killed, which the other one notices");
    for ruler in 0..2 {
        world.rulers[ruler].kill();
        world.wait_for_alerts(&["ProcessDown", "RulerMissing", "StoreUnreachable"]);
        world.rulers[ruler].start_again();
        world.wait_for_alerts(&[]);
    }

    println!("rules fail, and then have mistakes");
    let failing = dir.path().join("rules/failing.yaml");
    fs::write(&failing, FAILING).expect("a file");
    world.reload(&quick_rules());
    world.wait_for_alerts(&["RulerEvaluationFails"]);
    fs::write(&failing, "groups: {}").expect("a file");
    world.reload(&quick_rules());
    world.wait_for_alerts(&["RulerEvaluationFails", "RulerReloadFailed"]);
    fs::remove_file(&failing).expect("a file");
    world.reload(&quick_rules());
    world.wait_for_alerts(&[]);

    println!("a day is soon for certificates, and a month for the issuing CA");
    let soon = [("< 8 * 3600", "< 25 * 3600"), ("< 10 * 86400", "< 31 * 86400")];
    world.reload(&replaced(&quick_rules(), &soon));
    world.wait_for_alerts(&["CertificateExpires", "IssuingCaExpires"]);
    world.reload(&quick_rules());
    world.wait_for_alerts(&[]);

    if let Some((process, at)) = world.alertmanager.take() {
        check_alertmanager(&world, process, at);
    }
    check_metrics(&world);
}

/// Both rulers make one alert in Alertmanager, and notice when it is away.
fn check_alertmanager(world: &World, mut process: Process, at: SocketAddr) {
    let alerts = || -> Result<Vec<Value>, String> {
        let (_, body) = get(at, "/api/v2/alerts")?;
        serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))
    };
    println!("Alertmanager has one alert of two rulers");
    let is_one = || {
        let alerts = alerts()?;
        let names: Vec<&str> =
            alerts.iter().filter_map(|alert| alert["labels"]["alertname"].as_str()).collect();
        if names == ["IsthmusWatchdog"] { Ok(()) } else { Err(format!("{alerts:?}")) }
    };
    wait_for("one alert in Alertmanager", PATIENCE, is_one);
    println!("Alertmanager is away");
    process.kill();
    world.wait_for_alerts(&["AlertsNotSent", "AlertmanagerUnreachable"]);
    let _again = alertmanager(&world.dir, at);
    world.wait_for_alerts(&[]);
    wait_for("one alert in Alertmanager after its restart", PATIENCE, is_one);
}

/// Every metric in the rules was scraped from a process of this test.
fn check_metrics(world: &World) {
    let names = world.ask("/api/v1/label/__name__/values").expect("names");
    let names: BTreeSet<&str> = names.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let rules = quick_rules();
    let missing: Vec<&str> = metrics(&rules).into_iter().filter(|metric| !names.contains(metric)).collect();
    // Only a sidecar has this one; its own tests check it.
    assert_eq!(missing, ["isthmus_sidecar_uploads_blocked"], "metrics that no process has");
}
