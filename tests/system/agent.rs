//! Agents: scraper and gateway in one process, and pairs of them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{
    Mesh, Process, Prometheus, free_port, get, isthmus, openmetrics_blocks, percent_encode, post_form,
    wait_for,
};

use crate::world::{querier, wait_for_stores};

const PATIENCE: Duration = Duration::from_secs(30);

/// The command line of an agent of cluster eu-1.
struct Agent {
    flags: Vec<String>,
    log: PathBuf,
    data: PathBuf,
    http: SocketAddr,
}

impl Agent {
    fn new(dir: &Path, replica: &str, token: &Path) -> Self {
        let (http, data) = (free_port(), dir.join(format!("data-{replica}")));
        let flags = vec![
            "agent".to_owned(),
            format!("--join-file={}", token.display()),
            format!("--config.file={}", file(dir).display()),
            format!("--replica={replica}"),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--http-address={http}"),
            "--grpc-address=127.0.0.1:0".to_owned(),
        ];
        Self { flags, log: dir.join(format!("{replica}.log")), data, http }
    }

    fn start(&self) -> Process {
        let mut process = Process::start(&isthmus(), &self.flags, &self.log);
        process.wait_ready("agent", self.http);
        process
    }

    /// Starts it, which must be refused with exit code 2, and returns the lines of the errors.
    fn refused(&self) -> Vec<String> {
        let output = Command::new(isthmus()).args(&self.flags).output().expect("isthmus runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        text.lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect()
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("prometheus.yml")
}

fn write(dir: &Path, external_labels: &str, target: SocketAddr) {
    let text = format!(
        "global:\n  scrape_interval: 200ms\n  external_labels: {{{external_labels}}}\n\
         scrape_configs:\n- job_name: pair\n  static_configs: [{{targets: ['{target}']}}]\n"
    );
    fs::write(file(dir), text).expect("a file");
}

fn ask(http: SocketAddr, query: &str, more: &str) -> Result<Value, String> {
    let (status, body) = get(http, &format!("/api/v1/query?query={}{more}", percent_encode(query)))?;
    let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    if status == 200 { Ok(answer) } else { Err(body) }
}

/// The label sets and values of an answer.
fn series(answer: &Value) -> Vec<(&Value, &Value)> {
    let result = answer["data"]["result"].as_array().expect("a list");
    result
        .iter()
        .map(|series| (&series["metric"], series.get("values").unwrap_or(&series["value"])))
        .collect()
}

fn wait_for_answer(http: SocketAddr, query: &str, is_right: impl Fn(&Value) -> bool) -> Value {
    wait_for(query, PATIENCE, || {
        let answer = ask(http, query, "")?;
        if is_right(&answer) { Ok(answer) } else { Err(answer.to_string()) }
    })
}

fn has_a_value(answer: &Value) -> bool {
    series(answer).iter().any(|(_, value)| value[1] == "1")
}

#[test]
fn two_agents_with_one_file_are_a_pair_that_answers_when_one_is_killed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let (_querier, http) = querier(dir.path(), "querier", &[format!("--gateway={}", mesh.grpc)]);
    write(dir.path(), "team: x", http);
    let a = Agent::new(dir.path(), "a", &mesh.token("eu-1", "a.token"));
    let b = Agent::new(dir.path(), "b", &mesh.token("eu-1", "b.token"));
    let (mut first, mut second) = (a.start(), b.start());

    println!("the directory lists both");
    wait_for_stores(http, 2);
    let (_, stores) = get(http, "/api/v1/stores").expect("an answer");
    assert!(stores.contains("scraper-a.eu-1") && stores.contains("scraper-b.eu-1"), "{stores}");

    println!("both have samples, and the answer has each series once");
    for agent in [&a, &b] {
        wait_for_answer(agent.http, "up", has_a_value);
    }
    let both = wait_for("both replicas", PATIENCE, || {
        let answer = ask(http, "up", "&dedup=false")?;
        if series(&answer).len() == 2 { Ok(answer) } else { Err(answer.to_string()) }
    });
    let replicas: Vec<&Value> = series(&both).iter().map(|(labels, _)| &labels["replica"]).collect();
    assert_eq!(replicas, ["a", "b"]);
    let answer = ask(http, "up", "").expect("an answer");
    let [(labels, value)] = series(&answer)[..] else { panic!("{answer}") };
    assert_eq!((&labels["replica"], value[1].as_str()), (&Value::Null, Some("1")));
    assert_eq!(
        (&labels["cluster"], &labels["environment"], &labels["team"]),
        (&"eu-1".into(), &"testing".into(), &"x".into())
    );
    assert!(answer["warnings"].is_null(), "{answer}");

    println!("one is killed: the answer has all samples of the other, and a warning");
    second.kill();
    let time = wait_for_answer(a.http, "timestamp(up)", |answer| !series(answer).is_empty());
    let time = format!("&time={}", series(&time)[0].1[1].as_str().expect("a number"));
    let answer = wait_for("the end of replica b", PATIENCE, || {
        let answer = ask(http, "up[1h]", &time)?;
        if answer["warnings"].to_string().contains("scraper-b.eu-1") {
            Ok(answer)
        } else {
            Err(answer.to_string())
        }
    });
    let own = ask(a.http, "up[1h]", &time).expect("an answer");
    let ([(labels, over_mesh)], [(_, of_agent)]) = (&series(&answer)[..], &series(&own)[..]) else {
        panic!("{answer} {own}")
    };
    assert_eq!((over_mesh, &labels["replica"]), (of_agent, &Value::Null));
    assert!(over_mesh.as_array().is_some_and(|samples| samples.len() > 1), "{answer}");

    println!("it comes back with the same arguments, and the warning ends");
    let mut second = b.start();
    wait_for_answer(http, "up", |answer| answer["warnings"].is_null() && has_a_value(answer));

    println!("a reload with the labels of another cluster changes nothing");
    write(dir.path(), "cluster: us-1", http);
    let (status, body) = post_form(a.http, "/-/reload", "").expect("an answer");
    assert!(status == 500 && body.contains("line 3: global.external_labels.cluster: is \"us-1\""), "{body}");
    write(dir.path(), "team: y, cluster: eu-1", http);
    assert_eq!(post_form(a.http, "/-/reload", ""), Ok((200, String::new())));
    wait_for_answer(http, "up{team=\"y\"}", has_a_value);

    println!("one metric has one meaning, and a signal ends it with code 0");
    let (_, metrics) = get(a.http, "/metrics").expect("metrics");
    for name in ["isthmus_gateway_connections", "prometheus_tsdb_head_series"] {
        let line = format!("# TYPE {name} ");
        assert_eq!(metrics.matches(&line).count(), 1, "{name}");
    }
    assert_eq!(first.terminate(), Some(0), "{}", first.output());
    assert_eq!(second.terminate(), Some(0), "{}", second.output());
}

#[test]
fn what_cannot_be_right_is_refused_before_the_token_is_used() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let target = free_port();
    let agent = Agent::new(dir.path(), "a", &mesh.token("eu-1", "a.token"));

    println!("flags that are refused are not in the help");
    let help = Command::new(isthmus()).args(["agent", "--help"]).output().expect("isthmus runs");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("--grpc-address") && !help.contains("--grpc-server-tls"), "{help}");
    let mut with_tls = Agent::new(dir.path(), "a", Path::new("/nowhere"));
    with_tls.flags.push("--grpc-server-tls-cert=/nowhere".to_owned());
    write(dir.path(), "", target);
    let lines = with_tls.refused();
    assert!(lines.iter().any(|line| line.contains("--grpc-server-tls-*: ")), "{lines:?}");

    println!("another cluster and another replica: one line each");
    write(dir.path(), "cluster: us-1, replica: b", target);
    let lines = agent.refused();
    let [replica, cluster] = &lines[..] else { panic!("{lines:?}") };
    assert!(replica.contains("line 3: global.external_labels.replica: is \"b\", but --replica says \"a\""));
    assert!(cluster.contains("line 3: global.external_labels.cluster: is \"us-1\", but the token says"));
    assert!(!agent.data.exists(), "nothing was written");

    println!("a folder of something else");
    write(dir.path(), "", target);
    fs::create_dir(&agent.data).expect("a folder");
    fs::write(agent.data.join("thesis.txt"), "text").expect("a file");
    let output = Command::new(isthmus()).args(&agent.flags).output().expect("isthmus runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("thesis.txt"), "{error}");
    let left: Vec<_> =
        fs::read_dir(&agent.data).expect("a folder").map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["thesis.txt"]);
    fs::remove_dir_all(&agent.data).expect("a folder");

    println!("another environment is known after the join, and costs no second token");
    write(dir.path(), "environment: production", target);
    let lines = agent.refused();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(
        line.contains("environment: is \"production\", but the certificate of this cluster says \"testing\"")
    );
    write(dir.path(), "environment: testing", target);
    let mut running = agent.start();

    println!("the folder is locked while it runs");
    let mut other = Agent::new(dir.path(), "b", &mesh.token("eu-1", "b.token"));
    other.flags.push(format!("--data-dir={}", agent.data.display()));
    other.flags.retain(|flag| !flag.starts_with("--storage.tsdb.path"));
    let lines = other.refused();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("--data-dir: ") && line.contains("another process"), "{line}");
    assert_eq!(running.terminate(), Some(0));
}

#[test]
fn an_agent_uploads_blocks_and_sends_samples_with_the_labels_of_its_certificate() {
    if !Prometheus::is_installed("uploads and remote write of an agent") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let receiver = Receiver::start(&dir.path().join("receiver"));
    let mut agent = Agent::new(dir.path(), "a", &mesh.token("eu-1", "a.token"));
    write(dir.path(), "team: x", receiver.address);
    let mut text = fs::read_to_string(file(dir.path())).expect("a file");
    text.push_str(&format!("remote_write:\n- url: http://{}/api/v1/write\n", receiver.address));
    fs::write(file(dir.path()), text).expect("a file");
    let bucket = dir.path().join("bucket");
    agent
        .flags
        .push(format!("--objstore.config=type: FILESYSTEM\nconfig: {{directory: {}}}", bucket.display()));
    fs::create_dir(&bucket).expect("a folder");
    println!("the folder has a block of the past");
    let past = "# TYPE old gauge\nold 1 1700000000\nold 2 1700000060\n# EOF\n";
    openmetrics_blocks(&dir.path().join("past"), past);
    fs::rename(dir.path().join("past/data"), &agent.data).expect("a folder");
    let mut process = agent.start();

    println!("the block is uploaded");
    let meta = wait_for("a block in the bucket", PATIENCE, || {
        let entries = fs::read_dir(&bucket).map_err(|error| error.to_string())?;
        let metas = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("meta.json")).ok());
        metas.last().ok_or_else(|| process.output())
    });
    let meta: Value = serde_json::from_str(&meta).expect("JSON");
    let labels =
        serde_json::json!({"cluster": "eu-1", "environment": "testing", "replica": "a", "team": "x"});
    assert_eq!(meta["thanos"]["labels"], labels);
    assert_eq!(meta["stats"]["numSamples"], 2);

    println!("samples are sent");
    let query = "up{cluster=\"eu-1\",environment=\"testing\",replica=\"a\",team=\"x\"}";
    wait_for_answer(receiver.address, query, has_a_value);
    assert_eq!(process.terminate(), Some(0), "{}", process.output());
}

/// A Prometheus that accepts remote write.
struct Receiver {
    address: SocketAddr,
    _process: Process,
}

impl Receiver {
    fn start(dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        fs::write(file(dir), "").expect("a file");
        let address = free_port();
        let args = [
            format!("--config.file={}", file(dir).display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--web.listen-address={address}"),
            "--web.enable-remote-write-receiver".to_owned(),
        ];
        let mut process = Process::start(Path::new("prometheus"), &args, &dir.join("prometheus.log"));
        process.wait_ready("prometheus", address);
        Self { address, _process: process }
    }
}
