//! Starts real Prometheus servers for the tests of this crate and of those that use it.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use model::Labels;

/// A process that is killed on drop.
pub struct Prometheus {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Prometheus {
    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Starts Prometheus on `dir/data` with these external labels and without scrape targets.
    pub fn start(dir: &Path, external: &Labels, address: SocketAddr, flags: &[&str]) -> Self {
        fs::write(dir.join("prometheus.yml"), config(external)).expect("a file");
        Self::run(&PathBuf::from("prometheus"), dir, address, flags)
    }

    /// Starts `program` on `dir/data` with the configuration in `dir/prometheus.yml`.
    pub fn run(program: &Path, dir: &Path, address: SocketAddr, flags: &[&str]) -> Self {
        let child = Command::new(program)
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--storage.tsdb.retention.time=100y")
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus starts");
        Self { child, address }
    }
}

/// A configuration without scrape targets.
pub fn config(external: &Labels) -> String {
    let mut config = "global:\n  scrape_interval: 1h\n".to_owned();
    if !external.is_empty() {
        config.push_str("  external_labels:\n");
    }
    for label in external {
        let _ = writeln!(config, "    {}: {:?}", label.name, label.value);
    }
    config
}

/// Whether Prometheus is installed; prints a line if not.
pub fn installed() -> bool {
    let found = Command::new("prometheus").arg("--version").output().is_ok();
    if !found {
        println!("skipped: no prometheus on the PATH");
    }
    found
}

/// A port that is currently free.
pub fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address")
}

/// A label set; panics if it is not valid.
pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    Labels::from_pairs(pairs.iter().copied()).expect("labels")
}

/// Polls until `probe` returns `true`; panics after 30 seconds.
pub async fn wait_until(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !probe().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "waited 30 s for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
