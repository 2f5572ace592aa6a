//! Rulers as processes, over a querier that reads them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;
use tests::{FaultyAlertmanager, Process, free_port, get, isthmus, percent_encode, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

const RULES: &str = "groups:\n- name: g\n  interval: 200ms\n  rules:\n\
    \x20 - {record: recorded, expr: vector(time())}\n\
    \x20 - {alert: Fires, expr: vector(1), for: 1s}\n\
    \x20 - {alert: OverStores, expr: recorded > 0, labels: {severity: page}}\n";

/// A program with an HTTP and a gRPC port, which can be started again.
struct Member {
    name: &'static str,
    args: Vec<String>,
    http: SocketAddr,
    grpc: SocketAddr,
    log: std::path::PathBuf,
}

impl Member {
    fn new(dir: &Path, name: &'static str, command: &str, own: &[String]) -> Self {
        let (http, grpc) = (free_port(), free_port());
        let mut args = vec![command.to_owned()];
        args.extend([format!("--http-address={http}"), format!("--grpc-address={grpc}")]);
        args.extend_from_slice(own);
        Self { name, args, http, grpc, log: dir.join(format!("{name}.log")) }
    }

    /// Starts it. A querier is ready when one of its rulers has answered.
    fn launch(&self) -> Process {
        Process::start(&isthmus(), &self.args, &self.log)
    }

    /// Starts it, and waits until it is ready.
    fn start(&self) -> Process {
        let mut process = self.launch();
        process.wait_ready(self.name, self.http);
        process
    }

    fn data(&self, path: &str) -> Result<Value, String> {
        let (status, body) = get(self.http, path)?;
        let mut answer: Value = serde_json::from_str(&body).map_err(|why| format!("{why}: {body}"))?;
        match status {
            200 => Ok(answer["data"].take()),
            _ => Err(body),
        }
    }

    fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let data = self.data(&format!("/api/v1/query?query={}", percent_encode(query)))?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// The samples of the only series that a range selector finds, by their times.
    fn samples(&self, selector: &str) -> Result<BTreeMap<String, String>, String> {
        let found = self.query(selector)?;
        let values = found.iter().flat_map(|series| series["values"].as_array().cloned().unwrap_or_default());
        Ok(values.map(|value| (value[0].to_string(), value[1].to_string())).collect())
    }
}

/// Rulers `a` and `b`, and a querier over both, which answers their expressions.
struct Rulers {
    rulers: [Member; 2],
    querier: Member,
    dir: TempDir,
}

impl Rulers {
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        std::fs::write(dir.path().join("rules.yaml"), RULES).expect("rules");
        let mut querier = Member::new(
            dir.path(),
            "querier",
            "query",
            &["--query.replica-label=replica".to_owned(), "--endpoint.info-timeout=300ms".to_owned()],
        );
        let ruler = |name: &'static str| {
            let args = [
                format!("--query=http://{}", querier.http),
                format!("--rule-file={}", dir.path().join("rules.yaml").display()),
                format!("--data-dir={}", dir.path().join(name).display()),
                format!("--label=replica=\"{name}\""),
                "--label=cluster=\"obs\"".to_owned(),
                "--for-grace-period=0s".to_owned(),
            ];
            Member::new(dir.path(), name, "rule", &args)
        };
        let rulers = [ruler("a"), ruler("b")];
        querier.args.extend(rulers.iter().map(|ruler| format!("--endpoint={}", ruler.grpc)));
        Self { rulers, querier, dir }
    }
}

/// The state of a rule, such as its health or the state of its alerts.
fn rule(member: &Member, name: &str, field: &str) -> Result<String, String> {
    let groups = member.data("/api/v1/rules")?;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
    let found: Vec<Value> = rules.filter(|rule| rule["name"] == name).collect();
    match &found[..] {
        [rule] => Ok(rule[field].as_str().unwrap_or_default().to_owned()),
        _ => Err(format!("{} rules {name}: {groups:?}", found.len())),
    }
}

fn until_rule(member: &Member, name: &str, field: &str, expected: &str) {
    wait_for(&format!("{field} {expected} of rule {name} at {}", member.name), LIMIT, || {
        match rule(member, name, field)? {
            found if found == expected => Ok(()),
            found => Err(found),
        }
    });
}

#[test]
fn two_rulers_are_one_under_a_querier_and_survive_its_absence() {
    let world = Rulers::new();
    let mut querier = world.querier.launch();
    let _rulers: Vec<Process> = world.rulers.iter().map(Member::start).collect();
    println!("rules and alerts are fanned out and merged");
    until_rule(&world.querier, "Fires", "state", "firing");
    until_rule(&world.querier, "OverStores", "state", "firing");
    let recorded = wait_for("the recorded series", LIMIT, || {
        let found = world.querier.query("recorded")?;
        if found.is_empty() { Err("none".to_owned()) } else { Ok(found) }
    });
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    assert_eq!(recorded[0]["metric"]["cluster"], "obs");
    let both = world.querier.data("/api/v1/query?query=recorded&dedup=false").expect("an answer");
    assert_eq!(both["result"].as_array().map(Vec::len), Some(2), "{both}");
    let alerts = world.querier.data("/api/v1/alerts").expect("alerts");
    let mut names: Vec<&str> = alerts["alerts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|alert| alert["labels"]["alertname"].as_str().expect("a name"))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["Fires", "OverStores"], "{alerts}");

    println!("without the querier rules fail and keep their state, and go on when it is back");
    // The querier shows an alert as firing when it fires at one of the rulers.
    for ruler in &world.rulers {
        until_rule(ruler, "Fires", "state", "firing");
    }
    querier.kill();
    for ruler in &world.rulers {
        until_rule(ruler, "recorded", "health", "err");
        assert_eq!(rule(ruler, "Fires", "state").as_deref(), Ok("firing"));
    }
    let _querier = world.querier.start();
    for ruler in &world.rulers {
        until_rule(ruler, "OverStores", "health", "ok");
    }
}

#[test]
fn a_ruler_that_is_killed_loses_no_sample_and_turns_no_firing_alert_pending() {
    let kills: usize = std::env::var("ISTHMUS_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let mut seed = std::env::var("ISTHMUS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u64);
    println!("{kills} kills, seed {seed}");
    let world = Rulers::new();
    let ruler = &world.rulers[0];
    let _querier = world.querier.launch();
    let mut process = ruler.start();
    until_rule(ruler, "Fires", "state", "firing");
    let pending = |when: &str| {
        ruler
            .samples("ALERTS{alertname=\"Fires\",alertstate=\"pending\"}[1h]")
            .unwrap_or_else(|why| panic!("{when}: {why}"))
    };
    let before = pending("before the first kill");
    let mut seen = BTreeMap::new();
    for kill in 0..kills {
        // xorshift
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        std::thread::sleep(Duration::from_millis(seed % 700));
        if let Ok(samples) = ruler.samples("recorded[1h]") {
            seen = samples;
        }
        process.kill();
        process = ruler.start();
        let after = ruler.samples("recorded[1h]").expect("an answer");
        let lost: Vec<_> = seen.iter().filter(|(at, value)| after.get(*at) != Some(value)).collect();
        assert!(lost.is_empty(), "kill {kill}: lost {lost:?}");
    }
    until_rule(ruler, "Fires", "state", "firing");
    assert!(seen.len() > kills / 2, "{} samples were recorded", seen.len());
    assert_eq!(pending("after the last kill"), before, "a firing alert became pending");
    assert_eq!(process.terminate(), Some(0));
}

/// A small file system; `None`, with a printed line, if mounting is not permitted.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(dir: &Path) -> Option<Self> {
        std::fs::create_dir_all(dir).expect("a folder");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(dir).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir.to_owned()));
        }
        println!("skipped: no file system can be mounted here");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn rules_go_on_in_memory_while_the_disk_is_full() {
    let mut world = Rulers::new();
    let receiver = FaultyAlertmanager::start();
    let each_second = "  - {alert: Second, expr: 'count_values(\"n\", floor(vector(time())))'}\n";
    std::fs::write(world.dir.path().join("rules.yaml"), format!("{RULES}{each_second}")).expect("rules");
    world.rulers[0].args.push(format!("--alertmanagers.url=http://{}", receiver.address()));
    let ruler = &world.rulers[0];
    let data = world.dir.path().join("a");
    let Some(disk) = SmallDisk::mount(&data) else { return };
    let _querier = world.querier.launch();
    let mut process = ruler.start();
    until_rule(ruler, "Fires", "state", "firing");
    let filler = data.join("filler");
    let full = std::fs::write(&filler, vec![0; 2 << 20]);
    assert!(full.is_err(), "the disk has 1 MiB");
    let unlogged = || {
        let (_, metrics) = get(ruler.http, "/metrics")?;
        let value = metrics.lines().find_map(|line| line.strip_prefix("isthmus_rule_unlogged_samples "));
        value.and_then(|value| value.parse::<f64>().ok()).ok_or_else(|| "no metric".to_owned())
    };
    wait_for("samples that are only in memory", LIMIT, || match unlogged()? {
        0.0 => Err("all samples are logged".to_owned()),
        _ => Ok(()),
    });
    until_rule(ruler, "recorded", "health", "ok");
    let full_since = SystemTime::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    wait_for("an alert that began while the disk is full", LIMIT, || {
        let taken = receiver.taken();
        let newest = taken.iter().filter_map(|alert| alert.get("n")?.parse::<u64>().ok()).max();
        if newest > Some(full_since) { Ok(()) } else { Err(format!("{newest:?}")) }
    });
    let in_memory = ruler.samples("recorded[1h]").expect("an answer");
    std::fs::remove_file(&filler).expect("room");
    wait_for("the log to be written again", LIMIT, || match unlogged()? {
        0.0 => Ok(()),
        waiting => Err(format!("{waiting} samples are only in memory")),
    });
    process.kill();
    let _process = ruler.start();
    let after = ruler.samples("recorded[1h]").expect("an answer");
    assert!(
        in_memory.iter().all(|(at, value)| after.get(at) == Some(value)),
        "samples of the full disk are lost"
    );
    drop(disk);
}
