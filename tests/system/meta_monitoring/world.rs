//! The processes of the test: their start, and questions about alerts.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::{
    Cluster, Mesh, Process, Reach, alertmanager, free_port, get, isthmus, percent_encode, post_form, wait_for,
};

use crate::meta_monitoring::files::{damaged_block, generate_blocks, quick_rules, write_rules};

pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A process that can be started again.
pub(crate) struct Part {
    name: &'static str,
    args: Vec<String>,
    pub(crate) http: SocketAddr,
    grpc: SocketAddr,
    log: PathBuf,
    process: Option<Process>,
}

impl Part {
    pub(crate) fn new(dir: &Path, name: &'static str) -> Self {
        let (http, grpc) = (free_port(), free_port());
        Self { name, args: Vec::new(), http, grpc, log: dir.join(format!("{name}.log")), process: None }
    }

    pub(crate) fn start(&mut self, args: &[String]) {
        self.args = args.to_vec();
        self.args.push(format!("--http-address={}", self.http));
        self.args.push(format!("--grpc-address={}", self.grpc));
        self.start_again();
    }

    pub(crate) fn start_again(&mut self) {
        let mut process = Process::start(&isthmus(), &self.args, &self.log);
        process.wait_ready(self.name, self.http);
        self.process = Some(process);
    }

    pub(crate) fn kill(&mut self) {
        self.process = None;
    }
}

/// All processes.
pub(crate) struct World {
    pub(crate) dir: PathBuf,
    pub(crate) mesh: Mesh,
    pub(crate) scraper: Part,
    /// Scrapes all processes.
    _observer: Part,
    pub(crate) querier: Part,
    pub(crate) rulers: [Part; 2],
    _store: Part,
    /// Of the second bucket.
    _archive: Part,
    _compactor: Part,
    _sidecar: Part,
    pub(crate) alertmanager: Option<(Process, SocketAddr)>,
}

impl World {
    /// Starts everything. The scraper has a damaged block.
    pub(crate) fn start(dir: &Path) -> Self {
        let part = |name| Part::new(dir, name);
        let (mut scraper, mut observer, mut querier) = (part("scraper"), part("observer"), part("querier"));
        let (mut store, mut compactor) = (part("store"), part("compactor"));
        let (mut archive, mut sidecar) = (part("archive"), part("sidecar"));
        let mut rulers = [part("ruler-a"), part("ruler-b")];
        let bucket = |name: &str| {
            let folder = dir.join(name);
            fs::create_dir_all(&folder).expect("a folder");
            format!("--objstore.config=type: FILESYSTEM\nconfig: {{directory: {}}}", folder.display())
        };
        let objstore = bucket("bucket");
        generate_blocks(&dir.join("archive-bucket"), &[]);
        damaged_block(&dir.join("scraper-data"));
        scraper.start(&scrape(
            dir,
            "scraper",
            "eu-1",
            &[("self", &[scraper.http])],
            std::slice::from_ref(&objstore),
        ));
        let targets = vec![("scraper-0".to_owned(), scraper.grpc)];
        let eu_1 = Cluster { name: "eu-1", reach: Reach::DialsOut, targets };
        let mesh = Mesh::start(&dir.join("mesh"), "auto", &[eu_1]);
        store.start(&[
            "store".into(),
            objstore.clone(),
            "--sync-block-duration=1s".into(),
            data(dir, "store"),
        ]);
        archive.start(&[
            "store".into(),
            bucket("archive-bucket"),
            "--sync-block-duration=1s".into(),
            data(dir, "archive"),
        ]);
        sidecar.start(&[
            "sidecar".into(),
            format!("--prometheus.url=http://{}", scraper.http),
            "--prometheus.get_config_interval=1s".into(),
        ]);
        compactor.start(&[
            "compact".into(),
            objstore,
            "--wait".into(),
            "--wait-interval=1s".into(),
            "--consistency-delay=0s".into(),
            data(dir, "compactor"),
        ]);
        let jobs: [(&str, &[SocketAddr]); 7] = [
            ("gateway", &[mesh.http, mesh.cluster_http(0)]),
            ("scraper", &[scraper.http, observer.http]),
            ("querier", &[querier.http]),
            ("store", &[store.http, archive.http]),
            ("sidecar", &[sidecar.http]),
            ("compactor", &[compactor.http]),
            ("ruler", &[rulers[0].http, rulers[1].http]),
        ];
        observer.start(&scrape(dir, "observer", "observability", &jobs, &[]));
        let mut args = vec![
            "query".to_owned(),
            "--query.replica-label=replica".into(),
            format!("--gateway={}", mesh.grpc),
        ];
        let stores = [&observer, &store, &rulers[0], &rulers[1]];
        args.extend(stores.iter().map(|part| format!("--endpoint-strict={}", part.grpc)));
        querier.start(&args);
        let at = free_port();
        let alertmanager = alertmanager(dir, at, None).map(|process| (process, at));
        write_rules(dir, &quick_rules());
        for (ruler, replica) in rulers.iter_mut().zip(["a", "b"]) {
            ruler.start(&ruler_args(dir, replica, querier.http, alertmanager.as_ref().map(|own| own.1)));
        }
        let (_store, _archive, _compactor, _sidecar) = (store, archive, compactor, sidecar);
        Self {
            dir: dir.to_owned(),
            mesh,
            scraper,
            _observer: observer,
            querier,
            rulers,
            _store,
            _archive,
            _compactor,
            _sidecar,
            alertmanager,
        }
    }

    pub(crate) fn ask(&self, path: &str) -> Result<Value, String> {
        let (status, body) = get(self.querier.http, path)?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if status == 200 { Ok(answer["data"].clone()) } else { Err(body) }
    }

    /// The alerts that fire, by the series that rulers record.
    pub(crate) fn firing(&self) -> Result<BTreeSet<String>, String> {
        let query = percent_encode(r#"group by (alertname) (ALERTS{alertstate="firing"})"#);
        let answer = self.ask(&format!("/api/v1/query?query={query}"))?;
        let series = answer["result"].as_array().ok_or_else(|| answer.to_string())?;
        Ok(series.iter().filter_map(|one| one["metric"]["alertname"].as_str().map(str::to_owned)).collect())
    }

    /// Waits until exactly these alerts fire, besides the one that always fires.
    pub(crate) fn wait_for_alerts(&self, expected: &[&str]) {
        let expected: BTreeSet<String> =
            expected.iter().chain(&["Watchdog"]).map(|name| format!("Isthmus{name}")).collect();
        wait_for(&format!("{expected:?} to fire"), PATIENCE, || {
            let firing = self.firing()?;
            if firing == expected { Ok(()) } else { Err(format!("{firing:?}")) }
        });
    }

    /// The value of a label of an alert that fires.
    pub(crate) fn label(&self, alert: &str, label: &str) -> String {
        let query = percent_encode(&format!(r#"ALERTS{{alertname="Isthmus{alert}"}}"#));
        let answer = self.ask(&format!("/api/v1/query?query={query}")).expect("an answer");
        answer["result"][0]["metric"][label].as_str().unwrap_or_default().to_owned()
    }

    /// Lets both rulers read other rules.
    pub(crate) fn reload(&self, rules: &str) {
        write_rules(&self.dir, rules);
        for ruler in &self.rulers {
            let (status, body) = post_form(ruler.http, "/-/reload", "").expect("an answer");
            assert!(matches!(status, 200 | 500), "{status} {body}");
        }
    }
}

pub(crate) fn data(dir: &Path, name: &str) -> String {
    format!("--data-dir={}", dir.join(format!("{name}-data")).display())
}

/// The command line of a scraper, whose file it writes.
pub(crate) fn scrape(
    dir: &Path,
    name: &str,
    cluster: &str,
    jobs: &[(&str, &[SocketAddr])],
    more: &[String],
) -> Vec<String> {
    let mut text = format!(
        "global:\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  external_labels: {{cluster: {cluster}, \
         environment: testing, replica: scraper-0}}\nscrape_configs:\n"
    );
    for (job, targets) in jobs {
        let targets: Vec<String> = targets.iter().map(|target| format!("'{target}'")).collect();
        let targets = targets.join(", ");
        text.push_str(&format!("- job_name: {job}\n  static_configs: [{{targets: [{targets}]}}]\n"));
    }
    let file = dir.join(format!("{name}.yml"));
    fs::write(&file, text).expect("a file");
    let mut args = vec!["scrape".to_owned(), format!("--config.file={}", file.display()), data(dir, name)];
    args.extend_from_slice(more);
    args
}

pub(crate) fn ruler_args(
    dir: &Path,
    replica: &str,
    querier: SocketAddr,
    alertmanager: Option<SocketAddr>,
) -> Vec<String> {
    let mut args = vec![
        "rule".to_owned(),
        format!("--rule-file={}", dir.join("rules/*.yaml").display()),
        format!("--query=http://{querier}"),
        format!("--label=replica=\"{replica}\""),
        "--alert.label-drop=replica".to_owned(),
        "--eval-interval=500ms".to_owned(),
        "--resend-delay=1s".to_owned(),
        data(dir, &format!("ruler-{replica}")),
    ];
    args.extend(alertmanager.map(|at| format!("--alertmanagers.url=http://{at}")));
    args
}
