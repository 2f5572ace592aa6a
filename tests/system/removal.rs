//! A cluster leaves the mesh: nothing on the observability side expects, shows or serves it any more, and what stays is its record.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Cluster, Mesh, Process, Reach, free_port, get, isthmus, wait_for};

use crate::world::{querier, wait_for_stores};

const PATIENCE: Duration = Duration::from_secs(30);

/// A scraper of itself with the labels of a cluster, and the address of its StoreAPI.
fn scraper(dir: &Path, cluster: &str) -> (Process, SocketAddr) {
    let (http, grpc) = (free_port(), free_port());
    let config = dir.join(format!("{cluster}.yml"));
    let text = format!(
        "global: {{scrape_interval: 200ms, external_labels: {{cluster: {cluster}, environment: testing, replica: a}}}}\n\
         scrape_configs: [{{job_name: self, static_configs: [{{targets: ['{http}']}}]}}]\n"
    );
    fs::write(&config, text).expect("a file");
    let args = [
        "scrape".to_owned(),
        format!("--config.file={}", config.display()),
        format!("--data-dir={}", dir.join(cluster).display()),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];
    let mut process = Process::start(&isthmus(), &args, &dir.join(format!("{cluster}.log")));
    process.wait_ready(cluster, http);
    (process, grpc)
}

fn pki(mesh: &Mesh, args: &[&str]) -> String {
    let output = Command::new(isthmus()).arg("pki").args(args).arg("--state").arg(mesh.pki_state()).output();
    let output = output.expect("isthmus runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn list(mesh: &Mesh, what: &str) -> Vec<Value> {
    let mut object: Value = serde_json::from_str(&pki(mesh, &[what, "list", "--json"])).expect("JSON");
    let (_, list) = object
        .as_object_mut()
        .expect("an object")
        .iter_mut()
        .find(|(_, list)| list.is_array())
        .expect("a list");
    list.as_array().expect("a list").clone()
}

/// The clusters in an answer, and its warnings.
fn clusters(querier: SocketAddr) -> Result<(Vec<String>, Value), String> {
    let (_, body) = get(querier, "/api/v1/query?query=count+by+(cluster)+(up)")?;
    let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    let series = answer["data"]["result"].as_array().ok_or_else(|| body.clone())?;
    let name = |one: &Value| one["metric"]["cluster"].as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = series.iter().map(name).collect();
    names.sort();
    Ok((names, answer["warnings"].clone()))
}

#[test]
fn a_cluster_that_is_removed_leaves_its_record_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let (_eu, eu) = scraper(dir, "eu-1");
    let (_us, us) = scraper(dir, "us-1");
    let cluster = |name: &'static str, store| Cluster {
        name,
        reach: Reach::DialsOut,
        targets: vec![("scraper-0".to_owned(), store)],
    };
    let mut mesh = Mesh::start(&dir.join("mesh"), "auto", &[cluster("eu-1", eu), cluster("us-1", us)]);
    let unused = mesh.token("eu-1", "unused.token");
    let (_querier, http) = querier(dir, "querier", &[format!("--gateway={}", mesh.grpc)]);
    wait_for_stores(http, 2);
    wait_for("both clusters", PATIENCE, || match clusters(http)? {
        (names, Value::Null) if names == ["eu-1", "us-1"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (_, page) = get(mesh.http, "/metrics").expect("metrics");
    assert!(page.contains("peer=\"eu-1\""), "{page}");

    pki(&mesh, &["cluster", "remove", "eu-1", "--yes"]);
    println!("no answer expects it");
    wait_for("answers of the other cluster, without a warning", PATIENCE, || match clusters(http)? {
        (names, Value::Null) if names == ["us-1"] => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let (_, stores) = get(http, "/api/v1/stores").expect("the stores");
    assert!(!stores.contains("eu-1") && stores.contains("scraper-0.us-1"), "{stores}");

    println!("no series of the gateway is left that a dashboard or an alert could show");
    wait_for("the end of its series", PATIENCE, || {
        let (_, page) = get(mesh.http, "/metrics")?;
        let left: Vec<&str> = page.lines().filter(|line| line.contains("eu-1")).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    });

    println!("its gateway is refused, also after a restart, and so is a token that was not used");
    wait_for("the loss of the connection", PATIENCE, || match get(mesh.cluster_http(0), "/-/ready") {
        Ok((200, _)) => Err("ready".to_owned()),
        _ => Ok(()),
    });
    let config = dir.join("mesh/other.yaml");
    fs::write(
        &config,
        format!("role: cluster\ndata_dir: other\ntargets: [{{name: scraper-0, address: '{eu}'}}]\n"),
    )
    .expect("a file");
    let output = Command::new(isthmus())
        .arg("gateway")
        .args([format!("--config={}", config.display()), format!("--join-file={}", unused.display())])
        .args(["--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0"])
        .output()
        .expect("isthmus runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{error}");

    println!(
        "what stays is the record: the registration, its certificates and tokens, all revoked, and the audit log"
    );
    let known = list(&mesh, "cluster");
    let states: Vec<(&Value, &Value)> = known.iter().map(|one| (&one["cluster"], &one["state"])).collect();
    assert!(states.contains(&(&"eu-1".into(), &"removed".into())), "{states:?}");
    assert!(states.contains(&(&"us-1".into(), &"joined".into())), "{states:?}");
    let of_eu = |one: &&Value| one.to_string().contains("eu-1");
    let certificates = list(&mesh, "cert");
    let revoked = |one: &Value| one["revoked_at"].is_string();
    assert!(certificates.iter().filter(of_eu).count() > 0 && certificates.iter().filter(of_eu).all(revoked));
    assert!(!certificates.iter().filter(|one| !of_eu(one)).any(revoked), "{certificates:?}");
    let tokens = list(&mesh, "token");
    let open = |one: &&Value| one["state"] == "open";
    assert!(tokens.len() >= 3 && tokens.iter().filter(open).count() == 0, "{tokens:?}");
    pki(&mesh, &["audit", "verify"]);

    println!("the gateway of the other cluster was not touched");
    assert!(mesh.clusters[1].is_running());
    assert_eq!(get(mesh.cluster_http(1), "/-/ready").map(|(status, _)| status), Ok(200));
    assert!(!mesh.observability.output().contains("level=error"), "{}", mesh.observability.output());
}
