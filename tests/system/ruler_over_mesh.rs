//! A ruler that reads the clusters through the mesh, with the engine of its own process.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::{Cluster, Mesh, Process, Reach, free_port, get, isthmus, percent_encode, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

const RULES: &str = "groups:\n- name: g\n  interval: 300ms\n  rules:\n\
    \x20 - {record: 'cluster:up:sum', expr: sum by (cluster) (up)}\n\
    \x20 - {record: 'cluster:up:max', expr: max by (cluster) (up)}\n\
    \x20 - {alert: Here, expr: up == 1, labels: {severity: info}}\n";

/// Starts a role; returns it with its HTTP and gRPC addresses.
fn start(dir: &Path, role: &str, own: &[String]) -> (Process, SocketAddr, SocketAddr) {
    let (http, grpc) = (free_port(), free_port());
    let mut args = vec![role.to_owned(), format!("--http-address={http}"), format!("--grpc-address={grpc}")];
    args.extend_from_slice(own);
    let mut process = Process::start(&isthmus(), &args, &dir.join(format!("{role}.log")));
    process.wait_ready(role, http);
    (process, http, grpc)
}

fn data(http: SocketAddr, path: &str) -> Result<Value, String> {
    let (status, body) = get(http, path)?;
    let mut answer: Value = serde_json::from_str(&body).map_err(|why| format!("{why}: {body}"))?;
    if status == 200 { Ok(answer["data"].take()) } else { Err(body) }
}

/// Waits until all rules have this health, and an error that contains `error`.
fn until_health(http: SocketAddr, expected: &str, error: &str) {
    wait_for(&format!("health {expected}"), PATIENCE, || {
        let found = data(http, "/api/v1/rules")?;
        let rules = found["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        let is_so = |rule: &Value| {
            rule["health"] == expected && rule["lastError"].as_str().unwrap_or_default().contains(error)
        };
        if !rules.is_empty() && rules.iter().all(is_so) { Ok(()) } else { Err(found.to_string()) }
    });
}

#[test]
fn rules_over_the_mesh_record_every_cluster_and_fail_by_name_without_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let target = free_port();
    let config = dir.join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 200ms, external_labels: {{cluster: eu-1, environment: testing, replica: a}}}}\n\
         scrape_configs: [{{job_name: self, static_configs: [{{targets: ['{target}']}}]}}]\n"
    );
    fs::write(&config, text).expect("a file");
    fs::write(dir.join("rules.yaml"), RULES).expect("a file");
    let flags = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", dir.join("scraper").display()),
    ];
    let (_scraper, scraper, grpc) = start(dir, "scrape", &flags);
    // The scraper scrapes itself.
    fs::write(
        &config,
        fs::read_to_string(&config).expect("a file").replace(&target.to_string(), &scraper.to_string()),
    )
    .expect("a file");
    assert_eq!(tests::post_form(scraper, "/-/reload", ""), Ok((200, String::new())));
    let targets = vec![("scraper-0".to_owned(), grpc)];
    let cluster = Cluster { name: "eu-1", reach: Reach::DialsOut, targets };
    let mut mesh = Mesh::start(&dir.join("mesh"), "auto", &[cluster]);
    let flags = [
        format!("--gateway={}", mesh.grpc),
        "--query.replica-label=replica".to_owned(),
        "--endpoint.info-timeout=300ms".to_owned(),
        format!("--rule-file={}", dir.join("rules.yaml").display()),
        format!("--data-dir={}", dir.join("ruler").display()),
        "--label=cluster=\"obs\"".to_owned(),
    ];
    let (mut process, http, _) = start(dir, "rule", &flags);

    println!("the cluster is recorded");
    let recorded = wait_for("the recorded series", PATIENCE, || {
        let query = percent_encode("{__name__=~\"cluster:up:.*\",cluster=\"eu-1\"} == 1");
        let found = data(http, &format!("/api/v1/query?query={query}"))?;
        match found["result"].as_array().map(Vec::len) {
            Some(2) => Ok(found),
            _ => Err(found.to_string()),
        }
    });
    let names: Vec<&Value> =
        recorded["result"].as_array().into_iter().flatten().map(|one| &one["metric"]["__name__"]).collect();
    assert_eq!(names, ["cluster:up:max", "cluster:up:sum"]);
    // Its rule is evaluated after those that record.
    wait_for("the alert of the cluster", PATIENCE, || {
        let alerts = data(http, "/api/v1/alerts")?;
        if alerts["alerts"][0]["labels"]["cluster"] == "eu-1" { Ok(()) } else { Err(alerts.to_string()) }
    });

    println!("its gateway is killed: all rules fail and say which cluster is missing");
    mesh.clusters[0].kill();
    // In the first evaluation, the query may hang, and the rules after it are left out.
    until_health(http, "err", "eu-1");
    wait_for("a warning of the other gateway", PATIENCE, || {
        let log = mesh.observability.output();
        let is_it = |line: &str| {
            line.contains("the cluster is not connected any more") && line.to_lowercase().contains("warn")
        };
        if log.lines().any(is_it) { Ok(()) } else { Err(log) }
    });

    println!("it comes back: the rules go on");
    mesh.start_again(0);
    until_health(http, "ok", "");
    assert_eq!(process.terminate(), Some(0), "{}", process.output());
}
