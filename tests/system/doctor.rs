//! `isthmus doctor`: what it finds on a machine that is right, and what it says about each thing that is not.

mod rights;
mod roles;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;
use tests::{ControlGroup, Mesh, Process, Prometheus, free_port, isthmus, wait_for};

use crate::world::sidecar;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the doctor has found: severity, check and text of each line.
#[derive(Debug)]
struct Findings {
    code: Option<i32>,
    lines: Vec<(String, String, String)>,
}

impl Findings {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let object: Value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        let line = |finding: &Value| {
            let field = |name: &str| finding[name].as_str().expect("text").to_owned();
            (field("severity"), field("check"), field("text"))
        };
        let lines: Vec<_> = object["findings"].as_array().expect("a list").iter().map(line).collect();
        let worst =
            lines.iter().map(|(severity, _, _)| severity.as_str()).max_by_key(|severity| rank(severity));
        assert_eq!(object["worst"].as_str(), worst);
        let code = output.status.code();
        assert_eq!(code, Some(rank(worst.unwrap_or("ok"))), "{lines:?}");
        Self { code, lines }
    }

    /// Checks that a line of a check has this severity and this text.
    fn has(&self, severity: &str, check: &str, text: &str) {
        let found = self.lines.iter().any(|(s, c, t)| s == severity && c == check && t.contains(text));
        assert!(found, "{severity} {check} {text:?}: {:#?}", self.lines);
    }
}

/// The exit code of a severity.
fn rank(severity: &str) -> i32 {
    match severity {
        "ok" => 0,
        "warning" => 10,
        _ => 11,
    }
}

fn doctor(role: &[String]) -> Findings {
    let output =
        Command::new(isthmus()).args(["doctor", "--json"]).args(role).output().expect("isthmus runs");
    Findings::of(&output)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn a_gateway_is_examined_before_it_starts_and_while_it_runs() {
    if !Prometheus::is_installed("the examination of a gateway") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut mesh = Mesh::start(&dir.path().join("mesh"), "auto", &[]);
    let token = mesh.token("eu-1", "eu-1.token");
    // A Prometheus with the labels of another cluster.
    let labels = [("cluster", "us-1"), ("environment", "testing"), ("replica", "0")];
    let prometheus = Prometheus::start(&dir.path().join("prometheus"), &labels);
    let sidecar = sidecar(&dir.path().join("prometheus"), &prometheus);
    let (http, grpc) = (free_port(), free_port());
    let gateway = [
        "gateway".to_owned(),
        format!("--join-file={}", token.display()),
        format!("--data-dir={}", dir.path().join("data").display()),
        format!("--target=scraper-0={}", sidecar.grpc),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];

    println!("before: the other side is reached, and the token not used");
    let found = doctor(&gateway);
    found.has("ok", "ports", "is free");
    found.has("ok", "UDP", "answers");
    found.has("ok", "TCP", "accepts connections");
    found.has("ok", "path MTU", "datagrams of 1472 bytes arrive");
    found.has(
        "ok",
        "issuer",
        "spiffe://test.isthmus/cluster/observability/gateway, under a root that the token pins",
    );
    found.has("ok", "certificates", "none yet; token ");
    found.has("ok", "stores", &sidecar.grpc.to_string());
    found.has("ok", "other side", "no gateway runs");
    let mut running = Process::start(&isthmus(), &gateway, &dir.path().join("gateway.log"));
    running.wait_ready("the gateway", http);

    println!("while it runs: the ports are its own, and the other side does not read the store");
    wait_for("the refusal of the store", PATIENCE, || {
        let found = doctor(&gateway);
        let refused = |(severity, check, text): &(String, String, String)| {
            severity == "critical"
                && check == "other side"
                && text.contains("store scraper-0")
                && text.contains("us-1")
        };
        match found.lines.iter().any(refused) {
            true => Ok(()),
            false => Err(format!("{:?} {:#?}", found.code, found.lines)),
        }
    });
    let found = doctor(&gateway);
    found.has("ok", "ports", "is used by the role that runs");
    found.has("ok", "other side", "1 connections");
    found.has("ok", "certificates", "spiffe://test.isthmus/cluster/eu-1/gateway, valid until ");

    found.has("ok", "clock", "agrees with the one of spiffe://test.isthmus/cluster/observability/gateway");

    println!("people get a table");
    let output = Command::new(isthmus()).arg("doctor").args(&gateway).output().expect("isthmus runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("SEVERITY  CHECK") && text.contains("critical  other side"), "{text}");

    println!("without the other side: each attempt to connect says why");
    mesh.observability.kill();
    let not_connected = format!("this gateway is not connected: {} tcp: ", mesh.address);
    wait_for("the loss of the connection", PATIENCE, || {
        let found = doctor(&gateway);
        let is_named = found.lines.iter().any(|(severity, check, text)| {
            severity == "critical" && check == "other side" && text.starts_with(&not_connected)
        });
        if is_named { Ok(()) } else { Err(format!("{:#?}", found.lines)) }
    });

    println!("after its end: the token is that of another issuer, and no process listens");
    assert_eq!(running.terminate(), Some(0));
    let mut other = gateway.to_vec();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    other[1] = format!("--join-file={}", dir.path().join("absent").display());
    other.extend(words(&["--listen", &http.to_string()]));
    let found = doctor(&[words(&["--connect", &silent.to_string()]), other].concat());
    found.has("critical", "TCP", "refused");
    found.has("critical", "UDP", "no answer");
}

#[test]
fn a_command_line_with_mistakes_is_examined_as_far_as_possible() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("gateway.yaml");
    fs::write(&file, "role: cluster\ndata_dir: data\n").expect("a file");
    let found = doctor(&[words(&["gateway"]), vec![format!("--config={}", file.display())]].concat());
    found.has("critical", "configuration", "targets: is missing");
    found.has("ok", "memory", "MiB may be used");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let found =
        doctor(&words(&["query", &format!("--http-address={address}"), "--endpoint=no-such-host.invalid:1"]));
    found.has("critical", "ports", "Address already in use");
    found.has("critical", "DNS", "no-such-host.invalid: ");
    println!("flags that the role does not know are refused as the role does");
    let output =
        Command::new(isthmus()).args(["doctor", "query", "--nonsense"]).output().expect("isthmus runs");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn limits_of_the_process_are_found() {
    let script = "ulimit -n 200; exec \"$0\" doctor --json";
    let output = Command::new("sh").args(["-c", script]).arg(isthmus()).output().expect("sh runs");
    Findings::of(&output).has("critical", "descriptors", "200 are permitted");
    let dir = tempfile::tempdir().expect("a folder");
    let Some(group) = ControlGroup::create(100 << 20, "the memory limit that the doctor finds") else {
        return;
    };
    let log = dir.path().join("log");
    let mut process = group.start(&isthmus(), &words(&["doctor", "--json"]), &log);
    wait_for("the end of the doctor", PATIENCE, || {
        if process.is_running() { Err("it runs") } else { Ok(()) }.map_err(str::to_owned)
    });
    let said = process.output();
    assert!(said.contains("100 MiB may be used, expected at least 256 MiB"), "{said}");
}

#[test]
fn the_clock_of_a_prometheus_is_compared() {
    if !Prometheus::is_installed("the clock that the doctor compares") {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let prometheus = Prometheus::start(dir.path(), &[]);
    let url = format!("--prometheus.url=http://{}", prometheus.address);
    let found =
        doctor(&words(&["sidecar", &url, "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"]));
    found.has("ok", "clock", "agrees with the one of http://");
    found.has("ok", "stores", "accepts connections");
}
