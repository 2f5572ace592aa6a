//! Tests of the reloader with a real Prometheus.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use promapi::{ClientOptions, PrometheusClient, RuntimeInfo};
use runtime::{Registry, Shutdown};
use tempfile::TempDir;

use super::config::ReloadMethod;
use super::{Reloader, ReloaderConfig, ReloaderMetrics, Trigger};
use shipper::testing::{Prometheus, config, free_port, installed, labels, wait_until};

/// A Prometheus and a reloader.
struct ReloaderWorld {
    dir: TempDir,
    client: PrometheusClient,
    metrics: ReloaderMetrics,
    shutdown: Shutdown,
    _prometheus: Prometheus,
}

impl Drop for ReloaderWorld {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

impl ReloaderWorld {
    /// Starts both. `prepare` first creates the files and returns the configuration of the reloader.
    async fn start(method: ReloadMethod, prepare: impl FnOnce(&Path) -> ReloaderConfig) -> Self {
        let dir = TempDir::new().expect("a folder");
        let watched = prepare(dir.path());
        // A unique process name, so that the signal does not reach the Prometheus of another test. It is
        // longer than the part that Linux keeps.
        let address = free_port();
        let name = format!("prom-{}-of-the-reloader", address.port());
        let program = dir.path().join(&name);
        symlink(which("prometheus"), &program).expect("a symlink");
        let lifecycle: &[&str] = if method == ReloadMethod::Http { &["--web.enable-lifecycle"] } else { &[] };
        let prometheus = Prometheus::run(&program, dir.path(), address, lifecycle);
        let client =
            PrometheusClient::new(&format!("http://{address}"), ClientOptions::default()).expect("a URL");
        let metrics = ReloaderMetrics::new(&mut Registry::default());
        let shutdown = Shutdown::new();
        let reloader = Reloader::new(watched, Trigger::new(method, &name, client.clone()), metrics.clone());
        tokio::spawn(reloader.run(shutdown.clone()));
        Self { dir, client, metrics, shutdown, _prometheus: prometheus }
    }

    async fn info(&self) -> Option<RuntimeInfo> {
        self.client.runtime_info().await.ok()
    }

    async fn until_reloaded(&self, what: &str) {
        let before = self.metrics.counts().0;
        wait_until(what, async || {
            let (reloads, _, successful) = self.metrics.counts();
            successful == 1 && reloads >= before.max(1)
        })
        .await;
    }

    /// Waits until Prometheus has this external label.
    async fn until_cluster_is(&self, cluster: &str) {
        wait_until(&format!("the configuration of {cluster}"), async || {
            self.client.external_labels().await.is_ok_and(|labels| labels.get("cluster") == Some(cluster))
        })
        .await;
    }

    /// Waits until Prometheus has a recording rule with this name.
    async fn until_rule_is(&self, name: &str) {
        let http = self.client.url().trim_start_matches("http://").to_owned();
        wait_until(&format!("rule {name}"), async || {
            rules(&http).await.contains(&format!("\"name\":\"{name}\""))
        })
        .await;
    }
}

/// The response of `/api/v1/rules` as text.
async fn rules(address: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return String::new() };
    let request = format!("GET /api/v1/rules HTTP/1.0\r\nHost: {address}\r\n\r\n");
    let mut answer = String::new();
    let asked = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_string(&mut answer).await
    };
    asked.await.map_or_else(|_| String::new(), |_| answer)
}

fn which(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .expect("on the PATH")
}

fn cluster(name: &str) -> String {
    config(&labels(&[("cluster", name), ("replica", "a")]))
}

fn rule(name: &str) -> String {
    format!("groups:\n- name: test\n  rules:\n  - record: {name}\n    expr: vector(1)\n")
}

/// The interval is longer than any test, so only events can cause a reload.
fn watched() -> ReloaderConfig {
    ReloaderConfig {
        file: None,
        output: None,
        rule_dirs: Vec::new(),
        watch_interval: Some(Duration::from_secs(3600)),
        retry_interval: Duration::from_millis(200),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_reloaded_and_invalid_ones_are_retried() {
    if !installed() {
        return;
    }
    let world = ReloaderWorld::start(ReloadMethod::Http, |dir| {
        fs::create_dir_all(dir.join("rules/nested")).expect("a folder");
        let rules = format!("rule_files: ['{}/rules/*.yml']\n", dir.display());
        fs::write(dir.join("rules/a.yml"), rule("first")).expect("a file");
        fs::write(dir.join("in.yml"), cluster("$(HOME)") + &rules).expect("a file");
        // Prometheus starts before the first expansion of its configuration.
        fs::write(dir.join("prometheus.yml"), cluster("not-expanded") + &rules).expect("a file");
        ReloaderConfig {
            file: Some(dir.join("in.yml")),
            output: Some(dir.join("prometheus.yml")),
            rule_dirs: vec![dir.join("rules")],
            ..watched()
        }
    })
    .await;
    let home = std::env::var("HOME").expect("HOME is set");
    world.until_cluster_is(&home).await;
    world.until_rule_is("first").await;

    fs::write(world.dir.path().join("rules/a.yml"), rule("second")).expect("a file");
    world.until_rule_is("second").await;

    println!("an invalid rule file");
    let failed = world.metrics.counts().1;
    fs::write(world.dir.path().join("rules/a.yml"), "groups: 1").expect("a file");
    wait_until("three failures", async || world.metrics.counts().1 >= failed + 3).await;
    assert_eq!(world.metrics.counts().2, 0, "the last reload shows as successful");
    assert!(world.info().await.is_some_and(|info| !info.reload_config_success));
    world.until_rule_is("second").await;
    fs::write(world.dir.path().join("rules/a.yml"), rule("third")).expect("a file");
    world.until_rule_is("third").await;
    world.until_reloaded("the third rule").await;

    println!("a variable that is not set");
    let input = world.dir.path().join("in.yml");
    let old = fs::read_to_string(&input).expect("a file");
    fs::write(&input, cluster("$(ISTHMUS_NO_SUCH_VARIABLE)")).expect("a file");
    wait_until("the error", async || world.metrics.failed_expansion()).await;
    world.until_cluster_is(&home).await;
    fs::write(&input, old.replace("$(HOME)", "eu-2")).expect("a file");
    world.until_cluster_is("eu-2").await;

    println!("nothing changes, nothing is reloaded");
    world.until_reloaded("eu-2").await;
    let reloads = world.metrics.counts().0;
    let applies = world.metrics.applies();
    fs::write(world.dir.path().join("rules/a.yml"), rule("third")).expect("a file");
    wait_until("a check", async || world.metrics.applies() > applies).await;
    assert_eq!(world.metrics.counts().0, reloads);
}

/// Kubernetes writes a new directory next to the old one and swaps the symlink `..data`.
#[tokio::test(flavor = "multi_thread")]
async fn swapped_symlink_is_detected() {
    if !installed() {
        return;
    }
    let world = ReloaderWorld::start(ReloadMethod::Http, |dir| {
        let mount = dir.join("mount");
        fs::create_dir_all(mount.join("..1")).expect("a folder");
        fs::write(mount.join("..1/prometheus.yml"), cluster("one")).expect("a file");
        symlink("..1", mount.join("..data")).expect("a symlink");
        symlink("..data/prometheus.yml", mount.join("prometheus.yml")).expect("a symlink");
        symlink(mount.join("prometheus.yml"), dir.join("prometheus.yml")).expect("a symlink");
        ReloaderConfig { file: Some(mount.join("prometheus.yml")), ..watched() }
    })
    .await;
    world.until_cluster_is("one").await;
    world.until_reloaded("the first").await;
    let mount = world.dir.path().join("mount");
    for round in ["two", "three"] {
        fs::create_dir(mount.join(format!("..{round}"))).expect("a folder");
        fs::write(mount.join(format!("..{round}/prometheus.yml")), cluster(round)).expect("a file");
        symlink(format!("..{round}"), mount.join("..data_tmp")).expect("a symlink");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("a swap");
        world.until_cluster_is(round).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_by_signal_reports_its_result() {
    if !installed() {
        return;
    }
    let world = ReloaderWorld::start(ReloadMethod::Signal, |dir| {
        fs::write(dir.join("prometheus.yml"), cluster("one")).expect("a file");
        ReloaderConfig { file: Some(dir.join("prometheus.yml")), ..watched() }
    })
    .await;
    world.until_reloaded("the first").await;
    fs::write(world.dir.path().join("prometheus.yml"), cluster("two")).expect("a file");
    world.until_cluster_is("two").await;
    let failed = world.metrics.counts().1;
    fs::write(world.dir.path().join("prometheus.yml"), "global: 7").expect("a file");
    wait_until("a failure", async || world.metrics.counts().1 > failed).await;
    fs::write(world.dir.path().join("prometheus.yml"), cluster("three")).expect("a file");
    world.until_cluster_is("three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn interval_zero_writes_the_output_once_without_reload() {
    let dir = TempDir::new().expect("a folder");
    fs::write(dir.path().join("in.yml"), "home: $(HOME)").expect("a file");
    let once = ReloaderConfig {
        file: Some(dir.path().join("in.yml")),
        output: Some(dir.path().join("out.yml")),
        watch_interval: None,
        ..watched()
    };
    let client = PrometheusClient::new("http://127.0.0.1:1", ClientOptions::default()).expect("a URL");
    let metrics = ReloaderMetrics::new(&mut Registry::default());
    let trigger = Trigger::new(ReloadMethod::Http, "", client);
    Reloader::new(once, trigger, metrics.clone()).run(Shutdown::new()).await;
    let home = std::env::var("HOME").expect("HOME is set");
    assert_eq!(fs::read_to_string(dir.path().join("out.yml")).expect("the output"), format!("home: {home}"));
    assert_eq!(metrics.counts().0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_files_in_the_directory_do_not_cause_a_retry() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("prometheus.yml");
    fs::write(&file, cluster("one")).expect("a file");
    let patient =
        ReloaderConfig { file: Some(file.clone()), retry_interval: Duration::from_secs(3600), ..watched() };
    let client = PrometheusClient::new("http://127.0.0.1:1", ClientOptions::default()).expect("a URL");
    let metrics = ReloaderMetrics::new(&mut Registry::default());
    let (trigger, shutdown) = (Trigger::new(ReloadMethod::Http, "", client), Shutdown::new());
    tokio::spawn(Reloader::new(patient, trigger, metrics.clone()).run(shutdown.clone()));
    wait_until("a first failure", async || metrics.counts().1 == 1).await;
    let events = metrics.events();
    fs::write(dir.path().join("prometheus.log"), "a line").expect("a file");
    wait_until("the event", async || metrics.events() > events).await;
    fs::write(&file, cluster("two")).expect("a file");
    wait_until("a second failure", async || metrics.counts().1 >= 2).await;
    assert_eq!(metrics.counts().0, 2, "the log file led to a reload");
    shutdown.trigger();
}
