//! A cluster and the observability side, with two processes of each role.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tests::{Process, create_token, create_trust_domain, free_port, get, isthmus, percent_encode, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
/// An hour and a half after the first sample of the bucket.
const TIME_OF_BLOCKS: &str = "1767231000";

const RULES: &str = "groups: [{name: g, interval: 300ms, rules: [{record: recorded, expr: vector(7)}]}]\n";

/// A program that is started again with the same arguments.
pub(super) struct Program {
    name: String,
    args: Vec<String>,
    pub(super) http: SocketAddr,
    grpc: SocketAddr,
    log: PathBuf,
    process: Option<Process>,
}

impl Program {
    fn new(dir: &Path, name: &str, command: &str, own: Vec<String>) -> Self {
        let (http, grpc) = (free_port(), free_port());
        let mut args = vec![command.to_owned()];
        args.extend([format!("--http-address={http}"), format!("--grpc-address={grpc}")]);
        args.extend(own);
        Self { name: name.to_owned(), args, http, grpc, log: dir.join(format!("{name}.log")), process: None }
    }

    fn start(&mut self) {
        let mut process = Process::start(&isthmus(), &self.args, &self.log);
        process.wait_ready(&self.name, self.http);
        self.process = Some(process);
    }

    /// Stops it as a rolling update does, and starts it again.
    pub(super) fn restart(&mut self) {
        let mut process = self.process.take().expect("it runs");
        assert_eq!(process.terminate(), Some(0), "{}: {}", self.name, process.output());
        self.start();
    }
}

/// The programs of one role.
pub(super) struct Role {
    pub(super) name: &'static str,
    pub(super) programs: Vec<Program>,
}

/// Two replicas of every role, or only what a query over the mesh needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Everything,
    /// One observability gateway, one cluster gateway, one sidecar and one querier.
    Single,
}

impl Size {
    fn replicas(self) -> usize {
        match self {
            Self::Everything => 2,
            Self::Single => 1,
        }
    }
}

/// All processes.
pub(super) struct Scene {
    pub(super) roles: Vec<Role>,
    size: Size,
    _dir: TempDir,
}

/// A query, and the only answer to it.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) path: String,
    pub(super) expected: Value,
}

impl Scene {
    /// Starts everything, and waits until every querier reads every store.
    pub(super) fn start(transport: &str, size: Size) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (dir, replicas) = (folder.path(), size.replicas());
        let mut observability = observability_gateways(dir, transport, replicas);
        let dial: Vec<SocketAddr> = observability.iter().map(|(_, mesh)| *mesh).collect();
        let observed = observability[0].0.http;
        let mut scrapers: Vec<Program> =
            (0..replicas).map(|replica| scraper(dir, replica, observed)).collect();
        let sidecar = |(replica, scraper): (usize, &Program)| {
            let url = format!("--prometheus.url=http://{}", scraper.http);
            let interval = "--prometheus.get_config_interval=1s".to_owned();
            Program::new(dir, &format!("sidecar-{replica}"), "sidecar", vec![url, interval])
        };
        let mut sidecars: Vec<Program> = scrapers.iter().enumerate().map(sidecar).collect();
        for program in observability.iter_mut().map(|(program, _)| program).chain(&mut scrapers) {
            program.start();
        }
        sidecars.iter_mut().for_each(Program::start);
        let mut gateways: Vec<Program> =
            (0..replicas).map(|i| cluster_gateway(dir, transport, i, &dial, &sidecars)).collect();
        gateways.iter_mut().for_each(Program::start);

        let mut queriers: Vec<Program> = (0..replicas)
            .map(|i| Program::new(dir, &format!("querier-{i}"), "query", querier_flags(&observability)))
            .collect();
        let (mut stores, mut rulers) = match size {
            Size::Single => (Vec::new(), Vec::new()),
            Size::Everything => (stores(dir), rulers(dir, &queriers)),
        };
        let endpoints: Vec<String> =
            stores.iter().chain(&rulers).map(|program| format!("--endpoint={}", program.grpc)).collect();
        queriers.iter_mut().for_each(|querier| querier.args.extend(endpoints.clone()));
        stores.iter_mut().chain(&mut queriers).chain(&mut rulers).for_each(Program::start);

        let role = |name, programs| Role { name, programs };
        let observability = observability.into_iter().map(|(program, _)| program).collect();
        let roles = vec![
            role("observability gateway", observability),
            role("cluster gateway", gateways),
            role("sidecar", sidecars),
            role("scraper", scrapers),
            role("querier", queriers),
            role("store", stores),
            role("ruler", rulers),
        ];
        let scene = Self { roles, size, _dir: folder };
        scene.wait_whole();
        scene
    }

    pub(super) fn role(&self, name: &str) -> &Role {
        self.roles.iter().find(|role| role.name == name).expect("a role")
    }

    /// The addresses of the queriers.
    pub(super) fn queriers(&self) -> Vec<SocketAddr> {
        self.role("querier").programs.iter().map(|querier| querier.http).collect()
    }

    /// Waits until every querier reads every store, and every cluster gateway is connected to every observability gateway.
    pub(super) fn wait_whole(&self) {
        let replicas = self.size.replicas();
        let stores = match self.size {
            Size::Single => 1,
            Size::Everything => 3 * replicas,
        };
        for querier in self.queriers() {
            wait_for(&format!("{stores} healthy stores"), PATIENCE, || has_stores(querier, stores));
        }
        for gateway in &self.role("observability gateway").programs {
            wait_for("all connections and targets", PATIENCE, || {
                let (_, text) = get(gateway.http, "/metrics")?;
                let sum = |series: &str| -> f64 {
                    let values = text.lines().filter(|line| line.starts_with(series));
                    values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
                };
                let connections = sum("isthmus_gateway_connections{");
                let healthy = sum("isthmus_gateway_directory_entries{health=\"healthy\"}");
                match connections == replicas as f64 && healthy == replicas as f64 {
                    true => Ok(()),
                    false => Err(format!("{connections} connections, {healthy} healthy targets")),
                }
            });
        }
    }

    /// Waits until no querier has a warning: every replica answers again.
    pub(super) fn wait_without_warnings(&self, questions: &[Question]) {
        for querier in self.queriers() {
            for question in questions {
                wait_for("an answer without warnings", PATIENCE, || result(querier, &question.path));
            }
        }
    }

    /// Queries whose answers are known and do not change: of the sidecars, and of the stores and the rulers if there are any.
    pub(super) fn questions(&self) -> Vec<Question> {
        let querier = self.queriers()[0];
        let replicas = self.size.replicas();
        let time_of = |series: &str| -> String {
            wait_for(&format!("{series} of every replica"), PATIENCE, || {
                let path = format!("/api/v1/query?dedup=false&query=timestamp({})", percent_encode(series));
                let found = result(querier, &path)?;
                let times: Vec<&str> = found
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|series| series["value"][1].as_str())
                    .collect();
                match times.len() == replicas {
                    true => Ok(times.into_iter().max().unwrap_or_default().to_owned()),
                    false => Err(found.to_string()),
                }
            })
        };
        let mut asked = vec![(time_of("up"), "sum by (cluster) (up)")];
        if self.size == Size::Everything {
            asked.push((TIME_OF_BLOCKS.to_owned(), "count({cluster=\"us-1\"})"));
            asked.push((time_of("recorded"), "sum by (cluster) (recorded)"));
        }
        let question = |(time, query): (String, &str)| {
            let path = format!("/api/v1/query?time={time}&query={}", percent_encode(query));
            let expected = result(querier, &path).expect("an answer");
            assert_eq!(expected.as_array().map(Vec::len), Some(1), "{query}: {expected}");
            Question { path, expected }
        };
        asked.into_iter().map(question).collect()
    }
}

/// The result of a query without warnings.
fn result(querier: SocketAddr, path: &str) -> Result<Value, String> {
    let (status, body) = get(querier, path)?;
    let mut answer: Value = serde_json::from_str(&body).map_err(|why| format!("{why}: {body}"))?;
    if status == 200 && answer["warnings"].is_null() {
        Ok(answer["data"]["result"].take())
    } else {
        Err(body)
    }
}

fn has_stores(querier: SocketAddr, wanted: usize) -> Result<(), String> {
    let (_, body) = get(querier, "/api/v1/stores")?;
    let stores: Value = serde_json::from_str(&body).map_err(|why| format!("{why}: {body}"))?;
    let groups = stores["data"].as_object().ok_or_else(|| body.clone())?;
    let all: Vec<&Value> = groups.values().filter_map(Value::as_array).flatten().collect();
    let healthy = all.iter().filter(|store| store["lastError"].is_null()).count();
    if healthy == wanted && all.len() == wanted { Ok(()) } else { Err(body) }
}

/// The gateways of the observability side, which share an issuer, with the addresses that clusters dial.
fn observability_gateways(dir: &Path, transport: &str, count: usize) -> Vec<(Program, SocketAddr)> {
    let state = create_trust_domain(dir);
    let gateway = |i: usize| {
        let (name, mesh) = (format!("observability-{i}"), free_port());
        let yaml = format!(
            "role: observability\ndata_dir: {name}\ntransport: {transport}\npki: {{state: {}}}\nlisten: {mesh}\n",
            state.display()
        );
        (gateway(dir, &name, &yaml, Vec::new()), mesh)
    };
    (0..count).map(gateway).collect()
}

fn cluster_gateway(
    dir: &Path,
    transport: &str,
    i: usize,
    dial: &[SocketAddr],
    sidecars: &[Program],
) -> Program {
    let name = format!("eu-1-{i}");
    let token = dir.join(format!("{name}.token"));
    create_token(&dir.join("pki/state"), "eu-1", dial[0], &token);
    let dial: Vec<String> = dial.iter().map(|address| format!("'{address}'")).collect();
    let mut yaml = format!(
        "role: cluster\ndata_dir: {name}\ntransport: {transport}\ninfo_interval: 200ms\ndial: [{}]\ntargets:\n",
        dial.join(", ")
    );
    for (replica, sidecar) in sidecars.iter().enumerate() {
        yaml.push_str(&format!("  - {{name: scraper-{replica}, address: '{}'}}\n", sidecar.grpc));
    }
    gateway(dir, &name, &yaml, vec![format!("--join-file={}", token.display())])
}

fn gateway(dir: &Path, name: &str, yaml: &str, more: Vec<String>) -> Program {
    let config = dir.join(format!("{name}.yaml"));
    fs::write(&config, yaml).expect("a file");
    let mut flags = vec![format!("--config={}", config.display())];
    flags.extend(more);
    Program::new(dir, name, "gateway", flags)
}

/// A scraper of the metrics at `target`.
fn scraper(dir: &Path, replica: usize, target: SocketAddr) -> Program {
    let name = format!("scraper-{replica}");
    let config = dir.join(format!("{name}.yml"));
    let text = format!(
        "global: {{scrape_interval: 1s, external_labels: {{cluster: eu-1, environment: testing, replica: '{replica}'}}}}\n\
         scrape_configs: [{{job_name: x, static_configs: [{{targets: ['{target}']}}]}}]\n"
    );
    fs::write(&config, text).expect("a file");
    let data = format!("--data-dir={}", dir.join(&name).display());
    Program::new(dir, &name, "scrape", vec![format!("--config.file={}", config.display()), data])
}

/// Two stores of one bucket.
fn stores(dir: &Path) -> Vec<Program> {
    let bucket = dir.join("bucket");
    let output = Command::new(isthmus())
        .args(["tools", "block", "generate", "--series=20", "--blocks=1", "--duration=2h"])
        .args(["--start=2026-01-01T00:00:00Z", "--label=cluster=us-1", "--label=replica=a", "--output-dir"])
        .arg(&bucket)
        .output()
        .expect("isthmus runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let store = |i: usize| {
        let name = format!("store-{i}");
        let bucket =
            format!("--objstore.config={{type: FILESYSTEM, config: {{directory: {}}}}}", bucket.display());
        let data = format!("--data-dir={}", dir.join(&name).display());
        Program::new(dir, &name, "store", vec![bucket, data])
    };
    (0..2).map(store).collect()
}

/// Two rulers with the same rules, which ask the queriers.
fn rulers(dir: &Path, queriers: &[Program]) -> Vec<Program> {
    fs::write(dir.join("rules.yaml"), RULES).expect("a file");
    let ruler = |i: usize| {
        let name = format!("ruler-{i}");
        let mut flags = vec![
            format!("--rule-file={}", dir.join("rules.yaml").display()),
            format!("--data-dir={}", dir.join(&name).display()),
            format!("--label=replica=\"{i}\""),
            "--label=cluster=\"obs\"".to_owned(),
        ];
        flags.extend(queriers.iter().map(|querier| format!("--query=http://{}", querier.http)));
        Program::new(dir, &name, "rule", flags)
    };
    (0..2).map(ruler).collect()
}

fn querier_flags(observability: &[(Program, SocketAddr)]) -> Vec<String> {
    let gateways = observability.iter().map(|(gateway, _)| format!("--gateway={}", gateway.grpc));
    let flags = ["--query.replica-label=replica", "--endpoint.info-timeout=300ms"].map(str::to_owned);
    flags.into_iter().chain(gateways).collect()
}
