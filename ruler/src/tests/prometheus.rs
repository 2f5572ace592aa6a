//! A real Prometheus evaluates the same rules at the same instants as a ruler that asks it: samples and alerts are equal, over a restart
//! of the ruler.
//!
//! Rules look at samples of two seconds ago, so that both see the same ones.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

use super::*;

const RULES: &str = r#"
groups:
- name: live
  interval: 1s
  rules:
  - {record: instant, expr: vector(1)}
  - record: job:series:sum
    expr: sum by (job) (prometheus_tsdb_head_series offset 2s)
    labels: {kind: recorded, job: ""}
  - {record: sometimes, expr: up offset 2s and on () (vector(time() % 5) > 2)}
  - {record: from:sometimes, expr: sometimes offset 2s + 1}
  - alert: Sometimes
    expr: vector(time() % 7) > 3
    for: 1s
    labels: {severity: page}
    annotations: {text: "value {{ $value | humanize }}"}
  - alert: Always
    expr: up{job="self"} offset 2s == 1
    for: 9s
    labels: {severity: "{{ $labels.job }}"}
  - {alert: AtOnce, expr: vector(time() % 6) > 4, keep_firing_for: 2s}
"#;

const WRITTEN: &str = "instant|job:series:sum|sometimes|from:sometimes|ALERTS|ALERTS_FOR_STATE";

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Samples by instant and series.
type Samples = BTreeMap<i64, BTreeSet<(String, String)>>;

async fn samples(to: SocketAddr) -> Samples {
    let query = format!("{{__name__=~\"{WRITTEN}\"}}[10m]");
    let found = data(to, &format!("/api/v1/query?query={}", escaped(&query))).await;
    let mut all = Samples::new();
    for series in found["result"].as_array().unwrap() {
        let labels = series["metric"].to_string();
        for value in series["values"].as_array().unwrap() {
            let at = (value[0].as_f64().unwrap() * 1000.0).round() as i64;
            all.entry(at).or_default().insert((labels.clone(), value[1].as_str().unwrap().to_owned()));
        }
    }
    all
}

/// The instants at which a series has samples.
fn instants(samples: &Samples) -> Vec<i64> {
    let has_instant =
        |rows: &BTreeSet<(String, String)>| rows.iter().any(|(labels, _)| labels.contains("\"instant\""));
    samples.iter().filter(|(_, rows)| has_instant(rows)).map(|(at, _)| *at).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_and_alerts_are_those_of_prometheus_over_a_restart() {
    if !shipper::testing::installed() {
        return;
    }
    let dir = TempDir::new().unwrap();
    write_rules(dir.path(), RULES);
    let address = shipper::testing::free_port();
    let config = format!(
        "global: {{scrape_interval: 500ms, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
         scrape_configs:\n- job_name: self\n  static_configs: [{{targets: ['{address}']}}]\n",
        dir.path().join("rules.yaml").display()
    );
    std::fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", dir.path().join("prometheus").display()))
        .arg(format!("--web.listen-address={address}"))
        .args(["--rules.alert.for-grace-period=3s", "--log.level=error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _prometheus = Process(prometheus.unwrap());
    until("Prometheus is ready", async || {
        tokio::net::TcpStream::connect(address).await.is_ok() && get(address, "/-/ready").await.0 == 200
    })
    .await;
    let flags = [&format!("--query=http://{address}"), "--for-grace-period=3s"];
    let mut own = Samples::new();
    let mut starts = Vec::new();
    for _ in 0..2 {
        starts.push(crate::now::now().as_millis());
        let before = instants(&own).len();
        let role = start(dir.path(), &flags).await;
        until("more evaluations", async || {
            own = samples(role.http_address()).await;
            instants(&own).len() >= before + 13
        })
        .await;
        stop(role).await;
    }
    let theirs = samples(address).await;
    let own_instants = instants(&own);
    let theirs_at: BTreeSet<i64> = instants(&theirs).into_iter().collect();
    let mut compared = 0;
    for (number, at) in own_instants.iter().enumerate() {
        assert!(theirs_at.contains(at), "Prometheus has no evaluation at {at}; it has {theirs_at:?}");
        // The last evaluation before an end may have been cut.
        let run = starts.iter().filter(|start| *start <= at).count();
        let is_last = own_instants
            .get(number + 1)
            .is_none_or(|next| starts.get(run).is_some_and(|start| next >= start));
        if is_last {
            continue;
        }
        // An alert is first pending, and its state is not stored before it is restored.
        let since_start =
            own_instants[..number].iter().filter(|earlier| **earlier >= starts[run - 1]).count();
        let is_alert = |row: &&(String, String)| row.0.contains("\"ALERTS");
        // An alert that was active when the ruler began is active since then.
        let is_older =
            |labels: &str| labels.contains("\"ALERTS_FOR_STATE\"") && labels.contains("\"Always\"");
        let row = |(labels, value): &(String, String)| {
            (labels.clone(), if is_older(labels) { String::new() } else { value.clone() })
        };
        let select = |all: &Samples| -> BTreeSet<(String, String)> {
            all[at].iter().filter(|row| since_start >= 10 || !is_alert(row)).map(row).collect()
        };
        assert_eq!(select(&own), select(&theirs), "evaluation {number} at {at}");
        compared += 1;
    }
    assert!(compared >= 24, "{compared} evaluations were compared");
    println!("compared {compared} evaluations");
}
