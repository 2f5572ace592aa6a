//! The commands that talk to a running gateway: `isthmus gateway status` and the like.

use std::{
    fmt::Write as _,
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use http::Method;
use serde::{Serialize, de::DeserializeOwned};
use terminal::{TableStyle, TextTable, output_width};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::admin::{
    client::ask,
    report::{CertificateReport, ChangeReport, ConnectReport, PeerReport, StatusReport, TargetReport},
};
use crate::config::Config;
use crate::serving::ServingState;

/// Pause between two looks at a gateway that is drained.
const DRAIN_LOOK: Duration = Duration::from_millis(200);

/// Which gateway, and how its answer is printed.
#[derive(Debug, Args)]
pub(super) struct RunningArgs {
    /// Data directory of the running gateway
    #[arg(long, value_name = "DIR", default_value = "data/gateway", conflicts_with = "config")]
    data_dir: PathBuf,

    /// Configuration file of the running gateway, which names its data directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A command for a running gateway.
#[derive(Debug, Clone, Copy)]
pub(super) enum RunningCommand {
    Status,
    Peers,
    Targets,
    Certs,
    Pause,
    Resume,
    /// With the longest time to wait for running requests.
    Drain(Duration),
    ConnectTest,
}

/// Runs a command.
///
/// Exit codes: 0 for success; 1 if the gateway cannot be reached, refuses, is still busy when the time to drain is over, or if no
/// attempt of a connection test succeeds; 2 for a wrong configuration file.
pub(super) fn run(command: RunningCommand, args: &RunningArgs) -> ExitCode {
    let data_dir = match &args.config {
        None => args.data_dir.clone(),
        Some(file) => match Config::load(file) {
            Ok(config) => config.data_dir,
            Err(error) => return runtime::ConfigMistakes::from(error).report(),
        },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(execute(command, &Gateway { data_dir, json: args.json })),
        Err(error) => Err(error.to_string()),
    };
    match outcome {
        Ok(text) => {
            // A reader that has closed the pipe (`| head`) has seen enough.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", error.trim_end());
            ExitCode::FAILURE
        }
    }
}

/// The gateway that is asked.
struct Gateway {
    data_dir: PathBuf,
    json: bool,
}

impl Gateway {
    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, String> {
        ask(&self.data_dir, method, path).await
    }

    /// The report as JSON, or as `text` prints it.
    fn show<T: Serialize>(&self, report: &T, text: impl FnOnce(&T) -> String) -> Result<String, String> {
        if self.json {
            let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
            return Ok(json + "\n");
        }
        Ok(text(report))
    }
}

async fn execute(command: RunningCommand, gateway: &Gateway) -> Result<String, String> {
    match command {
        RunningCommand::Status => {
            let report: StatusReport = gateway.ask(Method::GET, "/v1/status").await?;
            gateway.show(&report, status_text)
        }
        RunningCommand::Peers => {
            let report: Vec<PeerReport> = gateway.ask(Method::GET, "/v1/peers").await?;
            gateway.show(&report, |report| peers_text(report))
        }
        RunningCommand::Targets => {
            let report: Vec<TargetReport> = gateway.ask(Method::GET, "/v1/targets").await?;
            gateway.show(&report, |report| targets_text(report))
        }
        RunningCommand::Certs => {
            let report: Vec<CertificateReport> = gateway.ask(Method::GET, "/v1/certs").await?;
            gateway.show(&report, |report| certificates_text(report))
        }
        RunningCommand::Pause => {
            let report: ChangeReport = gateway.ask(Method::POST, "/v1/pause").await?;
            gateway.show(&report, |_| {
                "paused: no request is served, not even after a restart; `isthmus gateway resume` ends that\n".to_owned()
            })
        }
        RunningCommand::Resume => {
            let report: ChangeReport = gateway.ask(Method::POST, "/v1/resume").await?;
            gateway.show(&report, |_| "requests are served\n".to_owned())
        }
        RunningCommand::Drain(longest) => drain(gateway, longest).await,
        RunningCommand::ConnectTest => connect_test(gateway).await,
    }
}

async fn drain(gateway: &Gateway, longest: Duration) -> Result<String, String> {
    let began = Instant::now();
    let _: ChangeReport = gateway.ask(Method::POST, "/v1/drain").await?;
    loop {
        tokio::time::sleep(DRAIN_LOOK).await;
        let report: StatusReport = gateway.ask(Method::GET, "/v1/status").await?;
        let requests = report.streams;
        if requests == 0 {
            return gateway.show(&report, |_| {
                "drained: no request runs; stop the gateway, or `isthmus gateway resume`\n".to_owned()
            });
        }
        if began.elapsed() >= longest {
            let waited = runtime::format_duration(longest);
            return Err(format!(
                "{requests} requests still run after {waited}; the gateway goes on draining"
            ));
        }
    }
}

async fn connect_test(gateway: &Gateway) -> Result<String, String> {
    let report: Vec<ConnectReport> = gateway.ask(Method::POST, "/v1/connect-test").await?;
    if report.is_empty() {
        return Err("this gateway dials no address: it waits for connections".to_owned());
    }
    let text = gateway.show(&report, |report| connect_text(report))?;
    if report.iter().any(|attempt| attempt.error.is_empty()) {
        Ok(text)
    } else {
        Err(format!("no attempt succeeded\n{text}"))
    }
}

fn status_text(report: &StatusReport) -> String {
    let mut text = String::new();
    let serving = match report.serving {
        None => "",
        Some(ServingState::Serving) => "serving",
        Some(ServingState::Draining) => "draining: new requests should go to other gateways",
        Some(ServingState::Paused) => "PAUSED: no request is served",
    };
    let connections = match (report.connections, report.role.as_str()) {
        (0, "cluster") => "0: not connected to the observability side".to_owned(),
        (0, _) => "0: no cluster is connected; a cluster joins with a token of `isthmus pki token create`"
            .to_owned(),
        (count, _) => count.to_string(),
    };
    let rows = [
        ("identity", report.identity.clone()),
        ("role", report.role.clone()),
        ("requests", serving.to_owned()),
        ("version", report.version.clone()),
        ("running for", rounded_duration(report.uptime_seconds)),
        ("connections", connections),
        ("targets", format!("{} of {} healthy", report.healthy_targets, report.targets)),
        ("certificate", until(&report.certificate_not_after)),
        ("audit log", report.audit_log.clone().unwrap_or_default()),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12} {value}");
    }
    text
}

fn peers_text(peers: &[PeerReport]) -> String {
    if peers.is_empty() {
        return "no connection\n".to_owned();
    }
    let titles = ["PEER", "TRANSPORT", "REMOTE", "DIALLED BY", "AGE", "ROUND TRIP", "STREAMS", "CERTIFICATE"];
    let mut table = TextTable::new(titles);
    table.align_right(6);
    for peer in peers {
        table.push([
            peer.peer.clone(),
            peer.transport.clone(),
            peer.remote.clone(),
            if peer.dialled { "us" } else { "peer" }.to_owned(),
            rounded_duration(peer.age_seconds),
            peer.round_trip_seconds
                .map_or_else(|| "-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3)),
            peer.streams.to_string(),
            until(&peer.certificate_not_after),
        ]);
    }
    table.draw(TableStyle::Plain, output_width()) + "\n"
}

fn targets_text(targets: &[TargetReport]) -> String {
    if targets.is_empty() {
        return "no cluster has joined yet: create a token with `isthmus pki token create`\n".to_owned();
    }
    let has_addresses = targets.iter().any(|target| target.address.is_some());
    let mut titles = vec!["TARGET", "STATE", "LABELS"];
    if has_addresses {
        titles.insert(1, "ADDRESS");
    }
    let mut table = TextTable::new(titles);
    for target in targets {
        let state = match (target.healthy, target.refused.as_str()) {
            (true, "") => "healthy".to_owned(),
            (true, reason) => format!("not read by the observability side: {reason}"),
            (false, _) if target.tried.is_empty() => target.error.clone(),
            (false, _) => format!("{} (tried {})", target.error, target.tried),
        };
        let mut row = vec![target.name.clone(), state, target.labels.join(" ")];
        if has_addresses {
            row.insert(1, target.address.clone().unwrap_or_default());
        }
        table.push(row);
    }
    table.draw(TableStyle::Plain, output_width()) + "\n"
}

fn certificates_text(certificates: &[CertificateReport]) -> String {
    let mut table = TextTable::new(["KIND", "IDENTITY", "SERIAL", "EXPIRES", "KEY PIN"]);
    for certificate in certificates {
        table.push([
            certificate.kind.clone(),
            certificate.identity.clone(),
            certificate.serial.clone(),
            certificate.not_after.as_deref().map(until).unwrap_or_default(),
            certificate.key_pin.clone(),
        ]);
    }
    table.draw(TableStyle::Plain, output_width()) + "\n"
}

fn connect_text(attempts: &[ConnectReport]) -> String {
    let mut table = TextTable::new(["DIAL", "ADDRESS", "TRANSPORT", "TIME", "RESULT"]);
    for attempt in attempts {
        let time = Duration::from_secs_f64(attempt.seconds.clamp(0.0, 1e6));
        table.push([
            attempt.dial.clone(),
            attempt.address.clone().unwrap_or_else(|| "-".to_owned()),
            attempt.transport.clone(),
            format!("{} ms", time.as_millis()),
            if attempt.error.is_empty() { "connected".to_owned() } else { attempt.error.clone() },
        ]);
    }
    table.draw(TableStyle::Plain, output_width()) + "\n"
}

fn rounded_duration(seconds: f64) -> String {
    runtime::format_duration(Duration::from_secs(seconds.clamp(0.0, 1e10) as u64))
}

/// A time, and how far away it is.
fn until(time: &str) -> String {
    let Ok(at) = OffsetDateTime::parse(time, &Rfc3339) else { return time.to_owned() };
    match SystemTime::from(at).duration_since(SystemTime::now()) {
        Ok(left) => format!("{time} (in {})", runtime::format_duration(Duration::from_secs(left.as_secs()))),
        Err(_) => format!("{time} (EXPIRED)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_is_unusual() {
        let report = StatusReport {
            role: "cluster".into(),
            identity: "spiffe://td/cluster/eu-1/gateway".into(),
            version: "1.2.3".into(),
            uptime_seconds: 90.0,
            serving: Some(ServingState::Paused),
            connections: 0,
            streams: 0,
            targets: 2,
            healthy_targets: 1,
            certificate_not_after: "2020-01-01T00:00:00Z".into(),
            audit_log: Some("ALTERED: it had 9 entries".into()),
        };
        let text = status_text(&report);
        for expected in ["PAUSED", "not connected", "1 of 2 healthy", "EXPIRED", "1m30s", "ALTERED"] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let json = serde_json::to_string(&report).unwrap();
        assert!(json.contains("\"serving\":\"paused\""), "{json}");
        assert_eq!(serde_json::from_str::<StatusReport>(&json).unwrap(), report);
    }

    #[test]
    fn a_refused_target_shows_why() {
        let target = TargetReport {
            name: "scraper-0".into(),
            address: Some("127.0.0.1:1".into()),
            healthy: true,
            error: String::new(),
            tried: String::new(),
            refused: "has no external labels".into(),
            labels: vec![],
            last_check: None,
        };
        let unreachable = TargetReport {
            healthy: false,
            error: "connect: refused".into(),
            tried: "[::1]:1: refused, 127.0.0.1:1: refused".into(),
            refused: String::new(),
            ..target.clone()
        };
        let text = targets_text(&[unreachable]).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("(tried [::1]:1: refused, 127.0.0.1:1: refused)"), "{text}");
        let text = targets_text(&[target]);
        assert!(text.contains("not read by the observability side: has no external labels"), "{text}");
        assert!(targets_text(&[]).contains("no cluster has joined yet"));
    }
}
