//! `isthmus quickstart`: runs two client clusters and an observability cluster on this machine, with real
//! Prometheus servers.

/// Prints a line. A closed pipe (`| head`) is ignored, so that it does not stop the clusters.
macro_rules! say {
    ($($part:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($part)*)));
    }};
}

mod checks;
mod child;
mod demonstration;
mod http;
mod link;
mod plan;
mod prometheus;
mod querier;
mod table;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use demonstration::Demonstration;
use plan::QuickstartPlan;

/// Run a complete system on this machine: two client clusters, queried over the mesh
#[derive(Debug, clap::Args)]
pub(crate) struct QuickstartArgs {
    /// Directory for certificates, data and logs; it must be empty or from an earlier quickstart, which is
    /// replaced. Without it, a temporary directory is used and removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// First of 40 consecutive ports on 127.0.0.1
    #[arg(long, value_name = "N", default_value_t = 19000)]
    base_port: u16,

    /// The Prometheus program; without it, `prometheus` is searched on the PATH
    #[arg(long, value_name = "PATH")]
    prometheus: Option<PathBuf>,

    /// Run all checks, print the result of each, and exit with status 0, or 1 if one failed
    #[arg(long)]
    check: bool,
}

/// The suggested queries; the README shows them too.
const QUERIES: [(&str, &str); 3] = [
    ("number of targets that are up, in each cluster", "sum by (cluster) (up)"),
    ("requests per second, in each cluster", "sum by (cluster) (rate(prometheus_http_requests_total[30s]))"),
    (
        "90th percentile of the response times of Prometheus, in seconds",
        "histogram_quantile(0.9, sum by (cluster, le) (rate(prometheus_http_request_duration_seconds_bucket[1m])))",
    ),
];

/// Runs the demonstration until Ctrl-C, or until the checks are complete.
pub(crate) fn run(args: &QuickstartArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(demonstrate(args))
}

async fn demonstrate(args: &QuickstartArgs) -> Result<ExitCode> {
    let prometheus = prometheus::prometheus(args.prometheus.as_deref())?;
    QuickstartPlan::check_ports(args.base_port)?;
    let folder = Folder::prepare(args.dir.as_deref())?;
    let plan = QuickstartPlan::new(folder.path(), args.base_port);
    fs::create_dir_all(&plan.logs)?;
    let mut demonstration = Demonstration::new(plan, prometheus)?;
    // Install the handlers before the first child starts, so that Ctrl-C always stops the children in order.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = perform(&mut demonstration, args.check) => outcome,
        _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
    };
    say!("\nstopping all processes...");
    demonstration.stop().await?;
    if outcome.is_err() {
        folder.keep();
    }
    outcome
}

async fn perform(demonstration: &mut Demonstration, check: bool) -> Result<ExitCode> {
    let begun = Instant::now();
    if !demonstration.has_pushgateway() {
        say!(
            "prometheus-pushgateway is not on the PATH, so none is started (Debian: apt-get install prometheus-pushgateway)"
        );
    }
    step("trust domain: offline roots, issuing CA", demonstration.create_trust_domain()).await?;
    step("observability cluster: gateway, querier", demonstration.start_observability()).await?;
    for cluster in demonstration.plan().clusters.clone() {
        let how = match cluster.reach {
            plan::Reach::DialsOut => "joins with a token, dials out",
            plan::Reach::IsDialled => "joins with a token, is dialled",
        };
        step(&format!("cluster {}: {how}", cluster.name), demonstration.start_cluster(&cluster)).await?;
    }
    let data = demonstration.wait_for_data();
    step("first samples of both clusters", data).await?;
    demonstration.check_children()?;
    let endpoints = demonstration.plan().dir.join("endpoints.json");
    fs::write(&endpoints, format!("{:#}\n", demonstration.plan().endpoints()))
        .with_context(|| format!("write {}", endpoints.display()))?;
    say!("up after {:.1} s\n", begun.elapsed().as_secs_f64());
    if check {
        return Ok(if checks::run(demonstration).await { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    table::print(demonstration, &QUERIES).await?;
    say!("\nPress Ctrl-C to stop all processes.");
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        demonstration.check_children()?;
    }
}

/// Runs one step and prints its name and duration.
async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut stdout = std::io::stdout();
    let _ = write!(stdout, "{what:.<60}").and_then(|()| stdout.flush());
    let begun = Instant::now();
    let outcome = work.await;
    match &outcome {
        Ok(_) => say!(" {:.1} s", begun.elapsed().as_secs_f64()),
        Err(_) => say!(" failed"),
    }
    outcome
}

/// The directory for certificates, data and logs.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

/// The entries that an earlier run created. Nothing else in the directory is removed.
const OURS: [&str; 9] =
    ["pki", "observability", "eu-1", "us-1", "logs", "eu-1.token", "us-1.token", "used-token", "wrong-token"];

impl Folder {
    fn prepare(asked: Option<&Path>) -> Result<Self> {
        let Some(path) = asked else {
            let path = std::env::temp_dir().join(format!("isthmus-quickstart-{}", std::process::id()));
            fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
            return Ok(Self { path, temporary: true });
        };
        let path = std::path::absolute(path)?;
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        let entries = fs::read_dir(&path).with_context(|| format!("read {}", path.display()))?;
        for entry in entries {
            let name = entry?.file_name();
            let ours = OURS.iter().any(|our| name == *our) || name == "endpoints.json";
            if !ours {
                bail!(
                    "--dir {}: contains {:?}, which is not from a quickstart; choose an empty directory",
                    path.display(),
                    name
                );
            }
        }
        for name in OURS {
            let old = path.join(name);
            let removed = if old.is_dir() { fs::remove_dir_all(&old) } else { fs::remove_file(&old) };
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                return Err(error).with_context(|| format!("remove {}", old.display()));
            }
        }
        Ok(Self { path, temporary: false })
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a temporary directory, so that its logs can be read.
    fn keep(mut self) {
        self.temporary = false;
        eprintln!("the logs are in {}", self.path.join("logs").display());
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(&self.path)
        {
            eprintln!("remove {}: {error}", self.path.display());
        }
    }
}
