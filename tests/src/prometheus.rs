//! Real Prometheus servers with given samples.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::process::{Process, free_port};

/// A running Prometheus. It is killed when dropped.
pub struct Prometheus {
    /// Address of its HTTP API.
    pub address: SocketAddr,
    process: Process,
}

impl Prometheus {
    /// Whether Prometheus is installed. If not, prints that `what` is skipped.
    pub fn is_installed(what: &str) -> bool {
        let found = Command::new("prometheus").arg("--version").output().is_ok();
        if !found {
            println!("skipped: {what} (no prometheus on the PATH)");
        }
        found
    }

    /// Starts Prometheus on the blocks in `dir/data`, with these external labels and without scraping.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(dir: &Path, external_labels: &[(&str, &str)]) -> Self {
        fs::create_dir_all(dir).expect("a folder");
        let mut config = "global:\n  scrape_interval: 1h\n".to_owned();
        if !external_labels.is_empty() {
            config.push_str("  external_labels:\n");
        }
        for (name, value) in external_labels {
            config.push_str(&format!("    {name}: '{value}'\n"));
        }
        fs::write(dir.join("prometheus.yml"), config).expect("a file");
        let address = free_port();
        let args = [
            format!("--config.file={}", dir.join("prometheus.yml").display()),
            format!("--storage.tsdb.path={}", dir.join("data").display()),
            format!("--web.listen-address={address}"),
            // The samples are old.
            "--storage.tsdb.retention.time=100y".to_owned(),
        ];
        let mut process = Process::start(Path::new("prometheus"), &args, &dir.join("prometheus.log"));
        process.wait_ready("prometheus", address);
        Self { address, process }
    }

    /// Its resource usage.
    pub fn usage(&self) -> crate::Usage {
        self.process.usage()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}

/// Converts OpenMetrics text with timestamps to blocks in `dir/data`.
///
/// # Panics
/// If `promtool` rejects the text.
pub fn openmetrics_blocks(dir: &Path, text: &str) {
    let data = dir.join("data");
    fs::create_dir_all(&data).expect("a folder");
    let input = dir.join("input.om");
    fs::write(&input, text).expect("a file");
    let output = Command::new("promtool")
        .args(["tsdb", "create-blocks-from", "openmetrics"])
        .args([&input, &data])
        .output()
        .expect("promtool runs");
    assert!(output.status.success(), "promtool: {}", String::from_utf8_lossy(&output.stderr));
}
