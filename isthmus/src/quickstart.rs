//! `isthmus quickstart`: runs two client clusters and an observability cluster on this machine, with real
//! Prometheus servers and with scrapers of ours.

/// Prints a line. A closed pipe (`| head`) is ignored, so that it does not stop the clusters.
macro_rules! say {
    ($($part:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($part)*)));
    }};
}

mod alerts;
mod checks;
mod child;
mod compaction;
mod demonstration;
mod die_with_parent;
mod disk;
mod expressions;
mod folder;
mod gateways;
mod grafana;
mod history;
mod http;
mod link;
mod period;
mod plan;
mod ports;
mod prometheus;
mod querier;
mod seeded;
mod table;
mod thanos_mixin;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use demonstration::Demonstration;
use disk::FullDisk;
use folder::Folder;
use plan::QuickstartPlan;
use ports::ReservedPorts;

/// Run a complete system on this machine: two client clusters, queried over the mesh
#[derive(Debug, clap::Args)]
pub(crate) struct QuickstartArgs {
    /// Directory for certificates, data and logs; it must be empty, or have the marker of an earlier
    /// quickstart, whose files are replaced. Without it, a temporary directory is used and removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// First of 40 consecutive ports on 127.0.0.1
    #[arg(long, value_name = "N", default_value_t = 19000)]
    base_port: u16,

    /// The Prometheus program of cluster eu-1; without it, `prometheus` is searched on the PATH. Cluster us-1,
    /// and eu-1 if there is none, use the embedded scraper
    #[arg(long, value_name = "PATH")]
    prometheus: Option<PathBuf>,

    /// Use the embedded scraper in both clusters
    #[arg(long, conflicts_with = "prometheus")]
    embedded: bool,

    /// Run all checks, print the result of each, and exit with status 0, or 1 if one failed
    #[arg(long)]
    check: bool,
}

/// The suggested queries; the README shows them too.
const QUERIES: [(&str, &str); 4] = [
    ("number of targets that are up, in each cluster", "sum by (cluster) (up)"),
    ("gRPC requests per second, in each cluster", "sum by (cluster) (rate(grpc_server_handled_total[30s]))"),
    (
        "events per second in eu-1 twelve hours ago, from the bucket",
        "sum by (cluster) (rate(app_events_012_total[5m] offset 12h))",
    ),
    (
        "90th percentile of the durations of gRPC requests, in seconds",
        "histogram_quantile(0.9, sum by (cluster, le) (rate(grpc_server_handling_seconds_bucket[1m])))",
    ),
];

/// Runs the demonstration until Ctrl-C, or until the checks are complete.
pub(crate) fn run(args: &QuickstartArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(demonstrate(args))
}

async fn demonstrate(args: &QuickstartArgs) -> Result<ExitCode> {
    let prometheus = match args.embedded {
        true => None,
        false => prometheus::prometheus(args.prometheus.as_deref())?,
    };
    let ports = ReservedPorts::bind(args.base_port)?;
    let folder = Folder::prepare(args.dir.as_deref())?;
    let plan = QuickstartPlan::new(folder.path(), args.base_port);
    let plan = plan.embedding(|name| prometheus.is_none() || name == "us-1");
    disk::check_space(&plan.dir)?;
    fs::create_dir_all(&plan.logs).with_context(|| format!("create {}", plan.logs.display()))?;
    let mut demonstration = Demonstration::new(plan, prometheus, ports)?;
    // Install the handlers before the first child starts, so that Ctrl-C always stops the children in order.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut stop_signal = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let outcome = tokio::select! {
        outcome = perform_on_disk(&mut demonstration, args.check) => outcome,
        () = stop_signal() => Ok(ExitCode::SUCCESS),
    };
    say!("\nstopping all processes...");
    let stopped = tokio::select! {
        stopped = demonstration.stop() => stopped,
        // Processes that are left are killed when they are dropped.
        () = stop_signal() => Err(anyhow::anyhow!("a second signal has come, all processes were killed")),
    };
    if !matches!(outcome, Ok(ExitCode::SUCCESS)) || stopped.is_err() {
        folder.keep();
    }
    // An error of the demonstration is more important than one of its end.
    outcome.and_then(|code| stopped.map(|()| code))
}

/// [`perform`]; where something has failed and the disk is full, the error says so first.
async fn perform_on_disk(demonstration: &mut Demonstration, check: bool) -> Result<ExitCode> {
    let dir = demonstration.plan().dir.clone();
    let outcome = perform(demonstration, check).await;
    match (&outcome, disk::check_space(&dir)) {
        (Ok(ExitCode::SUCCESS), _) | (_, Ok(())) => outcome,
        (Ok(_), full) => full.and(outcome),
        (Err(error), _) if error.is::<FullDisk>() => outcome,
        (Err(_), Err(full)) => outcome.map_err(|error| error.context(full)),
    }
}

async fn perform(demonstration: &mut Demonstration, check: bool) -> Result<ExitCode> {
    let begun = Instant::now();
    if !demonstration.has_pushgateway() {
        say!(
            "prometheus-pushgateway is not on the PATH, so none is started (Debian: apt-get install prometheus-pushgateway)"
        );
    }
    if !demonstration.has_alertmanager() {
        say!(
            "prometheus-alertmanager is not on the PATH, so none is started (Debian: apt-get install prometheus-alertmanager)"
        );
    }
    step("trust domain: offline roots, issuing CA", demonstration.create_trust_domain()).await?;
    step("bucket with the data of some days, store", demonstration.start_store()).await?;
    step("observability cluster: gateway, querier", demonstration.start_observability()).await?;
    for cluster in demonstration.plan().clusters.clone() {
        let how = match cluster.reach {
            plan::Reach::DialsOut => "joins with a token, dials out",
            plan::Reach::IsDialled => "joins with a token, is dialled",
        };
        step(&format!("cluster {}: {how}", cluster.name), demonstration.start_cluster(&cluster)).await?;
    }
    let rulers = match demonstration.has_alertmanager() {
        true => "two rulers, Alertmanager",
        false => "two rulers",
    };
    step(rulers, demonstration.start_rulers()).await?;
    let data = demonstration.wait_for_data();
    step("first samples of both clusters", data).await?;
    step("compactor over the data in the bucket", demonstration.start_compactor()).await?;
    demonstration.check_children()?;
    let endpoints = demonstration.plan().dir.join("endpoints.json");
    fs::write(&endpoints, format!("{:#}\n", demonstration.plan().endpoints()))
        .with_context(|| format!("write {}", endpoints.display()))?;
    grafana::write_files(demonstration.plan())?;
    say!("up after {:.1} s\n", begun.elapsed().as_secs_f64());
    if check {
        return Ok(if checks::run(demonstration).await { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    table::print(demonstration, &QUERIES).await?;
    say!("\nPress Ctrl-C to stop all processes.");
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        demonstration.check_children()?;
        disk::check_space(&demonstration.plan().dir)?;
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
