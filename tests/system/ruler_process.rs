//! The process `isthmus rule` with real neighbours: what it notifies, records, sends and uploads while it is killed and while its
//! neighbours fail. Where Prometheus or Alertmanager is not installed, a line says that a test was skipped.

mod blocks;
mod kills;
mod outage;
mod queriers;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::{AlertLabels, Process, free_port, get, isthmus, percent_encode, wait_for};

const PATIENCE: Duration = Duration::from_secs(90);

/// A role of the program, which can be started again.
struct Role {
    args: Vec<String>,
    http: SocketAddr,
    grpc: SocketAddr,
    log: PathBuf,
}

impl Role {
    fn new(dir: &Path, name: &str, command: &str, own: &[String]) -> Self {
        let (http, grpc) = (free_port(), free_port());
        let mut args = vec![command.to_owned()];
        args.extend([format!("--http-address={http}"), format!("--grpc-address={grpc}")]);
        args.extend_from_slice(own);
        Self { args, http, grpc, log: dir.join(format!("{name}.log")) }
    }

    /// Starts it. A querier is ready when one of its rulers has answered.
    fn launch(&self) -> Process {
        Process::start(&isthmus(), &self.args, &self.log)
    }

    /// Starts it, and waits until it is ready.
    fn start(&self) -> Process {
        let mut process = self.launch();
        process.wait_ready(&self.args[0], self.http);
        process
    }

    fn data(&self, path: &str) -> Result<Value, String> {
        let (status, body) = get(self.http, path)?;
        let mut answer: Value = serde_json::from_str(&body).map_err(|why| format!("{why}: {body}"))?;
        if status == 200 { Ok(answer["data"].take()) } else { Err(body) }
    }

    /// The series that a query finds.
    fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let mut data = self.data(&format!("/api/v1/query?query={}", percent_encode(query)))?;
        match data["result"].take() {
            Value::Array(series) => Ok(series),
            other => Err(other.to_string()),
        }
    }

    /// All samples that a range selector finds, by series and time.
    fn samples(&self, selector: &str) -> Result<BTreeMap<(String, String), String>, String> {
        let mut found = BTreeMap::new();
        for series in self.query(selector)? {
            for sample in series["values"].as_array().into_iter().flatten() {
                let value = sample[1].as_str().unwrap_or_default().to_owned();
                found.insert((series["metric"].to_string(), sample[0].to_string()), value);
            }
        }
        Ok(found)
    }

    /// The alerts that fire, with all labels.
    fn firing(&self) -> Result<Vec<AlertLabels>, String> {
        let alerts = self.data("/api/v1/alerts")?;
        let firing = alerts["alerts"].as_array().into_iter().flatten().filter(|one| one["state"] == "firing");
        firing
            .map(|one| serde_json::from_value(one["labels"].clone()).map_err(|why| why.to_string()))
            .collect()
    }

    /// Waits until a rule has this health.
    fn until_health(&self, name: &str, expected: &str) {
        wait_for(&format!("health {expected} of rule {name}"), PATIENCE, || {
            let groups = self.data("/api/v1/rules")?;
            let groups = groups["groups"].as_array().cloned().unwrap_or_default();
            let mut rules = groups.iter().flat_map(|group| group["rules"].as_array().into_iter().flatten());
            let rule = rules.find(|rule| rule["name"] == name).cloned().unwrap_or_default();
            if rule["health"] == expected { Ok(()) } else { Err(rule.to_string()) }
        });
    }
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let file = dir.join(name);
    fs::write(&file, text).expect("a file");
    file.display().to_string()
}
