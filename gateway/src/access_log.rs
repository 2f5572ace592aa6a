//! The access log of a cluster: one line of JSON for each request of the observability side, kept by the cluster's owner.
//!
//! A thread of its own writes the lines, so that a slow disk delays no request. Lines that it cannot take are dropped and
//! counted. A file that has reached its largest size is renamed to `<file>.1`, which replaces the one before.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, SystemTime},
};

use prometheus_client::metrics::counter::Counter;
use runtime::LogLimit;
use serde::Serialize;

use crate::clock::rfc3339;

/// Lines that wait for the disk; further ones are dropped.
const MAX_WAITING: usize = 4096;
/// Longest text of matchers in a line, in characters.
const MAX_MATCHER_CHARS: usize = 2000;

/// Where the log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLogOptions {
    /// The file; created with mode 0600.
    pub file: PathBuf,
    /// The size at which a new file begins, in bytes. Two files are kept.
    pub max_bytes: u64,
}

impl AccessLogOptions {
    /// Default of `max_bytes`.
    pub const MAX_BYTES: u64 = 100 << 20;
}

/// A request that is over.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct AccessRecord {
    /// The SPIFFE id of the peer.
    pub(crate) peer: String,
    /// `quic` or `tcp`.
    pub(crate) transport: &'static str,
    pub(crate) target: String,
    pub(crate) method: &'static str,
    /// As in PromQL; absent for methods without matchers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matchers: Option<String>,
    /// The status of gRPC, or `cancelled`.
    pub(crate) code: &'static str,
    /// Series in the answer.
    pub(crate) series: u64,
    /// Bytes of the answer.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

#[derive(Serialize)]
struct AccessLine<'a> {
    time: String,
    #[serde(flatten)]
    record: &'a AccessRecord,
}

/// The log. Clones write to the same file. The writer ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog {
    lines: mpsc::SyncSender<AccessRecord>,
    dropped: Counter,
}

impl AccessLog {
    /// Opens the file and starts the writer. `dropped` counts lines that are lost.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn open(options: &AccessLogOptions, dropped: Counter) -> io::Result<Self> {
        let file = RotatedFile::open(options)?;
        let (lines, waiting) = mpsc::sync_channel(MAX_WAITING);
        let lost = dropped.clone();
        std::thread::Builder::new()
            .name("access log".to_owned())
            .spawn(move || write_all(&waiting, file, &lost))?;
        Ok(Self { lines, dropped })
    }

    /// Writes a line soon. Never blocks.
    pub(crate) fn write(&self, record: AccessRecord) {
        if self.lines.try_send(record).is_err() {
            self.dropped.inc();
        }
    }
}

fn write_all(waiting: &mpsc::Receiver<AccessRecord>, mut file: RotatedFile, dropped: &Counter) {
    let errors = LogLimit::new(std::time::Instant::now());
    while let Ok(mut record) = waiting.recv() {
        if let Some(matchers) = &mut record.matchers {
            cut(matchers);
        }
        let line = AccessLine { time: rfc3339(SystemTime::now()), record: &record };
        let written = serde_json::to_vec(&line).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            file.write(&line)
        });
        if let Err(error) = written {
            dropped.inc();
            if let Some(suppressed) = errors.admit(std::time::Instant::now()) {
                tracing::warn!(file = %file.options.file.display(), %error, suppressed, "the access log cannot be written");
            }
            // A disk that is full stays full for a while.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_MATCHER_CHARS) {
        text.truncate(end);
        text.push('…');
    }
}

struct RotatedFile {
    options: AccessLogOptions,
    file: File,
    bytes: u64,
}

impl RotatedFile {
    fn open(options: &AccessLogOptions) -> io::Result<Self> {
        let file = append_to(&options.file)?;
        let bytes = file.metadata()?.len();
        Ok(Self { options: options.clone(), file, bytes })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.options.max_bytes {
            let mut older = self.options.file.clone().into_os_string();
            older.push(".1");
            fs::rename(&self.options.file, &older)?;
            self.file = append_to(&self.options.file)?;
            self.bytes = 0;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(matchers: &str) -> AccessRecord {
        AccessRecord {
            peer: "spiffe://td/cluster/obs/gateway".into(),
            transport: "quic",
            target: "scraper-0.eu-1".into(),
            method: "Series",
            matchers: Some(matchers.to_owned()),
            code: "OK",
            series: 7,
            bytes: 1234,
            seconds: 0.5,
        }
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn until(mut condition: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !condition() {
            assert!(began.elapsed() < Duration::from_secs(20), "did not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn lines_are_whole_and_two_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let options = AccessLogOptions { file: dir.path().join("access.log"), max_bytes: 2000 };
        let (dropped, older) = (Counter::default(), dir.path().join("access.log.1"));
        let log = AccessLog::open(&options, dropped.clone()).unwrap();
        for i in 0..50 {
            log.write(record(&format!("{{a=\"{i}\"}}")));
        }
        until(|| lines(&options.file).last().is_some_and(|line| line["matchers"] == "{a=\"49\"}"));
        let kept = lines(&older).len() + lines(&options.file).len();
        assert!((8..=20).contains(&kept), "{kept}");
        assert!(fs::metadata(&older).unwrap().len() <= 2000);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        let last = lines(&options.file).pop().unwrap();
        assert_eq!((&last["series"], &last["code"]), (&7.into(), &"OK".into()), "{last}");
        // It goes on after a restart.
        drop(log);
        let log = AccessLog::open(&options, dropped.clone()).unwrap();
        log.write(record(&"x".repeat(5000)));
        until(|| {
            lines(&options.file).last().is_some_and(|line| line["matchers"].as_str().unwrap().ends_with('…'))
        });
        assert_eq!(dropped.get(), 0);
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let dropped = Counter::default();
        let options = AccessLogOptions { file: "/dev/full".into(), max_bytes: 2000 };
        let log = AccessLog::open(&options, dropped.clone()).unwrap();
        log.write(record("{}"));
        until(|| dropped.get() == 1);
        let missing = AccessLogOptions { file: "/no/such/folder/log".into(), max_bytes: 1 };
        assert!(AccessLog::open(&missing, dropped).is_err());
    }
}
