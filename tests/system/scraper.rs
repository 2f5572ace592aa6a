//! A scraper where a Prometheus is expected: behind a sidecar.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tests::{Process, free_port, get, isthmus, wait_for};

use crate::world::{querier, wait_for_stores};

/// The labels of the series of `up` that a querier has.
fn up(http: std::net::SocketAddr) -> Result<Value, String> {
    let (status, body) = get(http, "/api/v1/query?query=count_over_time(up[5m])")?;
    let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
    let warnings = answer["warnings"].as_array().map_or(0, Vec::len);
    match answer["data"]["result"].as_array().map(Vec::as_slice) {
        Some([series]) if status == 200 && warnings == 0 => Ok(series.clone()),
        _ => Err(body),
    }
}

#[test]
fn a_sidecar_reads_from_a_scraper_as_from_a_prometheus() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (scraper, http, grpc) = (free_port(), free_port(), free_port());
    let file = dir.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 200ms, external_labels: {{cluster: eu-1, replica: a}}}}\n\
         scrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{scraper}']}}]\n"
    );
    fs::write(&file, text).expect("a file");
    let args = [
        "scrape".to_owned(),
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", dir.path().join("data").display()),
        format!("--web.listen-address={scraper}"),
        format!("--grpc-address={}", free_port()),
    ];
    let mut process = Process::start(&isthmus(), &args, &dir.path().join("scrape.log"));
    process.wait_ready("scrape", scraper);
    let args = [
        "sidecar".to_owned(),
        format!("--prometheus.url=http://{scraper}"),
        "--prometheus.get_config_interval=1s".to_owned(),
        format!("--http-address={http}"),
        format!("--grpc-address={grpc}"),
    ];
    let mut sidecar = Process::start(&isthmus(), &args, &dir.path().join("sidecar.log"));
    sidecar.wait_ready("sidecar", http);
    let (_querier, querier) = querier(dir.path(), "querier", &[format!("--endpoint={grpc}")]);
    wait_for_stores(querier, 1);

    println!("samples come with the external labels of the scraper");
    let series = wait_for("scrapes", Duration::from_secs(30), || {
        let series = up(querier)?;
        let count: f64 = series["value"][1].as_str().and_then(|count| count.parse().ok()).unwrap_or(0.0);
        if count > 5.0 { Ok(series) } else { Err(series.to_string()) }
    });
    let metric = &series["metric"];
    assert_eq!(
        (&metric["cluster"], &metric["job"], &metric["replica"]),
        (&"eu-1".into(), &"self".into(), &Value::Null)
    );

    println!("so do names, values and metadata");
    for (path, part) in [
        ("/api/v1/label/cluster/values", "eu-1"),
        ("/api/v1/labels", "instance"),
        ("/api/v1/metadata?metric=process_start_time_seconds", "gauge"),
        ("/api/v1/targets", "\"job\":\"self\""),
    ] {
        let (status, body) = get(querier, path).expect("an answer");
        assert!(status == 200 && body.contains(part) && !body.contains("warnings"), "{path}: {body}");
    }
    assert!(!sidecar.output().contains("level=error"), "{}", sidecar.output());
}
