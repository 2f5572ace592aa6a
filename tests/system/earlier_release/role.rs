//! Processes of one program, and what their logs must not have.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::{Process, free_port, get, percent_encode, wait_for};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A role with an HTTP and a gRPC port.
pub(crate) struct Role {
    name: &'static str,
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    process: Process,
}

impl Role {
    /// Starts a role with further flags, and waits until it is ready.
    pub(crate) fn start(program: &Path, dir: &Path, name: &'static str, flags: &[String]) -> Self {
        Self::start_at(program, dir, name, flags, free_port())
    }

    /// The same, with a known HTTP port.
    pub(crate) fn start_at(
        program: &Path,
        dir: &Path,
        name: &'static str,
        flags: &[String],
        http: SocketAddr,
    ) -> Self {
        let grpc = free_port();
        let command = name.split(' ').next().unwrap_or(name).to_owned();
        let mut args = vec![command, format!("--http-address={http}"), format!("--grpc-address={grpc}")];
        args.extend_from_slice(flags);
        let mut process = Process::start(program, &args, &dir.join(format!("{name}.log")));
        process.wait_ready(name, http);
        Self { name, http, grpc, process }
    }

    /// Ends it, and checks that nothing in its folder was damaged or unknown.
    pub(crate) fn end(self) {
        self.end_beside(None);
    }

    /// The same, beside lines of its log that have this text.
    pub(crate) fn end_beside(mut self, expected: Option<&str>) {
        let code = self.process.terminate();
        let log = self.process.output();
        let is_expected = |line: &&str| expected.is_some_and(|expected| line.contains(expected));
        let log: String =
            log.lines().filter(|line| !is_expected(line)).map(|line| format!("{line}\n")).collect();
        assert_eq!(code, Some(0), "{}: {log}", self.name);
        for word in ["level=error", "damaged", "panicked"] {
            assert!(!log.contains(word), "{}: {word}: {log}", self.name);
        }
    }

    /// The value of a metric without labels, or of one with labels that are written as on the page.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = get(self.http, "/metrics").expect("metrics");
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// The value of the only series that a query finds at a time, in seconds since the epoch.
    pub(crate) fn value(&self, query: &str, at: f64) -> Result<String, String> {
        let path = format!("/api/v1/query?time={at}&query={}", percent_encode(query));
        let (_, body) = get(self.http, &path)?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        match &series[..] {
            [one] if answer["warnings"].is_null() => one["value"][1].as_str().map(str::to_owned).ok_or(body),
            _ => Err(body),
        }
    }

    /// Waits until a query has this answer.
    pub(crate) fn answers(&self, query: &str, at: f64, expected: &str) {
        wait_for(&format!("{expected} as the answer to {query}"), PATIENCE, || {
            match self.value(query, at)? {
                value if value == expected => Ok(()),
                value => Err(value),
            }
        });
    }
}

/// A querier with further flags.
pub(crate) fn querier(program: &Path, dir: &Path, flags: &[String]) -> Role {
    Role::start(program, dir, "query", flags)
}

/// Runs a command to its end, and returns what it prints.
pub(crate) fn run(program: &Path, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {args:?}: {text}{error}", program.display());
    text
}
