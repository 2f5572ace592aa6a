//! What the command line of a role says: its mistakes, and the servers of a ruler.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tests::{Process, free_port, isthmus};

use crate::doctor::{doctor, words};

/// Starts a querier, and returns its HTTP address. It is killed when the process is dropped.
fn querier(dir: &Path) -> (SocketAddr, Process) {
    let http = free_port();
    let args =
        words(&["query", &format!("--http-address={http}"), &format!("--grpc-address={}", free_port())]);
    let mut querier = Process::start(&isthmus(), &args, &dir.join("log"));
    querier.wait_ready("querier", http);
    (http, querier)
}

#[test]
fn the_queriers_and_alertmanagers_of_a_ruler_are_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let (http, _querier) = querier(dir.path());
    let found = doctor(&words(&[
        "rule",
        &format!("--query=http://{http}"),
        &format!("--alertmanagers.url=http://someone:secret@{http}/alertmanager"),
        "--alertmanagers.url=dnssrv+http://_am._tcp.no-such-service.invalid",
        "--http-address=127.0.0.1:0",
        "--grpc-address=127.0.0.1:0",
    ]));
    found.has("ok", "queriers", &format!("http://{http}: is ready"));
    found.has("warning", "Alertmanagers", &format!("http://{http}/alertmanager: answers 404"));
    found.has("critical", "DNS", "dnssrv+_am._tcp.no-such-service.invalid: ");
    assert!(!format!("{found:?}").contains("secret"), "{found:?}");
}

#[test]
fn servers_of_a_ruler_in_files_are_asked() {
    let dir = tempfile::tempdir().expect("a folder");
    let (http, _querier) = querier(dir.path());
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let silent = free_port();
    let queriers = file(
        "query.yaml",
        &format!("- static_configs: ['{http}']\n- file_sd_configs: [{{files: [more.yaml]}}]\n"),
    );
    file("more.yaml", &format!("- targets: ['{silent}']\n"));
    let alertmanagers = file(
        "alertmanagers.yaml",
        &format!(
            "alertmanagers: [{{static_configs: ['{http}'], path_prefix: /p}}, {{file_sd_configs: [{{files: [absent.yaml]}}]}}]\n"
        ),
    );
    let ruler = |more: &[&str]| {
        let all = ["rule", "--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"];
        doctor(&words(&[&all[..], more].concat()))
    };
    let of_queriers = format!("--query.config-file={queriers}");
    let found = ruler(&[&of_queriers, &format!("--alertmanagers.config-file={alertmanagers}")]);
    found.has("ok", "queriers", &format!("http://{http}: is ready"));
    found.has("warning", "queriers", &format!("http://{silent}: "));
    found.has("warning", "Alertmanagers", &format!("http://{http}/p: answers 404"));
    found.has("warning", "Alertmanagers", "absent.yaml: No such file or directory; write it");

    println!("a mistake in one file does not hide the servers of the other one");
    let wrong =
        format!("--alertmanagers.config=alertmanagers: [{{api_version: v1, static_configs: ['{http}']}}]");
    let found = ruler(&[&of_queriers, &wrong]);
    found.has(
        "critical",
        "configuration",
        "--alertmanagers.config: line 1: alertmanagers[0].api_version: v1 was removed",
    );
    found.has("ok", "queriers", &format!("http://{http}: is ready"));
}

/// Each command line is given to the doctor and to the role, which must refuse it.
#[test]
fn what_a_role_refuses_at_its_start_is_found_before() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let scrapes = format!("--config.file={}", file("prometheus.yml", "scrape_configs: [{jobname: x}]\n"));
    let rules = format!(
        "--rule-file={}",
        file("rules.yaml", "groups: [{name: g, rules: [{record: a, expr: sum(}]}]\n")
    );
    let gateway = format!("--config={}", file("gateway.yaml", "role: cluster\ndata_dir: data\n"));
    let data = format!("--data-dir={}", dir.path().join("data").display());
    let absent = dir.path().join("absent").display().to_string();
    let certificate = format!("--grpc-server-tls-cert={absent}");
    for line in [
        &["sidecar", "--prometheus.url=ftp://x"][..],
        &[
            "sidecar",
            "--tsdb.path=/no/such/folder",
            "--objstore.config={type: FILESYSTEM, config: {directory: /b}}",
        ],
        &["store"],
        &["store", "--objstore.config=type: NONE"],
        &[
            "compact",
            "--objstore.config={type: FILESYSTEM, config: {directory: /b}}",
            "--retention.config=a: b",
        ],
        &["query", "--query.timeout=0s", "--endpoint-strict=dns+a:1"],
        &["rule", &rules, "--query=ftp://x"],
        &["scrape", &scrapes],
        &["agent", &scrapes, &data],
        &["gateway", &gateway],
        &["query", &format!("--http.config={absent}"), "--tracing.config=x"],
        &["query", "--request.logging-config=a: b", &certificate],
    ] {
        let ports = ["--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"];
        let line = words(&[line, &ports].concat());
        let mut role = Process::start(&isthmus(), &line, &dir.path().join("log"));
        let code = role.wait_end();
        let said = role.output();
        assert_eq!(code, Some(2), "{line:?}: {said}");
        let mistakes: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        assert!(!mistakes.is_empty(), "{line:?}: {said}");
        let found = doctor(&line);
        mistakes.iter().for_each(|mistake| found.has("critical", "configuration", mistake));
    }
}
