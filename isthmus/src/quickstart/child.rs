//! The processes that quickstart starts and stops.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};

use crate::quickstart::die_with_parent::die_with_parent;

/// How long a child may take to exit after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A child process and its log file. It is killed when dropped.
pub(super) struct Child {
    name: String,
    log: PathBuf,
    process: Process,
}

impl Child {
    /// Starts `program` with its output in `log_dir/NAME.log`.
    pub(super) fn start(name: &str, program: &Path, args: &[String], log_dir: &Path) -> Result<Self> {
        let log = log_dir.join(format!("{name}.log"));
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open the log {}", log.display()))?;
        let mut command = Command::new(program);
        die_with_parent(&mut command);
        let process = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share the log file")?)
            .stderr(output)
            // A process group of its own, so that only quickstart gets Ctrl-C and stops the children in
            // order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name} ({})", program.display()))?;
        Ok(Self { name: name.to_owned(), log, process })
    }

    /// The name in the table and in the name of the log file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The process id, while the child runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The exit status, if the child has exited.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// The last lines of the log, for an error message.
    pub(super) fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_default()
    }

    /// Kills the child immediately, which simulates a crash, and waits until it has exited.
    pub(super) async fn kill(&mut self) -> Result<()> {
        self.process.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Sends SIGTERM, waits, and kills the child if it does not exit in time.
    pub(super) async fn stop(&mut self) -> Result<()> {
        let id = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let Some(id) = id else { return Ok(()) };
        let asked = kill_process(id, Signal::TERM);
        let ended = asked.is_ok() && tokio::time::timeout(GRACE, self.process.wait()).await.is_ok();
        if ended { Ok(()) } else { self.kill().await }
    }
}

/// The last lines of a log: at most 4 KiB.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(12)..].join("\n"))
}
