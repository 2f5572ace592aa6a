//! The processes that quickstart starts and must end.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};

/// How long a child has to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A child process with its log file; killed when dropped.
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
        let process = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share the log file")?)
            .stderr(output)
            // Of its own group, so that Ctrl-C reaches quickstart alone and the children end in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name} ({})", program.display()))?;
        Ok(Self { name: name.to_owned(), log, process })
    }

    /// What it is called in the table and in its log's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its process id while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// The status with which it ended by itself, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// The last lines of its log, for an error message.
    pub(super) fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_default()
    }

    /// Kills it at once, as a crash would, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> Result<()> {
        self.process.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Asks it to end, waits, and kills it where it does not.
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
