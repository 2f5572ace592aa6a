//! `isthmus quickstart`: two client clusters and an observability cluster on this machine, all of it real.

/// Prints a line; nobody reading any more (`| head`) is no reason to end a cluster.
macro_rules! say {
    ($($part:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($part)*)));
    }};
}

mod checks;
mod child;
mod http;
mod link;
mod plan;
mod prometheus;
mod querier;
mod stage;
mod table;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use plan::Plan;
use stage::Stage;

/// Shows the whole of Isthmus on this machine: two client clusters, one PromQL answer over the mesh
#[derive(Debug, clap::Args)]
pub(crate) struct QuickstartArgs {
    /// Where certificates, data and logs are kept; must be empty or of an earlier quickstart, which is replaced.
    /// Without it a temporary folder is used and removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// First of the 40 ports that are used on 127.0.0.1
    #[arg(long, value_name = "N", default_value_t = 19000)]
    base_port: u16,

    /// The Prometheus to run; by default the one on the PATH
    #[arg(long, value_name = "PATH")]
    prometheus: Option<PathBuf>,

    /// Runs the main job, prints each check with what it saw, and ends with status 0 or 1
    #[arg(long)]
    check: bool,
}

/// The queries that quickstart and the README suggest.
const QUERIES: [(&str, &str); 3] = [
    ("what is up, in each cluster", "sum by (cluster) (up)"),
    ("requests a second, in each cluster", "sum by (cluster) (rate(prometheus_http_requests_total[30s]))"),
    (
        "90th percentile of Prometheus' response times, in seconds",
        "histogram_quantile(0.9, sum by (cluster, le) (rate(prometheus_http_request_duration_seconds_bucket[1m])))",
    ),
];

/// Runs the demonstration until Ctrl-C, or the checks to their end.
pub(crate) fn run(args: &QuickstartArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(demonstrate(args))
}

async fn demonstrate(args: &QuickstartArgs) -> Result<ExitCode> {
    let prometheus = prometheus::prometheus(args.prometheus.as_deref())?;
    Plan::check_ports(args.base_port)?;
    let folder = Folder::prepare(args.dir.as_deref())?;
    let plan = Plan::new(folder.path(), args.base_port);
    fs::create_dir_all(&plan.logs)?;
    let mut stage = Stage::new(plan, prometheus)?;
    // Taken before the first child starts, so that Ctrl-C ends them in order at any time.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = perform(&mut stage, args.check) => outcome,
        _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
    };
    say!("\nending everything...");
    stage.stop().await?;
    if outcome.is_err() {
        folder.keep();
    }
    outcome
}

async fn perform(stage: &mut Stage, check: bool) -> Result<ExitCode> {
    let begun = Instant::now();
    if !stage.has_pushgateway() {
        say!(
            "no prometheus-pushgateway on the PATH: the clusters do without (Debian: apt-get install prometheus-pushgateway)"
        );
    }
    step("trust domain: offline roots, issuing CA", stage.create_trust_domain()).await?;
    step("observability cluster: gateway, querier", stage.start_observability()).await?;
    for cluster in stage.plan().clusters.clone() {
        let how = match cluster.reach {
            plan::Reach::DialsOut => "joins by token, dials out",
            plan::Reach::IsDialled => "joins by token, is dialled",
        };
        step(&format!("cluster {}: {how}", cluster.name), stage.start_cluster(&cluster)).await?;
    }
    let data = stage.wait_for_data();
    step("first samples of both clusters", data).await?;
    stage.check_children()?;
    let endpoints = stage.plan().dir.join("endpoints.json");
    fs::write(&endpoints, format!("{:#}\n", stage.plan().endpoints()))
        .with_context(|| format!("write {}", endpoints.display()))?;
    say!("up after {:.1} s\n", begun.elapsed().as_secs_f64());
    if check {
        return Ok(if checks::run(stage).await { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    table::print(stage, &QUERIES).await?;
    say!("\nCtrl-C ends everything.");
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stage.check_children()?;
    }
}

/// Shows what is being done, and how long it took.
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

/// Where everything is kept.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

/// What an earlier run left; nothing else in the folder is ever removed.
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
                    "--dir {}: holds {:?}, which is not of a quickstart: choose an empty folder",
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

    /// Keeps a temporary folder, because its logs are wanted.
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
